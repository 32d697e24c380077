"""The commands `callboard approvals …`: questions that wait for a person, and answering them."""

import argparse
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from runtime.answers import clip
from runtime.ask import ask
from runtime.audit import operator
from runtime.bus import Bus, Stored
from runtime.errors import AskTimeout, NotPossible, Refused
from runtime.open import opened
from runtime.tables import Config
from runtime.terminal.shown import ago, align, harmless
from schemas import subjects
from schemas.approval import APPROVAL, ApprovalState, AskPerson, Decide, Decided
from schemas.base import Address, token
from schemas.envelope import UNREADABLE
from schemas.record import Record

SHOWN = 50
MOST_SHOWN = 10_000
ANSWER_WITHIN = 5.0
HEADING = ("approval", "status", "due", "team", "asker", "question")
EVERY = subjects.state(APPROVAL, "*")

_decode_record = msgspec.json.Decoder(Record).decode
_decode_state = msgspec.json.Decoder(ApprovalState).decode


class Question(NamedTuple):
    """A question by its id, and what is kept of it."""

    id: str
    ask: AskPerson
    state: ApprovalState


async def list_questions(config: Config, given: argparse.Namespace) -> int:
    """Print open questions, the first to be due first; or all, in the order they changed."""
    async with opened(config) as bus:
        found = [one async for one in _read_all(bus, given)]
    if not given.all:
        found.sort(key=lambda one: one.state.due or datetime.max.replace(tzinfo=UTC))
    found = found[-given.limit :] if given.all else found[: given.limit]
    if given.json:
        print(_formatted([_facts(one) for one in found]))
        return 0
    nothing = "no questions" if given.all else "no open questions"
    for line in align([HEADING, *map(_row, found)]) if found else [nothing]:
        print(line)
    return 0


async def show_question(config: Config, given: argparse.Namespace) -> int:
    """Print one question whole, and what it came to."""
    async with opened(config) as bus:
        found = await _find(bus, given.id)
    if given.json:
        print(_formatted(_facts(found)))
        return 0
    for name, value in _facts(found).items():
        if value not in (None, "", {}, [], ()):
            shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            print(f"{name + ':':<14}{harmless(shown)}")
    return 0


async def approve(config: Config, given: argparse.Namespace) -> int:
    """Answer yes; with `--answer` where one is asked for."""
    decide = Decide(decision="approved", answer=_read_answer(given.answer), **_signed(given))
    return await _decide(config, given.id, decide)


async def deny(config: Config, given: argparse.Namespace) -> int:
    """Answer no."""
    return await _decide(config, given.id, Decide(decision="denied", **_signed(given)))


async def give_answer(config: Config, given: argparse.Namespace) -> int:
    """Answer with what is asked for."""
    decide = Decide(decision="answered", answer=_read_answer(given.answer), **_signed(given))
    return await _decide(config, given.id, decide)


async def _decide(config: Config, id: str, decide: Decide) -> int:
    async with opened(config) as bus:
        await _find(bus, id)  # nothing is kept of an answer to what nobody has asked
        try:
            done = await ask(bus, Address(APPROVAL, id), decide, timeout=ANSWER_WITHIN)
        except Refused as refused:
            refusal = refused.refusal
            raise NotPossible(f"{id}: {refusal.code}: {harmless(refusal.detail)}") from None
        except AskTimeout:
            print(f"{harmless(id)}: stored, and taken once a host has it")
            return 0
    print(f"{harmless(id)}: {harmless(_outcome(done))}")
    return 0


async def _read_all(bus: Bus, given: argparse.Namespace) -> AsyncIterator[Question]:
    async for page in bus.pages(EVERY, after=0):
        for stored in page:
            found = _read(stored)
            if found is None or (found.state.decided is not None and not given.all):
                continue
            if given.team in ("", found.ask.team):
                yield found


async def _find(bus: Bus, id: str) -> Question:
    stored = await bus.last(subjects.state(APPROVAL, token(id)))
    found = _read(stored) if stored else None
    if found is None:
        raise NotPossible(f"there is no question {id!r}; `callboard approvals list` names them")
    return found


def _read(stored: Stored) -> Question | None:
    try:
        record = _decode_record(stored.data)
        state = _decode_state(record.data) if record.data else ApprovalState()
    except UNREADABLE:
        return None
    return Question(record.key, state.ask, state) if state.ask is not None else None


def _read_answer(text: str | None) -> Any:
    """An answer as JSON; what is none is a text."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except UNREADABLE:
        return text


def _signed(given: argparse.Namespace) -> dict[str, str]:
    return {"by": given.by or operator(), "note": given.note}


def _outcome(decided: Decided) -> str:
    answer = "" if decided.answer is None else f" {msgspec.json.encode(decided.answer).decode()}"
    by = f" by {decided.by}" if decided.by else ""
    return f"{decided.decision}{answer}{by}" + (f" ({decided.note})" if decided.note else "")


def _row(one: Question) -> tuple[str, ...]:
    status = one.state.decided.decision if one.state.decided else "open"
    left = one.state.due - datetime.now(UTC) if one.state.due and status == "open" else None
    cells = (one.id, status, f"in {ago(left)}" if left else "", one.ask.team, one.ask.asker)
    return tuple(harmless(clip(cell, 80), lines=False) for cell in (*cells, one.ask.question))


def _facts(one: Question) -> dict[str, Any]:
    """All that is known, as plain data."""
    decided = one.state.decided
    return {
        "id": one.id,
        "status": decided.decision if decided else "open",
        **msgspec.to_builtins(one.ask),
        "asked": f"{one.state.asked:%Y-%m-%dT%H:%M:%SZ}" if one.state.asked else "",
        "due": f"{one.state.due:%Y-%m-%dT%H:%M:%SZ}" if one.state.due else "",
        "decided": msgspec.to_builtins(decided) if decided else None,
    }


def _formatted(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode()


def list_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `approvals list` takes."""
    parser.add_argument("--all", action="store_true", help="also those that have an answer")
    parser.add_argument("--team", default="", help="only of this team")
    parser.add_argument("--limit", type=_limit, default=SHOWN, metavar="N")
    parser.add_argument("--json", action="store_true", help="as JSON")


def show_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `approvals show` takes."""
    parser.add_argument("id", help="as `approvals list` shows it")
    parser.add_argument("--json", action="store_true", help="as JSON")


def deny_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `approvals deny` takes."""
    parser.add_argument("id", help="as `approvals list` shows it")
    parser.add_argument("--by", default="", metavar="NAME", help="in whose name; yours by default")
    parser.add_argument("--note", default="", help="a word to whoever asked")


def approve_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `approvals approve` takes."""
    deny_arguments(parser)
    parser.add_argument("--answer", default=None, metavar="JSON", help="where one is asked for")


def answer_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `approvals answer` takes."""
    deny_arguments(parser)
    parser.add_argument("--answer", required=True, metavar="JSON", help="JSON, or a plain text")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_SHOWN):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 to {MOST_SHOWN}")
    return int(text)
