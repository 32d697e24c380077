"""What a customer who calls a person is told of the desk: an agent is asked, or it is closed."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from actors.desk import Desk
from actors.human_agent import HumanAgent
from runtime.bus import new_id
from runtime.tables import SupportTable
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.desk import AgentChanged, Attend
from schemas.ownership import desk_topic
from tests.integration.customers import ACTORS, JSON
from tests.integration.edges import Edge, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEVER = {
    "shifts": [{"start": "00:00", "end": "00:01", "days": [1]}],
    "holidays": ["2020-01-01/2039-12-31"],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(**ACTORS, desk=Desk, human_agent=HumanAgent) as kit:
        yield kit


async def escalated(edge: Edge) -> dict[str, Any]:
    body = {"session_name": new_id(), "reason": "refund"}
    answer = await edge.post("/api/manual/escalate", body, headers=JSON)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_an_agent_who_is_there_is_asked_at_once(kit: Kit) -> None:
    await kit.ask(Address("human_agent", "ann"), Attend(name="Ann", presence="online"))
    await kit.event(desk_topic("support"), AgentChanged)
    async with serving(kit.server.url) as edge:
        told = await escalated(edge)

    assert (told["is_in_shift"], told["auto_assigned"], told["email_sent"]) == (True, True, False)
    assert told["data"]["assigned_agent"] == {"id": "ann", "name": "Ann"}
    assert told["data"]["status"] == "pending_manual"
    assert told["data"]["escalation"]["details"] == "refund"


async def test_another_team_has_nobody_and_the_customer_waits(kit: Kit) -> None:
    async with serving(kit.server.url, support=SupportTable(team="night")) as edge:
        told = await escalated(edge)

    assert (told["is_in_shift"], told["auto_assigned"]) == (True, False)


@pytest.mark.promise("FD-60")
async def test_a_desk_that_is_closed_is_told_to_be() -> None:
    async with (
        running(**ACTORS, desk=(Desk, {"calendar": NEVER})) as closed,
        serving(closed.server.url) as edge,
    ):
        told = await escalated(edge)

    assert (told["is_in_shift"], told["auto_assigned"], told["email_sent"]) == (False, False, False)
    assert told["data"]["status"] == "pending_manual"
