"""When a desk is open: weekly hours in a time zone, holidays, shifts that end after midnight.

Plain data and what follows from it; both the desk and the edge ask.
"""

import msgspec


class Shift(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Hours of some weekdays (1 is Monday, 7 Sunday); one that ends before it starts ends the
    next day, and `days` are those it starts on. Times are HH:MM of the calendar's zone."""

    start: str = "09:00"
    end: str = "18:00"
    days: tuple[int, ...] = (1, 2, 3, 4, 5)


class Calendar(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The hours of a desk. Without shifts it is always open. `holidays` are dates (2026-10-01) or
    spans of them (2026-10-01/2026-10-07), on which no shift starts; `extra` are dates on which
    the first shift starts whatever the weekday."""

    timezone: str = "Asia/Shanghai"
    shifts: tuple[Shift, ...] = ()
    holidays: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
