"""A consumer that does not see a message: proof of a loss, or only of a copy that is behind."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain, cycle, repeat
from typing import Any

import pytest

from runtime.bus import Bus, Stored
from runtime.codes import UNKNOWN_STREAM
from runtime.connection import Connection
from runtime.errors import DataMissing, Denied
from runtime.store import blind, inspection
from runtime.store.inspection import check_store

LEADER, FOLLOWER = "node-1", "node-2"
NEWEST = Stored(90, "mail.0.a.k", b"", {}, datetime(2026, 1, 1, tzinfo=UTC))


class Cluster(Bus):
    """A stream up to 100 whose newest mail is 90, and a consumer that has got to 50.

    `current` says at each question whether the follower's copy has all, `pending` at each how
    much the consumer sees.
    """

    def __init__(
        self, node: str, *, current: Iterator[bool], pending: Iterator[int], replicas: int = 3
    ) -> None:
        super().__init__(Connection(["nats://127.0.0.1:1"]))
        self.replicas = replicas
        self._node = node
        self._current = current
        self._pending = pending

    async def api(self, name: str, request: Any = None, *, timeout: float = 5) -> dict[str, Any]:
        match name.split("."):
            case ["STREAM", "INFO", self.stream]:
                return self._told(LEADER, replicas=[self._follower()]) | {
                    "config": {},
                    "created": "2026-01-01T00:00:00Z",
                    "state": {"first_seq": 1, "last_seq": 100},
                }
            case ["CONSUMER", "LIST", _]:
                return {"total": 1, "consumers": [self._consumer(0)]}
            case ["CONSUMER", "INFO", _, "mail_a_0"]:
                return self._consumer(next(self._pending))
        raise Denied(UNKNOWN_STREAM, name)

    def _told(self, leader: str, **more: Any) -> dict[str, Any]:
        """A single server says nothing of a cluster."""
        return {"cluster": {"leader": leader, **more}} if self.replicas > 1 else {}

    def _follower(self) -> dict[str, Any]:
        return {"name": FOLLOWER, "current": next(self._current)}

    def _consumer(self, pending: int) -> dict[str, Any]:
        return self._told(self._node) | {
            "name": "mail_a_0",
            "config": {"filter_subject": "mail.0.a.*"},
            "num_pending": pending,
            "delivered": {"stream_seq": 50},
            "ack_floor": {"stream_seq": 50},
        }

    async def last(self, subject: str, *, stream: str = "") -> Stored | None:
        return NEWEST

    async def first(self, *, after: int) -> Stored | None:
        return NEWEST


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOKS", "MORE_LOOKS"):
        monkeypatch.setattr(blind, name, [0.0] * len(getattr(blind, name)))
    monkeypatch.setattr(inspection, "SURE_AFTER", 0.0)


async def test_a_consumer_on_a_node_that_is_behind_is_no_proof_of_a_loss() -> None:
    behind = Cluster(FOLLOWER, current=repeat(False), pending=repeat(0))

    assert (await check_store(behind)).damages == []


@pytest.mark.parametrize(
    ("node", "current"),
    [
        (LEADER, repeat(False)),
        (FOLLOWER, repeat(True)),
        # Under load a copy that is fine is a message behind now and then.
        (FOLLOWER, cycle([False, False, True])),
    ],
    ids=["leader", "follower", "busy follower"],
)
async def test_a_consumer_on_a_node_that_has_all_proves_one(
    node: str, current: Iterator[bool]
) -> None:
    damaged = Cluster(node, current=current, pending=repeat(0))

    with pytest.raises(DataMissing, match=r"mail_a_0 \(at 50, not seeing 90\)"):
        await check_store(damaged)


async def test_a_node_that_has_all_may_take_seconds_to_apply_it() -> None:
    late = Cluster(FOLLOWER, current=repeat(True), pending=chain([0] * 8, repeat(1)))

    assert (await check_store(late)).damages == []


async def test_of_a_single_server_there_is_no_other_copy() -> None:
    damaged = Cluster("", current=repeat(True), pending=repeat(0), replicas=1)

    with pytest.raises(DataMissing, match=r"mail_a_0 \(at 50, not seeing 90\)"):
        await check_store(damaged)
