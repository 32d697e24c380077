"""Everything may be started and ended in any order; what waits for a server says so."""

import asyncio
from itertools import permutations
from pathlib import Path

from runtime.bus import Bus
from runtime.connection import Connection
from runtime.store.server import EmbeddedServer
from runtime.streams import ensure_streams
from tests.chaos.history import History, Journal
from tests.chaos.processes import Process, Setting, unexpected
from tests.chaos.processes import count_events as count
from tests.chaos.quiet import until_quiet
from tests.chaos.verdict import judge, read_log
from tests.integration.waiting import until

PARTS = ("server", "host", "asker")
ASKED = 40
SECONDS = 2.0


class Site:
    """A server, a host and an asker, each of which can be ended and started by its name."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.server = EmbeddedServer(folder / "store")
        self.journal = Journal(folder / "asker.jsonl")
        self.processes: dict[str, Process] = {}
        self.logs: list[Path] = []

    async def start(self, part: str) -> None:
        """Start a part; a process has then said that it is ready, or what it waits for."""
        if part == "server":
            await self.server.start()
            return
        process = self._host() if part == "host" else self._asker()
        process.log = self.folder / f"{part}-{len(self.logs)}.log"
        self.logs.append(process.log)
        self.processes[part] = process
        await process.start()
        if not self.server.pid:
            await process.say("nats_unreachable")

    async def kill(self, part: str) -> None:
        """End a part as `kill -9` does."""
        if part == "server":
            await self.server.kill()
        else:
            await self.processes[part].kill()

    async def stop(self) -> None:
        """End whatever is still there."""
        for process in self.processes.values():
            await process.kill()
        await self.server.stop()

    def _host(self) -> Process:
        return Setting(self.folder).host("host", self.server.url)

    def _asker(self) -> Process:
        numbers = ["1", str(ASKED), str(SECONDS)]
        arguments = ["tests.chaos.asker", self.server.url, str(self.folder / "asker.jsonl")]
        return Process("asker", self.folder, [*arguments, *numbers])

    @property
    def answered(self) -> int:
        """How many requests were answered so far."""
        return sum(line["what"] == "ok" for line in self.journal.read())

    async def some_answers(self, least: int) -> None:
        """Wait until so many requests were answered."""
        await until(lambda: self.answered >= least, 20)


async def everything_wrong(site: Site) -> list[str]:
    """Wait until the asker is through and all is quiet; then compare with the model."""
    async with asyncio.timeout(40):
        code = await site.processes["asker"].wait()
        link = Connection([site.server.url])
        await link.open()
        bus = Bus(link)
        await ensure_streams(bus)
        await until_quiet(bus, 40)
    history = History()
    wrong = site.journal.replay(history)
    wrong += judge(await read_log(bus), history, [])
    await link.close()
    answered = sum(one.outcome == "ok" for one in history.operations.values())
    wrong += [] if (code, answered) == (0, ASKED) else [f"exit code {code}, {answered} answers"]
    return wrong + unexpected(count(site.logs))


async def try_order(folder: Path, order: tuple[str, ...], *, together: bool) -> list[str]:
    """Restart the parts in an order, one by one or after all have ended; says what is wrong."""
    site = Site(folder)
    try:
        for part in PARTS:
            await site.start(part)
        await site.some_answers(3)
        if together:
            for part in PARTS:
                await site.kill(part)
        for part in order:
            await site.kill(part)
            await site.start(part)
        return [f"{'-'.join(order)}: {line}" for line in await everything_wrong(site)]
    finally:
        await site.stop()


async def try_every_order(folder: Path, *, together: bool) -> list[str]:
    """Try them all at the same time, each on a site of its own."""
    wrong = await asyncio.gather(
        *(try_order(folder / "-".join(o), o, together=together) for o in permutations(PARTS))
    )
    return [line for lines in wrong for line in lines]


async def test_a_restart_of_one_after_another_in_any_order_loses_nothing(tmp_path: Path) -> None:
    assert await try_every_order(tmp_path, together=False) == []


async def test_after_all_went_down_they_may_come_up_in_any_order(tmp_path: Path) -> None:
    assert await try_every_order(tmp_path, together=True) == []


async def test_a_host_waits_for_a_server_that_is_not_there_and_says_so(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.server.start()
    await site.server.kill()  # its port is known now, and nobody listens there
    await site.start("host")
    process = site.processes["host"]
    still_waiting = process.code is None
    await site.server.start()
    await process.say("host_ready")
    said = [line for line in count(site.logs) if line.startswith(("nats_", "host_"))]
    code = await process.terminate()
    await site.stop()

    assert still_waiting
    assert said == ["nats_unreachable", "nats_reached", "host_ready"]
    assert code == 0


async def test_a_host_survives_a_server_that_dies_while_it_starts(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.server.start()
    await site.start("host")
    process = site.processes["host"]
    await process.say("stream_created")
    for _ in range(3):
        await site.server.kill()
        await site.server.start()
    await process.say("host_ready")
    code = await process.terminate()
    await site.stop()

    assert code == 0
