"""What followers cost an edge process, and that they find back to it; by the benchmark's means."""

from bench.followers import GOAL, measure_idle, measure_return


async def test_an_idle_follower_costs_little_memory() -> None:
    assert await measure_idle(500, apart=False, seconds=1) < GOAL


async def test_all_followers_are_back_after_their_edge_was_killed() -> None:
    took, refused, _ = await measure_return(500)

    assert took > 0
    assert refused == 0
