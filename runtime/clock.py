"""Where the runtime gets the time from, so that tests can move it."""

from datetime import UTC, datetime, timedelta


class Clock:
    """The machine's clock, in UTC."""

    def now(self) -> datetime:
        """This moment."""
        return datetime.now(UTC)


class ManualClock(Clock):
    """A clock that runs, and jumps ahead when told to."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        """This moment, plus what it was moved ahead."""
        return super().now() + self.ahead

    def advance(self, by: timedelta) -> None:
        """Jump ahead."""
        self.ahead += by
