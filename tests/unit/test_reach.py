"""How far the log reaches, by the word of a cluster's node that may be behind."""

from typing import Any

import pytest

from edge import reach
from edge.following import EVENT_TTL
from edge.reach import AHEAD, find_reach
from runtime.bus import Bus
from runtime.connection import Connection


class Nodes(Bus):
    """A stream whose end is told by one node after another."""

    def __init__(self, *ends: int, replicas: int, begins: int = 0) -> None:
        super().__init__(Connection(["nats://127.0.0.1:1"]))
        self.created = "2999-01-01T00:00:00Z"
        self.replicas = replicas
        self._ends = list(ends)
        # The server leaves out what is zero.
        self._config = {"first_seq": begins} if begins else {}

    async def api(self, name: str, request: Any = None, *, timeout: float = 5) -> dict[str, Any]:
        end = self._ends.pop(0) if len(self._ends) > 1 else self._ends[0]
        return {"config": self._config, "state": {"last_seq": end}}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "STALE_WAIT", 0)


async def test_a_node_that_is_behind_the_cursor_is_asked_again() -> None:
    found = await find_reach(Nodes(7, 8, 12, replicas=3), "event.t.a", 10, EVENT_TTL)

    assert (found.last, found.reason) == (12, "")


@pytest.mark.parametrize("replicas", [1, 3])
async def test_a_cursor_that_stays_ahead_is_of_another_log(replicas: int) -> None:
    found = await find_reach(Nodes(7, replicas=replicas), "event.t.a", 10, EVENT_TTL)

    assert (found.last, found.reason) == (7, AHEAD)


async def test_where_there_is_one_server_its_word_is_enough() -> None:
    found = await find_reach(Nodes(7, 12, replicas=1), "event.t.a", 10, EVENT_TTL)

    assert found.reason == AHEAD


@pytest.mark.parametrize(("cursor", "reason"), [(50, AHEAD), (99, AHEAD), (100, ""), (110, "")])
async def test_a_cursor_before_the_first_of_a_log_is_of_the_one_it_replaced(
    cursor: int, reason: str
) -> None:
    nodes = Nodes(120, replicas=1, begins=101)

    assert (await find_reach(nodes, "event.t.a", cursor, EVENT_TTL)).reason == reason
