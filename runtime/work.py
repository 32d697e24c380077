"""What a worker's handler may know and do besides return: facts, reading the log, last words.

What it emits is stored with its result, in one commit, or not at all.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import cached_property
from typing import Any

import msgspec
import structlog

from runtime.bus import Outgoing
from runtime.errors import BusFault, Denied, StateUndecodable, TurnError
from runtime.person import Question, time_for
from runtime.reading import read_on, wait_for_bus
from runtime.run import Attempt
from runtime.turn import EVENT_TTL, TURN_BYTES
from schemas import subjects
from schemas.approval import AskPerson, Decided, Decision
from schemas.base import Address, Message, Topic, token
from schemas.envelope import UNREADABLE, Envelope, decode_any
from schemas.ownership import SUPPORT
from schemas.record import Record

_decode_record = msgspec.json.Decoder(Record).decode


class Work:
    """One job being done: its facts, and what its handler may do.

    `attempt` counts from 1; `sequence` is where the job stands in the stream.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.envelope = attempt.envelope
        self.address = attempt.address
        self.key = attempt.address.key
        self.run = attempt.run
        self.attempt = attempt.number
        self.sequence = attempt.delivery.seq
        self.emitted: list[Outgoing] = []
        """What is stored with the result, before it."""
        self.size = 0
        """Bytes of that, about."""
        self.files = attempt.system.files
        """Files, which are kept apart from the log: what is put there stays if the job fails."""
        self._attempt = attempt
        self._system = attempt.system
        self._began = time.monotonic()

    @cached_property
    def log(self) -> Any:
        """A logger that knows the job. Made when asked for: most handlers never log."""
        return structlog.get_logger().bind(
            actor=str(self.address), run=self.run, attempt=self.attempt
        )

    def emit(self, topic: Topic, event: Message, *, ttl: timedelta | None = None) -> None:
        """Tell everyone who follows a topic, in one commit with the result and before it.

        Nothing is told if the attempt fails, or somebody else holds the run by then. Raises
        TurnError for what is too large: 512 KiB for one event, 900 KiB for all and the result.
        """
        message = self._attempt.event(topic, event, ttl or EVENT_TTL)
        self.size += message.size
        if self.size > TURN_BYTES:
            raise TurnError(
                f"{topic}: events of {self.size} bytes in all, at most {TURN_BYTES}; keep the"
                " long ones as files"
            )
        self.emitted.append(message)

    async def read(
        self, topic: Topic, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[tuple[int, Envelope[msgspec.Raw]], None]:
        """The events of a topic past a sequence, up to and with another one, oldest first.

        All that is stored by now, each with its sequence; one that nobody can read is passed
        over. Waits for a server that is away; raises Denied if it says no.
        """
        async with aclosing(read_on(self._system.bus, subjects.event(topic), after=after)) as log:
            async for stored in log:
                if until is not None and stored.seq > until:
                    return
                try:
                    envelope = decode_any(stored.data)
                except UNREADABLE as error:
                    self.log.warning("event_unreadable", seq=stored.seq, error=str(error))
                    continue
                yield stored.seq, envelope

    async def record(self, address: Address) -> Record | None:
        """What is kept of an instance of a keyed actor as of now; None if there is nothing.

        Waits for a server that is away. Raises StateUndecodable, or Denied.
        """
        subject = subjects.state(address.actor, token(address.key))
        while True:
            try:
                stored = await self._system.lookup.last(subject)
                return None if stored is None else _decode_record(stored.data)
            except UNREADABLE as error:
                raise StateUndecodable(f"{address}: its record cannot be read: {error}") from None
            except Denied:
                raise
            except BusFault as fault:
                self.log.debug("read_again", subject=subject, error=str(fault))
            await wait_for_bus(self._system.bus)

    async def ask_person(
        self,
        question: str,
        *,
        name: str = "",
        details: dict[str, Any] | None = None,
        answers: dict[str, Any] | None = None,
        choices: Sequence[str] = (),
        seconds: float | None = None,
        assume: Decision = "expired",
        assume_answer: Any = None,
        team: str = SUPPORT,
        conversation: str | None = None,
        tool: str = "",
    ) -> Decided:
        """Ask a person, and wait for what it comes to; the fields are `AskPerson`'s.

        Another attempt at the job gets the answer to what the first one asked: questions are
        told apart by `name`, or else by their words. Without `seconds` there is as much time as
        the attempt has left; without a `conversation` it is about the one the job is heard in.
        If the run is stopped the question is withdrawn. Raises Reject for one that cannot be
        asked, TurnError if there is no actor that keeps questions.
        """
        kind, _, topic = self.envelope.topic.partition("/")
        about = topic if kind == "conversation" else ""
        ask = AskPerson(
            question=question,
            details=details or {},
            answers=answers,
            choices=tuple(choices),
            seconds=time_for(self._attempt, time.monotonic() - self._began, seconds),
            assume=assume,
            assume_answer=assume_answer,
            conversation=about if conversation is None else conversation,
            team=team,
            asker=str(self.address),
            tool=tool,
        )
        return await Question(self._attempt, name or question, ask, self.record).answer()
