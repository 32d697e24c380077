"""What the store says of a batch: how it stands, that it has not begun, that it is forgotten."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from edge.outcome import find_batch
from edge.problem import Refusal
from runtime.bus import Stored
from runtime.errors import Unavailable
from schemas.base import Address
from schemas.conversation import BatchState
from schemas.record import Record

HERE = Address("batch", "b")


class Bus:
    """A store with one record."""

    def __init__(self, data: bytes | None) -> None:
        self.data = data

    async def last(self, subject: str) -> Stored | None:
        assert subject == "state.batch.b"
        return None if self.data is None else Stored(1, subject, self.data, {}, datetime.now(UTC))


def bus(data: bytes | None) -> Any:
    return Bus(data)


def record(**rest: Any) -> bytes:
    return msgspec.json.encode(Record(stream="s", done=1, key="b", **rest))


async def test_a_batch_is_found_as_it_stands() -> None:
    state = msgspec.Raw(msgspec.json.encode(BatchState(conversation="c", status="PARTIAL")))

    found = await find_batch(bus(record(data=state)), HERE)
    assert found is not None
    assert (found.conversation, found.status) == ("c", "PARTIAL")
    assert await find_batch(bus(None), HERE) is None


async def test_a_batch_whose_time_is_over_is_forgotten_and_not_waited_for() -> None:
    with pytest.raises(Refusal) as refused:
        await find_batch(bus(record()), HERE)

    assert (refused.value.status, refused.value.code) == (409, "answer_forgotten")


@pytest.mark.parametrize("data", [b"{", record(data=msgspec.Raw(b'{"tasks": 7}'))])
async def test_a_state_that_nobody_can_read_is_a_store_in_trouble(data: bytes) -> None:
    with pytest.raises(Unavailable):
        await find_batch(bus(data), HERE)
