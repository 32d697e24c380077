"""What a deployment of a model may say, and how it is told what is wrong with it."""

from datetime import timedelta
from typing import Any

import pytest

from actors.model import Model
from actors.models.options import ModelOptions, Terms
from runtime.actor import read_options
from runtime.actor_table import ActorTable
from runtime.errors import ConfigError
from runtime.terminal.manifest import deployment_of

URL = "http://gpu1:11434/v1"


def read(**options: Any) -> ModelOptions:
    read: ModelOptions = read_options(Model, "m", options)
    return read


def refusal(**options: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        read(**options)
    return str(refused.value)


def test_the_shortest_deployments_are_these() -> None:
    assert Terms(read(provider="echo")).upstreams[0][0].name == "built-in"
    (upstream, _), *_ = Terms(read(provider="ollama", model="qwen3")).upstreams
    assert (upstream.url, upstream.name) == ("http://127.0.0.1:11434", "127.0.0.1:11434")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"provider": "acme"}, "Invalid enum value 'acme'"),
        ({"provider": "openai", "model": "m"}, "upstreams: expected at least one"),
        ({"provider": "openai", "upstreams": [{"url": URL}]}, "model: expected its name"),
        ({"provider": "echo", "modle": "x"}, "unknown field `modle`"),
        ({"provider": "echo", "timeout": "300"}, "timeout: '300' is not a duration"),
        ({"provider": "echo", "extra": {"speed": 1}}, "extra.speed: echo knows rate"),
        ({"provider": "echo", "extra": {"rate": "fast"}}, "extra.rate: 'fast': expected a number"),
        ({"provider": "echo", "upstreams": [{"url": URL}]}, "echo is built in"),
        ({"provider": "echo", "fallbacks": ["Not A Name"]}, "fallbacks: 'Not A Name'"),
        ({"provider": "echo", "context": {"turns": -1}}, "$.context.turns"),
        ({"provider": "echo", "refusals": {"languages": ["xx"]}}, "languages: 'xx'"),
        (
            {"provider": "ollama", "model": "m", "registry": {"networks": ["10.0.0.0/33"]}},
            "registry.networks",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(options: dict[str, Any], expected: str) -> None:
    said = refusal(**options)

    assert said.startswith('actor "m": options: ')
    assert expected in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ({"url": "http://user:hunter2@gpu1/v1"}, "secrets do not belong in it"),
        ({"url": "http://gpu1/v1?key=hunter2"}, "leave out what follows the ?"),
        ({"url": "ftp://gpu1"}, "expected http://… or https://…"),
        ({"url": "gpu1:11434"}, "expected http://… or https://…"),
        ({"url": URL, "key_env": "sk-hunter2"}, "the name of a variable in capitals"),
        ({"url": URL, "name": "gpu 1"}, "upstreams[0].name: 'gpu 1'"),
        ({"url": URL, "weight": 0}, "$.upstreams[0].weight"),
        ({"url": URL, "paths": -1}, "$.upstreams[0].paths"),
    ],
)
def test_an_upstream_is_checked_and_no_secret_shown(
    upstream: dict[str, Any], expected: str
) -> None:
    said = refusal(provider="openai", model="m", upstreams=[upstream])

    assert expected in said
    assert "hunter2" not in said


def test_two_upstreams_need_names_that_differ() -> None:
    same = [{"url": URL}, {"url": "http://gpu1:11434/other"}]
    said = refusal(provider="openai", model="m", upstreams=same)

    assert "upstreams[1]: 'gpu1:11434' is there twice" in said


def test_a_key_is_read_from_the_environment_and_its_absence_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = read(provider="openai", model="m", upstreams=[{"key_env": "MODEL_TEST_KEY"}])
    with pytest.raises(ConfigError, match=r"upstreams\[0\].key_env: .*MODEL_TEST_KEY is missing"):
        Terms(options)
    monkeypatch.setenv("MODEL_TEST_KEY", "sk-hunter2\n")
    ((upstream, _),) = Terms(options).upstreams

    assert upstream.key == "sk-hunter2"
    assert "hunter2" not in repr(upstream)
    assert upstream.url == "https://api.openai.com/v1"


@pytest.mark.promise("AC-48", "AC-16")
def test_a_model_has_300_seconds_for_its_first_piece_unless_told_otherwise() -> None:
    assert Terms(read(provider="ollama", model="deepseek-r1:1.5b")).timeouts.first == 300
    assert Terms(read(provider="ollama", model="m", timeout="10m")).timeouts.first == 600
    assert Terms(read(provider="ollama", model="m", first="30s")).timeouts.first == 30


def test_coze_has_the_times_that_are_its_own() -> None:
    options = read(provider="coze", model="w", extra={"app_id": "a"}, upstreams=[{}])
    times = Terms(options).timeouts

    assert (times.connect, times.first, times.write, times.pool) == (5, 30, 10, 10)


def test_a_time_that_does_not_fit_into_the_deadline_is_refused_with_what_would() -> None:
    table = ActorTable(
        name="m",
        type="actors.model:Model",
        options={"provider": "echo", "timeout": "15m"},
        deadline=timedelta(minutes=10),
    )
    with pytest.raises(ConfigError, match='set deadline = "910s" or more'):
        deployment_of(table, Model)


def test_nodes_that_offer_themselves_are_taken_where_options_say_so() -> None:
    assert Terms(read(provider="echo")).networks == ()
    own = Terms(read(provider="openai", model="m", registry=True))
    assert [str(one) for one in own.networks] == ["127.0.0.0/8", "::1/128"]
    assert own.upstreams == ()
    named = read(provider="openai", model="m", registry={"networks": ["10.0.0.0/8"]})
    assert [str(one) for one in Terms(named).networks] == ["10.0.0.0/8"]
