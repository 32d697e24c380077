"""Whatever is wrong with the server, a command says so in one line, and ends in a few seconds."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import cli
from runtime.bus import Bus
from runtime.errors import NotPossible
from runtime.open import open_bus
from runtime.store.server import EmbeddedServer
from runtime.tables import NatsTable
from tests.integration.brokers import broker
from tests.integration.command import ROOT, find_free_port
from tests.integration.faults import frozen
from tests.integration.waiting import until

ENDS_WITHIN = 45.0
"""Seconds, the start of Python included: sixteen of them at once, on a machine that may be busy."""
pytestmark = pytest.mark.timeout(150)
WORDS = {
    "actors": [],
    "tail": [],
    "doctor": [],
    "dead list": [],
    "export": ["relay/log", "--to", "archive"],
    "dead show": ["1"],
    "dead replay": ["1"],
    "dead edit": ["1", "--set", "data.n=1"],
    "dead discard": ["1"],
    "deploy": ["--history"],
    "pause": ["master/a"],
    "resume": ["master/a"],
    "skip": ["master/a"],
    "kill": ["master/a", "--yes"],
    "run show": ["r1"],
    "run stop": ["r1"],
}


class Ended:
    """What a command said, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def failed_in_one_line(self) -> bool:
        # The doctor's findings are what it is asked for; the others have nothing to print.
        said = self.err + "".join(line for line in self.out.splitlines(True) if "WRONG" in line)
        return self.code in (1, 2, 78) and said.count("\n") >= 1 and self.is_clean

    @property
    def is_clean(self) -> bool:
        lines = self.err.splitlines()
        return "Traceback" not in self.err + self.out and (len(lines) <= 1 or self.code == 2)


async def run(name: str, folder: Path, *options: str, **environment: str) -> Ended:
    """Run a command; it must end by itself, in time."""
    process = await start(name, folder, *options, **environment)
    try:
        async with asyncio.timeout(ENDS_WITHIN):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def start(
    name: str, folder: Path, *options: str, **environment: str
) -> asyncio.subprocess.Process:
    words = [*name.split(), *WORDS.get(name, [])]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime", *words, *options),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def configured(folder: Path, url: str, *lines: str) -> tuple[str, str]:
    """The option for a configuration of a user `u`, whose password is in the environment."""
    path = folder / "callboard.toml"
    table = [f'url = "{url}"', 'user = "u"', 'password_env = "PASSWORD"', *lines]
    path.write_text("[nats]\n" + "\n".join(table) + "\n")
    return "--config", str(path)


async def run_all(folder: Path, *options: str, **environment: str) -> dict[str, Ended]:
    """Run every command, a few at a time."""
    few = asyncio.Semaphore(3)

    async def one(name: str) -> Ended:
        async with few:
            return await run(name, folder, *options, **environment)

    return dict(zip(WORDS, await asyncio.gather(*map(one, WORDS)), strict=True))


def assert_all_say(ended: dict[str, Ended], reason: str) -> None:
    """Each of them ended in one line, which gives a reason."""
    silent = {
        name: (each.code, each.err, each.out)
        for name, each in ended.items()
        if not each.failed_in_one_line or reason not in each.err + each.out
    }

    assert silent == {}


# -- the server ---------------------------------------------------------------------------------


async def test_where_nobody_listens_they_say_so(tmp_path: Path) -> None:
    port = find_free_port()
    ended = await run_all(tmp_path, "--nats", f"nats://127.0.0.1:{port}")

    assert_all_say(ended, f"127.0.0.1:{port}: nobody listens there")


async def test_of_a_frozen_server_they_say_that_it_does_not_answer(
    tmp_path: Path, own_server: EmbeddedServer
) -> None:
    with frozen(own_server):
        ended = await run_all(tmp_path, "--nats", own_server.url)

    assert_all_say(ended, "does not answer")


async def test_of_a_server_without_jetstream_they_say_what_is_missing(
    tmp_path: Path, nats_server_binary: str
) -> None:
    async with broker(nats_server_binary, tmp_path) as server:
        ended = await run_all(tmp_path, "--nats", server.url)

    assert_all_say(ended, "JetStream does not answer on this server")


async def test_of_another_program_they_say_that_it_is_one(tmp_path: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ended = await run_all(tmp_path, "--nats", f"nats://127.0.0.1:{port}")
    server.close()

    assert_all_say(ended, f"127.0.0.1:{port}: is no NATS server")


async def test_a_name_that_cannot_be_resolved_is_named(tmp_path: Path) -> None:
    ended = await run_all(tmp_path, "--nats", "nats://nowhere.invalid:4222")

    assert_all_say(ended, "nowhere.invalid:4222")


@pytest.mark.parametrize("url", ["localhost", "http://localhost:4222", "nats://u:pw@h", "nats://"])
async def test_an_address_that_is_none_is_refused(url: str, tmp_path: Path) -> None:
    ended = await run_all(tmp_path, "--nats", url)

    assert_all_say(ended, "--nats: ")
    assert {each.code for each in ended.values()} == {78}
    assert "pw" not in "".join(each.err for each in ended.values())


# -- who asks -----------------------------------------------------------------------------------

LOGIN = """
jetstream {{ store_dir: "{store}" }}
authorization {{ users: [ {{ user: u, password: right, permissions: {{ {permissions} }} }} ] }}
"""


async def test_a_wrong_password_is_told_and_not_shown(
    tmp_path: Path, nats_server_binary: str
) -> None:
    settings = LOGIN.format(store=tmp_path, permissions="")
    async with broker(nats_server_binary, tmp_path, settings) as server:
        config = configured(tmp_path, server.url)
        ended = await run_all(tmp_path, *config, PASSWORD="not-the-right-one")

    assert_all_say(ended, "does not let us in")
    assert "not-the-right-one" not in "".join(each.err + each.out for each in ended.values())


@pytest.mark.parametrize(
    ("permissions", "reason"),
    [
        ('publish: "nothing"', "not allowed to publish to $JS.API"),
        ('subscribe: "nothing"', "not allowed to hear answers"),
    ],
)
async def test_what_is_not_permitted_is_named(
    permissions: str, reason: str, tmp_path: Path, nats_server_binary: str
) -> None:
    settings = LOGIN.format(store=tmp_path, permissions=permissions)
    async with broker(nats_server_binary, tmp_path, settings) as server:
        ended = await run_all(tmp_path, *configured(tmp_path, server.url), PASSWORD="right")

    assert_all_say(ended, reason)


async def test_credentials_that_cannot_be_read_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "callboard.toml"
    path.write_text('[nats]\nurl = "nats://127.0.0.1:4222"\ncreds = "none.creds"\n')
    ended = await run("actors", tmp_path, "--config", str(path))

    assert (ended.code, ended.is_clean) == (78, True)
    assert "nats.creds" in ended.err


# -- whoever asks goes away ---------------------------------------------------------------------


@pytest.fixture
async def url(own_server: EmbeddedServer) -> str:
    """A server with everything that a system needs."""
    bus = await open_bus(NatsTable(url=own_server.url))
    await bus.link.close()
    return own_server.url


async def test_in_a_store_that_lacks_a_stream_they_say_which_and_what_can_be_done(
    tmp_path: Path, url: str, own_bus: Bus
) -> None:
    await own_bus.api("STREAM.DELETE.BUS")
    ended = {name: await run(name, tmp_path, "--nats", url) for name in ("actors", "dead list")}

    for each in ended.values():
        assert each.code == 1
        assert "the stream BUS is not there any more" in each.err
        assert "--accept-data-loss" in each.err


def test_what_a_terminal_would_obey_is_not_said_back_to_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise NotPossible("--remove \x1b[31m: no such actor is deployed")

    monkeypatch.setattr(cli, "load", refuse)

    assert cli.run(["actors"]) == 1
    assert capsys.readouterr().err == "callboard: --remove \\x1b[31m: no such actor is deployed\n"


@pytest.mark.parametrize("name", ["actors", "doctor", "tail"])
async def test_ctrl_c_while_a_server_does_not_answer_ends_it_without_a_word(
    name: str, tmp_path: Path, own_server: EmbeddedServer
) -> None:
    with frozen(own_server):
        process = await start(name, tmp_path, "--nats", own_server.url)
        await until(lambda: is_connected(process.pid, own_server.port))
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(ENDS_WITHIN):
            _, err = await process.communicate()

    assert (process.returncode, err.decode()) == (130, "")


async def test_ctrl_c_ends_a_tail_without_a_word(tmp_path: Path, url: str, own_bus: Bus) -> None:
    process = await start("tail", tmp_path, "--nats", url)
    assert process.stdout is not None
    async with asyncio.timeout(ENDS_WITHIN):
        line = b""
        while not line:
            await own_bus.publish("event.talk.a", b"{}")
            with contextlib.suppress(TimeoutError):
                line = await asyncio.wait_for(process.stdout.readline(), 0.2)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert (process.returncode, err.decode()) == (130, "")


def is_connected(pid: int, port: int) -> bool:
    """Whether a process has a connection to a port of this machine."""
    inodes = set()
    with contextlib.suppress(OSError):
        for each in os.listdir(f"/proc/{pid}/fd"):
            inodes.add(os.readlink(f"/proc/{pid}/fd/{each}"))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2].endswith(f":{port:04X}") and f"socket:[{fields[9]}]" in inodes:
            return True
    return False


@pytest.mark.parametrize("name", ["actors", "doctor", "dead list", "tail"])
async def test_whoever_reads_no_more_ends_it_without_a_word(
    name: str, tmp_path: Path, url: str, own_bus: Bus
) -> None:
    await own_bus.publish("event.talk.a", b"{}")
    reading, writing = os.pipe()
    os.close(reading)
    once = ["--once"] if name == "tail" else []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime", *name.split(), "--nats", url, *once),
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    async with asyncio.timeout(ENDS_WITHIN):
        _, err = await process.communicate()

    assert (process.returncode, err.decode()) == (141, "")


async def test_a_terminal_that_lacks_the_letters_is_shown_their_numbers(
    tmp_path: Path, url: str, own_bus: Bus
) -> None:
    await own_bus.publish("event.talk.a", '{"说":1}'.encode())
    ended = await run("tail", tmp_path, "--once", "--nats", url, PYTHONIOENCODING="ascii")

    assert ended.code == 0, ended.err


# -- the server goes away meanwhile -------------------------------------------------------------


async def test_a_tail_goes_on_when_the_server_is_back(
    tmp_path: Path, url: str, own_server: EmbeddedServer, own_bus: Bus
) -> None:
    process = await start("tail", tmp_path, "--jsonl", "--nats", url)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        await hear(process, own_bus)
        await own_server.kill()
        async with asyncio.timeout(ENDS_WITHIN):
            waiting = (await process.stderr.readline()).decode()
        await own_server.start()
        await until(own_bus.link.connected.is_set)
        await hear(process, own_bus)
    finally:
        process.kill()
        await process.communicate()

    assert waiting.startswith("callboard: waiting for the server")


async def hear(process: asyncio.subprocess.Process, bus: Bus) -> None:
    """Say something until the process prints it."""
    assert process.stdout is not None
    heard = asyncio.create_task(process.stdout.readline())
    async with asyncio.timeout(ENDS_WITHIN):
        while not heard.done():
            with contextlib.suppress(Exception):
                await bus.publish("event.talk.a", b"{}", timeout=1)
            await asyncio.wait([heard], timeout=0.1)


@pytest.mark.parametrize("name", ["host", "edge"])
async def test_what_is_to_run_waits_for_its_server_says_so_once_and_stops_when_told(
    name: str, tmp_path: Path
) -> None:
    port = find_free_port()
    path = tmp_path / "callboard.toml"
    path.write_text(f'[edge]\nlisten = ["127.0.0.1:{find_free_port()}"]\n[log]\nformat = "json"\n')
    process = await start(
        name, tmp_path, "--config", str(path), "--nats", f"nats://127.0.0.1:{port}"
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(ENDS_WITHIN):
            line = (await process.stderr.readline()).decode()
            process.send_signal(signal.SIGTERM)
            _, rest = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()

    assert "nats_unreachable" in line
    assert "nobody listens there" in line
    assert process.returncode == 0
    assert b"Traceback" not in rest
