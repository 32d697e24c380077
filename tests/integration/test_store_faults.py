"""What is done to the files of a store is noticed before anything is served from it."""

import os
import shutil
from pathlib import Path

import pytest

from edge.following import EVENT_TTL
from edge.reach import AHEAD, find_reach
from runtime.bus import Bus
from runtime.errors import DataMissing
from runtime.streams import ensure_streams
from tests.integration.conftest import Connect
from tests.integration.lives import EVENT, Lives, consume, deliver, flip, read_numbers, store


@pytest.fixture
def lives(tmp_path: Path, nats_server_binary: str, connect: Connect) -> Lives:
    return Lives(tmp_path, nats_server_binary, connect)


async def refusal(lives: Lives) -> str:
    """What the next start says: it has to refuse, as often as it is tried."""
    said = []
    for _ in range(2):
        with pytest.raises(DataMissing) as refused:
            async with lives.life():
                pass
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert "Nothing was changed" in said[0]
    assert "--accept-data-loss" in said[0]
    return said[0]


async def last_seq(bus: Bus) -> int:
    return int((await bus.api("STREAM.INFO.BUS"))["state"]["last_seq"])


async def fill_blocks(bus: Bus) -> None:
    """Two blocks and a bit: those that are full are compressed."""
    for _ in range(20):
        await bus.publish(EVENT, os.urandom(900_000))


async def test_a_store_that_was_put_back_to_an_older_copy_is_refused(lives: Lives) -> None:
    async with lives.life() as bus:
        await store(bus, 1, 10)
    copy = lives.copy("yesterday")
    async with lives.life() as bus:
        await store(bus, 11, 30)
    lives.put_back(copy)
    said = await refusal(lives)

    assert "the stream BUS ends at 10, but it had got to 30 at " in said
    assert ": 20 acknowledged messages are missing" in said


async def test_what_is_left_is_gone_on_with_once_the_loss_is_accepted(lives: Lives) -> None:
    async with lives.life() as bus:
        await store(bus, 1, 10)
    copy = lives.copy("yesterday")
    async with lives.life() as bus:
        await store(bus, 11, 30)
        created = bus.created
    lives.put_back(copy)
    async with lives.life(accept=True) as bus:
        kept, same = await read_numbers(bus), bus.created == created
        ack = await bus.publish(EVENT, b"event-0031-")
        audited = await bus.read_all("event.system.audit", after=0)
    async with lives.life() as bus:
        again = await read_numbers(bus)

    assert kept == list(range(1, 11))
    assert same
    assert ack.seq > 30, "a number that somebody has seen came a second time"
    assert again == [*kept, 31]
    assert [b"20 acknowledged messages are missing" in one.data for one in audited] == [True]


async def test_a_flipped_bit_that_takes_the_end_of_the_stream_is_refused(lives: Lives) -> None:
    async with lives.life(kill=True) as bus:
        await store(bus, 1, 40)
    flip(lives.blocks[-1], at=b"event-0021-")
    said = await refusal(lives)

    assert "the stream BUS ends at 20, but it had got to 40" in said


async def test_a_flipped_bit_that_takes_one_message_is_refused(lives: Lives) -> None:
    async with lives.life() as bus:
        await store(bus, 1, 40)
    flip(lives.blocks[-1], at=b"event-0021-")
    said = await refusal(lives)
    async with lives.life(accept=True) as bus:
        kept = await read_numbers(bus)
    async with lives.life() as bus:
        again = await read_numbers(bus)

    assert "1 message(s) of the stream BUS cannot be read, the first is 21" in said
    assert kept == again == [*range(1, 21), *range(22, 41)]


async def test_consumers_ahead_of_their_stream_are_refused_and_deliver_again_once_accepted(
    lives: Lives,
) -> None:
    async with lives.life() as bus:
        await store(bus, 1, 40)
        await consume(bus, 40)
    flip(lives.blocks[-1], at=b"event-0021-")
    (lives.stream / "msgs" / "index.db").unlink()
    lives.file.clear()
    said = await refusal(lives)
    async with lives.life(accept=True) as bus:
        await bus.publish(EVENT, b"event-0041-")
        delivered = [one.packet.data for one in await deliver(bus, 10)]

    assert "acknowledged messages are missing" in said
    assert b"event-0041-" in delivered


async def test_a_damaged_description_hides_a_stream_which_is_refused_and_can_be_had_back(
    lives: Lives,
) -> None:
    async with lives.life() as bus:
        await store(bus, 1, 10)
        created = bus.created
    flip(lives.stream / "meta.inf")
    said = await refusal(lives)
    async with lives.life(accept=True) as bus:
        kept, same = await read_numbers(bus), bus.created == created

    assert "the stream BUS, which held messages up to 10 at " in said
    assert "is not there any more" in said
    assert "nats-server said of its store: Stream metafile" in said
    assert kept == list(range(1, 11))
    assert same, "watermarks of records would count for nothing"


async def test_a_stream_that_the_server_cannot_read_is_copied_before_it_is_begun_anew(
    lives: Lives,
) -> None:
    async with lives.life() as bus:
        await fill_blocks(bus)
        created = bus.created
    compressed = lives.blocks[0]
    flip(compressed)
    (lives.stream / "msgs" / "index.db").unlink()
    said = await refusal(lives)
    async with lives.life(accept=True) as bus:
        left, anew = await last_seq(bus), bus.created != created
    copies = list(lives.data.parent.glob(f"data.lost-*/BUS/msgs/{compressed.name}"))

    assert "Error recreating stream" in said
    assert left > 20, "a number that somebody has seen can come a second time"
    assert anew
    assert len(copies) == 1


async def test_a_block_that_cannot_be_read_is_refused_and_cannot_be_given_up(
    lives: Lives,
) -> None:
    async with lives.life() as bus:
        await fill_blocks(bus)
    flip(lives.blocks[1])
    said = await refusal(lives)
    with pytest.raises(DataMissing, match="cannot be mended by giving it up"):
        async with lives.life(accept=True):
            pass

    assert "cannot be read from" in said


async def test_a_block_that_is_gone_is_refused(lives: Lives) -> None:
    async with lives.life() as bus:
        await fill_blocks(bus)
    lives.blocks[1].unlink()
    said = await refusal(lives)

    assert "nats-server said of its store: Filestore [BUS] Stream state detected prior" in said
    assert "could not locate msg block 2" in said


async def test_a_stream_that_is_gone_is_not_created_anew(lives: Lives) -> None:
    async with lives.life() as bus:
        await store(bus, 1, 10)
    shutil.rmtree(lives.stream)
    said = await refusal(lives)
    async with lives.server() as bus:
        streams = (await bus.api("STREAM.NAMES"))["streams"]

    assert "the stream BUS, which held messages up to 10" in said
    assert "BUS" not in streams


async def test_what_replaces_a_stream_that_is_gone_takes_none_of_its_numbers(lives: Lives) -> None:
    async with lives.life() as bus:
        await store(bus, 1, 10)
        created = bus.created
    shutil.rmtree(lives.stream)
    async with lives.life(accept=True) as bus:
        anew = bus.created != created
        audited = await bus.read_all("event.system.audit", after=0)
        reset = await find_reach(bus, EVENT, 7, EVENT_TTL)
        current = await find_reach(bus, EVENT, audited[0].seq, EVENT_TTL)
    async with lives.life() as bus:
        ack = await bus.publish(EVENT, b"event-0011-")

    assert anew
    assert 10 < audited[0].seq < ack.seq
    assert (reset.reason, current.reason) == (AHEAD, "")


async def test_a_stream_that_is_gone_is_missed_even_without_marks(lives: Lives) -> None:
    async with lives.server() as bus:
        await ensure_streams(bus)
        await bus.api("STREAM.DELETE.BUS")
    said = await refusal(lives)

    assert "the stream BUS is not there any more" in said


async def test_a_folder_that_was_removed_is_begun_anew(lives: Lives) -> None:
    async with lives.life() as bus:
        await store(bus, 1, 10)
    shutil.rmtree(lives.data)
    async with lives.life() as bus:
        found = await read_numbers(bus)

    assert found == []


async def test_an_index_that_is_gone_is_made_again(lives: Lives) -> None:
    async with lives.life() as bus:
        await store(bus, 1, 40)
    (lives.stream / "msgs" / "index.db").unlink()
    async with lives.life() as bus:
        found = await read_numbers(bus)

    assert found == list(range(1, 41))


async def test_a_torn_last_block_is_refused_if_it_held_what_was_acknowledged(
    lives: Lives,
) -> None:
    async with lives.life() as bus:
        await store(bus, 1, 40)
    os.truncate(lives.blocks[-1], lives.blocks[-1].stat().st_size - 7)
    said = await refusal(lives)

    assert "the last message of the stream BUS, 40, is gone" in said


async def test_what_was_torn_before_it_was_acknowledged_is_nobody_s_loss(lives: Lives) -> None:
    async with lives.life(kill=True) as bus:
        await store(bus, 1, 40)
    with lives.blocks[-1].open("ab") as block:
        block.write(b"half a record")
    async with lives.life() as bus:
        found = await read_numbers(bus)

    assert found == list(range(1, 41))


async def test_the_state_of_a_consumer_may_go_what_it_delivered_comes_again(lives: Lives) -> None:
    async with lives.life() as bus:
        await store(bus, 1, 10)
        await consume(bus, 10)
    for state in lives.stream.glob("obs/*/o.dat"):
        state.unlink()
    async with lives.life() as bus:
        delivered = [one.seq for one in await deliver(bus, 20)]

    assert delivered == list(range(1, 11))
