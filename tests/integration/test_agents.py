"""Agents' accounts and logins over two edges: who gets in, with what, and for how long."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from edge.lockout import TRIES
from runtime.tables import KeyTable
from runtime.testing import Kit, running
from tests.integration.agents import ADMIN_KEY, PASSWORD, call, lighten, log_in, make_agent
from tests.integration.asking import GEMINI, ask, models
from tests.integration.edges import Edge, serving
from tests.integration.feed import feed
from tests.integration.waiting import until_known

pytestmark = pytest.mark.asyncio(loop_scope="module")

ME = "/api/agent/me"
ACCOUNTS = "/api/agent/accounts"
READER_KEY = "a-key-without-the-desk"
KEYS = {
    ADMIN_KEY: KeyTable(id="office", secret_env="OFFICE_KEY"),
    READER_KEY: KeyTable(id="reader", secret_env="READER_KEY", scopes=["chat:read"]),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(**models(gemini=GEMINI)) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url, keys=KEYS) as edge:
        lighten(edge)
        await make_agent(edge, "ann", name="Ann", teams=["support", "returns"])
        await make_agent(edge, "lea", "lead")
        await make_agent(edge, "root", "admin")
        said = {"conversation_id": "watched", "headers": {"X-Relay-API-Key": ADMIN_KEY}}
        await ask(edge, "hello", "gemini", **said)
        yield edge


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url, keys=KEYS) as edge:
        lighten(edge)
        yield edge


@pytest.mark.promise("FD-45")
async def test_who_has_the_password_gets_a_token_that_every_edge_knows(
    edge: Edge, other: Edge
) -> None:
    given = await log_in(edge, "Ann ")
    seen = await call(other, "GET", ME, token=given["token"])

    assert (given["expires_in"], given["token_type"]) == (3600, "Bearer")
    assert seen.status_code == 200
    assert seen.json()["agent"] == given["agent"]
    assert given["agent"] == {
        "id": "ann",
        "username": "ann",
        "name": "Ann",
        "avatar": "",
        "role": "agent",
        "teams": ["support", "returns"],
        "skills": [],
        "capacity": 5,
        "disabled": False,
    }
    assert {"desk:read", "desk:act", "chat:read", "chat:all"} <= set(seen.json()["scopes"])
    assert not {"desk:lead", "desk:admin"} & set(seen.json()["scopes"])


@pytest.mark.parametrize(("who", "lead", "admin"), [("lea", True, False), ("root", True, True)])
async def test_a_role_opens_what_the_one_before_does_and_more(
    edge: Edge, who: str, lead: bool, admin: bool
) -> None:
    token = (await log_in(edge, who))["token"]
    scopes = (await call(edge, "GET", ME, token=token)).json()["scopes"]
    accounts = await call(edge, "GET", ACCOUNTS, token=token)

    assert ("desk:lead" in scopes, "desk:admin" in scopes) == (lead, admin)
    assert accounts.status_code == (200 if admin else 403)


async def test_an_unknown_name_and_a_wrong_password_are_answered_alike(edge: Edge) -> None:
    unknown = await call(edge, "POST", "/api/agent/login", {"username": "eve", "password": "x"})
    wrong = await call(edge, "POST", "/api/agent/login", {"username": "lea", "password": "x"})

    assert unknown.status_code == wrong.status_code == 401
    assert unknown.json() == wrong.json()
    assert wrong.json()["code"] == "wrong_credentials"
    assert wrong.json()["detail"] == "there is no such agent with that password"


MATRIX = [
    ("nothing", {}, 401),
    ("no token", {"Authorization": "Bearer"}, 401),
    ("another scheme", {"Authorization": "Basic YW5uOnJpZ2h0LWhvcnNlLTc="}, 401),
    ("a token of nobody", {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30.x"}, 401),
    ("a key that may not", {"X-Relay-API-Key": READER_KEY}, 403),
    ("a key that may", {"X-Relay-API-Key": ADMIN_KEY}, 200),
    ("a user that a proxy names", {"X-Forwarded-User": "admin"}, 401),
    ("an address that a proxy names", {"X-Forwarded-For": "127.0.0.1"}, 401),
]


@pytest.mark.parametrize(("what", "headers", "status"), MATRIX, ids=[row[0] for row in MATRIX])
@pytest.mark.parametrize("path", [ME, ACCOUNTS])
async def test_each_credential_has_its_answer(
    edge: Edge, what: str, headers: dict[str, str], status: int, path: str
) -> None:
    answer = await call(edge, "GET", path, **headers)

    assert answer.status_code == status, answer.text
    if status != 200:
        assert {"detail", "code"} <= set(answer.json())


async def test_two_identities_are_one_too_many(edge: Edge) -> None:
    token = (await log_in(edge, "ann"))["token"]
    headers = {"Authorization": f"Bearer {token}", "X-Relay-API-Key": ADMIN_KEY}
    answer = await call(edge, "GET", ME, **headers)

    assert (answer.status_code, answer.json()["code"]) == (400, "ambiguous_credentials")


async def test_a_token_in_a_url_is_refused(edge: Edge) -> None:
    token = (await log_in(edge, "ann"))["token"]
    answer = await call(edge, "GET", f"{ME}?token={token}")

    assert (answer.status_code, answer.json()["code"]) == (400, "credential_in_url")


async def test_unknown_paths_of_the_desk_are_told_only_to_who_may_ask(edge: Edge) -> None:
    token = (await log_in(edge, "ann"))["token"]

    assert (await call(edge, "GET", "/api/agent/nowhere")).status_code == 401
    assert (await call(edge, "GET", "/api/agent/nowhere", token=token)).status_code == 404


async def test_a_refresh_token_counts_once_and_the_second_time_ends_the_login(
    edge: Edge, other: Edge
) -> None:
    first = await log_in(edge, "ann")
    again = await call(
        other, "POST", "/api/agent/refresh", {"refresh_token": first["refresh_token"]}
    )
    fresh = again.json()
    stolen = await call(
        edge, "POST", "/api/agent/refresh", {"refresh_token": first["refresh_token"]}
    )
    after = await call(
        edge, "POST", "/api/agent/refresh", {"refresh_token": fresh["refresh_token"]}
    )

    assert again.status_code == 200
    assert stolen.status_code == after.status_code == 401
    assert await _refused(other, fresh["token"]) == "invalid_token"


@pytest.mark.parametrize("token", ["", "x", "a.b", "f" * 32, "f" * 32 + ".secret"])
async def test_what_is_no_refresh_token_is_refused(edge: Edge, token: str) -> None:
    answer = await call(edge, "POST", "/api/agent/refresh", {"refresh_token": token})

    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_refresh_token")


async def test_logging_out_ends_this_login_and_all_ends_every_one(edge: Edge, other: Edge) -> None:
    one, two, three = [await log_in(edge, "lea") for _ in range(3)]
    await call(edge, "POST", "/api/agent/logout", token=one["token"])

    assert await _refused(other, one["token"]) == "invalid_token"
    assert (await call(other, "GET", ME, token=two["token"])).status_code == 200
    await call(edge, "POST", "/api/agent/logout", {"all": True}, token=two["token"])
    assert await _refused(other, three["token"]) == "invalid_token"


async def test_an_agent_changes_their_name_and_avatar_and_nothing_else(edge: Edge) -> None:
    await make_agent(edge, "nan")
    token = (await log_in(edge, "nan"))["token"]
    done = await call(edge, "PATCH", ME, {"name": "Nan", "avatar": "/a.png"}, token=token)
    upwards = await call(edge, "PATCH", ME, {"role": "admin"}, token=token)
    after = await call(edge, "GET", ME, token=token)

    assert done.status_code == 200
    assert (upwards.status_code, upwards.json()["code"]) == (403, "not_yours")
    assert after.json()["agent"]["role"] == "agent"
    assert (after.json()["agent"]["name"], after.json()["agent"]["avatar"]) == ("Nan", "/a.png")


async def test_a_password_is_changed_with_the_old_one_and_logs_everybody_out(edge: Edge) -> None:
    await make_agent(edge, "pat")
    token = (await log_in(edge, "pat"))["token"]
    without = await call(edge, "PATCH", ME, {"password": "another-1"}, token=token)
    wrong = {"password": "another-1", "old_password": "no"}
    refused = await call(edge, "PATCH", ME, wrong, token=token)
    weak = {"password": "short", "old_password": PASSWORD}
    lacking = await call(edge, "PATCH", ME, weak, token=token)
    good = {"password": "another-1", "old_password": PASSWORD}
    done = await call(edge, "PATCH", ME, good, token=token)

    assert [without.status_code, refused.status_code, lacking.status_code] == [422, 403, 422]
    assert "expected 8 or more" in lacking.json()["detail"]
    assert done.status_code == 200
    assert await _refused(edge, token) == "invalid_token"
    await log_in(edge, "pat", "another-1")


async def test_the_last_admin_cannot_go_and_a_name_is_taken_once(edge: Edge) -> None:
    removed = await call(edge, "DELETE", f"{ACCOUNTS}/root", token=ADMIN_KEY)
    lowered = await call(edge, "PATCH", f"{ACCOUNTS}/root", {"role": "lead"}, token=ADMIN_KEY)
    body = {"username": "ann", "password": PASSWORD}
    twice = await call(edge, "POST", ACCOUNTS, body, token=ADMIN_KEY)
    odd = await call(edge, "POST", ACCOUNTS, body | {"username": "A b"}, token=ADMIN_KEY)

    assert [removed.json()["detail"], lowered.json()["detail"]] == ["LAST_ADMIN", "LAST_ADMIN"]
    assert (twice.status_code, twice.json()["detail"]) == (409, "USERNAME_EXISTS")
    assert odd.status_code == 422


async def test_nothing_that_is_answered_holds_a_hash(edge: Edge) -> None:
    listed = await call(edge, "GET", ACCOUNTS, token=ADMIN_KEY)

    assert listed.json()["total"] >= 3
    assert "argon2" not in listed.text
    assert "secret" not in listed.text


async def test_ten_wrong_passwords_lock_an_account_out_on_every_edge(
    edge: Edge, other: Edge
) -> None:
    await make_agent(edge, "tim")
    # Each try from another address, or the address were locked out for all other tests.
    agents = [edge.shared.agents, other.shared.agents]
    for n in range(TRIES):
        assert await agents[n % 2].prove("tim", "wrong", f"192.0.2.{n}") is None
    right = {"username": "tim", "password": PASSWORD}
    for each in (edge, other):
        locked = await call(each, "POST", "/api/agent/login", right)

        assert (locked.status_code, locked.json()["code"]) == (429, "locked_out")
        assert 0 < int(locked.headers["retry-after"]) <= 60


async def test_ten_wrong_passwords_lock_an_address_out_whatever_the_account(
    edge: Edge, other: Edge
) -> None:
    agents = [edge.shared.agents, other.shared.agents]
    for n in range(TRIES):
        assert await agents[n % 2].prove(("lea", "root")[n % 2], "wrong", "2001:db8:1:2::7") is None
    with pytest.raises(Exception, match="429 locked_out"):
        await agents[0].prove("ann", PASSWORD, "2001:db8:1:2::8")

    assert await agents[1].prove("ann", PASSWORD, "2001:db8:1:3::8") is not None


async def _refused(edge: Edge, token: str) -> str:
    """Wait until a token is refused, which is within five seconds; returns the code."""

    async def look() -> Any:
        answer = await call(edge, "GET", ME, token=token)
        return answer if answer.status_code != 200 else None

    answer = await until_known(look, 5)
    assert answer.status_code == 401
    return str(answer.json()["code"])


ENDINGS: dict[str, Any] = {
    "disabled": ("PATCH", {"disabled": True}),
    "another password": ("PATCH", {"password": "another-1"}),
    "removed": ("DELETE", None),
}


@pytest.mark.parametrize("how", ENDINGS)
async def test_an_open_stream_ends_when_its_login_does(edge: Edge, other: Edge, how: str) -> None:
    method, body = ENDINGS[how]
    name = f"gone-{list(ENDINGS).index(how)}"
    await make_agent(edge, name)
    token = (await log_in(edge, name))["token"]
    path = "/v1/conversations/watched/events"
    async with feed(other, path, Authorization=f"Bearer {token}") as stream:
        await stream.next()
        done = await call(edge, method, f"{ACCOUNTS}/{name}", body, token=ADMIN_KEY)
        async with asyncio.timeout(5):
            rest = await stream.until("bye")

    assert done.status_code == 200, done.text
    assert rest[-1].name == "bye"
    assert await _refused(other, token) == "invalid_token"


async def test_a_ticket_opens_its_path_once_on_any_edge(edge: Edge, other: Edge) -> None:
    token = (await log_in(edge, "ann"))["token"]
    answers = []
    for path in (ME, ME, "/api/agent/list"):
        given = await call(edge, "POST", "/api/agent/ticket", {"path": path}, token=token)
        answers.append(given.json()["ticket"])
    first = await call(other, "GET", f"{ME}?ticket={answers[0]}")
    again = await call(edge, "GET", f"{ME}?ticket={answers[0]}")
    elsewhere = await call(edge, "GET", f"{ME}?ticket={answers[2]}")
    with_token = await call(edge, "GET", f"{ME}?ticket={answers[1]}", token=token)

    assert (first.status_code, first.json()["agent"]["id"]) == (200, "ann")
    assert (again.status_code, again.json()["code"]) == (401, "invalid_ticket")
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (401, "invalid_ticket")
    assert (with_token.status_code, with_token.json()["code"]) == (400, "ambiguous_credentials")


async def test_of_many_who_bring_the_same_ticket_one_gets_in(edge: Edge, other: Edge) -> None:
    token = (await log_in(edge, "ann"))["token"]
    given = await call(edge, "POST", "/api/agent/ticket", {"path": ME}, token=token)
    path = f"{ME}?ticket={given.json()['ticket']}"
    answers = await asyncio.gather(*(call((edge, other)[n % 2], "GET", path) for n in range(8)))

    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7


async def test_this_machine_needs_no_token_as_long_as_nobody_has_set_a_key(kit: Kit) -> None:
    async with serving(kit.server.url) as open_edge:
        me = await call(open_edge, "GET", ME)
        accounts = await call(open_edge, "GET", ACCOUNTS)
        proxied = await call(open_edge, "GET", ME, **{"X-Forwarded-For": "192.0.2.1"})
        token = (await log_in(open_edge, "ann"))["token"]
        as_ann = await call(open_edge, "GET", ACCOUNTS, token=token)

    assert me.json()["agent"] is None
    assert {"desk:read", "desk:act", "desk:lead", "desk:admin"} <= set(me.json()["scopes"])
    assert accounts.status_code == 200
    assert proxied.status_code == 401
    assert as_ann.status_code == 403


async def test_a_login_is_for_nobody_without_an_account(edge: Edge) -> None:
    for path, body in (("ticket", {"path": ME}), ("logout", {})):
        answer = await call(edge, "POST", f"/api/agent/{path}", body, token=ADMIN_KEY)

        assert (answer.status_code, answer.json()["code"]) == (403, "not_an_agent")
