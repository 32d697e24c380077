"""A host whose event loop is blocked says by what, and ends itself if that does not end."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.bus import Bus
from runtime.store.server import EmbeddedServer
from runtime.terminal.overview import read_nodes
from runtime.watchdog import EX_BLOCKED
from schemas import subjects
from schemas.base import Address, Message
from schemas.envelope import encode, seal
from tests.chaos.processes import Process, read_lines
from tests.integration.blocker import Backtrack, Sleep
from tests.integration.waiting import until_known

CONFIG = """
[log]
format = "json"
[host]
block_limit = "3s"
[[actor]]
name = "blocker"
type = "tests.integration.blocker:Blocker"
"""


@pytest.fixture
async def blocker(
    bus: Bus, shared_server: EmbeddedServer, tmp_path: Path
) -> AsyncIterator[Process]:
    config = tmp_path / "blocker.toml"
    config.write_text(CONFIG)
    arguments = ["runtime", "host", "--config", str(config), "--nats", shared_server.url]
    process = Process("blocker", tmp_path / "blocker.log", arguments)
    await process.start()
    await process.say("host_ready")
    yield process
    await process.kill()


async def tell(bus: Bus, message: Message) -> None:
    to = Address("blocker", "a")
    data = encode(seal(message, id="1", source="test", subject=to.key))
    await bus.publish(subjects.mail(to), data)


async def test_what_blocks_the_loop_is_logged_with_its_stack_while_it_does(
    bus: Bus, blocker: Process
) -> None:
    await tell(bus, Sleep(seconds=2))
    await blocker.say("loop_blocked")
    await blocker.say("loop_goes_on")
    said = [one["event"] for one in read_lines(blocker.log)]
    told = next(one for one in read_lines(blocker.log) if one["event"] == "loop_blocked")

    assert "time.sleep(message.seconds)" in told["exception"]
    assert said.index("loop_blocked") < said.index("message_settled")
    assert blocker.code is None


async def test_a_loop_that_is_blocked_for_too_long_ends_the_process_with_all_stacks(
    bus: Bus, blocker: Process
) -> None:
    await tell(bus, Sleep(seconds=600))
    code = await blocker.wait()
    text = blocker.log.read_text()

    assert code == EX_BLOCKED
    assert "loop_blocked_for_good" in text
    assert "in sleep" in text


async def test_a_handler_that_lets_no_other_thread_run_ends_the_process_too(
    bus: Bus, blocker: Process
) -> None:
    await tell(bus, Backtrack())
    code = await blocker.wait()
    text = blocker.log.read_text()

    assert code == 1  # it ends by the interpreter's own watchdog, which knows no other
    assert "in backtrack" in text


async def test_one_that_was_frozen_as_a_whole_has_blocked_nothing(
    bus: Bus, blocker: Process
) -> None:
    blocker.send(signal.SIGSTOP)
    await until_known(lambda: is_forgotten(bus))  # longer than a loop may stand still
    blocker.send(signal.SIGCONT)
    await tell(bus, Sleep(seconds=0))
    await blocker.say("message_settled")

    assert "loop_blocked" not in blocker.log.read_text()


async def is_forgotten(bus: Bus) -> bool:
    return await read_nodes(bus) == []
