"""Drafts for an agent, as the session keeps them: started, bounded, and stopped."""

from datetime import timedelta
from typing import Any

import pytest

from actors.drafts import HINT, MOST_DRAFTS, MOST_HINT, WITHIN
from actors.live import GRACE
from actors.session import Session
from actors.session_options import DRAFT_PROMPT, SessionOptions
from runtime.actor import read_options
from runtime.errors import ConfigError
from schemas.assist import DraftOpened, DraftWritten, WriteDraft
from schemas.model import Generate, Generated, Text
from schemas.ownership import Cancel, Escalate, Release, Requeue
from schemas.record import RunFailed
from tests.unit.deskside import ANN, BOB, Desk


@pytest.fixture
def desk() -> Desk:
    """A conversation that Ann has."""
    desk = Desk()
    desk.open()
    desk.take()
    return desk


def draft(desk: Desk, **more: Any) -> Any:
    return desk.ask(WriteDraft(**{"agent": ANN, "actor": "one", **more}))


def job(desk: Desk) -> Generate:
    return list(desk.world.jobs.values())[-1]


def prompt_of(job: Generate) -> str:
    [message] = job.prompt.messages
    return "".join(part.text for part in message.content if isinstance(part, Text))


def drafts(desk: Desk) -> dict[str, Any]:
    return desk.state.drafts


def test_a_draft_is_a_run_of_its_own_that_is_heard_by_colleagues_only(desk: Desk) -> None:
    opened = draft(desk, hint=" be brief ", model="the good one")
    made = job(desk)

    assert isinstance(opened, DraftOpened)
    assert list(drafts(desk)) == [opened.run]
    assert desk.state.live == {}
    assert (made.aside, made.remember, made.thread, made.model) == (True, False, "", "the good one")
    assert prompt_of(made) == f"{DRAFT_PROMPT}\n\n{HINT}\nbe brief"
    assert made.context is not None
    assert (made.context.after, made.context.turns) == (desk.state.marks[0], 10)
    assert desk.world.runs[opened.run].topic == "internal/c"
    assert desk.world.runs[opened.run].resultto == ""


def test_without_a_hint_the_instruction_is_the_deployments(desk: Desk) -> None:
    draft(desk)

    assert prompt_of(job(desk)) == DRAFT_PROMPT


@pytest.mark.parametrize("prompt", ["", "  ", "x" * 4001])
def test_an_instruction_that_is_none_is_refused_at_the_deployment(prompt: str) -> None:
    with pytest.raises(ConfigError, match="draft_prompt: expected 1 to 4000 characters"):
        read_options(Session, "session", {"draft_prompt": prompt})
    assert SessionOptions(draft_prompt="Write.").draft_prompt == "Write."


@pytest.mark.parametrize(
    ("more", "code", "status"),
    [
        ({"actor": "nobody"}, "model_not_found", 404),
        ({"actor": "session"}, "model_not_found", 404),
        ({"hint": "x" * (MOST_HINT + 1)}, "hint_too_large", 413),
        ({"model": "m" * 201}, "invalid_model", 422),
        ({"model": "a\0"}, "invalid_model", 422),
    ],
)
def test_what_cannot_be_drafted_is_refused(
    desk: Desk, more: dict[str, Any], code: str, status: int
) -> None:
    refused = draft(desk, **more)

    assert (refused.code, refused.status) == (code, status)
    assert drafts(desk) == {}


def test_only_where_a_person_has_it_or_is_waited_for() -> None:
    desk = Desk()
    nowhere = draft(desk)
    desk.open()
    bots = draft(desk)
    desk.ask(Escalate())
    waiting = draft(desk)

    assert (nowhere.code, nowhere.status) == ("conversation_not_found", 404)
    assert (bots.code, bots.status) == ("INVALID_STATUS", 409)
    assert isinstance(waiting, DraftOpened)


def test_so_many_at_once_and_no_more(desk: Desk) -> None:
    opened = [draft(desk) for _ in range(MOST_DRAFTS)]
    refused = draft(desk)
    desk.world.end(opened[0].run, Generated(task="t", batch="b"))
    again = draft(desk)

    assert (refused.code, refused.status) == ("too_many_runs", 429)
    assert isinstance(again, DraftOpened)
    assert len(drafts(desk)) == MOST_DRAFTS


def test_a_takeover_and_a_transfer_leave_drafts_alone() -> None:
    desk = Desk()
    desk.open()
    desk.ask(Escalate())
    opened = draft(desk)
    desk.take(BOB)

    assert list(drafts(desk)) == [opened.run]
    assert opened.run in desk.world.runs


@pytest.mark.parametrize("how", ["release", "cancel", "requeue"])
def test_nobody_reads_a_draft_once_the_bot_is_back(how: str) -> None:
    desk = Desk()
    desk.open()
    desk.ask(Escalate()) if how == "cancel" else desk.take()
    opened = draft(desk)
    epoch = desk.hold.epoch
    ends = {"release": Release(agent="ann"), "cancel": Cancel(), "requeue": Requeue(epoch=epoch)}
    desk.ask(ends[how])
    [told] = desk.told(DraftWritten)

    assert drafts(desk) == {}
    assert opened.run not in desk.world.runs
    assert (told.run, told.text) == (opened.run, "")
    assert told.reason
    assert desk.told(DraftWritten, "internal") == [told]


def test_a_draft_that_nobody_could_write_is_told_to_colleagues(desk: Desk) -> None:
    opened = draft(desk)
    gone = RunFailed(run=opened.run, reason="no result within 0:10:00", attempts=5)
    desk.world.end(opened.run, gone)
    desk.wait(0)

    assert drafts(desk) == {}
    assert desk.told(DraftWritten, "internal") == [
        DraftWritten(run=opened.run, reason="no result within 0:10:00")
    ]


def test_a_draft_of_which_nothing_comes_is_swept(desk: Desk) -> None:
    first = draft(desk)
    desk.wait(60)
    second = draft(desk)
    desk.wait((WITHIN + GRACE - timedelta(seconds=30)).total_seconds())
    left = list(drafts(desk))
    desk.wait(60)

    assert left == [second.run]
    assert [one.run for one in desk.told(DraftWritten)] == [first.run, second.run]
    assert drafts(desk) == {}
