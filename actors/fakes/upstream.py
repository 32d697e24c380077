"""A fake upstream: a provider's wire on a port, a ledger of what it was asked, and a gate.

async with fake("openai", fault="truncated") as upstream:
    ...  # ask upstream.url
    assert len(upstream.asked) == 1
"""

import asyncio
import importlib
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from actors.fakes import switches as menu
from actors.fakes.arguments import KINDS
from actors.fakes.control import control
from actors.fakes.frames import Answer, Streamed, Whole
from actors.fakes.ledger import Asked, Gate, Ledger
from actors.fakes.line import Line, Reply, Request
from actors.fakes.player import Player
from actors.fakes.script import Provider, Script, Text
from runtime.errors import ConfigError

MALFORMED = (AttributeError, KeyError, IndexError, TypeError, ValueError)
"""What comes of reading a request that has other shapes than its provider's."""
SECRETS = {"authorization", "proxy-authorization", "cookie", "api-key", "x-goog-api-key"}
HTML = b"""<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"""


def fake(
    kind: str = "openai",
    *,
    fault: str = "",
    text: Text = "",
    models: tuple[str, ...] = (),
    key: str = "",
    tokens: int = 0,
    rate: float = 0,
    port: int = 0,
    **options: Any,
) -> "Upstream":
    """A fake upstream of a kind in KINDS, to be entered by `async with`; loopback only.

    `fault` are switches for every answer; `text`, `models` and `key` are as in Script; `tokens`
    pieces come at `rate` pieces per second. `options` are the kind's own. Raises ConfigError
    for a kind or a switch that is not there.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no fake {kind!r}; there are {', '.join(KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    script = Script(text, tuple(models), key)
    provider = getattr(importlib.import_module(module), name)(script, **options)
    sizes = [f"tokens={tokens}"] * bool(tokens) + [f"rate={rate}"] * bool(rate)
    return Upstream(cast(Provider, provider), "+".join([fault, *sizes]), script, port)


class Upstream:
    """One fake, serving while it is entered."""

    def __init__(self, provider: Provider, fault: str, script: Script, port: int) -> None:
        self.provider = provider
        self.ledger = Ledger()
        self.gate = Gate(self.ledger)
        self.menu = menu.MENU | provider.menu
        self._script = script
        self._always = menu.read_switches(fault, self.menu)
        self._next: deque[dict[str, str]] = deque()
        self._parts: dict[str, deque[str]] = {}
        self._port = port
        self._lines: set[Line] = set()
        self._server: asyncio.Server | None = None

    # -- for tests

    @property
    def root(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """The base URL that clients of this provider are given."""
        return self.root + self.provider.base

    @property
    def calls(self) -> list[Asked]:
        """Every request so far."""
        return self.ledger.calls

    @property
    def asked(self) -> list[Asked]:
        """The questions to models so far."""
        return [call for call in self.ledger.calls if call.generates]

    def next(self, *faults: str, part: str = "") -> None:
        """Let the next answers have these switches besides, one each; an empty one has none.

        With a `part` (such as `token`) those to requests for that part of the wire.
        """
        read = [menu.read_switches(fault, self.menu) for fault in faults]
        if part:
            self._parts.setdefault(part, deque()).extend(faults)
        else:
            self._next.extend(read)

    def release(self, count: int = 1) -> None:
        """Let so many of the answers on that wait, now or later."""
        self.gate.release(count)

    def open(self) -> None:
        """Let all answers on, now and later."""
        self.gate.open()

    async def until(self, true: Callable[[], bool], within: float = 10) -> None:
        """Wait until something is so, looked at whenever something happens here."""
        await self.ledger.until(true, within)

    async def called(self, count: int = 1, within: float = 10) -> Asked:
        """Wait for so many questions; returns the last of them."""
        await self.until(lambda: len(self.asked) >= count, within)
        return self.asked[count - 1]

    async def held(self, count: int = 1, within: float = 10) -> None:
        """Wait until so many answers stand at the gate."""
        await self.until(lambda: self.gate.waiting >= count, within)

    async def ended(self, call: Asked, within: float = 10) -> Asked:
        """Wait until a call is over, whichever way."""
        await self.until(lambda: call.outcome != "", within)
        return call

    # -- serving

    async def __aenter__(self) -> "Upstream":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Line(self._serve, self._lines), "127.0.0.1", self._port, backlog=2048
        )
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*[line.abort() for line in set(self._lines)])
        if self._server is not None:
            await self._server.wait_closed()

    async def _serve(self, line: Line, request: Request) -> None:
        asked = read_request(request, len(self.calls))
        if asked.path.startswith("/fake/"):
            answer: Answer = control(self, asked)
        else:
            self.calls.append(asked)
            answer = self._answer(asked)
        self.ledger.change()
        reply = Reply(line, request.lasting, asked.switches)
        try:
            await Player(reply, asked, self.ledger, self.gate).play(answer)
        except Exception:
            line.reset()
            raise
        finally:
            if not asked.outcome:
                asked.outcome = "left"
                asked.ended_at = time.monotonic()
                self.ledger.change()

    def _answer(self, asked: Asked) -> Answer:
        try:
            self._read_switches(asked)
            return stand_in(self.provider, asked) or self.provider.answer(asked)
        except (ConfigError, *MALFORMED) as error:
            return self.provider.failure(asked, 400, message=f"{type(error).__name__}: {error}")

    def _read_switches(self, asked: Asked) -> None:
        """Find out what is asked, and with which faults; those named closest to it win."""
        named = self.provider.model_of(asked)
        if named is None:
            return self._read_part(asked)
        asked.generates = True
        asked.model, behind = menu.split_model(named, self.menu)
        turn = self._next.popleft() if self._next else {}
        header = menu.read_switches(asked.headers.get(menu.HEADER, ""), self.menu)
        asked.switches = self._always | turn | behind | header

    def _read_part(self, asked: Asked) -> None:
        """Find out which faults a request has that asks for something else than an answer."""
        part = self.provider.part_of(asked)
        waiting = self._parts.get(part)
        written = waiting.popleft() if waiting else self._always.get(part, "")
        asked.switches = menu.read_switches(written.replace("&", "+"), self.menu)


def stand_in(provider: Provider, asked: Asked) -> Answer | None:
    """What comes instead of an answer, if its switches say so."""
    switches = asked.switches
    if "status" in switches:
        return provider.failure(asked, int(switches["status"]), switches.get("hint", ""))
    if "html" in switches:
        status = int(menu.number(switches, "html", 502))
        return Whole(status, HTML, media="text/html")
    if "empty" in switches:
        usual = provider.answer(asked)
        return Streamed((), lambda said: said.data, media=usual.media)
    return None


def read_request(request: Request, number: int) -> Asked:
    """A request as the ledger has it. A secret is kept where nobody prints it."""
    parts = urlsplit(request.target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    secret = secret or request.headers.get("x-goog-api-key", "") or query.get("key", "")
    headers = {n: "***" if n in SECRETS else value for n, value in request.headers.items()}
    if scheme:
        headers["authorization"] = f"{scheme} ***"
    if "key" in query:
        query["key"] = "***"
    return Asked(
        number, request.method, unquote(parts.path), query, headers, _decoded(request), secret
    )


def _decoded(request: Request) -> Any:
    try:
        return msgspec.json.decode(request.body)
    except msgspec.DecodeError:
        return request.body
