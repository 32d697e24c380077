"""The way of one party to the servers: a proxy in front of each, all worked together."""

from collections.abc import Callable
from contextlib import AsyncExitStack

from tests.proxy import Proxy


class Line:
    """One party's way to every server; it chooses among them as it likes."""

    def __init__(self, ports: list[int]) -> None:
        self._proxies = [Proxy(port) for port in ports]
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Line":
        for proxy in self._proxies:
            await self._stack.enter_async_context(proxy)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """Where its party connects."""
        return ",".join(proxy.url for proxy in self._proxies)

    @property
    def lost(self) -> int:
        """Messages of the servers that nobody got."""
        return sum(proxy.lost for proxy in self._proxies)

    @property
    def accepted(self) -> int:
        """Connections so far."""
        return sum(proxy.accepted for proxy in self._proxies)

    def lose(self, which: Callable[[bytes], bool]) -> None:
        """From now on lose the messages of servers that `which` picks."""
        for proxy in self._proxies:
            proxy.lose(which)

    def cut(self) -> None:
        """Reset every connection."""
        for proxy in self._proxies:
            proxy.cut()

    def hold(self) -> None:
        """Let nothing through, either way."""
        for proxy in self._proxies:
            proxy.hold()

    def swallow(self) -> None:
        """Lose everything that servers say."""
        for proxy in self._proxies:
            proxy.swallow()

    def close(self) -> None:
        """End every connection, and every new one at once."""
        for proxy in self._proxies:
            proxy.refuse()
            proxy.cut()

    def heal(self) -> None:
        """Let everything through again."""
        for proxy in self._proxies:
            proxy.heal()
