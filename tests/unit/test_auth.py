"""Who is admitted, as whom, and who is not even asked."""

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from edge.auth import (
    CHAT_READ,
    CHAT_SEND,
    DESK,
    LOCAL_READS,
    READ,
    SEND,
    Authentication,
    Doorkeeper,
    Principal,
)
from edge.credentials import UNAUTHORIZED
from edge.lockout import ADDRESSES, TRIES, WITHIN, LockOut
from edge.problem import Refusal
from runtime.keys import PUBLIC_DEFAULT, Key

SECRET = "0123456789abcdef"
OTHER = "fedcba9876543210"
OPEN = {READ, CHAT_READ}


def key(secret: str = SECRET, name: str = "relay", **rest: Any) -> Key:
    digest = hashlib.sha256(secret.encode()).digest()
    return Key(name, digest, frozenset(rest.pop("scopes", {SEND})), **rest)


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def asked(
    headers: list[tuple[str, str]] | None = None,
    *,
    client: str = "127.0.0.1",
    method: str = "POST",
    path: str = "/api/relay/send",
    query: str = "",
) -> HTTPConnection:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers or []]
    scope = {
        "type": "http",
        "headers": raw,
        "client": (client, 50000),
        "method": method,
        "path": path,
        "query_string": query.encode(),
    }
    return HTTPConnection(scope)


def with_key(secret: str = SECRET, **rest: Any) -> HTTPConnection:
    return asked([("X-Relay-API-Key", secret)], **rest)


def refusal(act: Any, *args: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        act(*args)
    return refused.value


def keeper(*keys: Key, open_reads: bool = False, clock: Time | None = None) -> Doorkeeper:
    lock_out = LockOut(clock or Time())
    return Doorkeeper(keys or [key()], open_reads=open_reads, lock_out=lock_out)


@pytest.mark.promise("CB-10", "CB-42")
def test_a_key_says_who_is_asking_and_what_they_may_do() -> None:
    door = keeper(key(OTHER, "other"), key(scopes={READ}, children=frozenset({"far"}), tier="vip"))

    assert door.admit(with_key()) == Principal(
        "relay", "key", frozenset({READ}), "vip", frozenset({"far"})
    )
    assert door.admit(with_key(OTHER)).id == "other"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_key_may_come_as_a_bearer_token(scheme: str) -> None:
    assert keeper().admit(asked([("Authorization", f"{scheme} {SECRET}")])).id == "relay"


def test_the_same_key_in_both_headers_is_one_key() -> None:
    headers = [("X-Relay-API-Key", SECRET), ("Authorization", f"Bearer {SECRET}")]

    assert keeper().admit(asked(headers)).id == "relay"


@pytest.mark.parametrize(
    "headers",
    [
        [("X-Relay-API-Key", SECRET), ("Authorization", f"Bearer {OTHER}")],
        [("X-Relay-API-Key", SECRET), ("X-Relay-API-Key", OTHER)],
        [("Authorization", f"Bearer {SECRET}"), ("Authorization", f"Bearer {SECRET}")],
    ],
)
def test_two_keys_are_ambiguous_even_if_one_is_right(headers: list[tuple[str, str]]) -> None:
    refused = refusal(keeper(key(), key(OTHER, "other")).admit, asked(headers))

    assert (refused.status, refused.code) == (400, "ambiguous_credentials")


@pytest.mark.promise("CB-03", "CB-19")
@pytest.mark.parametrize(
    "headers",
    [
        [("X-Relay-API-Key", "0123456789abcdeF")],
        [("X-Relay-API-Key", SECRET[:-1])],
        [("X-Relay-API-Key", SECRET + "0")],
        [("X-Relay-API-Key", hashlib.sha256(SECRET.encode()).hexdigest())],
        [("X-Relay-API-Key", "ключ".encode().decode("latin-1"))],
        [("Authorization", f"Bearer  {SECRET}")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", f"Basic {SECRET}")],
        [("Authorization", SECRET)],
    ],
)
def test_what_is_not_a_key_is_refused_in_the_words_that_clients_know(
    headers: list[tuple[str, str]],
) -> None:
    refused = refusal(keeper().admit, asked(headers))

    assert (refused.status, refused.code) == (401, "unauthorized")
    assert refused.detail == UNAUTHORIZED == "Unauthorized: Invalid or missing API key"
    assert "www-authenticate" in refused.headers


def test_an_empty_key_is_a_wrong_one() -> None:
    refused = refusal(keeper(open_reads=True).admit, with_key("", method="GET"))

    assert (refused.status, refused.code) == (401, "unauthorized")


def test_a_key_may_read_where_everybody_may() -> None:
    assert keeper(open_reads=True).admit(with_key()).scopes == {SEND, READ, CHAT_READ}
    assert keeper().admit(with_key()).scopes == {SEND}


@pytest.mark.parametrize("headers", [[], [("Authorization", "Bearer sk-anything")]])
def test_without_a_key_of_its_own_a_machine_may_ask_its_models_with_any_key_or_none(
    headers: list[tuple[str, str]],
) -> None:
    def admit(door: Doorkeeper, path: str = "/v1/chat/completions", *more: tuple[str, str]) -> Any:
        return door.admit(asked([*headers, *more], path=path))

    keyless = Doorkeeper([key(PUBLIC_DEFAULT)], open_reads=False, local_reads=True)
    guest = admit(keyless)
    behind_a_proxy = admit(keyless, "/v1/chat/completions", ("X-Forwarded-For", "10.0.0.7"))

    assert guest.scopes == LOCAL_READS | {CHAT_SEND} | DESK
    assert not guest.known
    assert CHAT_SEND not in behind_a_proxy.scopes


def test_a_key_of_its_own_closes_a_machines_models_to_every_other() -> None:
    door = Doorkeeper([key()], open_reads=False, local_reads=True)
    wrong = asked([("Authorization", "Bearer sk-anything")], path="/v1/chat/completions")

    assert refusal(door.admit, wrong).status == 401
    assert CHAT_SEND not in door.admit(asked(path="/v1/chat/completions")).scopes


def test_ten_wrong_keys_lock_an_address_out_and_even_the_right_one_does_not_open() -> None:
    clock = Time()
    door = keeper(clock=clock)
    codes = [refusal(door.admit, with_key("wrong")).status for _ in range(TRIES)]
    locked = refusal(door.admit, with_key())
    elsewhere = door.admit(with_key(client="10.0.0.7"))
    clock.now += WITHIN + 1

    assert codes == [401] * TRIES
    assert (locked.status, locked.code) == (429, "locked_out")
    assert locked.headers["retry-after"] == "61"
    assert elsewhere.known
    assert door.admit(with_key()).known


def test_wrong_keys_that_come_slowly_lock_nobody_out() -> None:
    clock = Time()
    door = keeper(clock=clock)
    for _ in range(3 * TRIES):
        assert refusal(door.admit, with_key("wrong")).status == 401
        clock.now += WITHIN / (TRIES - 1)

    assert door.admit(with_key()).known


def test_a_client_that_owns_a_whole_ipv6_network_is_one_client() -> None:
    door = keeper()
    for host in range(TRIES):
        refusal(door.admit, with_key("wrong", client=f"2001:db8:1:2::{host:x}"))

    assert refusal(door.admit, with_key(client="2001:db8:1:2:ffff::1")).status == 429
    assert door.admit(with_key(client="2001:db8:1:3::1")).known


def test_only_so_many_addresses_are_remembered() -> None:
    lock_out = LockOut(Time())
    for number in range(ADDRESSES + 100):
        lock_out.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")

    assert len(lock_out._tries) == ADDRESSES


@pytest.mark.promise("CB-24")
def test_reading_may_be_open_to_everybody_and_writing_never_is() -> None:
    anonymous = keeper(open_reads=True).admit(asked())

    assert (anonymous.known, anonymous.scopes) == (False, frozenset({READ, CHAT_READ}))
    assert keeper().admit(asked()).scopes == frozenset()


@pytest.mark.promise("CB-10", "CB-40")
@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto"])
def test_what_opens_this_machine_only_opens_nothing_behind_a_proxy(name: str) -> None:
    default, own = key(PUBLIC_DEFAULT, "default"), key(OTHER, "own")
    door = Doorkeeper([default, own], open_reads=False, local_reads=True)
    passed_on = (name, "for=192.0.2.7")
    for_all = Doorkeeper([own], open_reads=True, local_reads=True)
    with_default = refusal(door.admit, asked([("X-Relay-API-Key", PUBLIC_DEFAULT), passed_on]))
    without = refusal(door.admit, asked([passed_on], method="GET"))

    assert (with_default.status, with_default.code) == (401, "unauthorized")
    assert (without.status, without.code) == (401, "unauthorized")
    assert "default key" in with_default.detail
    assert "without a key" in without.detail
    assert door.admit(with_key(PUBLIC_DEFAULT)).id == "default"
    assert door.admit(asked(method="GET")).scopes == LOCAL_READS
    assert door.admit(asked([("X-Relay-API-Key", OTHER), passed_on])).id == "own"
    assert for_all.admit(asked([passed_on], method="GET")).scopes == OPEN


def test_a_key_that_is_bound_to_children_may_act_as_no_other() -> None:
    bound = Principal("k", children=frozenset({"far", "c1"}))
    bound.check_child("far", "c1")
    Principal("k").check_child("anybody")
    refused = refusal(bound.check_child, "far", "c2")

    assert (refused.status, refused.code) == (403, "foreign_child")
    assert "'c2'" in refused.detail


def test_an_agents_token_is_not_counted_as_a_wrong_key_where_only_trust_is_asked_for() -> None:
    door = keeper()
    token = asked([("Authorization", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln")], path="/health")
    trusted = [door.trusts(token) for _ in range(TRIES + 1)]

    assert trusted == [False] * (TRIES + 1)
    assert door.trusts(with_key(path="/health"))
    assert not door.trusts(asked(path="/health"))


def test_a_key_is_never_shown() -> None:
    found = keeper().admit(with_key())

    assert SECRET not in repr(found)
    assert SECRET not in repr(key())


# -- the middleware ---------------------------------------------------------------------------


async def passed(connection: HTTPConnection, *, open_reads: bool = True) -> Mapping[str, Any]:
    """Send a request through the middleware; returns the scope that the application sees."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    async def unused(*_: Any) -> Any:
        raise AssertionError("nothing is read or sent here")

    await Authentication(app, keeper(open_reads=open_reads))(connection.scope, unused, unused)
    found = seen[0]
    assert isinstance(found, Mapping)
    return found


async def turned_away(connection: HTTPConnection, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await passed(connection, **options)
    return refused.value


async def test_below_the_api_nobody_learns_which_paths_there_are_without_a_key() -> None:
    write = await turned_away(asked(path="/api/nothing"))
    read = await turned_away(asked(path="/api/nothing", method="GET"), open_reads=False)

    assert (write.status, read.status) == (401, 401)
    assert await passed(asked(path="/api/nothing", method="GET"))
    assert await passed(with_key(path="/api/nothing"))


async def test_outside_of_the_api_a_wrong_key_does_not_matter() -> None:
    assert await passed(with_key("wrong", path="/health", method="GET"))


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:8001", "http://localhost:8000.evil", ""],
)
async def test_a_page_of_somebody_else_may_change_nothing(origin: str) -> None:
    headers = [("Host", "localhost:8000"), ("Origin", origin), ("X-Relay-API-Key", SECRET)]
    refused = await turned_away(asked(headers))

    assert (refused.status, refused.code) == (403, "foreign_origin")


@pytest.mark.parametrize("origin", ["http://localhost:8000", "https://LOCALHOST:8000"])
async def test_a_page_of_ours_may(origin: str) -> None:
    headers = [("Host", "localhost:8000"), ("Origin", origin), ("X-Relay-API-Key", SECRET)]

    assert await passed(asked(headers))


async def test_a_page_of_somebody_else_may_ask_for_what_its_browser_will_not_show_it() -> None:
    headers = [("Host", "localhost:8000"), ("Origin", "http://evil.example")]

    assert await passed(asked(headers, method="GET"))


async def test_a_key_in_the_url_is_refused_wherever_it_is_sent() -> None:
    for path in ("/health", "/api/relay/logs", "/nothing"):
        refused = await turned_away(asked(path=path, method="GET", query=f"api_key={SECRET}"))

        assert (refused.status, refused.code) == (400, "credential_in_url")
        assert SECRET not in refused.detail
