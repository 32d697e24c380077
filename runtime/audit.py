"""Keeps what operators do as events of the topic `system/audit`: who, what, to what."""

import getpass
import platform

from runtime.bus import Bus, expiry, new_id
from runtime.turn import EVENT_TTL
from schemas import subjects
from schemas.base import Topic
from schemas.envelope import encode, seal
from schemas.record import Audited

AUDIT = Topic("system", "audit")


async def record_action(bus: Bus, action: str, target: str, detail: str = "") -> None:
    """Store one event; raises BusFault. Say it before doing it: what is done is then known."""
    event = Audited(action=action, target=target, by=operator(), detail=detail)
    sealed = seal(event, id=new_id(), source="operator", subject=AUDIT.id)
    await bus.publish(subjects.event(AUDIT), encode(sealed), headers=expiry(EVENT_TTL))


def operator() -> str:
    """Who runs this process, as far as the system tells: `user@machine`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user: containers often have none
        user = "unknown"
    return f"{user}@{platform.node()}"
