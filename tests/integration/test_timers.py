"""What reminders rely on: schedules fire once, on time, and go when they are cancelled."""

from datetime import UTC, datetime, timedelta

import pytest

from runtime.bus import Bus, Outgoing, Stored, expect
from runtime.errors import Conflict, Denied
from runtime.store.server import EmbeddedServer
from runtime.turn import cancel
from schemas import subjects
from schemas.base import Address
from tests.integration.conftest import Connect
from tests.integration.waiting import until, until_known

HERE = Address("a", "k")
MAIL = f"mail.{subjects.shard_of('a', 'k')}.a.k"
ROLLUP = {"Nats-Rollup": "sub"}


def timer(name: str, after: float, data: bytes = b"", target: str = "mail.a.k") -> Outgoing:
    at = datetime.now(UTC) + timedelta(seconds=after)
    headers = {
        "Nats-Schedule": f"@at {at.strftime('%Y-%m-%dT%H:%M:%S.%fZ')}",
        "Nats-Schedule-Target": target,
        "Nats-Schedule-TTL": "60s",
    }
    return Outgoing(subjects.timer(HERE, name), data or name.encode(), headers)


async def fired(bus: Bus, count: int) -> list[Stored]:
    """Wait until so many have fired."""

    async def look() -> list[Stored] | None:
        found = await bus.read_all(MAIL, after=0)
        return found if len(found) >= count else None

    return await until_known(look)


async def waiting(bus: Bus) -> list[str]:
    return [one.subject for one in await bus.lasts("timer.>")]


async def test_a_schedule_of_a_commit_fires_as_mail_to_its_shard(bus: Bus) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.3)
    await bus.commit([Outgoing("state.a.k", b"", ROLLUP), timer("idle", 0.3, b"wake up")])
    [mail] = await fired(bus, 1)

    assert mail.data == b"wake up"
    assert mail.time >= due - timedelta(milliseconds=1)
    assert mail.headers["Nats-Scheduler"] == "timer.a.k.idle"
    assert mail.headers["Nats-TTL"] == "60s"
    assert await waiting(bus) == []


async def test_a_schedule_in_the_past_fires_at_once(bus: Bus) -> None:
    await bus.commit([timer("late", -3600)])

    assert [mail.data for mail in await fired(bus, 1)] == [b"late"]


async def test_of_two_schedules_of_one_name_the_later_written_fires(bus: Bus) -> None:
    await bus.commit([timer("idle", 0.2, b"old"), Outgoing("state.a.k", b"", {})])
    await bus.commit([timer("idle", 0.5, b"new"), Outgoing("state.a.k", b"", {})])
    await bus.commit([timer("end", 0.9)])

    assert [mail.data for mail in await fired(bus, 2)] == [b"new", b"end"]


async def test_a_schedule_is_cancelled_by_a_header_on_another_message(bus: Bus) -> None:
    await bus.commit([timer("idle", 0.3), timer("other", 0.3), timer("end", 0.9)])
    state = Outgoing("state.a.k", b"", {**ROLLUP, **cancel("timer.a.k.idle")})
    event = Outgoing("event.t.a", b"", cancel("timer.a.k.other"))
    await bus.commit([state, event])
    left = await waiting(bus)

    assert left == ["timer.a.k.end"]
    assert [mail.data for mail in await fired(bus, 1)] == [b"end"]


async def test_a_cancellation_that_is_refused_cancels_nothing(bus: Bus) -> None:
    await bus.commit([timer("idle", 0.4), Outgoing("state.a.k", b"", {})])
    refused = Outgoing("state.a.k", b"", {**expect(7), **cancel("timer.a.k.idle")})
    with pytest.raises(Conflict):
        await bus.commit([refused, Outgoing("event.t.a", b"", {})])
    with pytest.raises(Conflict):
        await bus.commit([refused])

    assert [mail.data for mail in await fired(bus, 1)] == [b"idle"]


@pytest.mark.parametrize("alone", [True, False])
async def test_cancelling_what_is_not_there_any_more_is_harmless(bus: Bus, alone: bool) -> None:
    await bus.commit([timer("fired", 0.0), timer("end", 0.8)])
    await fired(bus, 1)
    beside = [] if alone else [Outgoing("event.t.a", b"", {})]
    for name in ("fired", "never_was"):
        state = Outgoing("state.a.k", name.encode(), {**ROLLUP, **cancel(f"timer.a.k.{name}")})
        await bus.commit([state, *beside])
    record = await bus.last("state.a.k")

    assert record is not None
    assert record.data == b"never_was"
    assert [mail.data for mail in await fired(bus, 2)] == [b"fired", b"end"]


async def test_a_schedule_of_a_refused_commit_does_not_exist(bus: Bus) -> None:
    with pytest.raises(Conflict):
        await bus.commit([timer("ghost", 0.1), Outgoing("state.a.k", b"", expect(7))])
    await bus.commit([timer("end", 0.4)])

    assert [mail.data for mail in await fired(bus, 1)] == [b"end"]


async def test_a_target_outside_the_stream_is_refused(bus: Bus) -> None:
    for target in ("elsewhere.a.k", "mail.*.k", "timer.a.k.idle"):
        with pytest.raises(Denied, match="schedule"):
            await bus.commit([timer("idle", 1, target=target)])

    assert await waiting(bus) == []


async def test_a_schedule_that_was_due_while_the_server_was_down_fires_afterwards_once(
    own_server: EmbeddedServer, own_bus: Bus, connect: Connect
) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.2)
    await own_bus.commit([timer("idle", 0.2), timer("gone", 0.2), timer("end", 0.9)])
    await own_bus.commit([Outgoing("state.a.k", b"", cancel("timer.a.k.gone"))])
    await own_server.kill()
    await until(lambda: datetime.now(UTC) > due)
    await own_server.start()
    bus = await connect(own_server.url)

    assert [mail.data for mail in await fired(bus, 2)] == [b"idle", b"end"]
    assert await waiting(bus) == []
