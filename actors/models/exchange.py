"""One request to a provider and the bytes of its answer, with all that may go wrong on the way.

Silence ends it: before the first piece of an answer after `first` seconds; then after `idle`
seconds without a byte, or `first` with nothing but signs of life.
"""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx

from actors.models.events import Timeouts
from actors.models.faults import Code, UpstreamFault
from actors.models.framing import describe_page
from actors.models.inflating import ENCODINGS, inflate
from actors.models.objects import decode
from actors.models.trouble import Trouble, explain, read_trouble
from actors.models.wording import Discretion

MOST_BYTES = 64 * 1024 * 1024
"""Of one answer, with all that frames it."""
MOST_ERROR = 64 * 1024
"""Bytes that are read of an error."""
TAIL = 5.0
"""Seconds for what may follow an answer that is whole: its usage, its end marker."""
ERROR_PATIENCE = 10.0
DRAIN_PATIENCE = 0.25
"""Seconds for the rest of an error; for the end of a body that has nothing left to say."""
PLAIN = frozenset({"", "identity"})


@dataclass(frozen=True)
class Request:
    """What is sent. `headers` hold the key, so they are in no repr."""

    url: httpx.URL
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    method: str = "POST"


class Exchange:
    """An open request. Whoever opens it closes it."""

    def __init__(
        self, client: httpx.AsyncClient, timeouts: Timeouts, discretion: Discretion
    ) -> None:
        self._client = client
        self._timeouts = timeouts
        self._discretion = discretion
        self._host = "the provider"
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes]
        self._spoken = False
        self._waited = 0.0
        self._tail: float | None = None
        self._size = 0

    async def open(self, request: Request) -> None:
        """Send it; raises UpstreamFault, or Refused, unless the answer may be read."""
        self._host = request.url.netloc.decode("ascii", "replace")
        began = asyncio.get_running_loop().time()
        times = self._timeouts
        try:
            async with asyncio.timeout(times.pool + times.connect + times.write + times.first):
                response = await self._client.send(
                    self._build(request), stream=True, follow_redirects=False
                )
        except TimeoutError:
            raise self._late() from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._explain(error, begun=False) from None
        self._response = response
        self._waited = asyncio.get_running_loop().time() - began
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in PLAIN | ENCODINGS:
            raise self._fault("garbled", f"an answer encoded as {encoding}")
        chunks = response.aiter_raw()
        self._chunks = chunks if encoding in PLAIN else inflate(chunks)
        if response.status_code != 200:
            raise await self._read_error(response)

    async def read(self) -> bytes:
        """The next bytes, none at the end; raises UpstreamFault."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._limit()):
                chunk = await anext(self._chunks, b"")
        except TimeoutError:
            raise self._late() from None
        except (httpx.HTTPError, OSError, zlib.error) as error:
            raise self._explain(error, begun=True) from None
        self._wait(loop.time() - began)
        self._size += len(chunk)
        if self._size > MOST_BYTES:
            raise self._fault("too_long", f"an answer of more than {MOST_BYTES} bytes")
        return chunk

    async def read_all(self) -> bytes:
        """The whole of a short answer."""
        body = bytearray()
        while chunk := await self.read():
            body += chunk
        return bytes(body)

    def hear(self) -> None:
        """A piece of the answer has come: the waiting begins anew."""
        self._spoken, self._waited = True, 0.0

    def expect_end(self) -> None:
        """The answer is whole: what may follow it has a few seconds in all."""
        if self._tail is None:
            self._tail = TAIL

    async def drain(self) -> None:
        """Read to the end, if it is near, so that the connection can be used again."""
        with contextlib.suppress(UpstreamFault, TimeoutError):
            async with asyncio.timeout(DRAIN_PATIENCE):
                while await self.read():
                    pass

    async def close(self) -> None:
        """Give the connection back, or end it with what has not been read."""
        if self._response is not None:
            with contextlib.suppress(httpx.HTTPError, OSError):
                await self._response.aclose()

    def _build(self, request: Request) -> httpx.Request:
        """Raises UpstreamFault for a key that no header may hold."""
        times = self._timeouts
        if any(not (text.isascii() and text.isprintable()) for text in request.headers.values()):
            # The library would quote it in its error.
            raise self._fault("unauthorized", "our key holds characters that no header may hold")
        return self._client.build_request(
            request.method,
            request.url,
            content=request.body or None,
            headers={"Accept-Encoding": "identity", "User-Agent": "callboard", **request.headers},
            timeout=httpx.Timeout(
                connect=times.connect, read=times.first, write=times.write, pool=times.pool
            ),
        )

    def _limit(self) -> float:
        """Seconds that may pass before the next byte."""
        times = self._timeouts
        if self._tail is not None:
            return max(self._tail, 0.0)
        if not self._spoken:
            return max(times.first - self._waited, 0.0)
        return max(min(times.idle, max(times.first, times.idle) - self._waited), 0.0)

    def _wait(self, seconds: float) -> None:
        self._waited += seconds
        if self._tail is not None:
            self._tail -= seconds

    async def _read_error(self, response: httpx.Response) -> UpstreamFault:
        """What an answer that is no success says of itself. Raises Refused."""
        status = response.status_code
        body = await self._read_some()
        try:
            trouble = read_trouble(decode(body))
        except ValueError:
            text = body.lstrip()
            page = describe_page(body) if text.startswith(b"<") else text.decode(errors="replace")
            trouble = Trouble(message=page)
        if status < 400:
            return self._fault("garbled", f"answered {status}, neither an answer nor an error")
        return explain(trouble, self._discretion, status=status, headers=response.headers)

    async def _read_some(self) -> bytes:
        body = bytearray()
        with contextlib.suppress(UpstreamFault, TimeoutError):
            async with asyncio.timeout(ERROR_PATIENCE):
                while len(body) < MOST_ERROR and (chunk := await self.read()):
                    body += chunk
        return bytes(body[:MOST_ERROR])

    def _late(self) -> UpstreamFault:
        times = self._timeouts
        if not self._spoken:
            said = f"said nothing for {times.first:g} s"
        elif times.idle <= max(times.first, times.idle) - self._waited:
            said = f"said nothing more for {times.idle:g} s"
        else:
            said = f"gave nothing but signs of life for {times.first:g} s"
        return self._fault("timeout", f"{self._host} {said}")

    def _explain(self, error: Exception, *, begun: bool) -> UpstreamFault:
        """The fault that an error of the connection means."""
        if isinstance(error, httpx.ReadTimeout):
            return self._late()
        said = str(error) or type(error).__name__
        code: Code = "unreachable"
        if isinstance(error, httpx.WriteTimeout):
            code, said = "timeout", f"took nothing for {self._timeouts.write:g} s"
        elif isinstance(error, httpx.ConnectTimeout):
            said = f"no connection within {self._timeouts.connect:g} s"
        elif isinstance(error, httpx.PoolTimeout):
            code, said = "overloaded", "too many requests of ours are under way"
        elif isinstance(error, zlib.error):
            code = "garbled"
        elif isinstance(error, httpx.RemoteProtocolError):
            code = _judge_protocol(said, begun)
        return self._fault(code, f"{self._host}: {said}")

    def _fault(self, code: Code, reason: str) -> UpstreamFault:
        status = self._response.status_code if self._response is not None else 0
        return self._discretion.fault(code, reason, status=status)


def _judge_protocol(said: str, begun: bool) -> Code:
    if "closed connection" in said or "without sending" in said:
        return "truncated" if begun else "unreachable"
    return "garbled"
