"""Models that nobody has configured: what an Ollama has, and what the environment names."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runtime.errors import ConfigError
from runtime.terminal.offers import discover, named_services, ollama_url
from schemas.deployment import Deployment

LONG = "hf.co/bartowski/A-Very-Long-Name-Instruct-GGUF:Q4_K_M"
TAGS = {
    "models": [
        {"name": "qwen3:8b", "details": {"family": "qwen3"}},
        {"name": "deepseek-r1:1.5b", "details": {"family": "qwen2"}},
        {"name": "nomic-embed-text:latest", "details": {"family": "nomic-bert"}},
        {"name": LONG},
    ]
}


@asynccontextmanager
async def ollama(body: bytes, status: int = 200) -> AsyncIterator[str]:
    """A socket that answers every request alike; yields `host:port`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        assert asked.startswith(b"GET /api/tags ")
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_each_chat_model_of_an_ollama_gets_a_name_of_its_own() -> None:
    async with ollama(json.dumps(TAGS).encode()) as where:
        found = await discover({"OLLAMA_HOST": where}, {})

    assert {one.name: one.options["model"] for one in found} == {
        "ollama-deepseek-r1-1-5b": "deepseek-r1:1.5b",
        "ollama-qwen3-8b": "qwen3:8b",
        "ollama-hf-co-bartowski-a-2da129": LONG,
    }
    assert {one.options["upstreams"][0]["url"] for one in found} == {f"http://{where}"}
    assert {one.handles for one in found} == {("model.generate", "model.make_thread")}


async def test_what_is_deployed_already_is_left_as_it_is() -> None:
    mine = Deployment(name="qwen", type="-", kind="worker", options={"model": "qwen3:8b"})
    async with ollama(json.dumps(TAGS).encode()) as where:
        first = await discover({"OLLAMA_HOST": where}, {"qwen": mine})
        again = await discover(
            {"OLLAMA_HOST": where}, {"qwen": mine, **{one.name: one for one in first}}
        )

    assert "qwen3:8b" not in [one.options["model"] for one in first]
    assert again == first


@pytest.mark.parametrize(
    ("body", "status"), [(b"<html>", 200), (b"{}", 200), (b'{"models": 3}', 200), (b"{}", 500)]
)
async def test_what_is_no_ollama_offers_nothing(body: bytes, status: int) -> None:
    async with ollama(body, status) as where:
        assert await discover({"OLLAMA_HOST": where}, {}) == []


async def test_where_nothing_listens_nothing_is_found() -> None:
    async with ollama(b"") as where:
        pass

    assert await discover({"OLLAMA_HOST": where}, {}) == []


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:9000", "http://127.0.0.1:9000"),
        (":9000", "http://127.0.0.1:9000"),
        ("localhost", "http://localhost:11434"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("https://localhost", "https://localhost:443"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("192.168.1.5", ""),
        ("ollama.example:11434", ""),
        ("http://user:secret@127.0.0.1", ""),
        ("ftp://127.0.0.1", ""),
        ("http://[bad", ""),
    ],
)
def test_ollama_is_looked_for_on_loopback_only(host: str, url: str) -> None:
    assert ollama_url({"OLLAMA_HOST": host}) == url


@pytest.mark.promise("AC-28", "AC-29")
def test_services_that_the_environment_names_are_models() -> None:
    environ = {
        "DEEPSEEK_SERVICE_URL": "http://host.docker.internal:11434/v1/chat/completions",
        "LLM_SERVICE_URL": "http://127.0.0.1:8080/v1/",
        "LLM_MODEL": "qwen3:8b",
        "LLM_API_KEY": "sk-x",
    }
    deepseek, qwen = named_services(environ, ())

    assert (deepseek.name, deepseek.options["model"]) == ("deepseek", "deepseek-r1:1.5b")
    assert deepseek.options["upstreams"] == [{"url": "http://host.docker.internal:11434/v1"}]
    assert (qwen.name, qwen.options["model"]) == ("qwen", "qwen3:8b")
    assert qwen.options["upstreams"] == [
        {"url": "http://127.0.0.1:8080/v1", "key_env": "LLM_API_KEY"}
    ]
    assert named_services(environ, ("deepseek", "qwen")) == []
    assert named_services({}, ()) == []


def test_an_address_that_is_none_is_refused_by_its_variable() -> None:
    with pytest.raises(ConfigError, match=r"^DEEPSEEK_SERVICE_URL: .*upstreams\[0\]\.url"):
        named_services({"DEEPSEEK_SERVICE_URL": "gpu1:11434"}, ())


COZE = {
    "COZE_WORKFLOW_ID": "7543210987654321098",
    "COZE_APP_ID": "7543210987654321000",
    "COZE_OAUTH_CLIENT_ID": "1125897",
    "COZE_OAUTH_PUBLIC_KEY_ID": "k0aX",
    "COZE_OAUTH_PRIVATE_KEY_FILE": "/run/secrets/coze.pem",
}


@pytest.mark.promise("FD-53", "FD-54", "FD-55", "FD-71")
def test_a_workflow_that_the_environment_names_is_the_model_coze() -> None:
    (coze,) = named_services(COZE, ())
    china = COZE | {"COZE_API_BASE": "https://api.coze.cn", "COZE_OAUTH_PRIVATE_KEY": "-----BEGIN"}
    (other,) = named_services(china, ())

    assert (coze.name, coze.concurrency) == ("coze", 100)
    assert coze.options["model"] == "7543210987654321098"
    assert coze.options["extra"] == {"app_id": "7543210987654321000"}
    assert coze.options["dialect"] == {"client": "1125897", "key_id": "k0aX"}
    assert coze.options["upstreams"] == [
        {"url": "https://api.coze.com", "key_env": "COZE_OAUTH_PRIVATE_KEY_FILE"}
    ]
    assert other.options["upstreams"] == [
        {"url": "https://api.coze.cn", "key_env": "COZE_OAUTH_PRIVATE_KEY"}
    ]
    assert named_services(COZE, ("coze",)) == []
    assert named_services({"COZE_API_BASE": "https://api.coze.cn"}, ()) == []


@pytest.mark.parametrize("missing", COZE)
def test_half_a_workflow_is_refused_with_what_is_missing(missing: str) -> None:
    said = {name: value for name, value in COZE.items() if name != missing} | {missing: " "}

    with pytest.raises(ConfigError, match=rf"set [A-Z_, or]*{missing}[A-Z_, or]* as well"):
        named_services(said, ())


def test_an_address_of_cozes_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^COZE_WORKFLOW_ID and its companions: .*url"):
        named_services(COZE | {"COZE_API_BASE": "coze"}, ())
