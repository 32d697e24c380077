"""The connection to NATS, which is rebuilt whenever in doubt: sending, listening and asking.

It stands on one client after the other, of runtime/client.py. Next: runtime/bus.py.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from runtime.client import CONGESTED, Client, dial, drop
from runtime.errors import Unavailable, Unknown
from runtime.inbox import Inbox
from runtime.packet import Packet as Packet
from runtime.packet import checked, frame_publish
from runtime.refusals import explain, refused_publish, refused_subscription, shown, unheard

log = structlog.get_logger()

PROBE_EVERY = 0.5
PROBE_WITHIN = 1.5
"""Seconds in which a message to ourselves must come back; twice that passes before a doubt."""
UNREAD = 0.05
MOST_MISSED = 5
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
STEADY = 1.0
"""Seconds after which a connection counts as one that stands."""
TELL_EVERY = 60.0

Listener = Callable[[Packet], None]


class Connection:
    """One supervised connection to a NATS cluster.

    `epoch` grows with every rebuild. Whoever holds deliveries must start afresh after one:
    `on_rebuilt` listeners are called, in order, once all subscriptions stand again.
    """

    def __init__(self, urls: list[str], *, inbox: str = "_INBOX", **options: Any) -> None:
        self.epoch = 0
        self.connected = asyncio.Event()
        self.max_payload = 1024 * 1024
        self.heard = 0
        """How many packets have come so far: one more each second, or the line is silent."""
        self.on_rebuilt: list[Callable[[], None]] = []
        self.on_lost: list[Callable[[], None]] = []
        self.urls = urls
        self._options = options
        self._client: Client | None = None
        self._inbox = Inbox(inbox)
        self.refused = self._inbox.refused
        self._subscriptions: dict[int, tuple[str, str, Listener]] = {}
        self._next_sid = 1
        self._out: list[bytes] = []
        self._out_size = 0
        self._supervisor: asyncio.Task[None] | None = None
        self._doubted = asyncio.Event()
        self._leaving = False
        self._probing: asyncio.Future[None] | None = None

    # -- life ------------------------------------------------------------------------------

    async def open(self, *, patient: bool = True) -> None:
        """Connect; if `patient`, wait for a server that is not there yet and say so.

        Raises Unavailable if not patient and no server lets us in.
        """
        self.subscribe(f"{self._inbox.name}.*", self._inbox.hear)
        if patient:
            await self._connect(0.0)
        else:
            self._stand_again(await self._dial_any())
        self._supervisor = asyncio.create_task(self._supervise(), name="connection")

    async def close(self) -> None:
        """Send what is waiting, then leave."""
        self.flush()
        self.connected.clear()
        while self._supervisor and not self._supervisor.done():
            # More than once: `wait_for`, which nats-py dials by, may lose a cancellation.
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor], timeout=0.1)
        lost, self._client = self._client, None
        await drop(lost, flush=True)
        self._inbox.lose()

    async def _connect(self, pause: float, but: str = "") -> None:
        """Dial until somebody answers, each time after a pause that grows to a second."""
        told, tell_at, loop = "", 0.0, asyncio.get_running_loop()
        while True:
            # Not all processes in the same moment, when a server has come back.
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            try:
                client = await self._dial_any(but)
                break
            except Unavailable as fault:
                if str(fault) != told or loop.time() > tell_at:
                    log.warning("nats_unreachable", error=str(fault))
                    told, tell_at = str(fault), loop.time() + TELL_EVERY
            pause = min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        if told:
            log.info("nats_reached", server=shown(client.url))
        self._stand_again(client)

    async def _dial_any(self, but: str = "") -> Client:
        """Dial one server after the other; raises Unavailable with what each of them said.

        `but` is the one to try last: it was lost, or is about to leave.
        """
        failures: dict[str, BaseException] = {}
        for url in sorted(random.sample(self.urls, len(self.urls)), key=lambda url: url == but):
            try:
                return await dial(url, self, self._options)
            except Exception as error:  # whatever it is, the cure is to try the next, and again
                failures[url] = error
        raise Unavailable(explain(failures))

    def end(self, client: Client) -> None:
        """Hear that a client reads no more; if it is the one in use, another takes its place."""
        if client is self._client:
            self.doubt()

    def leave(self, client: Client) -> None:
        """Hear that a server will soon go: it is left for another before it cuts us off."""
        if client is self._client and len(self.urls) > 1:
            log.info("nats_server_leaving", server=self.server)
            self._leaving = True
            self.doubt()

    def complain(self, client: Client, words: str) -> None:
        """Hear what a server says no to, and tell whoever waits for it."""
        # While connecting, the outcome is told once by `_connect`.
        level = log.warning if client is self._client else log.debug
        level("nats_error", error=words)
        if refused := refused_publish(words):
            self._inbox.refuse(refused)
        elif refused_subscription(words).startswith(self._inbox.name.lower()):
            self._inbox.close()

    def _stand_again(self, client: Client) -> None:
        self._client = client
        self.max_payload = int(client.max_payload)
        self._out.clear()
        self._out_size = 0
        self._doubted.clear()
        self._leaving = False
        self.epoch += 1
        self.connected.set()
        for sid, (subject, queue, _) in self._subscriptions.items():
            self._queue_subscribe(sid, subject, queue)
        if client.ended:
            self.doubt()  # its reader ended before it was ours
        _tell(self.on_rebuilt)

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            stood_since = loop.time()
            await self._wait_for_doubt()
            successor = await self._find_successor() if self._leaving else None
            lost = self._let_go()
            if successor is not None:
                self._stand_again(successor)
                await drop(lost, flush=True)
                continue
            await drop(lost, flush=False)
            # One that is cut as soon as it stands must not be dialled in a busy loop.
            stood = loop.time() - stood_since > STEADY
            await self._connect(0.0 if stood else FIRST_PAUSE, but=lost.url if lost else "")

    def _let_go(self) -> Client | None:
        lost, self._client = self._client, None
        if lost is not None:
            lost.retire()
        self.connected.clear()
        self._inbox.lose()
        _tell(self.on_lost)
        return lost

    async def _find_successor(self) -> Client | None:
        """Another server for one that leaves, which serves meanwhile; None once it has gone."""
        leaving = self._client
        while leaving is not None and not leaving.ended:
            try:
                return await self._dial_any(but=leaving.url)
            except Unavailable:
                await asyncio.sleep(LONGEST_PAUSE)
        return None

    async def _wait_for_doubt(self) -> None:
        missed = 0
        while not await self._is_doubted_within(0.0 if missed else PROBE_EVERY):
            heard, answered = self.heard, self._inbox.answered
            if await self._probe():
                missed = 0
                continue
            missed += 1
            silent = heard == self.heard
            # One who only listens must not take a line for alive that carries nothing out.
            mute = missed > 1 and answered == self._inbox.answered
            # Under load it may be late behind others; while those arrive, that is forgiven.
            if silent or mute or missed == MOST_MISSED:
                log.warning("connection_doubted", server=self.server)
                return

    async def _is_doubted_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._doubted.wait()
        except TimeoutError:
            pass
        return self._doubted.is_set()

    async def _probe(self) -> bool:
        """Whether a message to ourselves comes back: reader, writer and server are alive."""
        future = self._probing = asyncio.get_running_loop().create_future()
        subject = f"{self._inbox.name}.probe"
        inbox = self._inbox.expect(lambda _: future.cancel(), future, subject)
        with contextlib.suppress(Unavailable):  # so much is waiting that it had to wait as well
            self.write(self.frame(subject, b"", reply=inbox))
        try:
            await asyncio.wait([future], timeout=PROBE_WITHIN)
            if not future.done():
                # Where our own loop stood still, the answer is there and only not read yet.
                await asyncio.sleep(UNREAD)
        finally:
            self._inbox.forget(inbox)
        # A refusal, which is all it can fail with here, is a sign of life as well.
        return future.cancelled() or (future.done() and future.exception() is not None)

    def doubt(self) -> None:
        """Say that the connection cannot be trusted: it is rebuilt at once."""
        self._doubted.set()
        if self._probing is not None:
            self._probing.cancel()

    @property
    def server_version(self) -> str:
        """The version of the server we are connected to, or nothing."""
        return self._client.server_version if self._client else ""

    @property
    def server(self) -> str:
        """Host and port of the server we are connected to, or nothing."""
        return shown(self._client.url) if self._client else ""

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
        if client is None or not out:
            return
        try:
            client.write(b"".join(out))
        except (OSError, RuntimeError):
            self.doubt()

    def _unsent(self) -> int:
        return self._client.unsent if self._client else 0

    # -- receiving -------------------------------------------------------------------------

    def subscribe(self, subject: str, listener: Listener, *, queue: str = "") -> int:
        """Call `listener` with every packet on `subject`, across rebuilds. Returns a handle."""
        sid, self._next_sid = self._next_sid, self._next_sid + 1
        self._subscriptions[sid] = (checked(subject), queue, listener)
        if self.connected.is_set():
            self._queue_subscribe(sid, subject, queue)
        return sid

    def unsubscribe(self, sid: int, *, deaf: bool = True) -> None:
        """Stop, or if not `deaf` hear only what was sent by now; harmless if it is over."""
        found = self._subscriptions.pop(sid, None) if deaf else self._subscriptions.get(sid)
        if found and self.connected.is_set():
            self._queue(f"UNSUB {sid}\r\n".encode())

    def new_inbox(self) -> str:
        """A subject nobody else uses, for subscriptions of one's own."""
        return self._inbox.branch()

    def _queue_subscribe(self, sid: int, subject: str, queue: str) -> None:
        self._queue(f"SUB {subject} {queue} {sid}\r\n".replace("  ", " ").encode())

    def hand_on(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        """Give a message to whoever listens."""
        self.heard += 1
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
            raise Unavailable(unheard(subject))
        return packet

    def expect(
        self, listener: Callable[[Packet], Any], future: asyncio.Future[Any], subject: str
    ) -> str:
        """Return an inbox whose packets go to `listener`, for a question put to `subject`.

        `future` fails if the connection is lost, or the server refuses the question.
        """
        return self._inbox.expect(listener, future, subject)

    def forget(self, inbox: str) -> None:
        """Stop expecting anything at `inbox`."""
        self._inbox.forget(inbox)

    async def wait_for(self, future: Awaitable[Any], timeout: float, what: str) -> Any:
        """Await with a deadline; raises Unknown when it passes."""
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise Unknown(f"{what}: no answer within {timeout:g} s") from None


def _tell(listeners: list[Callable[[], None]]) -> None:
    for listener in list(listeners):
        try:
            listener()
        except Exception:  # the connection must come back for everybody else
            log.exception("listener_failed", listener=repr(listener))
