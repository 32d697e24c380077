"""The one module that imports the NATS client: a connection that is rebuilt whenever in doubt.

It uses nats-py for the handshake, TLS, credentials and the protocol parser, hands deliveries
on without a queue between, and never lets nats-py reconnect by itself. Next: runtime/bus.py.
"""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from nats.aio.client import Client

from runtime.errors import BusFault, Denied, Unavailable, Unknown
from runtime.packet import Packet as Packet
from runtime.packet import checked, frame_publish

log = structlog.get_logger()

PROBE_EVERY = 2.0
MOST_MISSED = 5
CONGESTED = 16 * 1024 * 1024
FORBIDDEN = 403

Listener = Callable[[Packet], None]

# As nats-py tells it: in lower case.
_REFUSED_PUBLISH = re.compile(r'permissions violation for publish to "([^"]*)"')


class _Client(Client):  # type: ignore[misc]  # nats-py ships no types we check against
    """nats-py's client, with each delivery handed on at once instead of queued."""

    hand_on: Callable[[int, bytes, bytes, bytes, bytes | None], None]

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.hand_on(sid, subject, reply, data, headers)


class Connection:
    """One supervised connection to a NATS cluster.

    `epoch` grows with every rebuild. Whoever holds deliveries must start afresh after one:
    `on_rebuilt` listeners are called, in order, once all subscriptions stand again.
    """

    def __init__(self, urls: list[str], *, inbox: str = "_INBOX", **options: Any) -> None:
        self.epoch = 0
        self.connected = asyncio.Event()
        self.max_payload = 1024 * 1024
        self.on_rebuilt: list[Callable[[], None]] = []
        self.on_lost: list[Callable[[], None]] = []
        self._urls = urls
        self._options = options
        self._client: _Client | None = None
        self._inbox = f"{inbox}.{secrets.token_hex(8)}"
        self._subscriptions: dict[int, tuple[str, str, Listener]] = {}
        self._next_sid = 1
        self._waiting: dict[str, tuple[Listener, asyncio.Future[Any], str]] = {}
        self._next_token = 0
        self._out: list[bytes] = []
        self._out_size = 0
        self._supervisor: asyncio.Task[None] | None = None
        self._doubted = asyncio.Event()
        self._heard = 0

    # -- life ------------------------------------------------------------------------------

    async def open(self, *, patient: bool = True) -> None:
        """Connect; if `patient`, wait for a server that is not there yet and say so.

        Raises Unavailable if not patient and no server answers.
        """
        self.subscribe(f"{self._inbox}.*", self._on_reply)
        await self._connect(patient=patient)
        self._supervisor = asyncio.create_task(self._supervise(), name="connection")

    async def close(self) -> None:
        """Send what is waiting, then leave."""
        self.flush()
        self.connected.clear()
        while self._supervisor and not self._supervisor.done():
            # More than once: `wait_for`, which nats-py dials by, may lose a cancellation.
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor], timeout=0.1)
        await self._drop_client(flush=True)
        self._fail_waiting()

    async def _connect(self, *, patient: bool) -> None:
        told = False
        while True:
            try:
                self._client = await self._dial()
                break
            except Exception as error:  # whatever it is, the cure is to try again
                if not patient:
                    raise Unavailable(f"no NATS server at {self._shown_urls()}: {error}") from None
                if not told:
                    log.warning("nats_unreachable", servers=self._shown_urls(), error=repr(error))
                told = True
                await asyncio.sleep(0.1)
        if told:
            log.info("nats_reached", servers=self._shown_urls())
        self._stand_again()

    async def _dial(self) -> _Client:
        client = _Client()
        client.hand_on = self._hand_on
        try:
            async with asyncio.timeout(3):
                await client.connect(
                    self._urls,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0.05,
                    connect_timeout=2,
                    ping_interval=20,
                    error_cb=self._on_error,
                    pending_size=CONGESTED,
                    **self._options,
                )
        except BaseException:
            # nats-py leaves the socket open when a server takes it and then says nothing.
            _abort(client)
            raise
        # Whatever ends a client ends its reader; some things end only its reader.
        client._reading_task.add_done_callback(lambda _: self._client_ended(client))
        return client

    def _client_ended(self, client: _Client) -> None:
        if client is self._client:
            self._doubted.set()

    def _stand_again(self) -> None:
        assert self._client is not None
        self.max_payload = int(self._client.max_payload)
        self._out.clear()
        self._out_size = 0
        self._doubted.clear()
        self.epoch += 1
        self.connected.set()
        for sid, (subject, queue, _) in self._subscriptions.items():
            self._queue_subscribe(sid, subject, queue)
        _tell(self.on_rebuilt)

    async def _supervise(self) -> None:
        while True:
            await self._wait_for_doubt()
            self.connected.clear()
            self._fail_waiting()
            _tell(self.on_lost)
            await self._drop_client(flush=False)
            await self._connect(patient=True)

    async def _wait_for_doubt(self) -> None:
        missed = 0
        while True:
            try:
                async with asyncio.timeout(PROBE_EVERY):
                    await self._doubted.wait()
                return
            except TimeoutError:
                pass
            heard = self._heard
            missed = 0 if await self._probe() else missed + 1
            # One who only listens must not take a line for alive that carries nothing out.
            if missed == MOST_MISSED or (missed and heard == self._heard):
                log.warning("connection_doubted", servers=self._shown_urls())
                return

    async def _probe(self) -> bool:
        """Whether a message to ourselves comes back: reader, writer and server are alive.

        Under load it may be late behind others; as long as any arrive, that is forgiven.
        """
        try:
            await self.request(f"{self._inbox}.probe", b"", timeout=PROBE_EVERY)
        except BusFault:
            return False
        return True

    async def _drop_client(self, *, flush: bool) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if not flush:
            _abort(client)
        try:
            async with asyncio.timeout(1):
                await client.close()
        except Exception as error:  # a half-dead client may fail in any way; it is gone either way
            log.debug("client_close_failed", error=repr(error))
            _abort(client)

    async def _on_error(self, error: Exception) -> None:
        # While connecting, the outcome is told once by `_connect`.
        level = log.warning if self.connected.is_set() else log.debug
        level("nats_error", error=str(error))
        if refused := _REFUSED_PUBLISH.search(str(error)):
            self._fail_refused(refused[1])

    def doubt(self) -> None:
        """Say that the connection cannot be trusted: it is rebuilt at once."""
        self._doubted.set()

    @property
    def server_version(self) -> str:
        """The version of the server we are connected to, or nothing."""
        return str(self._client._server_info.get("version", "")) if self._client else ""

    def _shown_urls(self) -> str:
        return ", ".join(url.rpartition("@")[2] for url in self._urls)

    # -- sending ---------------------------------------------------------------------------

    def publish(self, subject: str, data: bytes, *, reply: str = "", headers: bytes = b"") -> None:
        """Queue one message for this turn of the loop.

        Raises Unavailable while there is no connection or too much is waiting to be sent,
        ValueError for a subject or size that the server would close the connection over.
        """
        self.write(self.frame(subject, data, reply=reply, headers=headers))

    def frame(self, subject: str, data: bytes, *, reply: str = "", headers: bytes = b"") -> bytes:
        """Return the bytes of one publish; raises ValueError as `publish` does."""
        size = len(headers) + len(data)
        if size > self.max_payload:
            raise ValueError(f"{subject}: {size} bytes, the server takes {self.max_payload}")
        return frame_publish(subject, data, reply, headers)

    def write(self, frame: bytes) -> None:
        """Queue bytes; all that is queued in one turn of the loop leaves in one write."""
        if not self.connected.is_set():
            raise Unavailable("not connected to NATS")
        if self._out_size > CONGESTED or self._unsent() > CONGESTED:
            raise Unavailable("too much is waiting to be sent to NATS")
        self._queue(frame)

    def _queue(self, frame: bytes) -> None:
        if not self._out:
            asyncio.get_running_loop().call_soon(self.flush)
        self._out.append(frame)
        self._out_size += len(frame)

    def flush(self) -> None:
        """Hand what is queued to the socket now."""
        client, out = self._client, self._out
        self._out, self._out_size = [], 0
        if client is None or not out or client._transport is None:
            return
        try:
            client._transport.write(b"".join(out))
        except (OSError, RuntimeError):
            self._doubted.set()

    def _unsent(self) -> int:
        writer = getattr(self._client and self._client._transport, "_io_writer", None)
        return int(writer.transport.get_write_buffer_size()) if writer else 0

    # -- receiving -------------------------------------------------------------------------

    def subscribe(self, subject: str, listener: Listener, *, queue: str = "") -> int:
        """Call `listener` with every packet on `subject`, across rebuilds. Returns a handle."""
        sid, self._next_sid = self._next_sid, self._next_sid + 1
        self._subscriptions[sid] = (checked(subject), queue, listener)
        if self.connected.is_set():
            self._queue_subscribe(sid, subject, queue)
        return sid

    def unsubscribe(self, sid: int) -> None:
        """Stop; harmless if it was stopped before, or if the connection is lost."""
        if self._subscriptions.pop(sid, None) and self.connected.is_set():
            self._queue(f"UNSUB {sid}\r\n".encode())

    def new_inbox(self) -> str:
        """A subject nobody else uses, for subscriptions of one's own."""
        self._next_token += 1
        return f"{self._inbox}-{self._next_token}"

    def _queue_subscribe(self, sid: int, subject: str, queue: str) -> None:
        self._queue(f"SUB {subject} {queue} {sid}\r\n".replace("  ", " ").encode())

    def _hand_on(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self._heard += 1
        found = self._subscriptions.get(sid)
        if found is None:
            return
        packet = Packet(
            subject.decode("utf-8", "replace"),
            reply.decode("utf-8", "replace"),
            data,
            headers or b"",
        )
        try:
            found[2](packet)
        except Exception:  # a listener's fault must not kill the reader of everybody else
            log.exception("listener_failed", subject=packet.subject)

    # -- asking ----------------------------------------------------------------------------

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        headers: bytes = b"",
        before: bytes = b"",
        timeout: float,
    ) -> Packet:
        """Publish and wait for one answer; the frames `before` it leave in the same write.

        Raises Unavailable if nothing was sent or nobody listens, Unknown after `timeout`
        seconds or when the connection is lost while waiting, Denied if the server does not
        let us publish there, ValueError as `publish` does.
        """
        future: asyncio.Future[Packet] = asyncio.get_running_loop().create_future()

        def hear(packet: Packet) -> None:
            if not future.done():
                future.set_result(packet)

        inbox = self.expect(hear, future, subject)
        try:
            self.write(before + self.frame(subject, data, reply=inbox, headers=headers))
            packet: Packet = await self.wait_for(future, timeout, subject)
        finally:
            self.forget(inbox)
        if packet.status == "503":
            raise Unavailable(f"{subject}: nobody listens there")
        return packet

    def expect(
        self, listener: Callable[[Packet], Any], future: asyncio.Future[Any], subject: str
    ) -> str:
        """Return an inbox whose packets go to `listener`, for a question put to `subject`.

        `future` fails if the connection is lost, or the server refuses the question.
        """
        self._next_token += 1
        name = f"{self._next_token:x}"
        self._waiting[name] = (listener, future, subject)
        return f"{self._inbox}.{name}"

    def forget(self, inbox: str) -> None:
        """Stop expecting anything at `inbox`."""
        self._waiting.pop(inbox.rpartition(".")[2], None)

    async def wait_for(self, future: Awaitable[Any], timeout: float, what: str) -> Any:
        """Await with a deadline; raises Unknown when it passes."""
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise Unknown(f"{what}: no answer within {timeout:g} s") from None

    def _on_reply(self, packet: Packet) -> None:
        inbox, _, name = packet.subject.rpartition(".")
        if inbox != self._inbox:
            return  # nats-py splits subjects at a form feed, so that one can pass for another's
        if name == "probe":
            # That it came is the answer; what a stranger names as `reply` is not obeyed.
            inbox, _, name = packet.reply.rpartition(".")
        if inbox == self._inbox and (found := self._waiting.get(name)):
            found[0](packet)

    def _fail_waiting(self) -> None:
        for _, future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(Unknown("the connection was lost"))
        self._waiting.clear()

    def _fail_refused(self, refused: str) -> None:
        for _, future, subject in self._waiting.values():
            if subject.lower() == refused and not future.done():
                future.set_exception(Denied(FORBIDDEN, f"not allowed to publish to {subject}"))


def _tell(listeners: list[Callable[[], None]]) -> None:
    for listener in list(listeners):
        try:
            listener()
        except Exception:  # the connection must come back for everybody else
            log.exception("listener_failed", listener=repr(listener))


def _abort(client: _Client) -> None:
    """Cut the socket, so that nothing half-sent leaves later."""
    writer = getattr(client._transport, "_io_writer", None)
    if writer is not None:
        writer.transport.abort()
