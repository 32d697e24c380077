"""An operator at a terminal, who runs `callboard deploy` beside a host that is to follow."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from runtime.testing import Kit
from schemas.deployment import Roster
from tests.integration.command import PATIENCE, ROOT
from tests.integration.rosters import HERE

ADDER = f"[[actor]]\nname = 'adder'\ntype = '{HERE}:Adder'\n"


class Done:
    """What became of a command: its exit code, and every line that it printed."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.said = done.stdout.splitlines()
        self.errors = done.stderr.splitlines()


class Hand:
    """An operator at a terminal, with files in a folder."""

    def __init__(self, kit: Kit, folder: Path) -> None:
        self.words = [sys.executable, "-m", "runtime", "deploy", "--nats", kit.server.url]
        self.folder = folder

    def write(self, text: str, name: str = "plan.toml") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    async def deploy(self, text: str, *words: str) -> Done:
        return await self.run(str(self.write(text)), *words)

    async def run(self, *words: str) -> Done:
        # In a thread: the host that is to follow lives in this process.
        return Done(await asyncio.to_thread(self._run, words))

    def _run(self, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.words, *words],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )


async def answered(
    hand: Hand,
    answer: str,
    *words: str,
    meanwhile: Callable[[], Awaitable[Roster]] | None = None,
) -> tuple[int, str]:
    """Run the command at a terminal, and answer what it asks; its code and its last line."""
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *hand.words,
        *words,
        cwd=ROOT,
        stdin=theirs,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    os.close(theirs)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        await process.stdout.readuntil(b"[y/N] ")
        if meanwhile:
            await meanwhile()
        os.write(ours, answer.encode())
        rest = await process.stdout.read()
        code = await process.wait()
    os.close(ours)
    return code, rest.decode().splitlines()[-1]
