"""Everything is counted once, in order, whatever is killed, cut, stalled or frozen meanwhile."""

import random
from pathlib import Path

import pytest

from tests.chaos.conductor import Faults
from tests.chaos.conftest import COUNTS
from tests.chaos.ordeal import Ordeal, Outcome, Plan

SHORT = Plan(
    seconds=32,
    entries=3200,
    asked=320,
    faults=Faults(kills=8, cuts=4, server_kills=3, stalls=2, freezes=2, blackouts=2, rounds=1),
)


async def ordeal(plan: Plan, folder: Path, request: pytest.FixtureRequest) -> Outcome:
    """Run it, and put its counts where the summary finds them, whatever comes of it."""
    seed = request.config.getoption("--chaos-seed")
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    outcome = await Ordeal(plan, seed, folder).run()
    lines = [f"seed {seed}", *(f"{name}: {count}" for name, count in outcome.counts.items())]
    request.node.user_properties.append((COUNTS, "\n".join(lines)))
    return outcome


@pytest.mark.timeout(300)
async def test_nothing_is_lost_repeated_or_out_of_order_whatever_is_broken(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    outcome = await ordeal(SHORT, tmp_path, request)

    assert not outcome.wrong, "\n".join(outcome.wrong)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
async def test_nothing_is_lost_in_a_long_run(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    minutes = request.config.getoption("--chaos-minutes")
    outcome = await ordeal(SHORT.times(minutes * 60 / SHORT.seconds), tmp_path, request)

    assert not outcome.wrong, "\n".join(outcome.wrong)
