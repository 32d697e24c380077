"""Connections to upstreams, kept in several small pools instead of a large one.

httpcore's pool looks at every connection for each idle one whenever an answer begins or ends.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx

IN_A_POOL = 24
"""Answers under way in one pool; the looks at it grow with the square of this."""


class _Pool:
    def __init__(self, transport: httpx.AsyncHTTPTransport) -> None:
        self.transport = transport
        self.busy = 0


class Pools(httpx.AsyncBaseTransport):
    """Sends each request through the first pool that has room, so that connections are reused."""

    def __init__(self, keepalive: float, trust: ssl.SSLContext) -> None:
        """`keepalive` is for how many seconds a connection is kept that nobody uses."""
        self._limits = httpx.Limits(max_connections=None, keepalive_expiry=keepalive)
        self._trust = trust
        self._pools: list[_Pool] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; its place in a pool is free again once the answer is closed."""
        pool = self._choose()
        pool.busy += 1
        try:
            response = await pool.transport.handle_async_request(request)
        except BaseException:
            await self._leave(pool)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Counted(response.stream, lambda: self._leave(pool))
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        pools, self._pools = self._pools, []
        for pool in pools:
            await pool.transport.aclose()

    def _choose(self) -> _Pool:
        for pool in self._pools:
            if pool.busy < IN_A_POOL:
                return pool
        transport = httpx.AsyncHTTPTransport(
            limits=self._limits, verify=self._trust, trust_env=False
        )
        self._pools.append(_Pool(transport))
        return self._pools[-1]

    async def _leave(self, pool: _Pool) -> None:
        """Of the pools that nobody uses only the first stays, which is used first."""
        pool.busy -= 1
        if not pool.busy and pool in self._pools[1:]:
            self._pools.remove(pool)
            await pool.transport.aclose()


class _Counted(httpx.AsyncByteStream):
    """An answer's body that says once when it is closed."""

    def __init__(
        self, stream: httpx.AsyncByteStream, closed: Callable[[], Awaitable[None]]
    ) -> None:
        self._stream = stream
        self._closed: Callable[[], Awaitable[None]] | None = closed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            closed, self._closed = self._closed, None
            if closed is not None:
                await closed()
