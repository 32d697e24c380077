"""Every exception of the runtime.

RuntimeFault             something is wrong with the runtime or its set-up
├── ActorDefinitionError     an actor class is not written correctly
├── ConfigError              the configuration does not make sense
├── StreamMismatch           a stream is not as nats/streams.json describes it
├── DataMissing              the store lacks what it had acknowledged
├── StateUndecodable         a stored state does not fit its type
├── TurnError                a handler asked for something that cannot be sent
├── AskTimeout               nobody answered in time; they still might
├── Refused                  the one who was asked said no
├── NotPossible              what an operator asked for cannot be done
├── FileFault                a file cannot be kept
│   ├── FileTooLarge             it is larger than it may be
│   ├── FileMissing              there is none, or none any more
│   └── FileDamaged              what is there is not what was stored
└── BusFault                 the bus did not do what it was told
    ├── Unavailable              nothing was sent
    ├── Unknown                  it was sent, and what became of it is not known
    ├── Conflict                 somebody else wrote first; nothing was stored
    ├── NoRoom                   the server has no room; nothing was stored
    └── Denied                   the server said no for another reason
        └── Forbidden                its permissions do not let us publish there
Verdict                  raised by a handler to decide a message's fate
├── Reject                   no: the asker is told, the state stays as it was
└── Retry                    not now: a worker's job is tried again later
"""

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from schemas.record import Refusal

FORBIDDEN = 403
"""The code of what permissions do not allow."""


class RuntimeFault(Exception):
    """Base of what the runtime raises."""


class ActorDefinitionError(RuntimeFault, TypeError):
    """An actor class is not written correctly. Raised when it is imported."""


class ConfigError(RuntimeFault, ValueError):
    """The configuration does not make sense. Raised before anything starts."""


class StreamMismatch(RuntimeFault):
    """A stream exists and is not as `nats/streams.json` describes it."""


class DataMissing(RuntimeFault):
    """The store lacks what it had acknowledged: nothing is served before somebody decides."""


class StateUndecodable(RuntimeFault):
    """The stored state does not fit the type: no message's fault, so none may pay for it."""


class TurnError(RuntimeFault, ValueError):
    """A handler asked for something that cannot be sent."""


class AskTimeout(RuntimeFault, TimeoutError):
    """Nobody answered in time. The message is stored and may still be handled."""


class Refused(RuntimeFault):
    """The one who was asked said no, and why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code}: {refusal.detail}" if refusal.detail else refusal.code)
        self.refusal = refusal


class NotPossible(RuntimeFault):
    """What an operator asked for cannot be done; nothing was changed."""


class FileFault(RuntimeFault):
    """A file cannot be kept as it comes."""


class FileTooLarge(FileFault):
    """A file is larger than it may be. Nothing of it is kept."""


class FileMissing(FileFault):
    """There is no such file, or none any more."""


class FileDamaged(FileFault):
    """What the store holds of a file is not what was put there."""


class BusFault(RuntimeFault):
    """The bus did not do what it was told."""


class Unavailable(BusFault):
    """Nothing was sent: there is no connection, or too much is waiting to be sent."""


class Unknown(BusFault):
    """It was sent, and whether it was stored is not known."""


class Conflict(BusFault):
    """Somebody else wrote first. Nothing was stored."""


class NoRoom(BusFault):
    """The server has no room. Nothing was stored."""


class Denied(BusFault):
    """The server said no. `code` is JetStream's error code."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(f"{description} (JetStream error {code})")
        self.code = code


class Forbidden(Denied):
    """The server's permissions do not let us publish there: no message is at fault."""

    def __init__(self, subject: str) -> None:
        super().__init__(FORBIDDEN, f"not allowed to publish to {subject}")


class Verdict(Exception):
    """Base of what a handler raises to decide a message's fate."""


class Reject(Verdict):
    """No. The asker gets `code` and `detail`; the state stays as it was.

    `status` is the HTTP status an edge answers with, `told` a few more members of its answer.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        status: int = 409,
        told: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.refusal = Refusal(code=str(code), detail=str(detail), status=status, told=dict(told))


class Retry(Verdict):
    """Not now. The job is tried again after `after`, as the next attempt."""

    def __init__(self, reason: str, *, after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(reason)
        self.after = after
