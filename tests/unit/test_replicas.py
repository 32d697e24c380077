"""Reading from replicas: again while they are behind, and not for ever."""

from dataclasses import dataclass

import pytest

from runtime import replicas
from runtime.errors import Unavailable
from runtime.replicas import read_caught_up


@dataclass(frozen=True)
class Found:
    """One message, of which only the place matters."""

    seq: int


class Replica:
    """A replica that gives one message more each time it is read, and a leader."""

    def __init__(self, *leader: int) -> None:
        self.reads = 0
        self._leader = list(leader)

    async def read(self) -> list[Found]:
        self.reads += 1
        return [Found(seq) for seq in range(1, self.reads)]

    async def newest(self) -> Found | None:
        seq = self._leader.pop(0) if len(self._leader) > 1 else self._leader[0]
        return Found(seq) if seq else None


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "STALE_WAIT", 0)


async def test_a_replica_is_read_until_it_has_what_its_leader_had() -> None:
    replica = Replica(3)
    found = await read_caught_up(replica.read, replica.newest, 0)

    assert [one.seq for one in found] == [1, 2, 3]
    assert replica.reads == 4


@pytest.mark.parametrize(("newest", "after"), [(0, 0), (7, 7), (5, 7)])
async def test_where_the_leader_has_nothing_new_one_read_is_enough(newest: int, after: int) -> None:
    replica = Replica(newest)
    found = await read_caught_up(replica.read, replica.newest, after)

    assert found == []
    assert replica.reads == 1


async def test_what_was_removed_meanwhile_is_not_waited_for() -> None:
    replica = Replica(9, 2)
    found = await read_caught_up(replica.read, replica.newest, 0)

    assert [one.seq for one in found] == [1, 2]


async def test_replicas_that_stay_behind_are_told_of() -> None:
    replica = Replica(10_000)

    with pytest.raises(Unavailable, match="behind 10000"):
        await read_caught_up(replica.read, replica.newest, 0)
