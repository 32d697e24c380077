"""Everything is counted once, in order, whatever is killed, cut, stalled or frozen meanwhile.

The long forms run by option: `--chaos-rounds 200`, `--chaos-minutes 10`, `--chaos-kills 20`,
`--chaos-growth 10`.
"""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.conftest import COUNTS
from tests.chaos.faults import Faults
from tests.chaos.ordeal import BROKEN, Ordeal
from tests.chaos.plan import Outcome, Plan
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
    nodes=3,
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
MORE = {"leader_freeze": 1, "follower_kill": 1, "follower_partition": 1, "blackout": 1}
"""What the short form on three nodes has no time for."""
THREE_LONG = replace(
    THREE, seconds=70, faults=Faults({**THREE.faults.kinds, "kill": 8, **MORE}, points=1)
)
ROLLED = [
    Plan(seconds=18, entries=1500, asked=150, rolled=True),
    Plan(seconds=25, entries=1500, asked=150, hosts=3, edges=2, sent=50, nodes=3, rolled=True),
]
KILLS_EVERY = 6.0
"""Seconds between kills, where only hosts are killed: long enough for the next to be there."""
MORTAL = {"kill", "edge_kill", "blackout"}

everywhere = pytest.mark.parametrize("plan", [ONE, THREE], ids=["one_server", "three_nodes"])
long_everywhere = pytest.mark.parametrize(
    "plan", [ONE, THREE_LONG], ids=["one_server", "three_nodes"]
)


class Ground:
    """Where runs take place, and what they have in common: a seed for each, one after another."""

    def __init__(self, folder: Path, request: pytest.FixtureRequest) -> None:
        seed = request.config.getoption("--chaos-seed")
        self.seed = random.SystemRandom().randrange(1_000_000) if seed is None else int(seed)
        self.outcome = Outcome()
        self._folder = folder
        self._binary: str = request.getfixturevalue("nats_server_binary")
        self._request = request

    async def run(self, plan: Plan) -> None:
        """Run a plan; its outcome is added to that of those before."""
        folder = self._folder / f"seed-{self.seed}"
        folder.mkdir()
        outcome = await Ordeal(plan, self.seed, folder, self._servers(plan, folder)).run()
        again = f"seed {self.seed}, to run again: -k '{self._request.node.name}'"
        outcome.wrong = [f"{line} ({again} --chaos-seed {self.seed})" for line in outcome.wrong]
        self.outcome.add(outcome)
        self.seed += 1
        for line in outcome.wrong:
            print(line)  # the last thing printed is what any extract of a long output shows

    def _servers(self, plan: Plan, folder: Path) -> Servers:
        chance = random.Random(f"{self.seed} servers")
        if plan.nodes == 1:
            return OneServer(folder, chance)
        return ThreeNodes(folder, self._binary, chance)


@pytest.fixture
def ground(tmp_path: Path, request: pytest.FixtureRequest) -> Ground:
    return Ground(tmp_path, request)


@pytest.fixture(autouse=True)
def told(ground: Ground, request: pytest.FixtureRequest) -> None:
    """Have the counts where the summary finds them, whatever comes of the test."""
    request.node.user_properties.append((COUNTS, ground))


def option(request: pytest.FixtureRequest, name: str) -> float:
    """What an option of the long forms says; skips the test if it is not given."""
    value = float(request.config.getoption(name))
    if not value:
        pytest.skip(f"a long form: run with {name} 10")
    return value


@everywhere
@pytest.mark.timeout(480)
async def test_nothing_is_lost_repeated_or_out_of_order_whatever_is_broken(
    plan: Plan, ground: Ground
) -> None:
    await ground.run(plan)

    assert not ground.outcome.wrong, "\n".join(ground.outcome.wrong)


@pytest.mark.parametrize("plan", ROLLED, ids=["one_server", "three_nodes"])
@pytest.mark.timeout(480)
async def test_a_restart_of_one_process_after_another_under_load_loses_nothing(
    plan: Plan, ground: Ground
) -> None:
    await ground.run(plan)

    assert not ground.outcome.wrong, "\n".join(ground.outcome.wrong)


@pytest.mark.slow
@long_everywhere
@pytest.mark.timeout(4 * 3600)
async def test_nothing_is_lost_in_very_many_rounds(
    plan: Plan, ground: Ground, request: pytest.FixtureRequest
) -> None:
    rounds = option(request, "--chaos-rounds")
    while ground.outcome.rounds < rounds and not ground.outcome.wrong:
        await ground.run(plan)

    assert not ground.outcome.wrong, "\n".join(ground.outcome.wrong)


@pytest.mark.slow
@long_everywhere
@pytest.mark.timeout(4 * 3600)
async def test_nothing_is_lost_in_a_long_run(
    plan: Plan, ground: Ground, request: pytest.FixtureRequest
) -> None:
    minutes = option(request, "--chaos-minutes")
    await ground.run(plan.times(minutes * 60 / plan.seconds))

    assert not ground.outcome.wrong, "\n".join(ground.outcome.wrong)


@pytest.mark.slow
@everywhere
@pytest.mark.timeout(4 * 3600)
async def test_one_of_three_hosts_is_killed_again_and_again(
    plan: Plan, ground: Ground, request: pytest.FixtureRequest
) -> None:
    kills = round(option(request, "--chaos-kills"))
    seconds = kills * KILLS_EVERY / BROKEN
    entries, asked = round(60 * seconds), round(6 * seconds)
    faults = Faults({"kill": kills})
    await ground.run(
        replace(plan, seconds=seconds, entries=entries, asked=asked, faults=faults, hosts=3)
    )

    assert not ground.outcome.wrong, "\n".join(ground.outcome.wrong)


@pytest.mark.slow
@long_everywhere
@pytest.mark.timeout(4 * 3600)
async def test_processes_that_nobody_kills_do_not_grow(
    plan: Plan, ground: Ground, request: pytest.FixtureRequest
) -> None:
    minutes = option(request, "--chaos-growth")
    kinds = {kind: n for kind, n in plan.faults.kinds.items() if kind not in MORTAL}
    edges = replace(plan, faults=Faults(kinds), edges=2, sent=round(plan.seconds))
    await ground.run(edges.times(minutes * 60 / plan.seconds))

    assert not ground.outcome.wrong, "\n".join(ground.outcome.wrong)
