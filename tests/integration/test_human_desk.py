"""A desk on a real host: offers, silence, a way back into the queue, and letters after hours."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from actors.batch import Batch
from actors.desk import Desk
from actors.human_agent import HumanAgent
from actors.mailer import Mailer
from actors.session import Session
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.deployment import Deployment
from schemas.desk import Attend, DeskState, MailCase, Seen
from schemas.model import conversation_topic
from schemas.ownership import (
    Assignee,
    AssigneeChanged,
    Customer,
    Escalate,
    Hold,
    MailNoted,
    ManualMessage,
    ModeChanged,
    SayManual,
    SlaAlert,
    TakeOver,
    desk_topic,
    internal_topic,
)
from tests.integration.waiting import until_known
from tests.unit.post_office import PostOffice, post_office

DESK = Address("desk", "support")
ANN, BOB = Assignee("ann", "Ann"), Assignee("bob", "Bob")
SECOND = timedelta(seconds=1)


def session(name: str) -> Address:
    return Address("session", name)


def agent(who: Assignee) -> Address:
    return Address("human_agent", who.id)


def actors(**desk: Any) -> dict[str, Any]:
    return {
        "session": Session,
        "batch": Batch,
        "desk": (Desk, desk),
        "human_agent": HumanAgent,
    }


async def come(kit: Kit, who: Assignee) -> None:
    await kit.ask(agent(who), Attend(name=who.name, presence="online"))


async def hold_of(kit: Kit, name: str) -> Hold:
    hold = (await kit.state(session(name))).hold
    assert isinstance(hold, Hold)
    return hold


async def holder(kit: Kit, name: str) -> tuple[str, str]:
    """How a conversation stands once everybody has heard of everything."""
    await kit.settled()
    hold = await hold_of(kit, name)
    return hold.mode, hold.assignee.id if hold.assignee else ""


@pytest.mark.promise("FD-43", "FD-45")
async def test_who_falls_silent_loses_a_case_to_who_is_there_and_the_customer_hears_once() -> None:
    async with running(**actors(grace="60s")) as kit:
        await come(kit, ANN)
        await kit.ask(session("s1"), Escalate(details="help"))
        offered = await holder(kit, "s1")
        await kit.ask(session("s1"), TakeOver(agent=ANN))
        await kit.ask(session("s1"), SayManual(content="hello?", role="user"))
        await come(kit, BOB)
        for _ in range(10):
            await kit.advance(10 * SECOND)
            await kit.ask(agent(BOB), Attend())
            await kit.settled()
        standing = await holder(kit, "s1")
        steps = await kit.events(conversation_topic("s1"), ModeChanged)
        offers = await kit.events(conversation_topic("s1"), AssigneeChanged)
        waits = (await hold_of(kit, "s1")).waiting_since
        taken = (await kit.ask(session("s1"), TakeOver(agent=BOB))).case

        assert offered == ("pending_manual", "ann")
        assert standing == ("pending_manual", "bob")
        assert [one.reason for one in steps][2:] == ["lost", "lost"]
        assert [bool(one.notice) for one in steps][2:] == [False, True]
        assert [one.assignee for one in offers] == [ANN, BOB]
        assert waits is not None
        assert taken.assignee == BOB
        assert await kit.dead_letters() == []


async def test_an_offer_that_is_not_taken_goes_to_the_next_agent_and_is_told() -> None:
    async with running(**actors(offer="20s")) as kit:
        for who in (ANN, BOB):
            await come(kit, who)
        await kit.ask(session("s1"), Escalate())
        first = await holder(kit, "s1")
        for who in (ANN, BOB):
            await kit.tell(agent(who), Seen())
        await kit.advance(20 * SECOND)
        second = await holder(kit, "s1")
        alert = await kit.event(desk_topic("support"), SlaAlert)

    assert (first[1], second[1]) == ("ann", "bob")
    assert (alert.kind, alert.limit, alert.case.session) == ("offer", 20, "s1")


async def test_where_no_desk_and_no_agent_is_deployed_people_still_take_over() -> None:
    async with running(session=Session, batch=Batch) as kit:
        await kit.ask(session("s1"), Escalate())
        taken = await kit.ask(session("s1"), TakeOver(agent=ANN))

    assert taken.case.mode == "manual_live"


# -- after hours ---------------------------------------------------------------------------


def closed(now: datetime) -> dict[str, Any]:
    """A calendar by which it is closed now, and opens some days later."""
    later = now + timedelta(days=3)
    return {"timezone": "UTC", "shifts": [{"days": [later.isoweekday()]}]}


def mailer(office: PostOffice, **more: Any) -> Deployment:
    options = {
        "host": "127.0.0.1",
        "port": office.port,
        "security": "plain",
        "sender": "desk@example.com",
        "to": ["team@example.com"],
        "link": "https://desk.example/workbench?session={session}",
        "backoff": "100ms",
        **more,
    }
    return Deployment(
        name="mailer", type="actors.mailer:Mailer", kind="worker", options=options, attempts=3
    )


async def noted(kit: Kit, name: str) -> MailNoted:
    """What the record of a conversation says of its letter."""
    return await kit.event(internal_topic(name), MailNoted)


@pytest.mark.promise("FD-31", "FD-48", "FD-61")
async def test_what_comes_after_hours_is_written_to_the_team_though_the_server_puts_it_off() -> (
    None
):
    async with post_office() as office:
        office.greylists = 1
        kit_actors = actors(calendar=closed(datetime.now().astimezone()))
        async with running(**kit_actors, mailer=(Mailer, mailer(office))) as kit:
            await kit.ask(
                session("s1"), Escalate(details="refund", customer=Customer(nickname="Zoë"))
            )
            await kit.ask(session("s1"), SayManual(content="I want my money", role="user"))
            told = await noted(kit, "s1")
            hold = await hold_of(kit, "s1")
            said = await kit.events(conversation_topic("s1"), ManualMessage)

    [letter] = office.letters
    body = letter.get_body(("plain",))
    assert body is not None
    assert (told.sent, told.to) == (True, ("team@example.com",))
    assert letter["Subject"] == "Zoë waits for a person (medium)"
    assert "https://desk.example/workbench?session=s1" in body.get_content()
    assert hold.mode == "pending_manual"
    assert hold.closed_until is not None
    assert hold.closed_until > datetime.now().astimezone()
    assert {one.role for one in said} == {"system", "user"}


@pytest.mark.promise("FD-36", "FD-61")
async def test_a_letter_that_cannot_be_sent_is_told_and_harms_nothing() -> None:
    async with post_office() as office:
        office.says = {"MAIL": "451 come again"}
        kit_actors = actors(calendar=closed(datetime.now().astimezone()))
        async with running(**kit_actors, mailer=(Mailer, mailer(office))) as kit:
            await kit.ask(session("s1"), Escalate())
            told = await noted(kit, "s1")
            taken = await kit.ask(session("s1"), TakeOver(agent=ANN))
            await kit.settled()
            state = await kit.state(DESK)
            [letter] = await kit.dead_letters()

    assert not told.sent
    assert "451 come again" in told.reason
    assert taken.case.mode == "manual_live"
    assert isinstance(state, DeskState)
    assert (state.mails, state.taken["s1"].agent) == ({}, "ann")
    assert letter.attempts == 3


async def test_a_letter_may_be_asked_for_at_any_time() -> None:
    async with (
        post_office() as office,
        running(**actors(), mailer=(Mailer, mailer(office))) as kit,
    ):
        await kit.ask(session("s1"), Escalate())
        await kit.ask(DESK, MailCase(session="s1"))
        sent = await noted(kit, "s1")
        await kit.ask(DESK, MailCase(session="s1", to=("eve@evil.example",)))
        refused = await noted(kit, "s1")

    assert (sent.sent, refused.sent) == (True, False)
    assert "recipient_not_allowed" in refused.reason
    assert len(office.letters) == 1


async def test_a_letter_whose_answer_was_lost_comes_twice_under_one_id() -> None:
    async with post_office() as office:
        office.drops = 1
        async with running(**actors(), mailer=(Mailer, mailer(office))) as kit:
            await kit.ask(session("s1"), Escalate())
            await kit.ask(DESK, MailCase(session="s1"))
            told = await noted(kit, "s1")

    assert told.sent
    assert len(office.letters) == 2
    assert len({one["Message-ID"] for one in office.letters}) == 1


async def test_in_the_morning_what_waited_is_offered() -> None:
    now = datetime.now().astimezone()
    async with running(**actors(calendar=closed(now))) as kit:
        await come(kit, ANN)
        await kit.ask(session("s1"), Escalate())
        at_night = await holder(kit, "s1")
        opens = (await hold_of(kit, "s1")).closed_until
        assert opens is not None
        await kit.advance(opens - kit.clock.now() - 10 * SECOND)
        await kit.settled()
        await kit.ask(agent(ANN), Attend(presence="online"))
        early = await holder(kit, "s1")
        await kit.advance(11 * SECOND)

        async def is_offered() -> bool:
            return (await holder(kit, "s1"))[1] == "ann"

        await until_known(is_offered)

    assert (at_night[1], early[1]) == ("", "")
