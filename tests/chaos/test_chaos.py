"""Everything is counted once, in order, whatever is killed, cut, stalled or frozen meanwhile."""

import random
from pathlib import Path

import pytest

from tests.chaos.conductor import Faults
from tests.chaos.conftest import COUNTS
from tests.chaos.ordeal import Ordeal, Outcome, Plan
from tests.chaos.servers import OneServer, Servers, ThreeNodes

ONE = Plan(
    seconds=32,
    entries=3200,
    asked=320,
    faults=Faults(
        {"kill": 8, "cut": 4, "server_kill": 3, "stall": 2, "freeze": 2, "blackout": 2}, points=1
    ),
)
THREE = Plan(
    seconds=45,
    entries=2700,
    asked=270,
    hosts=3,
    edges=2,
    sent=90,
    faults=Faults(
        {
            "kill": 6,
            "cut": 2,
            "stall": 2,
            "freeze": 1,
            "zombie": 1,
            "edge_kill": 2,
            "leader_kill": 1,
            "leader_term": 1,
            "leader_partition": 1,
            "follower_freeze": 1,
        }
    ),
)


def servers_of(plan: Plan, folder: Path, seed: int, binary: str) -> Servers:
    """One server, or three nodes if the plan has edges."""
    chance = random.Random(f"{seed} servers")
    return ThreeNodes(folder, binary, chance) if plan.edges else OneServer(folder, chance)


async def ordeal(plan: Plan, folder: Path, request: pytest.FixtureRequest) -> Outcome:
    """Run it, and put its counts where the summary finds them, whatever comes of it."""
    seed = request.config.getoption("--chaos-seed")
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    binary = request.getfixturevalue("nats_server_binary")
    outcome = await Ordeal(plan, seed, folder, servers_of(plan, folder, seed, binary)).run()
    lines = [f"seed {seed}", *(f"{name}: {count}" for name, count in outcome.counts.items())]
    request.node.user_properties.append((COUNTS, "\n".join(lines)))
    return outcome


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plan", [ONE, THREE], ids=["one_server", "three_nodes"])
async def test_nothing_is_lost_repeated_or_out_of_order_whatever_is_broken(
    plan: Plan, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    outcome = await ordeal(plan, tmp_path, request)

    assert not outcome.wrong, "\n".join(outcome.wrong)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("plan", [ONE, THREE], ids=["one_server", "three_nodes"])
async def test_nothing_is_lost_in_a_long_run(
    plan: Plan, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    minutes = request.config.getoption("--chaos-minutes")
    outcome = await ordeal(plan.times(minutes * 60 / plan.seconds), tmp_path, request)

    assert not outcome.wrong, "\n".join(outcome.wrong)
