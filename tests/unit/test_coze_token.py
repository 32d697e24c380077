"""Tokens of Coze: one for each session, asked for once, renewed early, kept to ourselves."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from actors.fakes.upstream import Upstream as Fake
from actors.models import coze_token
from actors.models.coze import Coze
from actors.models.coze_access import Access
from actors.models.coze_token import MOST_TOKENS, Token, Tokens, load_key, read_end
from actors.models.events import Call, Ended, Upstream
from actors.models.faults import UpstreamFault
from tests.unit.provider_double import collect, no_file, said
from tests.unit.signing import PRIVATE_PEM, PUBLIC_PEM, STRANGER_PEM
from tests.unit.upstreams import faking

ACCESS = Access(client="app-1", key_id="k1")


class Clock:
    """A clock that a test moves on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Bench:
    """Tokens of one fake, by a clock."""

    def __init__(self, upstream: Fake, client: httpx.AsyncClient) -> None:
        self.upstream = upstream
        self.clock = Clock()
        self.tokens = Tokens(self.clock)
        self.call = Call(
            client=client,
            upstream=Upstream(upstream.url, PRIVATE_PEM, "coze-1"),
            model="w1",
            messages=(said("hi"),),
            load=no_file,
            conversation="s1",
            extra={"app_id": "a1"},
            dialect={"client": "app-1", "key_id": "k1"},
        )

    async def get(self, session: str = "s1", access: Access = ACCESS) -> str:
        return await self.tokens.get(replace(self.call, conversation=session), access)


@asynccontextmanager
async def bench(**given: Any) -> AsyncIterator[Bench]:
    async with faking("coze", public_key=PUBLIC_PEM, **given) as (upstream, client):
        made = Bench(upstream, client)
        try:
            yield made
        finally:
            await made.tokens.close()


@pytest.mark.promise("FD-17")
async def test_claims_name_the_app_the_host_and_the_session() -> None:
    async with bench() as one:
        await one.get("s7")
        claims: Any = one.upstream.provider.claims[0]  # type: ignore[attr-defined]  # Coze's own
    now = time.time()

    assert claims["iss"] == "app-1"
    assert claims["aud"] == one.upstream.root.removeprefix("http://")
    assert claims["session_name"] == "s7"
    assert claims["exp"] - claims["iat"] == 3600
    assert abs(claims["iat"] - now) < 60
    assert len(claims["jti"]) == 32
    assert one.upstream.calls[0].body == {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "duration_seconds": 3600,
    }


async def test_an_audience_may_be_named() -> None:
    async with bench(audience="api.coze.cn") as one:
        with pytest.raises(UpstreamFault, match=r"unauthorized: The JWT is for '127\.0\.0\.1"):
            await one.get()
        token = await one.get(access=Access(client="a", key_id="k", audience="api.coze.cn"))

    assert token.startswith("czs_")


@pytest.mark.promise("FD-19", "FD-20")
async def test_a_session_keeps_its_token_until_shortly_before_its_end() -> None:
    async with bench(fault="token=expires=500") as one:
        first = await one.get()
        one.clock.ahead = 150
        assert await one.get() == first
        one.clock.ahead = 499
        renewed = await one.get()
        other = await one.get("s2")

    assert len({first, renewed, other}) == 3
    assert len(one.upstream.calls) == 3


async def test_those_who_want_the_same_token_ask_once_and_may_leave() -> None:
    async with bench() as one:
        one.upstream.next("hold", part="token")
        waiting = [asyncio.create_task(one.get()) for _ in range(20)]
        await one.upstream.held()
        waiting[0].cancel()
        one.upstream.release()
        found = await asyncio.gather(*waiting, return_exceptions=True)

    assert isinstance(found[0], asyncio.CancelledError)
    assert len(set(found[1:])) == 1
    assert len(one.upstream.calls) == 1


async def test_a_token_that_nobody_waits_for_any_more_is_kept() -> None:
    async with bench() as one:
        one.upstream.next("hold", part="token")
        asking = asyncio.create_task(one.get())
        await one.upstream.held()
        asking.cancel()
        await asyncio.wait([asking])
        one.upstream.release()
        await one.get()

    assert len(one.upstream.calls) == 1


async def test_while_it_is_still_good_a_token_is_used_though_it_cannot_be_renewed() -> None:
    async with bench(fault="token=expires=1000") as one:
        first = await one.get()
        one.upstream.next("503", "503", part="token")
        one.clock.ahead = 980
        again = await one.get()
        one.clock.ahead = 995
        with pytest.raises(UpstreamFault, match="overloaded"):
            await one.get()

    assert again == first


async def test_only_so_many_tokens_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coze_token, "MOST_TOKENS", 3)
    async with bench() as one:
        for session in ("s1", "s2", "s3", "s1", "s4", "s1", "s2"):
            await one.get(session)

    assert [call.note for call in one.upstream.calls] == ["s1", "s2", "s3", "s4", "s2"]
    assert MOST_TOKENS >= 1000


@pytest.mark.parametrize(
    ("expires", "end"),
    [
        (2_000_000_900, 2_000_000_900),
        ("2000000900", 2_000_000_900),
        (2_000_000_900.5, 2_000_000_900.5),
        (900, 2_000_000_900),
        (None, 2_000_003_600),
        (True, 2_000_003_600),
        ("soon", 2_000_003_600),
        (float("nan"), 2_000_003_600),
        (9e99, 2_000_003_600),
        (1_999_999_999, 1_999_999_999),
    ],
)
def test_the_end_of_a_token_is_a_time_or_a_duration_and_never_later_than_asked(
    expires: object, end: float
) -> None:
    assert read_end(expires, 2_000_000_000, 3600) == end


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("401", "unauthorized"),
        ("403", "unauthorized"),
        ("error_code=access_denied", "unauthorized"),
        ("400", "bad_request"),
        ("429", "rate_limited"),
        ("500", "server_error"),
        ("html", "server_error"),
        ("html=200", "garbled"),
        ("empty", "garbled"),
        ("truncated", "truncated"),
        ("reset-first", "unreachable"),
    ],
)
async def test_without_a_token_nothing_is_asked(fault: str, code: str) -> None:
    async with bench(fault=f"token={fault}") as one:
        outcome = await collect(Coze(), one.call)

    assert outcome.code == code
    assert [call.path for call in one.upstream.calls] == ["/api/permission/oauth2/token"]


async def test_a_token_that_is_refused_is_renewed_once() -> None:
    adapter = Coze()
    async with bench() as one:
        await collect(adapter, one.call)
        one.upstream.provider.revoke()  # type: ignore[attr-defined]  # Coze's own
        mended = await collect(adapter, one.call)
        tokens = len(one.upstream.provider.claims)  # type: ignore[attr-defined]  # Coze's own
        refused = [
            await collect(adapter, replace(one.call, model=f"w1+{fault}"))
            for fault in ("401", "json=4100", "json=700012006")
        ]
        denied = await collect(adapter, replace(one.call, model="w1+json=4101"))
        in_all = len(one.upstream.provider.claims)  # type: ignore[attr-defined]  # Coze's own

    assert mended.last == Ended("stop")
    assert tokens == 2
    assert [one.code for one in refused] == ["unauthorized"] * 3
    assert denied.code == "unauthorized"
    assert in_all == 5


async def test_a_refused_token_that_was_renewed_meanwhile_stays() -> None:
    async with bench() as one:
        first = await one.get()
        one.tokens.forget(one.call, ACCESS, first)
        second = await one.get()
        one.tokens.forget(one.call, ACCESS, first)
        third = await one.get()

    assert first != second
    assert third == second


async def test_without_an_app_the_key_is_the_token() -> None:
    async with bench(key="pat_0123456789abcdef") as one:
        key = Upstream(one.upstream.url, "pat_0123456789abcdef", "coze-1")
        outcome = await collect(Coze(), replace(one.call, upstream=key, dialect={}))

    assert outcome.last == Ended("stop")
    assert [call.path for call in one.upstream.calls] == [
        "/v1/conversation/create",
        "/v1/workflows/chat",
    ]


@pytest.mark.promise("FD-18")
def test_a_key_is_pem_or_the_name_of_a_file_that_holds_it(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(PRIVATE_PEM)
    numbers = [
        load_key(key).private_numbers()
        for key in (PRIVATE_PEM, PRIVATE_PEM.replace("\n", "\\n"), str(file))
    ]
    file.write_text(STRANGER_PEM)

    assert numbers[0] == numbers[1] == numbers[2]
    assert load_key(str(file)).private_numbers() != numbers[0]


def test_a_key_that_is_none_is_not_shown(tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    other = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    broken = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LXBhcnQ=\n-----END PRIVATE KEY-----\n"
    binary = tmp_path / "key.der"
    binary.write_bytes(b"\xff\x00secret-part")
    for key in (broken, other, "secret-part", str(binary), str(tmp_path), "a\0secret-part"):
        with pytest.raises(UpstreamFault) as refused:
            load_key(key)

        assert refused.value.code == "unauthorized"
        assert "secret-part" not in str(refused.value)
        assert refused.value.__cause__ is None


async def test_neither_keys_nor_tokens_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with bench() as one:
        token = await one.get()
        echoed = {"code": 4000, "msg": f"bad {token}", "detail": {}}
        one.upstream.provider.answer = lambda asked: says(echoed)  # type: ignore[method-assign]
        adapter = Coze()
        adapter.tokens = one.tokens
        outcome = await collect(adapter, one.call)
    shown = f"{outcome.fault} {one.call!r} {Token(token, 0, 0)!r} {caplog.text}"

    assert outcome.code == "bad_request"
    assert token not in shown
    assert "PRIVATE KEY" not in shown


def says(body: Any) -> Any:
    from actors.fakes.frames import Whole, encode

    return Whole(200, encode(body))
