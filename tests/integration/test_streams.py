"""The streams are created once, found again, and refused where they are not as described."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runtime.bus import Bus
from runtime.errors import Denied, StreamMismatch
from runtime.store.server import EmbeddedServer
from runtime.streams import described, ensure_streams
from tests.integration.conftest import Connect, streams_of

NAMES = ["BUS", "KV_config", "KV_identities", "KV_limits", "KV_nodes", "OBJ_files"]


async def names(bus: Bus) -> list[str]:
    return sorted((await bus.api("STREAM.NAMES"))["streams"] or [])


async def change(bus: Bus, stream: str, **settings: Any) -> None:
    config = (await bus.api(f"STREAM.INFO.{stream}"))["config"]
    await bus.api(f"STREAM.UPDATE.{stream}", {**config, **settings})


async def test_what_is_missing_is_created_and_what_is_there_is_left_alone(bus: Bus) -> None:
    created = bus.created
    await bus.publish("state.a.k", b"kept")
    await bus.api("STREAM.DELETE.KV_nodes")
    await ensure_streams(bus)
    kept = await bus.last("state.a.k")

    assert await names(bus) == NAMES == sorted(one["name"] for one in described(1))
    assert bus.created == created != ""
    assert kept is not None


async def test_several_processes_may_start_at_once(
    bus: Bus, shared_server: EmbeddedServer, connect: Connect
) -> None:
    for name in NAMES:
        await bus.api(f"STREAM.DELETE.{name}")
    others = [await connect(shared_server.url) for _ in range(5)]
    await asyncio.gather(*(ensure_streams(other) for other in others))

    assert await names(bus) == NAMES
    assert len({other.created for other in others}) == 1


async def test_a_stream_that_was_created_anew_is_another_one(bus: Bus) -> None:
    before = bus.created
    await bus.api("STREAM.DELETE.BUS")
    await ensure_streams(bus)

    assert bus.created != before


@pytest.mark.parametrize(
    ("stream", "settings", "told"),
    [
        ("BUS", {"max_age": 3600_000_000_000}, "max_age is 3600000000000, expected 0"),
        ("BUS", {"max_msgs": 10}, "max_msgs is 10, expected -1"),
        ("BUS", {"duplicate_window": 1_000_000_000}, "duplicate_window is 1000000000, expected"),
        ("BUS", {"allow_direct": False}, "allow_direct is False, expected True"),
        ("BUS", {"republish": None}, "republish is None, expected {'src': 'event.>'"),
        ("BUS", {"compression": "none"}, "compression is 'none', expected 's2'"),
        ("BUS", {"subjects": ["mail.*.*", "x.>"]}, r"subjects is \['mail.*'x.>'\], expected"),
        ("KV_nodes", {"max_msgs_per_subject": 5}, "max_msgs_per_subject is 5, expected 1"),
    ],
)
async def test_a_stream_that_differs_is_refused_with_what_differs_and_the_cure(
    bus: Bus, stream: str, settings: dict[str, Any], told: str
) -> None:
    await change(bus, stream, **settings)
    with pytest.raises(StreamMismatch, match=told) as refused:
        await ensure_streams(bus)
    sentence = str(refused.value)

    assert sentence.startswith(f"stream {stream} is not as nats/streams.json describes it: ")
    assert sentence.endswith("`nats stream edit`, or start with an empty store")
    assert sentence.count(", expected ") == 1


async def test_every_difference_is_told_at_once(bus: Bus) -> None:
    await change(bus, "BUS", max_msgs=10, max_bytes=1_000_000)
    with pytest.raises(StreamMismatch, match=r"max_bytes is .*; max_msgs is ") as refused:
        await ensure_streams(bus)

    assert str(refused.value).count(", expected ") == 2


async def test_more_replicas_than_there_are_servers_is_the_servers_own_refusal(bus: Bus) -> None:
    await bus.api("STREAM.DELETE.BUS")
    with pytest.raises(Denied, match="replicas"):
        await ensure_streams(bus, replicas=3)


class Obstructed(Bus):
    """Whenever it has a stream created, there is a file in the place of all streams."""

    place: Path

    def obstruct(self) -> None:
        self.place.parent.mkdir(parents=True, exist_ok=True)
        self.place.touch()

    async def api(self, name: str, request: Any = None, *, timeout: float = 5) -> dict[str, Any]:
        if name.startswith("STREAM.CREATE"):
            self.obstruct()
        return await super().api(name, request, timeout=timeout)


async def test_a_store_that_cannot_be_made_is_told_of_unless_it_can_a_moment_later(
    own_server: EmbeddedServer, connect: Connect
) -> None:
    bus = await connect(own_server.url)
    obstructed = Obstructed(bus.link)
    obstructed.place = streams_of(own_server)
    with pytest.raises(Denied, match=r"stream BUS cannot be created.* its log says") as refused:
        await ensure_streams(obstructed)
    # The server refuses this once, and takes away what is in the way.
    obstructed.obstruct()
    await ensure_streams(bus)

    assert refused.value.code == 10049
    assert await names(bus) == NAMES
