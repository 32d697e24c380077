"""What an operator should see at once: events of the topic `system/alarms`."""

from runtime.bus import Outgoing, expiry, new_id
from runtime.turn import EVENT_TTL
from schemas import subjects
from schemas.base import Topic
from schemas.envelope import encode, seal
from schemas.record import Alarm

ALARMS = Topic("system", "alarms")


def alarm_event(what: str, detail: str, *, source: str, actor: str = "", seq: int = 0) -> Outgoing:
    """The message that raises an alarm; about an actor's message, if it is about one."""
    alarm = Alarm(what=what, detail=detail, actor=actor, seq=seq)
    sealed = seal(alarm, id=new_id(), source=source, subject=ALARMS.id)
    return Outgoing(subjects.event(ALARMS), encode(sealed), expiry(EVENT_TTL))
