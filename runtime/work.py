"""What a worker's handler may know and do besides return: facts, reading the log, last words.

What it emits is stored with its result, in one commit, or not at all.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from functools import cached_property
from typing import Any

import msgspec
import structlog

from runtime.bus import Outgoing
from runtime.errors import BusFault, Denied, StateUndecodable, TurnError
from runtime.reading import read_on, wait_for_bus
from runtime.run import Attempt
from runtime.turn import EVENT_TTL, TURN_BYTES
from schemas import subjects
from schemas.base import Address, Message, Topic, token
from schemas.envelope import UNREADABLE, Envelope, decode_any
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
