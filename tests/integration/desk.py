"""What tests of the operator's commands share: an actor and a worker that fail when told to."""

import subprocess
from typing import Any

import msgspec
import pytest

from runtime import Reject, Work, Worker, handler
from runtime.dead import Selection, each_letter
from runtime.errors import Refused
from runtime.testing import Kit
from schemas.base import Address
from tests.integration.counter import Double, Doubled, Fail
from tests.integration.test_commands import callboard
from tests.integration.waiting import until_known

moods: dict[str, str] = {}


class Moody(Worker):
    """Doubles, unless it is told not to."""

    @handler
    async def double(self, job: Double, ctx: Work) -> Doubled:
        if moods.get("mood") == "bad":
            raise Reject("NOT_TODAY", "ask again")
        return Doubled(n=2 * job.n)


async def letter_of(kit: Kit, number: int = 0) -> int:
    """The sequence of a dead letter, once it is there."""

    async def look() -> int | None:
        found = [one.seq async for one in each_letter(kit.bus, Selection(settled=True))]
        return found[number] if len(found) > number else None

    return await until_known(look)


async def fail(kit: Kit, key: str = "a") -> int:
    """A request that fails five times; its dead letter."""
    with pytest.raises(Refused):
        await kit.ask(Address("counter", key), Fail(times=5))
    return [one.seq async for one in each_letter(kit.bus, Selection(settled=True))][-1]


def dead(kit: Kit, *words: object) -> subprocess.CompletedProcess[str]:
    return callboard("dead", *words, url=kit.server.url)


def read_json(done: subprocess.CompletedProcess[str]) -> Any:
    return msgspec.json.decode(done.stdout)


def add(key: str) -> bytes:
    data = {"type": "counter.add", "n": 1}
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": f"add-{key}",
            "source": "test",
            "type": "counter.add",
            "subject": key,
            "time": "2026-01-01T00:00:00Z",
            "datacontenttype": "application/json",
            "data": data,
        }
    )
