"""The seam to JetStream: everything the runtime and the edge may do with the stream.

Built on runtime/connection.py; pulls are in runtime/pull.py and pinned.py, commits in
runtime/committer.py, the stream's own description in nats/streams.json.
"""

import asyncio
import base64
import hashlib
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any

import msgspec

from runtime.codes import (
    DUPLICATE,
    INCOMPLETE,
    NOT_FOUND,
    TOO_MANY_OPEN,
    TOO_MANY_RESULTS,
    read_fault,
    read_refusal,
)
from runtime.connection import Connection
from runtime.crash import armed, crash_at
from runtime.errors import Denied, Unavailable, Unknown
from runtime.packet import Packet, format_headers, parse_headers, read_stamp
from runtime.refusals import unheard
from runtime.replicas import Goal
from schemas import subjects

DEADLINE = 5.0
"""Seconds that any single call may take."""

GROUP_MESSAGES = 1000
"""The most messages that nats-server takes in one atomic batch."""
PAGE_BYTES = 1024 * 1024
"""What one read asks for at most: a client that gets more than it can take is cut off."""

LONGEST_TTL = 3650 * 86400

_decode = msgspec.json.decode
_encode = msgspec.json.encode


# A Struct because it is made eight times as fast as a frozen dataclass; nothing in it can be
# part of a cycle.
class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One message of a commit: where, what, and what the broker is to check or do with it."""

    subject: str
    data: bytes
    headers: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes it takes on the wire, about."""
        return len(self.data) + 200


@dataclass(frozen=True, slots=True)
class PubAck:
    """What was stored: its sequence, and whether it was there already."""

    seq: int
    duplicate: bool


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A message as the stream holds it. `pending` counts what a range read left behind it."""

    seq: int
    subject: str
    data: bytes
    headers: Mapping[str, str]
    time: datetime
    pending: int = 0


def message_id(*parts: str) -> str:
    """Return a message id that is the same for the same parts, and only for them."""
    text = "\x1f".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def new_id() -> str:
    """Return 128 random bits as one token."""
    return secrets.token_hex(16)


@lru_cache(maxsize=256)
def expiry(ttl: timedelta) -> Mapping[str, str]:
    """The header that lets a message go after `ttl`: a second at least, ten years at most."""
    return {"Nats-TTL": f"{min(max(1, int(ttl.total_seconds())), LONGEST_TTL)}s"}


def expect(sequence: int, subject: str = "") -> dict[str, str]:
    """The header that makes the broker refuse unless `sequence` is the last one.

    Of the message's own subject, or of another one: the fence of a run.
    """
    fields = {"Nats-Expected-Last-Subject-Sequence": str(sequence)}
    if subject:
        fields["Nats-Expected-Last-Subject-Sequence-Subject"] = subject
    return fields


class Bus:
    """The stream BUS, as one process sees it through one connection."""

    def __init__(self, link: Connection, *, stream: str = subjects.BUS) -> None:
        self.link = link
        self.stream = stream
        self.created = ""
        """When the stream was created: its incarnation."""
        self.replicas = 1
        self._batches = itertools.count(1)
        self._batch_prefix = secrets.token_hex(4)

    # -- writing ---------------------------------------------------------------------------

    async def publish(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = DEADLINE,
    ) -> PubAck:
        """Store one message.

        Raises Unavailable (not stored), Unknown (perhaps stored; say it again under the same
        `Nats-Msg-Id`), Conflict, NoRoom or Denied.
        """
        raw = format_headers(headers) if headers else b""
        packet = await self.link.request(subject, data, headers=raw, timeout=timeout)
        return _read_ack(packet.data)

    async def commit(self, messages: Sequence[Outgoing], *, timeout: float = DEADLINE) -> int:
        """Store messages together or not at all; returns the sequence of the first.

        The others follow it without gaps. Raises as `publish` does; Denied with code
        `DUPLICATE` if one of them carries an id that was seen before.
        """
        for pause in (0.0, 0.01, 0.04):
            try:
                return await self._commit_once(messages, timeout)
            except Denied as denied:
                # A part was lost, or others have too many open: nothing was stored.
                if denied.code not in (INCOMPLETE, TOO_MANY_OPEN):
                    raise
            await asyncio.sleep(pause)
        try:
            return await self._commit_once(messages, timeout)
        except Denied as denied:
            if denied.code == TOO_MANY_OPEN:
                raise Unavailable(str(denied)) from None
            # For good, then: a subject outside the stream makes a batch incomplete as well.
            raise

    async def _commit_once(self, messages: Sequence[Outgoing], timeout: float) -> int:
        if len(messages) == 1:
            only = messages[0]
            ack = await self.publish(only.subject, only.data, headers=only.headers, timeout=timeout)
            if ack.duplicate:
                raise Denied(DUPLICATE, f"{only.subject}: its message id was seen before")
            return ack.seq
        batch = f"{self._batch_prefix}{next(self._batches):x}"
        place = f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: "
        frames = [
            self.link.frame(
                m.subject, m.data, headers=format_headers(m.headers, f"{place}{number}\r\n")
            )
            for number, m in enumerate(messages[:-1], 1)
        ]
        last = messages[-1]
        place = f"{place}{len(messages)}\r\nNats-Batch-Commit: 1\r\n"
        raw = format_headers(last.headers, place)
        # In one write: another batch may come before or after, but never between.
        before = b"".join(frames)
        if armed("batch.inside"):
            self.link.write(before)
            self.link.flush()
            crash_at("batch.inside")
            before = b""
        packet = await self.link.request(
            last.subject, last.data, headers=raw, before=before, timeout=timeout
        )
        return _read_ack(packet.data).seq - len(messages) + 1

    def notify(self, subject: str, data: bytes) -> None:
        """Tell whoever listens right now; nobody may be. Raises Unavailable if not connected."""
        self.link.publish(subject, data)

    # -- reading ---------------------------------------------------------------------------

    async def last(self, subject: str, *, stream: str = "") -> Stored | None:
        """The last message on a subject, as of now: from the leader where replicas may lag."""
        stream = stream or self.stream
        if self.replicas > 1:
            return await self._get_from_leader(stream, {"last_by_subj": subject})
        packet = await self.link.request(
            f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", timeout=DEADLINE
        )
        return None if _missing(packet) else _read_stored(packet)

    async def last_of(self, names: Collection[str]) -> dict[str, Stored]:
        """The last messages of up to 1,000 subjects, by subject; as `last` for each."""
        found: dict[str, Stored] = {}
        if self.replicas == 1 and len(names) > 1:
            request = {"multi_last": list(names)}
            for packet in await self._request_many(f"$JS.API.DIRECT.GET.{self.stream}", request):
                one = _read_stored(packet)
                found[one.subject] = one
            if not found or not one.pending:
                return found
        # Asked for one by one: what did not fit into the answer as well.
        rest = [name for name in names if name not in found]
        for name, last in zip(rest, await asyncio.gather(*map(self.last, rest)), strict=True):
            if last is not None:
                found[name] = last
        return found

    async def at(self, sequence: int, subject: str = "") -> Stored | None:
        """The message at a sequence, or the first on a subject from there on; from the leader."""
        request = {"seq": sequence} | ({"next_by_subj": subject} if subject else {})
        return await self._get_from_leader(self.stream, request)

    async def first(self, *, after: int) -> Stored | None:
        """The first message past a sequence, from the leader; None if it cannot find one."""
        request = {"seq": after + 1, "next_by_subj": ">"}
        return await self._get_from_leader(self.stream, request)

    async def _get_from_leader(self, stream: str, request: dict[str, Any]) -> Stored | None:
        try:
            answer = await self.api(f"STREAM.MSG.GET.{stream}", request)
        except Denied as denied:
            if denied.code == NOT_FOUND:
                return None
            raise
        found = answer["message"]
        return Stored(
            seq=int(found["seq"]),
            subject=found["subject"],
            data=base64.b64decode(found.get("data", "")),
            headers=parse_headers(base64.b64decode(found.get("hdrs", ""))),
            time=read_stamp(found["time"]),
        )

    async def read(
        self, subject: str, *, after: int, limit: int = 256, stream: str = ""
    ) -> list[Stored]:
        """The next messages on a subject (wildcards allowed) past a sequence, oldest first.

        Fewer than there are where they exceed `PAGE_BYTES`: `pending` tells how many are left.
        """
        request = {"seq": after + 1, "batch": limit, "next_by_subj": subject}
        packets = await self._request_many(f"$JS.API.DIRECT.GET.{stream or self.stream}", request)
        return [_read_stored(packet) for packet in packets]

    async def read_all(self, subject: str, *, after: int, stream: str = "") -> list[Stored]:
        """Every message on a subject past a sequence; on replicas, all that their leader had."""
        pages = self.pages(subject, after=after, stream=stream)
        return [stored async for page in pages for stored in page]

    async def pages(
        self, subject: str, *, after: int, stream: str = ""
    ) -> AsyncIterator[list[Stored]]:
        """The same, a page at a time. Raises Unavailable if all replicas stay behind."""
        goal = self._goal(subject, stream)
        while True:
            page = await self.read(subject, after=after, stream=stream)
            if page:
                yield page
                after = page[-1].seq
            if not (page and page[-1].pending) and await goal.is_reached(after):
                return

    def _goal(self, subject: str, stream: str) -> Goal:
        ask = partial(self._get_from_leader, stream or self.stream, {"last_by_subj": subject})
        return Goal(ask if self.replicas > 1 else None)

    async def lasts(self, pattern: str, *, stream: str = "") -> list[Stored]:
        """The last message of every subject that matches a pattern, by sequence.

        As of one point in time up to 1,024 subjects and `PAGE_BYTES`, which is all that the
        server gives; of more, each as of some moment during the call.
        """
        goal = self._goal(pattern, stream)
        while True:
            found = await self._lasts(pattern, stream)
            if await goal.is_reached(found[-1].seq if found else 0):
                return found

    async def _lasts(self, pattern: str, stream: str) -> list[Stored]:
        try:
            packets = await self._request_many(
                f"$JS.API.DIRECT.GET.{stream or self.stream}", {"multi_last": [pattern]}
            )
        except Denied as denied:
            if denied.code != TOO_MANY_RESULTS:
                raise
        else:
            found = [_read_stored(packet) for packet in packets]
            if not found or not found[-1].pending:
                return found
        pages = self.pages(pattern, after=0, stream=stream)
        newest = {stored.subject: stored async for page in pages for stored in page}
        return sorted(newest.values(), key=lambda one: one.seq)

    async def _request_many(self, subject: str, request: dict[str, Any]) -> list[Packet]:
        """Collect the answers of a batched direct get; it ends with status 204 or 404."""
        packets: list[Packet] = []
        ended: asyncio.Future[Packet] = asyncio.get_running_loop().create_future()

        def collect(packet: Packet) -> None:
            if not packet.status:
                packets.append(packet)
            elif not ended.done():
                ended.set_result(packet)

        inbox = self.link.expect(collect, ended, subject)
        try:
            bounded = {**request, "max_bytes": PAGE_BYTES}
            self.link.publish(subject, _encode(bounded), reply=inbox)
            last = await self.link.wait_for(ended, DEADLINE, subject)
        finally:
            self.link.forget(inbox)
        if last.status == "503":
            raise Unavailable(unheard(subject))
        if last.status not in ("204", "404"):
            raise Denied(int(last.status), f"{subject}: {last.reason}")
        return packets

    # -- listening -------------------------------------------------------------------------

    def subscribe(self, subject: str, listener: Callable[[Packet], None]) -> int:
        """Call `listener` with whatever is said on `subject` from now on; returns a handle."""
        return self.link.subscribe(subject, listener)

    def unsubscribe(self, handle: int) -> None:
        """Stop listening."""
        self.link.unsubscribe(handle)

    # -- the API of the server -------------------------------------------------------------

    async def api(
        self, name: str, request: Any = None, *, timeout: float = DEADLINE
    ) -> dict[str, Any]:
        """Ask `$JS.API.<name>`; raises Denied with the server's own words."""
        body = b"" if request is None else _encode(request)
        packet = await self.link.request(f"$JS.API.{name}", body, timeout=timeout)
        answer: dict[str, Any] = _decode(packet.data)
        if error := answer.get("error"):
            code, words = int(error.get("err_code", 0)), str(error.get("description", error))
            raise read_refusal(code, words)
        return answer

    async def reset(self, consumer: str) -> int:
        """Put a consumer back to its ack floor; returns the sequence it starts from."""
        answer = await self.api(f"CONSUMER.RESET.{self.stream}.{consumer}", timeout=2.0)
        return int(answer.get("reset_seq", 0))

    async def unpin(self, consumer: str, group: str) -> None:
        """Give up a pinned consumer, so that a standby gets the next message at once."""
        await self.api(f"CONSUMER.UNPIN.{self.stream}.{consumer}", {"group": group}, timeout=2.0)


def _missing(packet: Packet) -> bool:
    status = packet.status
    if status and status != "404":
        raise Denied(int(status), f"direct get: {packet.reason}")
    return status == "404"


def _read_ack(data: bytes) -> PubAck:
    if not data:
        raise Unknown("the server answered a publish without an acknowledgement")
    answer = _decode(data)
    if error := answer.get("error"):
        raise read_fault(int(error.get("err_code", 0)), str(error.get("description", error)))
    return PubAck(int(answer["seq"]), bool(answer.get("duplicate", False)))


def _read_stored(packet: Packet) -> Stored:
    headers = packet.headers
    return Stored(
        seq=int(headers["Nats-Sequence"]),
        subject=headers["Nats-Subject"],
        data=packet.data,
        headers=headers,
        time=read_stamp(headers["Nats-Time-Stamp"]),
        pending=int(headers.get("Nats-Num-Pending", 0)),
    )
