"""The board against a stream of changes: read once, then heard, also where something is lost."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from actors.session import Session
from edge.board import Board
from edge.remembered import Remembered
from edge.shared import Shared
from runtime.bus import Bus
from runtime.connection import Connection
from runtime.streams import ensure_streams
from runtime.testing import Kit, running
from schemas import subjects
from schemas.base import Address
from schemas.ownership import Assignee, Cancel, Case, Escalate, TakeOver, desk_topic
from tests.integration.waiting import until_known

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANN = Assignee("ann", "Ann")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(session=Session) as kit:
        yield kit


@pytest_asyncio.fixture(loop_scope="module")
async def shared(kit: Kit) -> AsyncIterator[Shared]:
    link = Connection([kit.server.url])
    await link.open()
    bus = Bus(link)
    await ensure_streams(bus)
    shared = Shared(bus)
    yield shared
    await shared.close()
    await link.close()


def board_of(shared: Shared, **options: Any) -> Board:
    board = Board(shared, Remembered(shared), **options)
    shared.at_close.append(board.close)
    return board


async def call(kit: Kit, name: str, team: str = "support") -> Case:
    asked = Escalate(desk=True, team=team)
    return (await kit.ask(Address("session", name), asked)).case


async def test_the_board_is_what_the_sessions_keep(kit: Kit, shared: Shared) -> None:
    cases = [await call(kit, f"kept-{n}", f"team{n % 3}") for n in range(9)]
    board = board_of(shared)
    await board.settled()
    found = await board.cases()

    assert {name: found[name] for name in (case.session for case in cases)} == {
        case.session: case for case in cases
    }
    assert {"team0", "team1", "team2"} <= set(board.teams)


async def test_changes_are_heard_and_a_new_team_is_found(kit: Kit, shared: Shared) -> None:
    board = board_of(shared)
    await board.settled()
    await call(kit, "moves", "brand-new")
    await board.settled()
    pending = (await board.cases())["moves"]
    await kit.ask(Address("session", "moves"), TakeOver(agent=ANN))
    await board.settled()
    live = (await board.cases())["moves"]

    assert (pending.mode, live.mode, live.assignee) == ("pending_manual", "manual_live", ANN)
    assert "brand-new" in board.teams


async def test_what_was_not_heard_is_read(kit: Kit, shared: Shared) -> None:
    board = board_of(shared)
    await call(kit, "unheard")
    await board.settled()
    feed = shared.hub._feeds[subjects.event(desk_topic("support"))]
    # As if the server had lost what it repeats.
    shared.bus.unsubscribe(feed.handle)
    await kit.ask(Address("session", "unheard"), TakeOver(agent=ANN))
    await board.settled()
    case = (await board.cases())["unheard"]
    feed.handle = shared.bus.subscribe(f"live.{feed.subject}", feed._hear)

    assert (case.mode, case.assignee) == ("manual_live", ANN)


async def test_a_hole_means_reading_again(kit: Kit, shared: Shared) -> None:
    board = board_of(shared)
    await call(kit, "holed")
    await board.settled()
    shared.bus.unsubscribe(shared.hub._feeds[subjects.event(desk_topic("support"))].handle)
    await kit.ask(Address("session", "holed"), TakeOver(agent=ANN))
    # As after another stream has taken the place of the one that was followed.
    shared.hub._stream = "another"
    shared.hub._doubted.set()

    async def sees() -> bool:
        return (await board.cases())["holed"].mode == "manual_live"

    await until_known(sees)


async def test_of_too_many_cases_those_go_first_that_nobody_waits_in(
    kit: Kit, shared: Shared
) -> None:
    before = board_of(shared)
    await before.settled()
    there = len(await before.cases())
    for n in range(6):
        await call(kit, f"many-{n}")
    for n in range(3):
        await kit.ask(Address("session", f"many-{n}"), Cancel(desk=True))
    board = board_of(shared, most=there + 5)
    await board.settled()
    found = await board.cases()

    assert len(found) <= there + 5
    assert {"many-3", "many-4", "many-5"} <= set(found)
    assert "many-0" not in found


async def test_many_changes_at_once_end_as_the_sessions_have_it(kit: Kit, shared: Shared) -> None:
    board = board_of(shared)
    await board.settled()
    names = [f"busy-{n}" for n in range(12)]

    async def live(name: str) -> Case:
        to = Address("session", name)
        for _ in range(3):
            await call(kit, name)
            await kit.ask(to, Cancel(desk=True))
        await call(kit, name)
        return (await kit.ask(to, TakeOver(agent=ANN))).case

    last = await asyncio.gather(*(live(name) for name in names))
    await board.settled()
    found = await board.cases()

    assert [found[case.session] for case in last] == list(last)
