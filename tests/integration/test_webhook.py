"""Webhooks over real sockets: what is sent, and what is made of every kind of answer."""

import asyncio
import base64
import gzip
import hashlib
import hmac
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from actors.child import Child
from actors.limits import RESULT_LIMIT
from actors.master import Master
from actors.webhook import DeliveryFailed, Webhook, WebhookOptions
from runtime.actor import read_options
from runtime.errors import ConfigError, Reject, Retry
from runtime.testing import running
from schemas.deployment import Deployment
from schemas.relay import TaskCompleted, TaskFailed, task_topic
from tests.integration.receiver import Receiver, answer, endless, hang_up, receiving, silence
from tests.integration.tasks import ends, send

ORDER: dict[str, Any] = {"task_id": "t_1", "attempt": 1, "run": "r1", "cmd": "test"}


@asynccontextmanager
async def webhook(url: str, **options: Any) -> AsyncIterator[Webhook]:
    given = WebhookOptions(url=url, **{"allow_private": True, "timeout": "5s", **options})
    hook = Webhook(given)
    await hook.open()
    try:
        yield hook
    finally:
        await hook.close()


async def outcome(receiver: Receiver, *, attempt: int = 1, **options: Any) -> Any:
    """What one try ends with: its result, or what it raises."""
    async with webhook(receiver.url, **options) as hook:
        try:
            return await hook.do({**ORDER, "attempt": attempt})
        except (Reject, Retry, DeliveryFailed) as error:
            return error


def code(reject: Any) -> str:
    assert isinstance(reject, Reject), reject
    return reject.refusal.code


async def test_a_task_is_posted_and_the_answer_is_its_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with receiving(answer(200, '{"score": 0.85, "字": 1}'.encode())) as receiver:
        options = {"kind": "webhook", "url": receiver.url, "allow_private": True}
        async with running(master=Master, child=(Child, options)) as kit:
            await send(kit, "t_1", "child", cmd="verify_chart", payload={"a": 1}, text="你好")
            completed = await kit.event(task_topic("t_1"), TaskCompleted)

    came = receiver.came[0]
    assert completed.result == {"score": 0.85, "字": 1}
    assert came.line == "POST /hook HTTP/1.1"
    assert came.headers["content-type"] == "application/json"
    assert came.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert {key: value for key, value in came.json.items() if key != "run"} == {
        "task_id": "t_1",
        "attempt": 1,
        "from": "master",
        "to": "child",
        "type": "task",
        "cmd": "verify_chart",
        "payload": {"a": 1},
        "text": "你好",
    }


async def test_a_receiver_that_fails_gets_three_tries_under_one_id_and_no_more() -> None:
    async with receiving(answer(500), hang_up, answer(502)) as receiver:
        options = {"kind": "webhook", "url": receiver.url, "allow_private": True}
        child = Deployment(name="child", type="actors.child:Child", kind="worker", options=options)
        async with running(master=Master, child=(Child, child)) as kit:
            await send(kit, "t_1", "child")
            failed = await kit.event(task_topic("t_1"), TaskFailed)
            letters = await kit.dead_letters()
            ended = await ends(kit, "t_1")

    assert "given up after 3 tries: 127.0.0.1 answered 502" in failed.reason
    assert ended == [failed]
    assert len(letters) == 1
    assert len({each.headers["webhook-id"] for each in receiver.came}) == 1
    assert [each.json["attempt"] for each in receiver.came] == [1, 2, 3]


@pytest.mark.parametrize("prefix", ["", "whsec_"])
async def test_a_delivery_is_signed_over_its_id_time_and_body(
    monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    key = b"0123456789abcdef0123456789abcdef"
    text = prefix + base64.b64encode(key).decode() if prefix else key.decode()
    monkeypatch.setenv("HOOK_SECRET", text)
    async with receiving(answer(204, b"")) as receiver:
        result = await outcome(receiver, secret_env="HOOK_SECRET")

    came = receiver.came[0]
    signed = f"{came.headers['webhook-id']}.{came.headers['webhook-timestamp']}.".encode()
    digest = hmac.new(key, signed + came.body, hashlib.sha256).digest()
    age = datetime.now(UTC).timestamp() - int(came.headers["webhook-timestamp"])
    assert result is None
    assert came.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert came.headers["webhook-id"] == "r1"
    assert -1 <= age < 60


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300])
async def test_a_redirect_is_a_failure_and_is_not_followed(status: int) -> None:
    async with (
        receiving(answer(200)) as target,
        receiving(answer(status, location=target.url)) as receiver,
    ):
        result = await outcome(receiver)

    assert code(result) == "redirected"
    assert target.came == []


async def test_a_receiver_that_is_gone_is_not_tried_again() -> None:
    async with receiving(answer(410)) as receiver:
        result = await outcome(receiver)

    assert code(result) == "webhook_gone"


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (429, "7", 7),
        (503, "120", 60),
        (429, "1000000000", 60),
        (429, "9" * 5000, 60),
        (503, format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True), 60),
    ],
)
async def test_a_busy_receiver_is_tried_again_when_it_says_but_within_a_minute(
    status: int, header: str, seconds: int
) -> None:
    async with receiving(answer(status, retry_after=header)) as receiver:
        result = await outcome(receiver)

    assert isinstance(result, Retry)
    assert result.after == timedelta(seconds=seconds)


@pytest.mark.parametrize("header", ["", "soon", "-5", "0", "Wed, 01 Jan 2020 00:00:00 GMT", "٣"])
async def test_a_retry_after_that_says_nothing_leaves_it_to_the_usual_pauses(header: str) -> None:
    async with receiving(answer(503, retry_after=header.encode().decode("latin-1"))) as receiver:
        result = await outcome(receiver)

    assert isinstance(result, DeliveryFailed)


async def test_the_last_try_of_a_busy_receiver_is_the_last() -> None:
    async with receiving(answer(429, retry_after="5")) as receiver:
        result = await outcome(receiver, attempt=3)

    assert code(result) == "webhook_failed"


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500, 599])
async def test_any_other_answer_is_tried_again(status: int) -> None:
    async with receiving(answer(status)) as receiver:
        result = await outcome(receiver)

    assert isinstance(result, DeliveryFailed)
    assert str(result) == f"127.0.0.1 answered {status}"


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b'"' + b"x" * RESULT_LIMIT + b'"', {}, "result_too_large"),
        (b"OK", {}, "answer_not_json"),
        (b'{"a":', {}, "answer_not_json"),
        (b"[" * 30_000 + b"]" * 30_000, {}, "answer_not_json"),
        (b"\xff\xfe", {}, "answer_not_json"),
        (
            gzip.compress(b'"' + b"x" * 1_000_000 + b'"'),
            {"content_encoding": "gzip"},
            "answer_encoded",
        ),
    ],
)
async def test_an_answer_that_cannot_be_used_is_refused(
    body: bytes, headers: dict[str, str], expected: str
) -> None:
    async with receiving(answer(200, body, **headers)) as receiver:
        result = await outcome(receiver)

    assert code(result) == expected


async def test_of_an_endless_answer_only_the_start_is_read() -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with receiving(endless(start, chunk)) as receiver:
        result = await outcome(receiver)
        await asyncio.wait_for(receiver.closed.wait(), 5)

    assert code(result) == "result_too_large"


SLOW_BODY = endless(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"x", 0.01)
SLOW_HEAD = endless(b"HTTP/1.1 200 OK\r\n", b"X-Slow: 1\r\n", 0.01)


@pytest.mark.parametrize("act", [SLOW_BODY, SLOW_HEAD, silence])
async def test_an_answer_has_one_time_limit_in_all(act: Any) -> None:
    async with receiving(act) as receiver:
        result = await outcome(receiver, timeout="300ms")
        await asyncio.wait_for(receiver.closed.wait(), 5)

    assert isinstance(result, DeliveryFailed)
    assert str(result) == "127.0.0.1 gave no full answer within 300ms"


async def test_what_is_no_http_or_not_there_is_tried_again() -> None:
    async with receiving(endless(b"220 smtp ready\r\n\r\n", b"")) as receiver:
        odd = await outcome(receiver)
        tls = await outcome(Receiver([], receiver.port), timeout="1s")
    gone = await outcome(receiver)

    assert [type(each) for each in (odd, tls, gone)] == [DeliveryFailed] * 3
    assert "cannot be reached" in str(gone)


def own_certificate(folder: Path) -> ssl.SSLContext:
    """For hook.example, signed by nobody but its owner, in certificate.pem."""
    if not (program := shutil.which("openssl")):
        pytest.skip("openssl is not installed")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = "req -x509 -nodes -days 1 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    subject = "-subj /CN=hook -addext subjectAltName=DNS:hook.example"
    files = ["-keyout", str(key), "-out", str(certificate)]
    command = [program, *words.split(" "), *subject.split(" "), *files]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_a_server_without_a_trusted_certificate_is_told_nothing(tmp_path: Path) -> None:
    async with (
        receiving(answer(200), tls=own_certificate(tmp_path)) as receiver,
        webhook(receiver.url.replace("http:", "https:")) as hook,
    ):
        with pytest.raises(DeliveryFailed, match="certificate verify failed"):
            await hook.do(ORDER)

    assert receiver.came == []


async def test_a_certificate_must_be_of_the_name_not_of_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("certifi.where", lambda: str(tmp_path / "certificate.pem"))
    async with receiving(answer(200), tls=own_certificate(tmp_path)) as receiver:
        names = play_dns("127.0.0.1")
        async with webhook(f"https://hook.example:{receiver.port}/") as hook:
            result = await hook.do(ORDER)
        async with webhook(f"https://other.example:{receiver.port}/") as hook:
            with pytest.raises(DeliveryFailed, match="Hostname mismatch"):
                await hook.do(ORDER)

    assert result == {}
    assert names == ["hook.example", "other.example"]
    assert len(receiver.came) == 1


def play_dns(*addresses: str) -> list[str]:
    """Answer every name with these addresses; returns the list of what is asked."""
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [(2, 1, 6, "", (address, port)) for address in addresses]

    loop = asyncio.get_running_loop()
    loop.getaddrinfo = getaddrinfo  # type: ignore[assignment,method-assign]  # stands in for DNS
    return asked


async def test_a_name_that_leads_inside_is_refused_when_it_is_called() -> None:
    async with receiving(answer(200)) as receiver:
        play_dns("127.0.0.1")
        url = f"http://rebound.example:{receiver.port}/"
        async with webhook(url, allow_private=False) as hook:
            with pytest.raises(Reject) as refused:
                await hook.do(ORDER)

    assert refused.value.refusal.code == "url_not_allowed"
    assert receiver.came == []


async def test_the_address_that_was_checked_is_the_one_that_is_called() -> None:
    async with receiving(answer(200)) as receiver:
        asked = play_dns("127.0.0.2", "127.0.0.1")
        async with webhook(f"http://hook.example:{receiver.port}/") as hook:
            result = await hook.do(ORDER)

    assert result == {}
    assert asked == ["hook.example"]
    assert receiver.came[0].headers["host"] == f"hook.example:{receiver.port}"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "http://127.0.0.1/"}, "not a public address"),
        ({"url": "https://user:pw@ok.example/"}, "secrets do not belong in it"),
        ({"url": "https://ok.example/", "timeout": "0s"}, "not a duration"),
        ({"url": "https://ok.example/", "timeout": "61s"}, "at most 60s"),
        ({"url": "https://ok.example/", "tries": 0}, "tries = 0"),
        ({"url": "https://ok.example/", "timout": 1}, "unknown field `timout`"),
        ({}, "missing required field `url`"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        read_options(Child, "hook", {"kind": "webhook", **options})

    assert 'actor "hook"' in str(refused.value)
    assert "pw" not in str(refused.value)


@pytest.mark.parametrize("value", ["", "whsec_not base64!"])
def test_a_secret_that_is_missing_or_broken_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HOOK_SECRET", value)
    with pytest.raises(ConfigError, match="HOOK_SECRET") as refused:
        Webhook(WebhookOptions(url="https://ok.example/", secret_env="HOOK_SECRET"))

    assert "not base64!" not in str(refused.value)
