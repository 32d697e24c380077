"""Where the answers of a server and of others come to, and who waits for which.

One subscription serves all questions of a connection; `runtime/connection.py` asks them.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any

from runtime.errors import FORBIDDEN, Denied, Forbidden, Unknown
from runtime.packet import Packet

MOST_REFUSED = 256

Listener = Callable[[Packet], Any]


class Inbox:
    """The subjects below `name`, which nobody else uses.

    `answered` counts the answers that somebody waited for.
    """

    def __init__(self, prefix: str) -> None:
        self.name = f"{prefix}.{secrets.token_hex(8)}"
        self.answered = 0
        self.refused: deque[str] = deque(maxlen=MOST_REFUSED)
        """Subjects that the server forbade, in lower case."""
        self._waiting: dict[str, tuple[Listener, asyncio.Future[Any], str]] = {}
        self._next_token = 0

    @property
    def asked(self) -> list[str]:
        """The subjects of all questions that wait for an answer."""
        return [subject for _, _, subject in self._waiting.values()]

    def expect(self, listener: Listener, future: asyncio.Future[Any], subject: str) -> str:
        """Return where to answer a question put to `subject`; its packets go to `listener`.

        `future` fails if the connection is lost, or the server refuses the question.
        """
        self._next_token += 1
        name = f"{self._next_token:x}"
        self._waiting[name] = (listener, future, subject)
        return f"{self.name}.{name}"

    def forget(self, inbox: str) -> None:
        """Stop expecting anything at `inbox`."""
        self._waiting.pop(inbox.rpartition(".")[2], None)

    def branch(self) -> str:
        """A subject beside it, for subscriptions of one's own."""
        self._next_token += 1
        return f"{self.name}-{self._next_token}"

    def hear(self, packet: Packet) -> None:
        """Give a packet to the one who waits for it."""
        inbox, _, name = packet.subject.rpartition(".")
        if inbox != self.name:
            return  # nats-py splits subjects at a form feed, so that one can pass for another's
        if name == "probe":
            # That it came is the answer; what a stranger names as `reply` is not obeyed.
            inbox, _, name = packet.reply.rpartition(".")
        if inbox == self.name and (found := self._waiting.get(name)):
            self.answered += 1
            found[0](packet)

    def lose(self) -> None:
        """Tell everybody that his answer will not come: Unknown."""
        for _, future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(Unknown("the connection was lost"))
        self._waiting.clear()

    def refuse(self, refused: str) -> None:
        """Tell whoever asked `refused`, in lower case, that the server forbids it: Forbidden."""
        self.refused.append(refused)
        for _, future, subject in self._waiting.values():
            if subject.lower() == refused and not future.done():
                future.set_exception(Forbidden(subject))

    def close(self) -> None:
        """Tell everybody that the server lets no answer through to here: Denied."""
        words = f"not allowed to hear answers at {self.name}.*"
        for _, future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(Denied(FORBIDDEN, words))
