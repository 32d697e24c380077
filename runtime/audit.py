"""Keeps what operators do as events of the topic `system/audit`: who, what, to what."""

import getpass
import platform

from runtime.bus import Bus, Outgoing, expiry, new_id
from runtime.turn import EVENT_TTL
from schemas import subjects
from schemas.base import Topic
from schemas.envelope import encode, seal
from schemas.record import Audited

AUDIT = Topic("system", "audit")


async def record_action(bus: Bus, action: str, target: str, detail: str = "") -> None:
    """Store one event; raises BusFault. Say it before doing it: what is done is then known."""
    event = note(action, target, detail)
    await bus.publish(event.subject, event.data, headers=event.headers)


def note(action: str, target: str, detail: str = "") -> Outgoing:
    """The event as a message, for what is done by a commit: both are stored, or neither."""
    event = Audited(action=action, target=target, by=operator(), detail=detail)
    sealed = seal(event, id=new_id(), source="operator", subject=AUDIT.id)
    return Outgoing(subjects.event(AUDIT), encode(sealed), expiry(EVENT_TTL))


def operator() -> str:
    """Who runs this process, as far as the system tells: `user@machine`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user: containers often have none
        user = "unknown"
    return f"{user}@{platform.node()}"
