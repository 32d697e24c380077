"""What operators said of a key, and nobody can read any more: the key waits."""

from runtime.controls import name_of
from runtime.kv import Bucket
from runtime.terminal.overview import read_nodes
from runtime.testing import running
from tests.integration.counter import HERE, Counter
from tests.integration.test_controls import do, heard, parked, write
from tests.integration.waiting import until_known


async def test_a_key_of_which_nobody_can_read_what_was_said_waits_until_it_is_resumed() -> None:
    async with running(counter=Counter) as kit:
        revision = await Bucket(kit.bus, "config").put(
            name_of(HERE.actor, HERE.key), b"\xff nonsense"
        )

        async def read_by_all() -> bool:
            return all(node.heard >= revision for node in await read_nodes(kit.bus))

        await until_known(read_by_all)
        await parked(kit, await write(kit, "one"))
        shown = await do(kit, "actors", str(HERE))
        resumed = await do(kit, "resume", str(HERE))
        await heard(kit, ["one"])

    assert "what was said is unreadable" in shown.stdout
    assert "goes on" in resumed.stdout
