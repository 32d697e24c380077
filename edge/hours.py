"""When the desk is open, as its deployment's calendar has it; changing it is a deployment."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from edge.asking import answer, wait_for_bus
from edge.auth import DESK_READ
from edge.operation import Operation
from edge.problem import Refusal
from edge.session_shapes import seconds
from edge.shared import Shared
from edge.support_shapes import SupportError
from schemas.ownership import DESK
from schemas.shifts import Calendar, Shift, check_calendar, closing, is_open, next_opening

log = structlog.get_logger("edge")

TAG = "desk"
WEEKEND = frozenset({6, 7})


class ShiftConfig(msgspec.Struct, kw_only=True):
    """The hours: without `shifts` the desk is always open. `shift_start` and `shift_end` are
    those of the first one, `weekends_disabled` says that none starts on a weekend."""

    timezone: str
    shifts: list[Shift]
    holidays: list[str]
    extra: list[str]
    shift_start: str | None
    shift_end: str | None
    weekends_disabled: bool


class ShiftConfigAnswer(msgspec.Struct):
    """The hours of the desk."""

    data: ShiftConfig
    success: bool = True


class ShiftStatus(msgspec.Struct, kw_only=True):
    """Whether the desk is open now, until when, and when it opens next."""

    is_in_shift: bool
    timezone: str
    current_time: str
    closes_at: float | None
    next_opening: float | None
    deployed: bool


class ShiftStatusAnswer(msgspec.Struct):
    """How the desk stands."""

    data: ShiftStatus
    success: bool = True


class Hours:
    """The operations on the hours of the desk."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            _operation("config", self.config, "See the hours of the desk", ShiftConfigAnswer),
            _operation("status", self.status, "See whether the desk is open", ShiftStatusAnswer),
        )

    async def config(self, request: Request) -> Response:
        """Answer the hours."""
        calendar, _ = await read_calendar(self._shared)
        first = calendar.shifts[0] if calendar.shifts else None
        days = {day for shift in calendar.shifts for day in shift.days}
        return answer(
            ShiftConfigAnswer(
                ShiftConfig(
                    timezone=calendar.timezone,
                    shifts=list(calendar.shifts),
                    holidays=list(calendar.holidays),
                    extra=list(calendar.extra),
                    shift_start=first.start if first else None,
                    shift_end=first.end if first else None,
                    weekends_disabled=bool(days) and not days & WEEKEND,
                )
            )
        )

    async def status(self, request: Request) -> Response:
        """Answer whether the desk is open."""
        calendar, deployed = await read_calendar(self._shared)
        now = datetime.now(UTC)
        inside = is_open(calendar, now)
        return answer(
            ShiftStatusAnswer(
                ShiftStatus(
                    is_in_shift=inside,
                    timezone=calendar.timezone,
                    current_time=_local(calendar, now),
                    closes_at=seconds(closing(calendar, now)) if inside else None,
                    next_opening=None if inside else seconds(next_opening(calendar, now)),
                    deployed=deployed,
                )
            )
        )


async def read_calendar(shared: Shared) -> tuple[Calendar, bool]:
    """Return the calendar of the desk, and whether there is a desk: without one it never closes.

    Raises Refusal 503 for one that cannot be read, BusFault.
    """
    await wait_for_bus(shared.bus)
    desk = await shared.deployed.find(DESK)
    given: Any = desk.options.get("calendar") if desk else None
    try:
        calendar = msgspec.convert(given or {}, Calendar)
        check_calendar(calendar)
    except (msgspec.ValidationError, ValueError) as error:
        log.warning("calendar_unreadable", error=str(error))
        raise Refusal(503, "calendar_unreadable", f"the desk's calendar: {error}") from None
    return calendar, desk is not None


def _local(calendar: Calendar, now: datetime) -> str:
    return now.astimezone(ZoneInfo(calendar.timezone)).isoformat(timespec="seconds")


def _operation(path: str, endpoint: Any, summary: str, shape: Any) -> Operation:
    return Operation(
        "GET",
        f"/api/shift/{path}",
        endpoint,
        summary,
        name=f"shift_{path}",
        scope=DESK_READ,
        answers={200: shape},
        error=SupportError,
        tag=TAG,
    )
