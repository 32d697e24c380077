"""The customers' surface, put together: chat, its streams, threads, people, health."""

from collections.abc import Sequence
from typing import Protocol

from edge.auth import Doorkeeper
from edge.catalog import Catalog
from edge.health import HealthCheck
from edge.manual import Manual
from edge.operation import Operation
from edge.rates import BUCKET, Rates
from edge.remembered import Remembered
from edge.seats import Seats
from edge.shared import Shared
from edge.standing import Standing
from edge.support import Support
from edge.support_asking import Customers
from edge.support_feed import Feeds
from edge.support_health import SupportHealthCheck
from edge.support_threads import Threads
from runtime.kv import Bucket
from runtime.tables import SupportTable


class Surface(Protocol):
    """What offers operations."""

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        ...


def serve_customers(
    shared: Shared,
    catalog: Catalog,
    remembered: Remembered,
    limits: SupportTable,
    doorkeeper: Doorkeeper,
    health: HealthCheck,
) -> Sequence[Surface]:
    """Return all that customers may use; what it holds is let go when `shared` is closed."""
    bucket = Bucket(shared.bus, BUCKET)
    seats = Seats(bucket, per_user=limits.streams_per_user, in_total=limits.streams)
    shared.at_close.append(seats.close)
    customers = Customers(
        shared, catalog, remembered, Rates(bucket), limits, believed=doorkeeper.trusts
    )
    feeds = Feeds(shared, remembered, Standing(shared.bus, remembered), seats, limits)
    return (
        Support(shared, customers, feeds, seats, limits),
        Threads(shared, customers, limits),
        Manual(shared, customers, remembered, limits),
        SupportHealthCheck(shared, health, customers, seats, limits),
    )
