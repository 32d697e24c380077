"""What came of the messages of one turn. Made by runtime/instance.py."""

from datetime import datetime

from runtime.pull import Delivery
from schemas.record import Answer, Replied


class Applied:
    """What came of one delivery: the answer to give, if somebody waits for one."""

    __slots__ = ("answer", "bodyhash", "delivery", "outcome", "reply_to", "type")

    def __init__(self, delivery: Delivery, outcome: str) -> None:
        self.delivery = delivery
        self.outcome = outcome
        self.answer: Answer | None = None
        self.bodyhash = ""
        self.reply_to = ""
        self.type = ""


def collect_replies(fresh: list[Applied], now: datetime) -> list[Replied]:
    """What is remembered of them, to answer a repeat as the first was."""
    return [
        Replied(answer=one.answer, at=now, bodyhash=one.bodyhash)
        for one in fresh
        if one.reply_to
        and one.answer is not None
        and one.outcome in ("applied", "rejected", "dead")
    ]
