"""Reading from replicas: again while they are behind, and not for ever."""

from dataclasses import dataclass

import pytest

from runtime import replicas
from runtime.errors import Unavailable
from runtime.replicas import STALE_TRIES, Goal


@dataclass(frozen=True)
class Found:
    """One message, of which only the place matters."""

    seq: int


class Replica:
    """A replica that has one message more each time it is read, and a leader."""

    def __init__(self, *leader: int) -> None:
        self.reads = 0
        self._leader = list(leader)

    async def read_to_the_end(self) -> list[Found]:
        goal = Goal(self.newest)
        found: list[Found] = []
        while True:
            self.reads += 1
            found = [Found(seq) for seq in range(1, self.reads)]
            if await goal.is_reached(found[-1].seq if found else 0):
                return found

    async def newest(self) -> Found | None:
        seq = self._leader.pop(0) if len(self._leader) > 1 else self._leader[0]
        return Found(seq) if seq else None


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "STALE_WAIT", 0)


async def test_a_replica_is_read_until_it_has_what_its_leader_had() -> None:
    found = await Replica(3).read_to_the_end()

    assert [one.seq for one in found] == [1, 2, 3]


async def test_where_the_leader_has_nothing_one_read_is_enough() -> None:
    replica = Replica(0)

    assert await replica.read_to_the_end() == []
    assert replica.reads == 1


async def test_what_was_removed_meanwhile_is_not_waited_for() -> None:
    found = await Replica(9, 2).read_to_the_end()

    assert [one.seq for one in found] == [1, 2]


async def test_however_much_it_is_behind_a_replica_that_goes_on_is_waited_for() -> None:
    found = await Replica(5 * STALE_TRIES).read_to_the_end()

    assert len(found) == 5 * STALE_TRIES


async def test_replicas_that_stay_behind_are_told_of() -> None:
    goal = Goal(Replica(10_000).newest)
    for _ in range(STALE_TRIES):
        await goal.is_reached(7)

    with pytest.raises(Unavailable, match="behind 10000"):
        await goal.is_reached(7)


async def test_where_there_is_one_server_the_end_is_the_end() -> None:
    assert await Goal(None).is_reached(0)
