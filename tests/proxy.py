"""A man in the middle of NATS connections: what the server says can be lost, held, cut or made up.

It knows where a message from the server ends, so that what it loses is always whole messages.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Self, TypeAlias

CHUNK = 64 * 1024
LONGEST_LINE = 8 * 1024 * 1024

Choice = Callable[[bytes], bool]
_Way: TypeAlias = "asyncio.Queue[tuple[float, bytes]]"


class Proxy:
    """Passes bytes between clients and a server on loopback. `port` is chosen when it starts."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.accepted = 0
        """Connections so far."""
        self.refused = 0
        """Connections that were ended at once."""
        self.lost = 0
        """Messages of the server that nobody got."""
        self.latency = (0.0, 0.0)
        """Seconds, from and to, that everything takes longer."""
        self.crumbling = False
        """Whether everything comes in two pieces."""
        self._target = target
        self._lose: Choice = _nothing
        self._refusing = False
        self._deaf = False
        self._stranded: dict[asyncio.Task[None], tuple[bool, bool]] = {}
        self._flip = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._listening: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._lines: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listening is not None
        self._listening.close()
        # One that was accepted just now may not have begun yet.
        self._refusing = True
        for line in self._lines:
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)
        await self._listening.wait_closed()

    # -- what it can do to those who trust it ----------------------------------------------

    def lose(self, which: Choice) -> None:
        """From now on lose the server's messages that `which` picks; they are given whole."""
        self._lose = which

    def swallow(self) -> None:
        """Lose everything that the server says; what clients say still gets through."""
        self._lose = _everything

    def deafen(self) -> None:
        """Lose everything that clients say; what the server says still gets through."""
        self._deaf = True

    def strand(self, *, questions: bool = False, answers: bool = False) -> None:
        """Lose all that is said on the connections there are; new ones carry everything."""
        self._stranded = dict.fromkeys(self._lines, (questions, answers))

    def flip(self, number: int = 1) -> None:
        """Change one bit in each of the next so many messages of the server."""
        self._flip = number

    def hold(self) -> None:
        """Let nothing through, either way; nothing is lost, and connections stay open."""
        self._flowing.clear()

    def refuse(self) -> None:
        """End every new connection at once, as if no server were there."""
        self._refusing = True

    def heal(self) -> None:
        """Let everything and everybody through again, what was held first."""
        self._lose = _nothing
        self._refusing = self._deaf = self.crumbling = False
        self.latency, self._flip = (0.0, 0.0), 0
        self._stranded.clear()
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection."""
        for client in list(self._clients):
            client.transport.abort()

    def say(self, words: bytes) -> None:
        """Say something to every client as if the server did."""
        for client in list(self._clients):
            client.write(words)

    # -- passing on ------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._refusing:
            self.refused += 1
            client.transport.abort()
            return
        line = asyncio.current_task()
        assert line is not None
        self.accepted += 1
        self._lines.add(line)
        self._clients.add(client)
        try:
            await self._connect(reader, client)
        except (OSError, asyncio.CancelledError):
            pass  # no server, or the end of the test: the client sees its connection end
        finally:
            self._clients.discard(client)
            self._lines.discard(line)
            self._stranded.pop(line, None)
            client.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_connection(
            "127.0.0.1", self._target, limit=LONGEST_LINE
        )
        line = asyncio.current_task()
        assert line is not None
        sent: _Way = asyncio.Queue()
        said: _Way = asyncio.Queue()
        ways = [
            asyncio.create_task(way)
            for way in (
                self._pass_questions(line, reader, sent),
                self._pass_answers(line, answers, said),
                self._carry(sent, server),
                self._carry(said, client),
            )
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # First of all: this may be cancelled while it waits for the ways to end.
            server.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_questions(
        self, line: asyncio.Task[None], source: asyncio.StreamReader, way: _Way
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                await self._flowing.wait()
                if not self._deaf and not self._stranded.get(line, (False, False))[0]:
                    way.put_nowait((self._due(), data))
        await way.join()

    async def _pass_answers(
        self, line: asyncio.Task[None], source: asyncio.StreamReader, way: _Way
    ) -> None:
        with contextlib.suppress(OSError):
            async for message in self._read(source):
                await self._flowing.wait()
                if self._lose(message) or self._stranded.get(line, (False, False))[1]:
                    self.lost += 1
                    continue
                way.put_nowait((self._due(), self._damage(message)))
        await way.join()

    def _read(self, source: asyncio.StreamReader) -> AsyncIterator[bytes]:
        return _messages(source)

    def _due(self) -> float:
        return asyncio.get_running_loop().time() + random.uniform(*self.latency)

    async def _carry(self, way: _Way, receiver: asyncio.StreamWriter) -> None:
        """Hand over what is on its way, in order, each when it is due."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                due, data = await way.get()
                if (early := due - loop.time()) > 0:
                    await asyncio.sleep(early)
                await self._hand(data, receiver)
                way.task_done()

    async def _hand(self, data: bytes, receiver: asyncio.StreamWriter) -> None:
        middle = len(data) // 2 if self.crumbling else 0
        if middle:
            receiver.write(data[:middle])
            await receiver.drain()
            await asyncio.sleep(0.001)
        receiver.write(data[middle:])
        await receiver.drain()

    def _damage(self, message: bytes) -> bytes:
        if not self._flip:
            return message
        self._flip -= 1
        at = random.randrange(len(message))
        bit = 1 << random.randrange(8)
        return message[:at] + bytes([message[at] ^ bit]) + message[at + 1 :]


class Pipe(Proxy):
    """Passes bytes as they come, whatever they mean: between servers, which speak otherwise."""

    async def _read(self, source: asyncio.StreamReader) -> AsyncIterator[bytes]:
        while data := await source.read(CHUNK):
            yield data


class Sieve(Pipe):
    """Passes what servers tell each other one message at a time, so that it may lose some."""

    async def _pass_questions(
        self, line: asyncio.Task[None], source: asyncio.StreamReader, way: _Way
    ) -> None:
        await self._pass_answers(line, source, way)

    def _read(self, source: asyncio.StreamReader) -> AsyncIterator[bytes]:
        return _messages(source)


async def _messages(source: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """What a server says, one message at a time: a line, and what the line says follows it."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            line = await source.readuntil(b"\r\n")
            if line.startswith((b"MSG ", b"HMSG ", b"RMSG ")):
                yield line + await source.readexactly(int(line.split()[-1]) + 2)
            else:
                yield line


def _nothing(message: bytes) -> bool:
    return False


def _everything(message: bytes) -> bool:
    return True
