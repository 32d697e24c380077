"""`callboard approvals …` as its users run it."""

import asyncio
from collections.abc import AsyncIterator
from subprocess import CompletedProcess
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from actors.approval import Approval
from runtime.testing import Kit, running
from schemas.approval import APPROVAL, ApprovalState, AskPerson
from schemas.base import Address
from tests.integration.persons import applied
from tests.integration.test_commands import callboard

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(approval=Approval) as kit:
        yield kit


async def ask(kit: Kit, id: str, **more: Any) -> None:
    to = Address(APPROVAL, id)
    fields = {"question": "Pay?", "asker": "clerk/c", **more}
    await kit.tell(to, msgspec.convert(fields, AskPerson))
    await applied(kit, to)


async def approvals(kit: Kit, *words: object) -> CompletedProcess[str]:
    return await asyncio.to_thread(callboard, "approvals", *words, url=kit.server.url)


async def test_questions_are_listed_shown_and_answered(kit: Kit) -> None:
    await ask(kit, "q1", choices=("S", "M"), seconds=600, details={"size": "\x1b[2J"})
    await ask(kit, "q2", question="Ship?\nNow?", seconds=60)
    listed = await approvals(kit, "list")
    shown = await approvals(kit, "show", "q1")
    answered = await approvals(
        kit, "answer", "q1", "--answer", "M", "--by", "ann", "--note", "fits"
    )
    denied = await approvals(kit, "deny", "q2")
    left = await approvals(kit, "list")
    everything = msgspec.json.decode((await approvals(kit, "list", "--all", "--json")).stdout)
    state: ApprovalState = await kit.state(Address(APPROVAL, "q1"))

    lines = listed.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["approval", "q2", "q1"]
    assert lines[1].endswith("Ship?\\nNow?")
    assert "choices:" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert answered.stdout == 'q1: answered "M" by ann (fits)\n'
    assert denied.stdout.startswith("q2: denied by ")
    assert left.stdout == "no open questions\n"
    assert [(one["id"], one["status"]) for one in everything] == [
        ("q1", "answered"),
        ("q2", "denied"),
    ]
    assert state.decided is not None
    assert (state.decided.answer, state.decided.by) == ("M", "ann")


async def test_what_cannot_be_answered_is_told_with_the_reason(kit: Kit) -> None:
    await ask(kit, "q3", answers={"type": "integer"})
    unfit = await approvals(kit, "approve", "q3", "--answer", '{"a": 1}')
    first = await approvals(kit, "approve", "q3", "--answer", "5", "--by", "ann")
    late = await approvals(kit, "deny", "q3", "--by", "bob")
    nobody = await approvals(kit, "show", "none")

    assert (unfit.returncode, first.returncode, late.returncode, nobody.returncode) == (1, 0, 1, 1)
    assert 'answer_invalid: /answer: {"a":1} is not right: type is "integer"' in unfit.stderr
    assert "ALREADY_DECIDED: it was approved with 5 by ann" in late.stderr
    assert "there is no question 'none'" in nobody.stderr
    assert await kit.record(Address(APPROVAL, "none")) is None
