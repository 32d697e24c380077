"""Reading and writing the record of an instance: its state, its watermark, its answers."""

from datetime import datetime, timedelta

import msgspec

from runtime.bus import Bus, Outgoing, expect, expiry
from runtime.errors import TurnError
from runtime.turn import DAY, ROLLUP
from schemas.deployment import Deployment
from schemas.envelope import encode
from schemas.record import Record

STATE_LIMIT = 128 * 1024

decode_record = msgspec.json.Decoder(Record).decode


def read_record(data: bytes, bus: Bus) -> Record:
    """Decode a record; raises msgspec.MsgspecError or UnicodeDecodeError.

    A watermark of another incarnation of the stream counts for nothing.
    """
    record = decode_record(data)
    if record.stream != bus.created:
        record.stream, record.done, record.parked = bus.created, 0, 0
    return record


def expired(record: Record, now: datetime, lifetime: timedelta) -> bool:
    """Whether the instance has not been heard of for longer than it lives."""
    return record.written is not None and now - record.written > lifetime


def new_record(key: str, bus: Bus) -> Record:
    """The record of an instance nobody has written to yet."""
    return Record(stream=bus.created, done=0, key=key)


def encode_state(state: object) -> msgspec.Raw:
    """The state as it is stored; raises TurnError if it has grown too large."""
    data = encode(state)
    if len(data) > STATE_LIMIT:
        raise TurnError(
            f"state of {len(data)} bytes, at most {STATE_LIMIT};"
            " keep bigger things as events or files"
        )
    return msgspec.Raw(data)


def write_record(subject: str, record: Record, version: int, deployment: Deployment) -> Outgoing:
    """The message that stores a record, refused if somebody wrote after `version`."""
    keep = deployment.furthest + DAY
    # The first replaces nothing, and need not make the server look.
    replace = ROLLUP if version else {}
    return Outgoing(subject, encode(record), {**replace, **expect(version), **expiry(keep)})
