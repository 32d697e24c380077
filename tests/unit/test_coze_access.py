"""What a deployment at Coze needs, and what it is told that it lacks."""

from typing import Any

import pytest

from actors.model import Model
from actors.models.options import ModelOptions, Terms
from actors.models.providers import PROVIDERS
from runtime.actor import read_options
from runtime.errors import ConfigError

ACCESS = {"client": "app-1", "key_id": "k1"}


def read(**changes: Any) -> ModelOptions:
    given = {
        "provider": "coze",
        "model": "w1",
        "upstreams": [{"url": "https://api.coze.cn"}],
        "extra": {"app_id": "a1"},
        "dialect": ACCESS,
    }
    found: ModelOptions = read_options(Model, "bot", given | changes)
    return found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": ""}, "model: expected the id of a workflow"),
        ({"extra": {}}, "extra: expected one of app_id and bot_id"),
        ({"extra": {"app_id": "a", "bot_id": "b"}}, "extra: expected one of app_id and bot_id"),
        ({"dialect": {"client": "c"}}, "dialect: client and key_id: expected both"),
        ({"dialect": ACCESS | {"seconds": 86400}}, "dialect: Expected `int` <= 86399"),
        ({"dialect": {"klient": "c"}}, "dialect: Object contains unknown field `klient`"),
    ],
)
def test_what_coze_needs_is_said_at_the_deployment(changes: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        read(**changes)


@pytest.mark.promise("FD-92", "FD-93", "FD-94", "FD-95")
def test_coze_has_five_seconds_to_connect_thirty_to_say_something_ten_else() -> None:
    times = Terms(read()).timeouts

    assert times == PROVIDERS["coze"].timeouts
    assert (times.connect, times.first, times.idle, times.write, times.pool) == (5, 30, 30, 10, 10)


@pytest.mark.parametrize(
    ("provider", "dialect", "expected"),
    [
        ("openai", {"name": "acme"}, "dialect 'acme', expected one of openai"),
        ("openai", {"thinks": "aloud"}, "dialect: Invalid enum value 'aloud'"),
        ("gemini", {"name": "x"}, "dialect: gemini has only one; leave it out"),
    ],
)
def test_a_dialect_that_nobody_speaks_is_refused(
    provider: str, dialect: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        read(provider=provider, extra={}, dialect=dialect)
