"""Dead letters: finding them, and settling each one once, by a replay or a discard.

A letter, a mark that it is settled and what was sent in its place share the stream, so one
atomic commit does it all. The commands are in runtime/terminal/workbench.py.
"""

import base64
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from runtime.audit import note, operator
from runtime.bus import Bus, Outgoing, Stored, expect, expiry, new_id
from runtime.deployments import read_deployments
from runtime.errors import Conflict, NotPossible, Unknown
from runtime.turn import DAY, DEAD_TTL, MOST_BYTES, ROLLUP, run_ttl
from schemas import subjects
from schemas.base import token
from schemas.deployment import Deployment
from schemas.envelope import UNREADABLE, Envelope, decode_any, encode, seal
from schemas.record import DeadLetter, RunRecord, Settled

SETTLED_TTL = DEAD_TTL + DAY
"""A mark outlives its letter, which could be replayed a second time otherwise."""
TRIES = 5

Deployments = Mapping[str, Deployment]

_decode_run = msgspec.json.Decoder(RunRecord).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Letter:
    """One dead letter as the stream holds it. `key` is the unhashed one where that is known."""

    def __init__(self, stored: Stored, settled: Settled | None = None) -> None:
        self.seq = stored.seq
        self.time = stored.time
        _, self.actor, self.token = subjects.parts(stored.subject)
        self.settled = settled
        try:
            self.told = msgspec.json.decode(decode_any(stored.data).data, type=DeadLetter)
        except UNREADABLE:
            text = stored.data.decode("utf-8", "replace")
            self.told = DeadLetter(subject="", sequence=0, reason="not a dead letter", body=text)
        self.body = _body(self.told)
        self.envelope = _envelope(self.body)
        self.key = self.token
        if self.envelope is not None and token(self.envelope.subject) == self.token:
            self.key = self.envelope.subject

    @property
    def address(self) -> str:
        """Whom it did not reach."""
        return f"{self.actor}/{self.key}"

    @property
    def type(self) -> str:
        """What kind of message it is, or nothing if that cannot be read."""
        return self.envelope.type if self.envelope else ""


def _body(told: DeadLetter) -> bytes:
    if not told.body_base64:
        return told.body.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(told.body_base64)
    except ValueError:
        return b""


def _envelope(body: bytes) -> Envelope[msgspec.Raw] | None:
    try:
        return decode_any(body)
    except UNREADABLE:
        return None


# -- finding -----------------------------------------------------------------------------------


class Selection(msgspec.Struct, kw_only=True):
    """Which letters: of an actor, a key, not older than `since`, with words in their reason."""

    actor: str = ""
    key: str = ""
    since: timedelta | None = None
    reason: str = ""
    settled: bool = False
    """Those too that were replayed or discarded."""

    @property
    def pattern(self) -> str:
        """The subjects to look at. Raises NotPossible for a name that no actor can have."""
        if self.actor and not subjects.ACTOR_NAME.fullmatch(self.actor):
            raise NotPossible(f"--actor {self.actor!r}: no actor can be called so")
        return subjects.dead(self.actor or "*", token(self.key) if self.key else "*")

    def has(self, letter: Letter) -> bool:
        """Whether a letter on these subjects is one of them."""
        if letter.settled and not self.settled:
            return False
        if self.since is not None and datetime.now(UTC) - letter.time > self.since:
            return False
        return self.reason.lower() in letter.told.reason.lower()


async def each_letter(bus: Bus, selection: Selection) -> AsyncIterator[Letter]:
    """The letters of a selection that are there now, oldest first."""
    # What is replayed may die again at once, and must not be replayed for ever.
    end = int((await bus.api(f"STREAM.INFO.{bus.stream}"))["state"]["last_seq"])
    marks = {mark.letter: mark for mark in await _marks(bus)}
    after = 0
    while page := await bus.read(selection.pattern, after=after):
        after = page[-1].seq
        for stored in (one for one in page if one.seq <= end):
            if _is_letter(stored) and selection.has(
                letter := Letter(stored, marks.get(stored.seq))
            ):
                yield letter
        if page[-1].pending == 0 or after >= end:
            return


async def newest_letters(bus: Bus, selection: Selection, limit: int) -> list[Letter]:
    """The newest letters of a selection, oldest of them first."""
    newest: deque[Letter] = deque(maxlen=limit)
    async for letter in each_letter(bus, selection):
        newest.append(letter)
    return list(newest)


async def find_letter(bus: Bus, seq: int) -> Letter:
    """The letter at a sequence, settled or not. Raises NotPossible if there is none."""
    stored = await bus.at(seq)
    if stored is None:
        raise NotPossible(
            f"there is no message {seq}: it never was, or its time is over"
            f" (a dead letter is kept {DEAD_TTL.days} days); see `callboard dead list`"
        )
    if not _is_letter(stored):
        raise NotPossible(
            f"message {seq} is no dead letter, it is on {stored.subject!r};"
            " see `callboard dead list` for the numbers of letters"
        )
    mark = await _mark(bus, seq)
    return Letter(stored, mark[1] if mark else None)


def _is_letter(stored: Stored) -> bool:
    try:
        return subjects.parts(stored.subject)[0] == "dead"
    except ValueError:
        return False


async def _marks(bus: Bus) -> list[Settled]:
    found = [_read_mark(stored) for stored in await bus.lasts(subjects.settled("*"))]
    return [mark for mark in found if mark is not None]


async def _mark(bus: Bus, seq: int) -> tuple[str, Settled] | None:
    """The mark of a letter with the id that it was written under."""
    stored = await bus.last(subjects.settled(seq))
    mark = _read_mark(stored) if stored else None
    return (decode_any(stored.data).id, mark) if stored and mark else None


def _read_mark(stored: Stored) -> Settled | None:
    try:
        return msgspec.json.decode(decode_any(stored.data).data, type=Settled)
    except UNREADABLE:
        return None


# -- settling ----------------------------------------------------------------------------------


class Done(msgspec.Struct):
    """What came of settling a letter: its mark, and where its replay stands, if this made one."""

    mark: Settled
    seq: int = 0
    before: bool = False
    """It was settled before; nothing was done now."""


async def discard(bus: Bus, letter: Letter) -> Done:
    """Settle a letter for good. It stays readable until its time is over."""
    return await _settle(bus, letter, "discarded", _nothing)


async def replay(bus: Bus, letter: Letter, body: bytes | None = None) -> Done:
    """Send a letter's message again, or an edited `body`; once, however often this is called.

    Raises NotPossible if there is nobody to send it to.
    """
    deployments = await read_deployments(bus)
    whole = await _whole(bus, letter) if body is None else body
    deployment = addressee(letter, deployments)

    async def messages() -> list[Outgoing]:
        return await _messages(bus, letter, whole, deployment)

    return await _settle(bus, letter, "replayed" if body is None else "edited", messages)


def addressee(letter: Letter, deployments: Deployments) -> Deployment:
    """Who is to have a letter's message. Raises NotPossible if that is nobody."""
    try:
        kind, actor, key = subjects.parts(letter.told.subject)
        subjects.again(letter.told.subject)
    except ValueError:
        raise NotPossible(
            f"letter {letter.seq} does not say where it came from; it can only be discarded"
        ) from None
    # Whoever may write letters must not have an operator send things to others.
    if (actor, key) != (letter.actor, letter.token):
        raise NotPossible(
            f"letter {letter.seq} of {letter.actor}/{letter.token} names another's mailbox,"
            f" {letter.told.subject!r}; it can only be discarded"
        )
    found = deployments.get(actor)
    if found is None:
        raise NotPossible(f"letter {letter.seq}: no actor {actor!r} is deployed; deploy it first")
    if (kind == "mail") != (found.kind == "keyed"):
        raise NotPossible(
            f"letter {letter.seq} is {'mail' if kind == 'mail' else 'a job'}, and {actor!r} is"
            f" deployed as {found.kind}; it can only be discarded"
        )
    return found


async def _nothing() -> list[Outgoing]:
    return []


async def _whole(bus: Bus, letter: Letter) -> bytes:
    """A letter's message; a very large one was cut, and is taken from where it was."""
    if len(letter.body) < MOST_BYTES or not letter.told.body_base64:
        return letter.body
    stored = await bus.at(letter.told.sequence)
    if stored is None or stored.subject != letter.told.subject:
        raise NotPossible(
            f"letter {letter.seq} keeps the first {MOST_BYTES} bytes only, and the message itself"
            " is gone; it can be edited or discarded"
        )
    return stored.data


async def _messages(
    bus: Bus, letter: Letter, body: bytes, deployment: Deployment
) -> list[Outgoing]:
    """What to store so that the message is handled once more."""
    subject = subjects.again(letter.told.subject)
    try:
        fields = _decode_fields(body)
        envelope = decode_any(body)
    except UNREADABLE:
        return [Outgoing(subject, body, expiry(deployment.mail_ttl))]
    fields["replayed"] = msgspec.Raw(encode(letter.seq))
    if deployment.kind == "keyed":
        return [Outgoing(subject, encode(fields), expiry(deployment.mail_ttl))]
    _check_deadline(letter, envelope)
    return await _job(bus, subject, fields, envelope, deployment)


def _check_deadline(letter: Letter, envelope: Envelope[Any]) -> None:
    late = envelope.expires
    if late is not None and late.tzinfo is not None and late <= datetime.now(UTC):
        raise NotPossible(
            f"letter {letter.seq}: whoever sent this job wanted it by {late:%Y-%m-%d %H:%M:%S} or"
            f" not at all; to do it all the same: callboard dead edit {letter.seq}"
            " --set expires=null"
        )


async def _job(
    bus: Bus,
    subject: str,
    fields: dict[str, msgspec.Raw],
    envelope: Envelope[Any],
    deployment: Deployment,
) -> list[Outgoing]:
    """A job under a run that nobody has ended: its own if that is so, else a new one."""
    stored = await bus.last(subjects.run(envelope.runid))
    ttl = expiry(deployment.mail_ttl)
    if stored is not None and _goes_on(stored):
        fence = expect(stored.seq, stored.subject)
        return [Outgoing(subject, encode(fields), {**ttl, **fence})]
    run = new_id()
    fields["runid"] = msgspec.Raw(encode(run))
    record = encode(RunRecord(job=f"{deployment.name}/{envelope.subject}"))
    headers = {**ROLLUP, **expect(0), **expiry(run_ttl(deployment))}
    return [Outgoing(subjects.run(run), record, headers), Outgoing(subject, encode(fields), ttl)]


def _goes_on(stored: Stored) -> bool:
    try:
        return _decode_run(stored.data).state in ("open", "claimed")
    except UNREADABLE:
        return False


async def _settle(bus: Bus, letter: Letter, action: Any, messages: Callable[[], Any]) -> Done:
    """Mark a letter and send what is to be sent, in one commit that only succeeds once."""
    if letter.settled:
        return Done(letter.settled, before=True)
    mark = Settled(letter=letter.seq, action=action, by=operator())
    name = new_id()
    sealed = seal(mark, id=name, source="operator", subject=letter.token)
    subject = subjects.settled(letter.seq)
    marking = Outgoing(subject, encode(sealed), {**expect(0), **expiry(SETTLED_TTL)})
    audit = note(f"dead.{action}", letter.address, f"letter {letter.seq}: {letter.type}")
    for _ in range(TRIES):
        sent = await messages()
        try:
            first = await bus.commit([marking, *sent, audit])
        except Unknown:
            # Once more: if the first did get through, the second is refused.
            continue
        except Conflict:
            found = await _mark(bus, letter.seq)
            if found is None:
                continue  # it was the job's run that moved on meanwhile
            if found[0] != name:
                return Done(found[1], before=True)
            stored = await bus.last(subject)
            first = stored.seq if stored else 0
        letter.settled = mark
        return Done(mark, first + len(sent) if sent else 0)
    raise NotPossible(f"letter {letter.seq}: the server does not say what it did; ask again")
