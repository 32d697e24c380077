"""`callboard deploy --rollback` and `--remove`: what goes, what comes back, and what must not."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.deployments import read_deployments, read_roster, seed_deployments
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.deployment import Deployment
from tests.integration.rosters import HERE, Order, Put, Sum, Weigher, adder, deploy, weigher
from tests.integration.terminal import ADDER, Hand
from tests.integration.waiting import until

A = Address("adder", "a")


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    Weigher.reset()
    async with running() as kit:
        yield kit


@pytest.fixture
def hand(kit: Kit, tmp_path: Path) -> Hand:
    return Hand(kit, tmp_path)


async def test_a_rollback_goes_back_and_the_history_says_so(kit: Kit, hand: Hand) -> None:
    await hand.deploy(ADDER)
    await hand.deploy(ADDER + "options = { step = 10 }\n")
    await hand.deploy(ADDER.replace("'adder'", "'other'"))
    back = await hand.run("--rollback", "1", "--yes")
    answer = await kit.ask(A, Put())
    forth = await hand.run("--rollback")
    answer_again = await kit.ask(A, Put())
    history = await hand.run("--history")
    unknown = await hand.run("--rollback", "77")

    assert answer == Sum(n=1, count=1)
    assert answer_again == Sum(n=11, count=2)
    assert "    options.step: 10 → none" in back.said
    assert f"- other  keyed  {HERE}:Adder" in back.said
    assert (back.code, forth.code) == (0, 0)
    assert [row.split()[0] for row in history.said] == ["revision", "1", "2", "3", "4", "5"]
    assert [row.split("  ")[-1].strip() for row in history.said[3:]] == [
        "from plan.toml",
        "back to revision 1",
        "back to revision 3",
    ]
    assert "~adder -other" in history.said[4]
    assert unknown.errors == ["callboard: revision 77 is not kept; kept are 1 to 5"]


async def test_what_was_removed_live_is_not_brought_back_by_a_file(kit: Kit, hand: Hand) -> None:
    await seed_deployments(kit.bus, [adder()])
    await hand.run("--remove", "adder", "--yes")
    await seed_deployments(kit.bus, [adder()])
    removed = await read_deployments(kit.bus)
    await hand.deploy(ADDER)
    await seed_deployments(kit.bus, [adder(3)])
    back = await read_deployments(kit.bus)

    assert removed == {}
    assert back["adder"].options == {}


async def test_what_a_class_handles_is_noted_wherever_it_was_deployed_from(
    kit: Kit, hand: Hand
) -> None:
    await seed_deployments(kit.bus, [replace(adder(), options={})])
    nothing = (await read_deployments(kit.bus))["adder"].handles
    noted = await hand.deploy(ADDER)
    again = await hand.deploy(ADDER)
    handles = (await read_deployments(kit.bus))["adder"].handles
    back = await hand.run("--rollback", "1")
    other = await hand.deploy(ADDER.replace("'adder'", "'other'"))
    forth = await hand.run("--rollback", "1", "--yes")
    after = (await read_deployments(kit.bus))["adder"]
    # As a newer release may find it, whose class handles more.
    await seed_deployments(kit.bus, [replace(after, handles=(*handles, "more"))])
    seeded = await read_roster(kit.bus)

    assert nothing == ()
    assert "note: other messages are handled by the code of today" in "\n".join(noted.said)
    assert "nothing to change" in "\n".join(again.said)
    assert handles
    assert list(handles) == sorted(handles)
    assert (back.code, other.code, forth.code, after.handles) == (0, 0, 0, handles)
    assert seeded is not None
    assert seeded.roster.entries[0].deployment.handles == (*handles, "more")
    assert seeded.roster.entries[0].source == "file"


async def test_a_rollback_does_not_let_a_file_bring_back_what_was_not_there(
    kit: Kit, hand: Hand
) -> None:
    await hand.deploy(ADDER)
    await seed_deployments(kit.bus, [weigher()])
    await hand.run("--rollback", "--yes")
    await seed_deployments(kit.bus, [weigher()])
    deployed = await read_deployments(kit.bus)

    assert list(deployed) == ["adder"]


async def test_a_kind_is_not_changed_while_something_waits(kit: Kit, hand: Hand) -> None:
    await deploy(kit.bus, adder(), weigher())
    await until(lambda: "weigher" in kit.host.pools)
    await kit.ask(A, Order(number=1, held=True))
    await until(lambda: Weigher.begun == [1])
    text = ADDER.replace("'adder'", "'weigher'")
    refused = await hand.deploy(text)
    removed = await hand.run("--remove", "weigher", "--yes")
    refused_again = await hand.deploy(text)
    Weigher.release.set()
    await until(lambda: Weigher.stopped)
    done = await hand.deploy(text)

    said = "weigher was worker and would be keyed, but 1 in hand: nobody would handle that"
    assert said in refused.errors[0]
    assert said in refused_again.errors[0]
    assert (refused.code, removed.code, done.code) == (1, 0, 0)


async def test_a_rollback_to_what_cannot_be_loaded_any_more_is_refused(
    kit: Kit, hand: Hand
) -> None:
    await deploy(kit.bus, Deployment(name="adder", type="gone:Gone", kind="keyed"))
    await deploy(kit.bus, adder())
    done = await hand.run("--rollback")

    assert done.code == 1
    assert "No module named 'gone'; deploy a file instead" in done.errors[0]
