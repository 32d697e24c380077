"""When a desk is open: by weekdays, holidays, time zones, past midnight, and when clocks change."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as some

from schemas.shifts import Calendar, Shift, check_calendar, closing, is_open, next_opening

BERLIN, NEW_YORK, SHANGHAI = "Europe/Berlin", "America/New_York", "Asia/Shanghai"
EVERY = (1, 2, 3, 4, 5, 6, 7)
OFFICE = Calendar(shifts=(Shift(),))


def local(zone: str, text: str, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.promise("FD-47", "FD-60")
@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-11-20 08:59:59", False),  # a Friday
        ("2026-11-20 09:00:00", True),
        ("2026-11-20 17:59:59", True),
        ("2026-11-20 18:00:00", False),
        ("2026-11-21 12:00:00", False),  # Saturday
        ("2026-11-22 12:00:00", False),
        ("2026-11-23 12:00:00", True),
    ],
)
def test_office_hours_begin_on_time_end_on_time_and_leave_out_the_weekend(
    at: str, expected: bool
) -> None:
    assert is_open(OFFICE, local(SHANGHAI, at)) is expected


def test_hours_are_those_of_the_calendars_zone_wherever_the_question_comes_from() -> None:
    at = local(SHANGHAI, "2026-11-20 09:30:00")

    assert is_open(OFFICE, at.astimezone(ZoneInfo(NEW_YORK)))
    assert not is_open(Calendar(timezone=NEW_YORK, shifts=(Shift(),)), at)


def test_without_shifts_it_is_always_open_and_never_closes() -> None:
    at = utc("2026-12-25 03:00:00")

    assert is_open(Calendar(), at)
    assert next_opening(Calendar(), at) == at
    assert closing(Calendar(), at) is None


@pytest.mark.promise("FD-60")
def test_after_the_weekend_it_opens_on_monday() -> None:
    friday = local(SHANGHAI, "2026-11-20 18:00:00")

    assert next_opening(OFFICE, friday) == local(SHANGHAI, "2026-11-23 09:00:00")
    assert closing(OFFICE, friday) is None
    assert closing(OFFICE, friday - timedelta(hours=1)) == friday


@pytest.mark.promise("FD-60")
def test_holidays_are_days_or_spans_of_days_and_an_extra_day_is_worked() -> None:
    golden_week = Calendar(
        shifts=(Shift(),),
        holidays=("2026-09-25", "2026-10-01/2026-10-07"),
        extra=("2026-10-10", "2026-10-05"),
    )
    open_days = [
        day
        for day in (date(2026, 9, 21) + timedelta(days=n) for n in range(24))
        if is_open(golden_week, datetime.combine(day, time(12), ZoneInfo(SHANGHAI)))
    ]

    assert [day.isoformat()[5:] for day in open_days] == [
        *("09-21", "09-22", "09-23", "09-24", "09-28", "09-29", "09-30"),
        *("10-05", "10-08", "10-09", "10-10", "10-12", "10-13", "10-14"),
    ]


@pytest.mark.promise("FD-60")
def test_a_shift_over_midnight_belongs_to_the_day_on_which_it_starts() -> None:
    night = Shift(start="22:00", end="06:00")
    calendar = Calendar(timezone=BERLIN, shifts=(night,), holidays=("2026-11-19",))

    assert not is_open(calendar, local(BERLIN, "2026-11-16 05:00:00"))  # after a Sunday
    assert is_open(calendar, local(BERLIN, "2026-11-19 05:59:59"))  # Wednesday's, on a holiday
    assert not is_open(calendar, local(BERLIN, "2026-11-19 23:00:00"))
    assert not is_open(calendar, local(BERLIN, "2026-11-20 05:00:00"))
    assert is_open(calendar, local(BERLIN, "2026-11-21 05:00:00"))  # Friday's, on a Saturday
    assert closing(calendar, local(BERLIN, "2026-11-20 23:00:00")) == local(
        BERLIN, "2026-11-21 06:00:00"
    )


def test_shifts_that_follow_without_a_break_close_once() -> None:
    relay = Calendar(
        timezone="UTC",
        shifts=(
            Shift(start="06:00", end="14:00", days=EVERY),
            Shift(start="14:00", end="22:00", days=EVERY),
            Shift(start="23:00", end="24:00", days=EVERY),
            Shift(start="00:00", end="01:30", days=EVERY),
        ),
    )

    assert closing(relay, utc("2026-11-20 07:00:00")) == utc("2026-11-20 22:00:00")
    assert closing(relay, utc("2026-11-20 23:10:00")) == utc("2026-11-21 01:30:00")


def test_shifts_around_the_clock_never_close_and_a_long_holiday_never_opens() -> None:
    always = Calendar(shifts=(Shift(start="00:00", end="00:00", days=EVERY),))
    never = Calendar(shifts=(Shift(),), holidays=("2020-01-01/2099-12-31",))
    at = utc("2026-11-20 07:00:00")

    assert is_open(always, at)
    assert closing(always, at) is None
    assert next_opening(never, at) is None


@pytest.mark.promise("FD-60")
@pytest.mark.parametrize(
    ("zone", "day", "change"),
    [
        (BERLIN, "2026-03-29", "2026-03-29 01:00:00"),
        (NEW_YORK, "2026-03-08", "2026-03-08 07:00:00"),
    ],
)
def test_hours_in_the_hour_that_spring_skips_begin_and_end_with_the_change(
    zone: str, day: str, change: str
) -> None:
    begins = Calendar(timezone=zone, shifts=(Shift(start="02:30", end="10:00", days=EVERY),))
    ends = Calendar(timezone=zone, shifts=(Shift(start="01:00", end="02:30", days=EVERY),))
    within = Calendar(timezone=zone, shifts=(Shift(start="02:10", end="02:50", days=EVERY),))
    before = local(zone, f"{day} 00:30:00")

    assert next_opening(begins, before) == utc(change)
    assert not is_open(begins, utc(change) - timedelta(seconds=1))
    assert closing(ends, local(zone, f"{day} 01:30:00")) == utc(change)
    opening = next_opening(within, before)
    assert opening is not None
    assert opening.astimezone(ZoneInfo(zone)).date() == date.fromisoformat(day) + timedelta(days=1)


@pytest.mark.promise("FD-60")
@pytest.mark.parametrize(("zone", "day"), [(BERLIN, "2026-10-25"), (NEW_YORK, "2026-11-01")])
def test_of_the_hour_that_autumn_repeats_the_first_one_counts(zone: str, day: str) -> None:
    at = "02:30" if zone == BERLIN else "01:30"
    begins = Calendar(timezone=zone, shifts=(Shift(start=at, end="10:00", days=EVERY),))
    ends = Calendar(timezone=zone, shifts=(Shift(start="00:30", end=at, days=EVERY),))
    first, second = (local(zone, f"{day} {at}:00", fold=fold).astimezone(UTC) for fold in (0, 1))

    assert second - first == timedelta(hours=1)
    assert next_opening(begins, local(zone, f"{day} 00:10:00")) == first
    assert is_open(begins, second)
    assert closing(ends, local(zone, f"{day} 00:40:00")) == first
    assert not is_open(ends, second - timedelta(minutes=1))


def test_a_day_shift_keeps_its_wall_clock_hours_over_both_changes() -> None:
    calendar = Calendar(timezone=BERLIN, shifts=(Shift(days=EVERY),))
    lengths = []
    for day in ("2026-03-28", "2026-03-29", "2026-10-24", "2026-10-25"):
        opening = next_opening(calendar, local(BERLIN, f"{day} 00:00:00"))
        assert opening == local(BERLIN, f"{day} 09:00:00")
        lengths.append(closing(calendar, opening))

    assert [one.astimezone(ZoneInfo(BERLIN)).hour for one in lengths if one] == [18] * 4


@pytest.mark.parametrize(
    ("calendar", "said"),
    [
        (Calendar(timezone="Mars/Olympus"), r"timezone 'Mars/Olympus' is not known"),
        (Calendar(timezone="../etc/passwd"), "is not known"),
        (Calendar(timezone=""), "is not known"),
        (Calendar(timezone="Europe"), "is not known"),
        (Calendar(shifts=(Shift(start="9 Uhr"),)), r"start '9 Uhr': expected a time"),
        (Calendar(shifts=(Shift(end="25:00"),)), r"end '25:00'"),
        (Calendar(shifts=(Shift(start="24:00"),)), r"start '24:00'"),
        (Calendar(shifts=(Shift(days=(0, 1)),)), r"days \[0, 1\]: expected numbers from 1"),
        (Calendar(shifts=(Shift(days=()),)), r"days \[\]"),
        (Calendar(holidays=("2026-02-30",)), r"holidays '2026-02-30': expected a date"),
        (Calendar(holidays=("20261001",)), "expected a date"),
        (Calendar(holidays=("2026-10-07/2026-10-01",)), "ends before it begins"),
        (Calendar(shifts=(Shift(),), extra=("soon",)), r"extra 'soon'"),
        (Calendar(extra=("2026-10-10",)), "there are none"),
        (Calendar(holidays=("2026-10-01",) * 401), "401 holidays, expected at most 400"),
        (Calendar(shifts=(Shift(),) * 22), "22 shifts"),
    ],
)
def test_a_calendar_that_cannot_be_is_refused_with_what_was_said(
    calendar: Calendar, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        check_calendar(calendar)


clock = some.builds("{:02}:{:02}".format, some.integers(0, 23), some.sampled_from((0, 15, 30)))
shifts = some.builds(
    Shift,
    start=clock,
    end=clock,
    days=some.sets(some.integers(1, 7), min_size=1).map(lambda days: tuple(sorted(days))),
)
near_changes = some.sampled_from(("2026-03-07", "2026-03-28", "2026-10-24", "2026-10-31"))
calendars = some.builds(
    Calendar,
    timezone=some.sampled_from((BERLIN, NEW_YORK, SHANGHAI, "Australia/Lord_Howe")),
    shifts=some.lists(shifts, min_size=1, max_size=3).map(tuple),
    holidays=some.lists(near_changes, max_size=2).map(tuple),
    extra=some.lists(near_changes, max_size=1).map(tuple),
)
moments = some.builds(
    lambda day, minutes: utc(f"{day} 00:00:00") + timedelta(minutes=minutes),
    near_changes,
    some.integers(-2000, 4000),
)


@given(calendars, moments)
def test_what_opens_next_is_open_and_was_not_just_before(calendar: Calendar, at: datetime) -> None:
    check_calendar(calendar)
    opening = next_opening(calendar, at)

    assert opening is not None
    assert is_open(calendar, opening)
    if not is_open(calendar, at):
        assert opening > at
        assert not is_open(calendar, opening - timedelta(seconds=1))


@given(calendars, moments)
def test_what_closes_is_open_until_then_and_not_after(calendar: Calendar, at: datetime) -> None:
    end = closing(calendar, at)

    if end is not None:
        assert is_open(calendar, at)
        assert is_open(calendar, end - timedelta(seconds=1))
        assert not is_open(calendar, end)
    elif is_open(calendar, at):
        assert is_open(calendar, at + timedelta(days=30))


@given(calendars, moments, some.integers(1, 72))
def test_between_two_moments_it_opens_or_closes_exactly_when_it_says(
    calendar: Calendar, at: datetime, hours: int
) -> None:
    """Stepping through the hours by what closes and opens meets every change, and no other."""
    until, changes = at + timedelta(hours=hours), [at]
    while changes[-1] < until:
        here = changes[-1]
        change = (
            closing(calendar, here) if is_open(calendar, here) else next_opening(calendar, here)
        )
        changes.append(min(change or until, until))

    for before, after in pairwise(changes):
        middle = before + (after - before) / 2
        assert is_open(calendar, middle) == is_open(calendar, before)
