"""The commands `callboard dead …`: what an operator sees of dead letters, and does with them."""

import argparse
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from runtime import dead
from runtime.answers import clip
from runtime.bus import Bus
from runtime.config import duration
from runtime.dead import Done, Letter, Selection
from runtime.deployments import read_deployments
from runtime.errors import NotPossible
from runtime.modules import add_modules
from runtime.open import opened
from runtime.tables import Config
from runtime.terminal.editing import check, check_for_type, edit_in_editor, pretty, set_fields
from runtime.terminal.shown import ago, align, harmless

SHOWN = 50
MOST_SHOWN = 10_000
HEADING = ("letter", "age", "address", "type", "tries", "reason")
REASON_SHOWN = 80

Settle = Callable[[Bus, Letter], Awaitable[Done]]


async def list_letters(config: Config, given: argparse.Namespace) -> int:
    """Print the newest letters, oldest of them first; not what they say."""
    async with opened(config) as bus:
        letters = await dead.newest_letters(bus, _selection(given), given.limit)
    if given.json:
        print(msgspec.json.format(msgspec.json.encode([_facts(each) for each in letters])).decode())
        return 0
    for line in align([HEADING, *map(_row, letters)]) if letters else ["no dead letters"]:
        print(line)
    return 0


async def show_letter(config: Config, given: argparse.Namespace) -> int:
    """Print one letter with what it says."""
    async with opened(config) as bus:
        letter = await dead.find_letter(bus, given.letter)
    if given.json:
        whole = {**_facts(letter), "body": letter.told.body, "body_base64": letter.told.body_base64}
        print(msgspec.json.format(msgspec.json.encode(whole)).decode())
        return 0
    for name, value in _facts(letter).items():
        print(f"{name + ':':<12}{harmless(str(value))}")
    print()
    print(harmless(pretty(letter.body)))
    return 0


async def replay_letters(config: Config, given: argparse.Namespace) -> int:
    """Send letters' messages again, each once."""
    _check_chosen(given, whole="--all" if given.all else "")
    async with opened(config) as bus:
        if given.dry_run:
            return await _try_out(bus, given)
        return await _settle_each(bus, given, dead.replay)


async def discard_letters(config: Config, given: argparse.Namespace) -> int:
    """Settle letters without sending anything."""
    _check_chosen(given, whole="--yes" if given.yes else "")
    async with opened(config) as bus:
        return await _settle_each(bus, given, dead.discard)


async def edit_letter(config: Config, given: argparse.Namespace) -> int:
    """Change a letter's message, and send it."""
    add_modules(config.host.modules)
    async with opened(config) as bus:
        letter = await dead.find_letter(bus, given.letter)
        if letter.settled:
            _say(letter, Done(letter.settled, before=True))
            return 1
        deployment = dead.addressee(letter, await read_deployments(bus))
        body = await _edited(letter, given)
        check(body, letter)
        if unknown := check_for_type(body, letter, deployment):
            print(f"not checked by the type itself, which is not here: {unknown}", file=sys.stderr)
        done = await dead.replay(bus, letter, body)
        _say(letter, done)
    return int(done.before)


async def _edited(letter: Letter, given: argparse.Namespace) -> bytes:
    if given.set:
        return set_fields(letter, given.set)
    if given.file is None:
        return await edit_in_editor(letter)
    try:
        return sys.stdin.buffer.read() if given.file == "-" else Path(given.file).read_bytes()
    except OSError as error:
        raise NotPossible(f"--file {given.file!r}: cannot be read: {error.strerror}") from None


# -- choosing ----------------------------------------------------------------------------------


def _selection(given: argparse.Namespace) -> Selection:
    return Selection(
        actor=given.actor or "",
        key=given.key or "",
        since=given.since,
        reason=given.reason or "",
        settled=getattr(given, "settled", False),
    )


def _check_chosen(given: argparse.Namespace, whole: str) -> None:
    """Letters are named one by one, or chosen by what they are; then that must be meant."""
    chosen = given.actor or given.key or given.since or given.reason
    if bool(given.letters) == bool(chosen):
        raise NotPossible("name letters by their numbers, or choose them by --actor, not both")
    if chosen and not given.actor:
        raise NotPossible("name the actor whose letters are meant: --actor NAME")
    if chosen and not whole:
        word = "--all" if given.name == "dead replay" else "--yes"
        raise NotPossible(f"this means every such letter of {given.actor!r}; say so with {word}")


async def _chosen(bus: Bus, given: argparse.Namespace) -> AsyncIterator[Letter]:
    for seq in given.letters:
        yield await dead.find_letter(bus, seq)
    if not given.letters:
        async for letter in dead.each_letter(bus, _selection(given)):
            yield letter


async def _settle_each(bus: Bus, given: argparse.Namespace, settle: Settle) -> int:
    """Settle letters one after the other, in order; 1 if something else had become of one."""
    wanted = {"replayed", "edited"} if settle is dead.replay else {"discarded"}
    status = count = 0
    async for letter in _chosen(bus, given):
        try:
            done = await settle(bus, letter)
        except NotPossible as fault:
            print(f"callboard: {harmless(str(fault))}", file=sys.stderr)
            status = 1
            continue
        _say(letter, done)
        count += not done.before
        status = status if done.mark.action in wanted else 1
    if not given.letters:
        words = "letter" if count == 1 else "letters"
        print(f"{count} {words} {'replayed' if settle is dead.replay else 'discarded'}")
    return status


async def _try_out(bus: Bus, given: argparse.Namespace) -> int:
    deployments = await read_deployments(bus)
    status = 0
    async for letter in _chosen(bus, given):
        try:
            if letter.settled:
                _say(letter, Done(letter.settled, before=True))
                continue
            dead.addressee(letter, deployments)
            print(f"letter {letter.seq}: would go to {harmless(letter.address)} again")
        except NotPossible as fault:
            print(f"callboard: {harmless(str(fault))}", file=sys.stderr)
            status = 1
    return status


# -- saying ------------------------------------------------------------------------------------


def _say(letter: Letter, done: Done) -> None:
    mark = done.mark
    if done.before:
        print(f"letter {letter.seq} was {mark.action} before, by {harmless(mark.by)}")
    elif done.seq:
        print(f"letter {letter.seq} {mark.action}: {harmless(letter.address)}, message {done.seq}")
    else:
        print(f"letter {letter.seq} {mark.action}: {harmless(letter.address)}")


def _facts(letter: Letter) -> dict[str, Any]:
    return {
        "letter": letter.seq,
        "time": letter.time,
        "address": letter.address,
        "type": letter.type,
        "tries": letter.told.attempts,
        "reason": letter.told.reason,
        "subject": letter.told.subject,
        "message": letter.told.sequence,
        "settled": f"{letter.settled.action} by {letter.settled.by}" if letter.settled else "",
    }


def _row(letter: Letter) -> tuple[str, ...]:
    reason = clip(letter.told.reason, REASON_SHOWN)
    if letter.settled:
        reason = f"[{letter.settled.action}] {reason}"
    return (
        str(letter.seq),
        ago(datetime.now(UTC) - letter.time),
        harmless(letter.address),
        harmless(letter.type) or "?",
        str(letter.told.attempts),
        harmless(reason, lines=False),
    )


# -- arguments ---------------------------------------------------------------------------------


def list_arguments(parser: argparse.ArgumentParser) -> None:
    """What `dead list` takes."""
    _choosing(parser)
    parser.add_argument("--settled", action="store_true", help="those too that were dealt with")
    parser.add_argument(
        "--limit", type=_limit, default=SHOWN, help=f"the newest; {SHOWN} if not given"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def show_arguments(parser: argparse.ArgumentParser) -> None:
    """What `dead show` takes."""
    parser.add_argument("letter", type=number, help="its number, from `dead list`")
    parser.add_argument("--json", action="store_true", help="as JSON")


def replay_arguments(parser: argparse.ArgumentParser) -> None:
    """What `dead replay` takes."""
    parser.add_argument("letters", type=number, nargs="*", help="their numbers, from `dead list`")
    _choosing(parser)
    parser.add_argument("--all", action="store_true", help="all that were chosen")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def edit_arguments(parser: argparse.ArgumentParser) -> None:
    """What `dead edit` takes."""
    parser.add_argument("letter", type=number, help="its number, from `dead list`")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--file", help="the edited message, - for standard input")
    ways.add_argument(
        "--set", action="append", metavar="PATH=VALUE", help="a field, as data.name=Ada"
    )


def discard_arguments(parser: argparse.ArgumentParser) -> None:
    """What `dead discard` takes."""
    parser.add_argument("letters", type=number, nargs="*", help="their numbers, from `dead list`")
    _choosing(parser)
    parser.add_argument("--yes", action="store_true", help="all that were chosen")


def _choosing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--actor", metavar="NAME", help="those of an actor")
    parser.add_argument("--key", help="those of one of its keys")
    parser.add_argument("--since", type=_since, metavar="2h", help="those that are younger")
    parser.add_argument("--reason", metavar="TEXT", help="those with a text in their reason")


def number(text: str) -> int:
    """A sequence; raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number, as `dead list` shows them")
    return int(text)


def _since(text: str) -> timedelta:
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= MOST_SHOWN):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 to {MOST_SHOWN}")
    return int(text)
