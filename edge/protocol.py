"""How a connection is served: uvicorn's protocol behind a gate that has read every byte before.

One request at a time. Heads: `edge/head.py`, bodies: `edge/framing.py`, sizes: `edge/limits.py`.
"""

import asyncio
from datetime import timedelta
from enum import Enum, auto
from typing import Any, ClassVar

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from edge.framing import Chunked, Counted
from edge.head import Head, HeadScanner
from edge.hosts import Hosts
from edge.limits import Limits
from edge.problem import Refusal, quote, refused_at

log = structlog.get_logger("edge")


class Phase(Enum):
    """What the bytes of a connection are at the moment."""

    HEAD = auto()
    BODY = auto()
    ANSWER = auto()  # of the next request, which waits
    CLOSED = auto()  # of nobody


class Flow(FlowControl):
    """Flow control that the application cannot open while `held`: it asks for its own body,
    and what would come are the next requests."""

    held = False

    def resume_reading(self) -> None:
        """Let more bytes come, unless `held`."""
        if not self.held:
            super().resume_reading()

    def hold(self) -> None:
        """Let no more bytes come."""
        self.held = True
        self.pause_reading()

    def release(self) -> None:
        """Let bytes come again."""
        self.held = False
        self.resume_reading()


class Outlet(asyncio.Transport):
    """The transport as an answer sees it: closing it leaves the peer time to read."""

    def __init__(self, protocol: "GuardedProtocol") -> None:
        super().__init__()
        self._protocol = protocol

    def write(self, data: Any) -> None:
        """Send bytes, to nobody if the connection was given up."""
        if not self._protocol.given_up:
            self._protocol.transport.write(data)

    def close(self) -> None:
        """End the connection."""
        self._protocol.close()

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._protocol.given_up or self._protocol.transport.is_closing()


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with deadlines and limits, strict about what a request is.

    A refused request never reaches the application: it is answered with a problem, and the
    connection ends. The head and the body of a request have a deadline, an answer has none.
    """

    limits: ClassVar[Limits] = Limits()
    hosts: ClassVar[Hosts] = Hosts()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._phase = Phase.HEAD
        self._buffer = bytearray()
        self._scanner = self._new_scanner()
        self._body: Counted | Chunked = Counted(0)
        self._body_began = 0.0
        self._unwanted = False
        self._asked = self._target = ""
        self._persistent = False
        self._stopping = False
        self._timer: asyncio.TimerHandle | None = None
        self._flow: Flow

    @property
    def given_up(self) -> bool:
        """Whether this connection sends and reads no more."""
        return self._phase is Phase.CLOSED

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start the clock of a new connection, or turn it away."""
        super().connection_made(transport)
        self.flow = self._flow = Flow(transport)
        excess = len(self.connections) - self.limits.connections
        if excess > 0:
            self._turn_away(excess)
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._phase = Phase.CLOSED
        self._buffer.clear()
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what has come, as far as it may be read now."""
        if self._phase is not Phase.CLOSED:
            self._buffer += data
            self._advance()

    def resume_writing(self) -> None:
        """Go on after the peer has read what was sent."""
        super().resume_writing()
        if self._phase is Phase.HEAD:
            self._flow.release()
            self._advance()

    def on_headers_complete(self) -> None:
        """Hand a request to the application."""
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self.cycle.transport = Outlet(self)

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        if self._phase is Phase.CLOSED:
            self.server_state.total_requests += 1
            return
        self._flow.held = False
        super().on_response_complete()
        if not self.transport.is_closing():
            self._phase = Phase.HEAD
            self._advance()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to the WebSocket protocol, with all that has come already."""
        rest = bytes(self._buffer)
        self._phase = Phase.CLOSED
        self._buffer.clear()
        self._disarm()
        super().handle_websocket_upgrade()
        successor = self.transport.get_protocol()
        if rest and isinstance(successor, asyncio.Protocol):
            successor.data_received(rest)

    def shutdown(self) -> None:
        """Close, after what is being answered."""
        self._stopping = True
        if self._answering():
            self.cycle.keep_alive = False
        else:
            self.close()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has nothing more to ask."""
        self.close()

    def close(self) -> None:
        """End the connection once the peer has read what it was sent, or does not read on."""
        self._end(arriving=self._phase is Phase.BODY)

    def _end(self, *, arriving: bool) -> None:
        if self._phase is Phase.CLOSED:
            return
        self._phase = Phase.CLOSED
        self._buffer.clear()
        self._disarm()
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        if arriving and self.transport.can_write_eof():
            # Closed on both sides, the system would answer the next byte of the request with a
            # reset, and that takes the answer out of the peer's hands.
            self._flow.release()
            self.transport.write_eof()
        else:
            self.transport.close()
        self._watch_leaving()

    # The gate

    def _advance(self) -> None:
        try:
            while self._buffer and self._step():
                pass
        except Refusal as refusal:
            self._refuse(refusal)

    def _step(self) -> bool:
        """Read one part of a request. Return whether there may be another one."""
        if self._phase is Phase.BODY:
            return self._read_body()
        if self._phase is Phase.HEAD and not self.flow.write_paused:
            return self._read_head()
        if len(self._buffer) > self.limits.header_bytes:
            self._flow.hold()
        return False

    def _read_head(self) -> bool:
        self._unset_keepalive_if_required()
        try:
            head = self._scanner.scan(self._buffer)
        finally:
            self._target = self._scanner.target
        if head is None:
            if self._timer is None:
                self._expect_head()
            return False
        self._disarm()
        self._asked = head.method
        self._check_host(head)
        self._scanner = self._new_scanner()
        self._body = Chunked(self.limits) if head.chunked else Counted(head.length)
        self._feed(head.raw)
        if self._phase is Phase.HEAD:
            self._begin_body()
        return True

    def _check_host(self, head: Head) -> None:
        local = self.server[0] if self.server else None
        if head.host is not None and not self.hosts.serves(head.host, local):
            detail = f"host {quote(head.host)} is not served here"
            raise Refusal(421, "misdirected_request", detail)

    def _begin_body(self) -> None:
        self._persistent = self.cycle.keep_alive
        if self._body.done:
            self._end_body()
            return
        self._check_agreement()
        # An answer that comes before the end of the body is the last one here.
        self.cycle.keep_alive = False
        self._phase = Phase.BODY
        self._expect_body()

    def _read_body(self) -> bool:
        if piece := self._body.take(self._buffer):
            self._feed(piece)
        if self._body.done:
            self._end_body()
        return self._body.done

    def _end_body(self) -> None:
        self._check_agreement()
        self._disarm()
        self._phase = Phase.ANSWER
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._persistent and not self._stopping

    def _check_agreement(self) -> None:
        # The second lock: the parser knows as well whether the body is complete.
        if self.cycle.more_body is self._body.done:
            raise Refusal(400, "invalid_framing", "where the request ends is not clear")

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
        except httptools.HttpParserError:
            raise Refusal(400, "invalid_request", "the request is not valid HTTP/1.1") from None

    def _new_scanner(self) -> HeadScanner:
        return HeadScanner(self.limits, upgrades=self.ws_protocol_class is not None)

    # The clock: one timer, for whatever the connection waits for

    def _arm(self, seconds: float, then: Any, *args: Any) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, then, *args)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expect_head(self) -> None:
        self._arm(self.limits.header_time.total_seconds(), self._miss_head)

    def _miss_head(self) -> None:
        if self._buffer:
            self._refuse(_late("head", self.limits.header_time))
        else:
            self.close()

    def _expect_body(self) -> None:
        self._body_began = self.loop.time()
        self._arm(self.limits.body_time.total_seconds(), self._miss_body)

    def _miss_body(self) -> None:
        # While the application does not want more yet, nobody is late, nor right after that.
        unwanted = self.flow.read_paused or self.cycle.waiting_for_100_continue
        if unwanted or self._unwanted:
            self._expect_body()
            self._unwanted = unwanted
            return
        earned = self._body.received / self.limits.body_rate
        due = self._body_began + self.limits.body_time.total_seconds() + earned
        if (left := due - self.loop.time()) > 0:
            self._arm(left, self._miss_body)
        elif not self.cycle.response_started:
            self._refuse(_late("body", self.limits.body_time))

    def _watch_leaving(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._arm(self.limits.linger.total_seconds(), self._leave, unread)

    def _leave(self, before: int) -> None:
        if 0 < self.transport.get_write_buffer_size() < before:
            self._watch_leaving()
        else:
            self.transport.abort()

    # Saying no

    def _turn_away(self, excess: int) -> None:
        # Saying it takes a descriptor for a moment, of which there are not many either.
        if excess > max(8, self.limits.connections // 10):
            self._phase = Phase.CLOSED
            self.transport.abort()
            return
        detail = f"{self.limits.connections} connections are open, no more are accepted"
        self._refuse(Refusal(503, "too_many_connections", detail))

    def _refuse(self, refusal: Refusal) -> None:
        log.debug("request_refused", status=refusal.status, code=refusal.code, client=self.client)
        started = False
        if self._answering():
            started = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not started and not self.transport.is_closing():
            self.transport.write(self._written(refusal))
        self._end(arriving=True)

    def _answering(self) -> bool:
        # uvicorn has no cycle before the first request, but does not say so in its types.
        cycle: object = self.cycle
        return cycle is not None and not self.cycle.response_complete

    def _written(self, refusal: Refusal) -> bytes:
        headers = self.scope["headers"] if self._answering() else ()
        media = next(
            (value.decode("latin-1") for name, value in headers if name == b"content-type"), ""
        )
        response = refused_at(self._target, refusal, media)
        date = self.server_state.default_headers
        answered = [*date, *response.raw_headers, (b"connection", b"close")]
        lines = [b"%b: %b\r\n" % header for header in answered]
        # RFC 9110 9.3.2: what answers a HEAD has no content.
        content = b"" if self._asked == "HEAD" else bytes(response.body)
        return b"".join((STATUS_LINE[refusal.status], *lines, b"\r\n", content))


def guarded(limits: Limits, hosts: Hosts) -> type[GuardedProtocol]:
    """Return the protocol class that uvicorn makes one of for each connection."""
    return type("Guarded", (GuardedProtocol,), {"limits": limits, "hosts": hosts})


def _late(part: str, time: timedelta) -> Refusal:
    detail = f"the {part} of the request did not arrive within {time}"
    return Refusal(408, "request_timeout", detail)
