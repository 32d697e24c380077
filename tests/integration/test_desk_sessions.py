"""Sessions as agents see and handle them over HTTP: lists, one closely, and who has it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from actors.desk import Desk
from actors.human_agent import HumanAgent
from edge.sessions import FIRST_SCREEN
from runtime.bus import new_id
from runtime.testing import Kit, running
from schemas import subjects
from schemas.base import Address
from schemas.envelope import encode, seal
from schemas.model import history_topic
from schemas.ownership import Customer, Escalate, ManualMessage
from tests.integration.agents import PASSWORD, call, lighten, log_in
from tests.integration.customers import ACTORS, say
from tests.integration.edges import Edge, serving
from tests.integration.waiting import until_known

pytestmark = pytest.mark.asyncio(loop_scope="module")

SESSIONS = "/api/sessions"
ANN = {"agent_id": "ann", "agent_name": "Ann"}
BOB = {"agent_id": "bob", "agent_name": "Bob"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(
        **ACTORS, desk=(Desk, {"auto_assign": False}), human_agent=HumanAgent
    ) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url) as edge:
        lighten(edge)
        for name, role in (("ann", "agent"), ("bob", "agent"), ("lea", "lead")):
            body = {"username": name, "password": PASSWORD, "role": role, "name": name.title()}
            assert (await call(edge, "POST", "/api/agent/accounts", body)).status_code == 200
        yield edge


async def begin(edge: Edge, kit: Kit, name: str, *, team: str = "", **customer: Any) -> None:
    """A conversation that waits for a person."""
    assert (await say(edge, f"hello from {name}", user_id=name)).status_code == 200
    message = Escalate(desk=True, details="help", team=team, customer=Customer(**customer))
    await kit.ask(Address("session", name), message)


async def do(edge: Edge, name: str, what: str, body: Any = None, token: str = "") -> Any:
    return await call(edge, "POST", f"{SESSIONS}/{name}/{what}", body or {}, token=token)


async def listed(edge: Edge, query: str = "", token: str = "") -> dict[str, Any]:
    answer = await call(edge, "GET", f"{SESSIONS}{query}", token=token)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


@pytest.mark.promise("FD-58")
async def test_sessions_are_listed_as_they_stand_on_every_edge(edge: Edge, kit: Kit) -> None:
    await begin(edge, kit, "listed-1", nickname="Queen", vip=True)
    await begin(edge, kit, "listed-2")
    async with serving(kit.server.url) as other:
        found = await listed(other, "?keyword=listed-&sort=vip")
        first = found["sessions"][0]
        await do(edge, "listed-1", "takeover", ANN)

        async def sees_ann() -> Any:
            page = await listed(other, "?keyword=listed-1&agent=ann")
            return page["sessions"]

        (taken,) = await until_known(sees_ann)

    assert (found["total"], found["limit"], found["offset"], found["has_more"]) == (2, 50, 0, False)
    assert first["session_name"] == "listed-1"
    assert first["status"] == "pending_manual"
    assert first["escalation"]["reason"] == "manual"
    assert (first["user_profile"]["nickname"], first["priority"]["level"]) == ("Queen", "urgent")
    assert (taken["status"], taken["assigned_agent"]) == (
        "manual_live",
        {"id": "ann", "name": "Ann"},
    )
    assert taken["manual_start_at"] is not None


async def test_a_list_comes_in_pages_and_odd_questions_are_refused(edge: Edge, kit: Kit) -> None:
    for n in range(3):
        await begin(edge, kit, f"paged-{n}")
    one = await listed(edge, "?keyword=paged-&limit=2&sort=oldest")
    two = await listed(edge, "?keyword=paged-&limit=2&offset=2&sort=oldest")
    odd = [
        await call(edge, "GET", f"{SESSIONS}?{query}")
        for query in ("status=asleep", "sort=best", "limit=0", "time_start=now", "agent=mine")
    ]

    names = [each["session_name"] for each in one["sessions"] + two["sessions"]]
    assert names == ["paged-0", "paged-1", "paged-2"]
    assert (one["has_more"], two["has_more"]) == (True, False)
    assert [answer.status_code for answer in odd] == [400] * 5
    assert {answer.json()["code"] for answer in odd} == {"invalid_parameter"}


@pytest.mark.promise("FD-50")
async def test_the_queue_and_the_statistics_tell_who_waits(edge: Edge, kit: Kit) -> None:
    await begin(edge, kit, "queued-1", team="q1", nickname="Ada")
    await begin(edge, kit, "queued-2", team="q1", vip=True)
    queue = (await call(edge, "GET", f"{SESSIONS}/queue?team=q1")).json()["data"]
    stats = (await call(edge, "GET", f"{SESSIONS}/stats?team=q1")).json()["data"]

    assert [one["session_name"] for one in queue["queue"]] == ["queued-2", "queued-1"]
    assert queue["queue"][1]["nickname"] == "Ada"
    assert queue["queue"][1]["last_message"].startswith("hello from queued-1")
    assert (queue["total_count"], queue["vip_count"]) == (2, 1)
    assert stats["by_status"] == {"bot_active": 0, "manual_live": 0, "pending_manual": 2}


@pytest.mark.promise("FD-43", "FD-29")
async def test_the_second_agent_is_told_who_was_first(edge: Edge, kit: Kit) -> None:
    await begin(edge, kit, "taken")
    first, second = await asyncio.gather(
        do(edge, "taken", "takeover", ANN), do(edge, "taken", "takeover", BOB)
    )
    winner, loser = sorted((first, second), key=lambda answer: answer.status_code)
    name = winner.json()["data"]["assigned_agent"]

    assert [winner.status_code, loser.status_code] == [200, 409]
    assert (loser.json()["detail"], loser.json()["assignee"]) == ("ALREADY_TAKEN", name)
    assert loser.headers["x-should-retry"] == "false"


async def test_whose_it_is_gives_it_back_or_hands_it_on(edge: Edge, kit: Kit) -> None:
    await begin(edge, kit, "handed")
    too_early = await do(edge, "handed", "release", ANN)
    await do(edge, "handed", "takeover", ANN)
    wrong = {"from_agent_id": "bob", "to_agent_id": "lea", "reason": "knows more"}
    foreign = await do(edge, "handed", "transfer", wrong)
    missing = await do(edge, "handed", "transfer", {"from_agent_id": "ann"})
    right = {"from_agent_id": "ann", "to_agent_id": "bob", "reason": "knows more", "note": "vip!"}
    handed = await do(edge, "handed", "transfer", right)
    not_hers = await do(edge, "handed", "release", ANN)
    released = await do(edge, "handed", "release", {**BOB, "reason": "resolved"})
    nobody = await do(edge, "handed", "takeover", {})

    assert (too_early.status_code, too_early.json()["detail"]) == (409, "INVALID_STATUS")
    assert (foreign.status_code, foreign.json()["detail"]) == (403, "NOT_YOURS")
    assert missing.status_code == 400
    assert handed.json()["data"]["assigned_agent"] == {"id": "bob", "name": "Bob"}
    assert (not_hers.status_code, not_hers.json()["detail"]) == (403, "NOT_YOURS")
    assert released.json()["data"]["status"] == "bot_active"
    assert (nobody.status_code, nobody.json()["code"]) == (400, "missing_agent")


async def test_a_call_is_cancelled_before_anybody_has_come(edge: Edge, kit: Kit) -> None:
    await begin(edge, kit, "cancelled")
    done = await do(edge, "cancelled", "cancel", {"reason": "never mind"})
    again = await do(edge, "cancelled", "cancel")

    assert (done.json()["data"]["status"], done.json()["changed"]) == ("bot_active", True)
    assert again.json()["changed"] is False


async def test_a_session_is_seen_with_its_record_and_its_last_words(edge: Edge, kit: Kit) -> None:
    await begin(edge, kit, "closely")
    await do(edge, "closely", "takeover", ANN)
    noted = await do(edge, "closely", "note", {"content": "be kind", **ANN})
    known = {"nickname": "Ada", "vip": True}
    told = await do(edge, "closely", "customer", known)
    answer = await call(edge, "GET", f"{SESSIONS}/closely")
    data = answer.json()["data"]
    steps = [one for one in data["audit_trail"] if one["type"] == "transition"]
    notes = [one for one in data["audit_trail"] if one["type"] == "note"]

    assert noted.status_code == 200
    assert told.json()["data"]["user_profile"]["nickname"] == "Ada"
    assert [(one["was"], one["status"]) for one in steps] == [
        ("bot_active", "pending_manual"),
        ("pending_manual", "manual_live"),
    ]
    assert [(one["content"], one["agent_name"]) for one in notes] == [("be kind", "Ann")]
    assert data["session"]["user_profile"]["vip"] is True
    assert [one["role"] for one in data["history"]][:2] == ["user", "assistant"]
    assert data["history"][0]["content"] == "hello from closely"


async def test_what_is_not_there_is_not_there(edge: Edge) -> None:
    for method, path in (("GET", ""), ("GET", "/messages"), ("GET", "/events"), ("POST", "/note")):
        body = {"content": "x", **ANN} if method == "POST" else None
        answer = await call(edge, method, f"{SESSIONS}/nobody{path}", body)

        assert (answer.status_code, answer.json()["code"]) == (404, "conversation_not_found")


async def test_a_letter_needs_a_mailer_and_a_draft_a_person(edge: Edge, kit: Kit) -> None:
    await begin(edge, kit, "beside")
    letter = await do(edge, "beside", "email", {"to": ["team@example.org"]})
    await do(edge, "beside", "takeover", ANN)
    draft = await do(edge, "beside", "draft", {**ANN, "hint": "say yes"})
    unknown = await do(edge, "beside", "draft", {**ANN, "model": "nobody"})

    assert (letter.status_code, letter.json()["code"]) == (503, "mailer_not_deployed")
    assert draft.status_code == 200, draft.text
    assert draft.json()["data"]["run"]
    assert unknown.status_code == 404


async def test_with_a_token_an_agent_is_who_they_are_and_a_lead_may_be_others(
    edge: Edge, kit: Kit
) -> None:
    await begin(edge, kit, "tokens")
    ann, lea = [(await log_in(edge, name))["token"] for name in ("ann", "lea")]
    as_bob = await do(edge, "tokens", "takeover", BOB, token=ann)
    forced = await do(edge, "tokens", "takeover", {"force": True}, token=ann)
    own = await do(edge, "tokens", "takeover", token=ann)
    mine = await listed(edge, "?agent=mine", token=ann)
    for_ann = await do(edge, "tokens", "release", {"agent_id": "ann"}, token=lea)
    to_nobody = {"to_agent_id": "ghost"}
    await do(edge, "tokens", "takeover", token=ann)
    ghost = await do(edge, "tokens", "transfer", to_nobody, token=ann)
    taken_away = await do(edge, "tokens", "release", {"force": True}, token=lea)

    assert (as_bob.status_code, as_bob.json()["detail"]) == (403, "NOT_YOU")
    assert (forced.status_code, forced.json()["code"]) == (403, "missing_scope")
    assert own.json()["data"]["assigned_agent"] == {"id": "ann", "name": "Ann"}
    assert "tokens" in [one["session_name"] for one in mine["sessions"]]
    assert for_ann.json()["data"]["status"] == "bot_active"
    assert ghost.status_code == 422
    assert taken_away.json()["data"]["status"] == "bot_active"


async def test_an_agent_of_another_team_is_told_that_there_is_nothing(edge: Edge, kit: Kit) -> None:
    await begin(edge, kit, "foreign", team="returns")
    ann, lea = [(await log_in(edge, name))["token"] for name in ("ann", "lea")]
    seen = await call(edge, "GET", f"{SESSIONS}/foreign", token=ann)
    missing = await call(edge, "GET", f"{SESSIONS}/nowhere", token=ann)
    taken = await do(edge, "foreign", "takeover", token=ann)

    assert seen.status_code == taken.status_code == 404
    assert seen.json() == missing.json()
    assert "foreign" not in str(await listed(edge, token=ann))
    assert (await call(edge, "GET", f"{SESSIONS}/foreign", token=lea)).status_code == 200


async def test_nor_is_it_read_or_touched_where_customers_are_served(edge: Edge, kit: Kit) -> None:
    await begin(edge, kit, "aloof", team="returns")
    await begin(edge, kit, "theirs")
    ann, lea = [(await log_in(edge, name))["token"] for name in ("ann", "lea")]
    paths = ["/history", "", "/events"]
    reads = [f"/v1/conversations/aloof{path}" for path in paths]
    reads.append("/api/chat/stream?session_name=aloof")
    refused = [(await call(edge, "GET", path, token=ann)).status_code for path in reads]
    typing = await do(edge, "aloof", "typing", token=ann)
    listing = await call(edge, "GET", "/v1/conversations", token=ann)
    led = await call(edge, "GET", reads[0], token=lea)
    forged = await call(
        edge,
        "POST",
        "/api/manual/messages",
        {"session_name": "theirs", "content": "I am content", "role": "user"},
        token=ann,
    )

    assert refused == [404] * len(reads)
    assert typing.status_code == 404
    assert "theirs" in listing.text
    assert "aloof" not in listing.text
    assert led.status_code == 200
    assert (forged.status_code, forged.json()["code"]) == (403, "NOT_YOU")


@pytest.mark.promise("FD-115")
async def test_a_long_history_is_read_a_page_at_a_time_from_the_newest_back(
    edge: Edge, kit: Kit
) -> None:
    await begin(edge, kit, "long")
    count, subject = 1050, subjects.event(history_topic("long"))
    for start in range(0, count, 150):
        await asyncio.gather(
            *(kit.bus.publish(subject, _said(f"message {n}")) for n in range(start, start + 150))
        )
    seen: list[dict[str, Any]] = []
    query, pages, more = "", 0, True
    while more:
        data = (await call(edge, "GET", f"{SESSIONS}/long/messages{query}")).json()["data"]
        seen, more = data["messages"] + seen, data["has_more"]
        query, pages = f"?limit=200&before={data['messages'][0]['id']}", pages + 1

    assert pages == 1 + -(-(len(seen) - FIRST_SCREEN) // 200)
    assert len({one["id"] for one in seen}) == len(seen) == count + 2
    assert [one["id"] for one in seen] == sorted(one["id"] for one in seen)
    assert seen[0]["content"] == "hello from long"


def _said(text: str) -> bytes:
    said = ManualMessage(id=new_id(), role="user", content=text)
    return encode(seal(said, id=new_id(), source="test", subject="long"))


async def test_agents_see_each_other_and_say_how_they_are(edge: Edge, kit: Kit) -> None:
    token = (await log_in(edge, "bob"))["token"]

    async def online() -> Any:
        agents = (await call(edge, "GET", "/api/agent/list", token=token)).json()["agents"]
        return next((one for one in agents if one["presence"] == "online"), None)

    here = await until_known(online)
    busy = await call(edge, "POST", "/api/agent/status", {"presence": "busy"}, token=token)
    greedy = await call(edge, "POST", "/api/agent/status", {"capacity": 50}, token=token)
    clever = await call(edge, "POST", "/api/agent/status", {"skills": ["law"]}, token=token)
    as_guest = await call(edge, "POST", "/api/agent/status", {"presence": "online", **BOB})

    assert here["id"] in ("ann", "bob", "lea")
    assert (busy.status_code, busy.json()["agent"]["presence"]) == (200, "busy")
    assert [greedy.status_code, clever.status_code] == [403, 403]
    assert as_guest.json()["agent"]["presence"] == "online"


async def test_phrases_are_kept_by_team(edge: Edge) -> None:
    path = "/api/agent/quick-replies"
    first = (await call(edge, "GET", path)).json()
    kept = await call(edge, "POST", path, {"title": "Hi", "text": "Hello!"})
    mine = next(one for one in kept.json()["replies"] if one["title"] == "Hi")
    dropped = await call(edge, "DELETE", f"{path}/{mine['id']}")
    missing = await call(edge, "DELETE", f"{path}/nothing")
    empty = await call(edge, "POST", path, {"title": "", "text": "x"})

    assert len(first["replies"]) >= 5
    assert dropped.json()["replies"] == first["replies"]
    assert (missing.status_code, empty.status_code) == (404, 422)


@pytest.mark.promise("FD-47", "FD-60")
async def test_the_hours_of_the_desk_are_told(kit: Kit) -> None:
    calendar = {"timezone": "Asia/Shanghai", "shifts": [{"start": "22:00", "end": "06:00"}]}
    async with (
        running(desk=(Desk, {"calendar": calendar})) as kit,
        serving(kit.server.url) as edge,
    ):
        config = (await call(edge, "GET", "/api/shift/config")).json()["data"]
        status = (await call(edge, "GET", "/api/shift/status")).json()["data"]

    assert (config["shift_start"], config["shift_end"]) == ("22:00", "06:00")
    assert (config["timezone"], config["weekends_disabled"]) == ("Asia/Shanghai", True)
    assert status["deployed"] is True
    assert (status["closes_at"] is None) == (not status["is_in_shift"])
    assert (status["next_opening"] is None) == status["is_in_shift"]
    assert status["current_time"].endswith("+08:00")
