"""When a desk is open: weekly hours in a time zone, holidays, shifts that end after midnight.

Plain data and what follows from it; both the desk and the edge ask.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

SHANGHAI = "Asia/Shanghai"
MOST_SHIFTS = 21
MOST_DATES = 400
HORIZON = 400
"""Days that are looked through: what is closed, or open, for longer is so for good."""

_DAY = timedelta(days=1)
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])|24:00")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Shift(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Hours of some weekdays (1 is Monday, 7 Sunday); one that does not end after it starts ends
    the next day, and `days` are those it starts on. Times are HH:MM of the calendar's zone, and
    24:00 is the end of the day."""

    start: str = "09:00"
    end: str = "18:00"
    days: tuple[int, ...] = (1, 2, 3, 4, 5)


class Calendar(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The hours of a desk. Without shifts it is always open. `holidays` are dates (2026-10-01) or
    spans of them (2026-10-01/2026-10-07), on which no shift starts; `extra` are dates on which
    the first shift starts whatever the weekday, and even on a holiday."""

    timezone: str = SHANGHAI
    shifts: tuple[Shift, ...] = ()
    holidays: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


class Span(NamedTuple):
    """From when to when a desk is open, in UTC; `end` itself is not part of it."""

    start: datetime
    end: datetime


def is_open(calendar: Calendar, at: datetime) -> bool:
    """Whether a desk is open. `at` knows its zone."""
    return not calendar.shifts or _current(calendar, at) is not None


def next_opening(calendar: Calendar, at: datetime) -> datetime | None:
    """When a desk is open next, in UTC: `at` itself if it is then; None if it stays closed."""
    if is_open(calendar, at):
        return at.astimezone(UTC)
    return next((span.start for span in _spans(calendar, at) if span.start > at), None)


def closing(calendar: Calendar, at: datetime) -> datetime | None:
    """When a desk that is open closes, in UTC; None if it is closed, or never closes.

    Shifts that follow without a break are one: what ends is the last of them.
    """
    current = _current(calendar, at) if calendar.shifts else None
    if current is None:
        return None
    end = current.end
    for span in _spans(calendar, at):
        if span.start > end:
            return end
        end = max(end, span.end)
    # Nothing was left to look at: it is either open for good, or has no further shift.
    return end if end < at + (HORIZON - 4) * _DAY else None


def check_calendar(calendar: Calendar) -> None:
    """Raise ValueError unless everything in a calendar can be what it says; names the value."""
    if len(calendar.shifts) > MOST_SHIFTS:
        raise ValueError(f"{len(calendar.shifts)} shifts, expected at most {MOST_SHIFTS}")
    for what, dates in (("holidays", calendar.holidays), ("extra", calendar.extra)):
        if len(dates) > MOST_DATES:
            raise ValueError(
                f"{len(dates)} {what}, expected at most {MOST_DATES};"
                " write days that follow each other as a span, 2026-10-01/2026-10-07"
            )
    if calendar.extra and not calendar.shifts:
        raise ValueError("extra: days are added to shifts, and there are none: it is always open")
    _plan(calendar)


# -- reading ---------------------------------------------------------------------------------


class _Hours(NamedTuple):
    """A shift that was read: `over` says that it ends the next day."""

    start: time
    end: time
    over: bool
    days: frozenset[int]


class _Plan(NamedTuple):
    """A calendar that was read."""

    zone: ZoneInfo
    hours: tuple[_Hours, ...]
    holidays: tuple[tuple[date, date], ...]
    extra: frozenset[date]


@lru_cache(maxsize=64)
def _plan(calendar: Calendar) -> _Plan:
    return _Plan(
        zone=_read_zone(calendar.timezone),
        hours=tuple(_read_shift(shift) for shift in calendar.shifts),
        holidays=tuple(_read_span("holidays", text) for text in calendar.holidays),
        extra=frozenset(_read_date("extra", text) for text in calendar.extra),
    )


def _read_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f'timezone {name!r} is not known; expected a name such as "Europe/Berlin" or "UTC"'
        ) from None


def _read_shift(shift: Shift) -> _Hours:
    start, end = _read_time("start", shift.start), _read_time("end", shift.end)
    if shift.start == "24:00":
        raise ValueError("start '24:00': a shift that starts then starts at 00:00 of the next day")
    days = frozenset(shift.days)
    if not days or not days <= frozenset(range(1, 8)):
        raise ValueError(
            f"days {list(shift.days)!r}: expected numbers from 1 (Monday) to 7 (Sunday)"
        )
    return _Hours(start, end, end <= start, days)


def _read_time(what: str, text: str) -> time:
    if _TIME.fullmatch(text) is None:
        raise ValueError(f'{what} {text!r}: expected a time such as "09:00"')
    hour, _, minute = text.partition(":")
    return time(int(hour) % 24, int(minute))


def _read_span(what: str, text: str) -> tuple[date, date]:
    first, slash, last = text.partition("/")
    begin = _read_date(what, first)
    end = _read_date(what, last) if slash else begin
    if end < begin:
        raise ValueError(f"{what} {text!r}: it ends before it begins; expected first/last")
    return begin, end


def _read_date(what: str, text: str) -> date:
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ValueError(f"{what} {text!r}: expected a date such as 2026-10-01") from None


# -- looking ---------------------------------------------------------------------------------


def _current(calendar: Calendar, at: datetime) -> Span | None:
    """The shift that is going on; of several the one that ends last."""
    going = [span for span in _spans(calendar, at, days=3) if span.start <= at < span.end]
    return max(going, key=lambda span: span.end, default=None)


def _spans(calendar: Calendar, at: datetime, days: int = HORIZON) -> Iterator[Span]:
    """The shifts that start from two days before a moment on, by the days they start on."""
    plan = _plan(calendar)
    first = at.astimezone(plan.zone).date() - 2 * _DAY
    for number in range(days + 1):
        day = first + number * _DAY
        spans = [_span(plan.zone, day, hours) for hours in _shifts_of(plan, day)]
        yield from sorted(span for span in spans if span.start < span.end)


def _shifts_of(plan: _Plan, day: date) -> list[_Hours]:
    """The shifts that start on a day."""
    free = any(first <= day <= last for first, last in plan.holidays)
    usual = () if free else tuple(one for one in plan.hours if day.isoweekday() in one.days)
    if day in plan.extra and plan.hours[0] not in usual:
        return [plan.hours[0], *usual]
    return list(usual)


def _span(zone: ZoneInfo, day: date, hours: _Hours) -> Span:
    end = day + _DAY if hours.over else day
    return Span(_moment(zone, day, hours.start), _moment(zone, end, hours.end))


def _moment(zone: ZoneInfo, day: date, clock: time) -> datetime:
    """The first moment at which the clocks of a zone show a time or a later one.

    In the hour that is skipped in spring that is the change itself; of the hour that comes twice
    in autumn it is the first.
    """
    local = datetime.combine(day, clock)
    moment = local.replace(tzinfo=zone).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == local:
        return moment
    return _change_before(zone, local.replace(tzinfo=zone, fold=1).astimezone(UTC), moment)


def _change_before(zone: ZoneInfo, early: datetime, late: datetime) -> datetime:
    """The moment between two at which the clocks of a zone are put forward, to the second."""
    before = early.astimezone(zone).utcoffset()
    while (seconds := int((late - early).total_seconds())) > 1:
        middle = early + timedelta(seconds=seconds // 2)
        if middle.astimezone(zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return late
