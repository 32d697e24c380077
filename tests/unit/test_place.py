"""Who should own which shard: the same for everybody who knows the same hosts."""

from collections import Counter

import pytest

from runtime.placement import place
from schemas.subjects import SHARDS


def hosts(count: int) -> frozenset[str]:
    return frozenset(f"host-{n}" for n in range(count))


def test_a_host_that_is_alone_owns_everything_and_nobody_stands_by() -> None:
    assert set(place("session", hosts(1))) == {("host-0", "")}


def test_without_hosts_nobody_owns_anything() -> None:
    assert place("session", hosts(0)) == ()


@pytest.mark.parametrize("count", range(1, 17))
def test_no_host_owns_more_than_its_share(count: int) -> None:
    owned = Counter(where.owner for where in place("session", hosts(count)))

    assert max(owned.values()) == -(-SHARDS // count)
    assert sum(owned.values()) == SHARDS


@pytest.mark.parametrize("count", [2, 3, 5, 40])
def test_the_standby_is_who_owns_it_when_the_owner_is_gone(count: int) -> None:
    for shard, where in enumerate(place("session", hosts(count))):
        without = place("session", hosts(count) - {where.owner})

        assert where.standby != where.owner
        assert without[shard].owner == where.standby


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_most_shards_stay_where_they_are_when_a_host_joins(count: int) -> None:
    moved = 0
    for actor in map(str, range(100)):
        before, after = (place(actor, hosts(n)) for n in (count, count + 1))
        moved += sum(a.owner != b.owner for a, b in zip(before, after, strict=True))

    # The newcomer's share, and little that moves among the others.
    assert moved / 100 <= SHARDS / (count + 1) + 4


def test_types_are_spread_each_in_its_own_way() -> None:
    assert len({place(actor, hosts(3)) for actor in ("session", "desk", "master")}) == 3


def test_the_result_is_the_same_in_every_process() -> None:
    found = [where.owner[-1] for where in place("session", hosts(3))]

    assert "".join(found) == "1011012101200022"
