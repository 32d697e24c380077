"""The agents' surface, put together: sessions, what is done with them, feeds, colleagues, hours."""

from collections.abc import Sequence

from edge.accounts import Accounting
from edge.attendance import Attendance
from edge.board import Board
from edge.catalog import Catalog
from edge.colleagues import Colleagues
from edge.desk_feeds import DeskFeeds
from edge.handling import Handling
from edge.hours import Hours
from edge.login import LoggingIn
from edge.remembered import Remembered
from edge.service import Surface
from edge.sessions import Sessions
from edge.shared import Shared
from edge.standing import Standing
from runtime.tables import SupportTable


def serve_agents(
    shared: Shared, catalog: Catalog, remembered: Remembered, limits: SupportTable
) -> Sequence[Surface]:
    """Return all that agents may use; what it holds is let go when `shared` is closed."""
    board = Board(shared, remembered)
    attendance = Attendance(shared.bus, shared.deployed)
    shared.at_close += [board.close, attendance.close]
    sessions = Sessions(shared, remembered, board)
    standing = Standing(shared.bus, remembered)
    return (
        LoggingIn(shared, attendance),
        Accounting(shared, attendance),
        sessions,
        Handling(shared, sessions, board, catalog, limits),
        DeskFeeds(shared, sessions, board, standing, attendance, limits.team),
        Colleagues(shared),
        Hours(shared),
    )
