"""What a dead host had in hand is done by others at once, not when the broker's wait is over."""

import asyncio
from pathlib import Path

import pytest

from runtime.bus import Bus
from runtime.inhand import TTL
from runtime.kv import Bucket
from runtime.pull import ACK_WAIT
from runtime.store.server import EmbeddedServer
from runtime.testing import running
from schemas import subjects
from schemas.conversation import MessageAnswered
from schemas.envelope import encode
from schemas.model import history_topic
from schemas.node import IN_HAND, Holding, InHand
from tests.integration.counter import Counter
from tests.integration.test_model_killed import PATIENCE, Site, told
from tests.integration.waiting import until, until_known
from tests.integration.wordy import Reply, Wordy

PATIENT = "tests.integration.patienthost"
SOON = ACK_WAIT / 2

pytestmark = pytest.mark.timeout(120)


async def telling(bus: Bus) -> set[str]:
    """By their keys, the hosts that have told of jobs they have in hand."""
    return set(await Bucket(bus, "nodes").all(IN_HAND))


async def given_back(bus: Bus, hosts: set[str]) -> bool:
    """Whether others have taken care of what hosts had in hand; by itself it goes in a minute."""
    return not hosts & await telling(bus)


@pytest.mark.promise("AC-08", "AC-50")
@pytest.mark.parametrize("names", ["", '[host]\nname = "steady"\n'], ids=["another", "the same"])
async def test_the_jobs_of_a_killed_host_come_again_before_the_broker_gives_them_up(
    bus: Bus, shared_server: EmbeddedServer, tmp_path: Path, names: str
) -> None:
    gate = asyncio.Event()

    def stuck_at_first(number: int, body: object) -> Reply:
        return Reply(gate=gate) if number == 1 else Reply()

    async with (
        Wordy(stuck_at_first) as upstream,
        Site(tmp_path, bus, shared_server.url, upstream, PATIENT, names) as site,
    ):
        await site.begin()
        killed = await until_known(lambda: telling(bus))
        await site.hosts[0].kill()
        await site.hosts[1].start()
        await until_known(lambda: given_back(bus, killed), PATIENCE)
        async with asyncio.timeout(SOON):
            result = await site.result()
        left = await Bucket(bus, "nodes").all(IN_HAND)

    (kept,) = await told(bus, history_topic("c"), MessageAnswered)
    assert (result.outcome, kept.text, kept.attempt) == ("answered", "one two three", 2)
    assert len(upstream.calls) == 2
    assert left == {}


async def test_what_is_done_at_once_is_not_told(
    bus: Bus, shared_server: EmbeddedServer, tmp_path: Path
) -> None:
    async with (
        Wordy(lambda n, body: Reply()) as upstream,
        Site(tmp_path, bus, shared_server.url, upstream, PATIENT) as site,
    ):
        await site.begin()
        await site.result()
        found = await bus.read_all(f"$KV.nodes.{IN_HAND}>", after=0, stream="KV_nodes")

    assert found == []


async def test_a_run_that_nobody_can_read_does_not_keep_the_others_from_coming_again() -> None:
    heard: list[str] = []
    async with running(counter=Counter) as kit:
        kit.bus.subscribe("ack.*", lambda packet: heard.append(packet.subject))
        await kit.bus.publish(subjects.run("odd"), b"{")
        held = InHand(held=[Holding("ack.odd", "odd"), Holding("ack.next", "")])
        await Bucket(kit.bus, "nodes").put(f"{IN_HAND}gone.p", encode(held), ttl=TTL)
        await kit.host.hands.give_back("gone")
        await until(lambda: len(heard) == 2)

    assert heard == ["ack.odd", "ack.next"]
