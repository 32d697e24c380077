"""Files in the object store: streamed both ways, whole or not there, and readable by others."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from runtime.bus import Bus
from runtime.errors import FileDamaged, FileFault, FileMissing, FileTooLarge
from runtime.objects import CHUNK, STREAM, FileStore
from runtime.store.server import EmbeddedServer
from schemas.model import FileRef
from tests.integration.conftest import Connect
from tests.integration.waiting import until_known
from tests.proxy import Proxy

HOUR = timedelta(hours=1)
LARGE = bytes(range(256)) * 4096 + b"tail"

# Another client, of NATS's own makers, as a program: what it says is JSON.
STRANGER = """
import asyncio, json, sys, nats

async def main():
    client = await nats.connect(sys.argv[1])
    store = await client.jetstream().object_store("files")
    for line in sys.stdin:
        what, name = line.split()
        if what == "list":
            said = [one.name for one in await store.list(ignore_deletes=True)]
        elif what == "get":
            found = await store.get(name)
            said = [found.info.description, found.info.size, len(found.data)]
        elif what == "delete":
            await store.delete(name)
            said = True
        print(json.dumps(said), flush=True)
    await client.close()

asyncio.run(main())
"""


@pytest.fixture
def store(bus: Bus) -> FileStore:
    return FileStore(bus)


async def pieces(data: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def put(store: FileStore, data: bytes = LARGE, ttl: timedelta = HOUR) -> FileRef:
    return await store.put("picture.png", pieces(data), media="image/png", ttl=ttl)


async def whole(store: FileStore, file: str) -> bytes:
    return b"".join([chunk async for chunk in store.read(file)])


async def messages(bus: Bus) -> int:
    """How many messages the store holds."""
    info = await bus.api(f"STREAM.INFO.{STREAM}")
    return int(info["state"]["messages"])


async def until_empty(bus: Bus) -> None:
    async def empty() -> bool:
        return await messages(bus) == 0

    await until_known(empty)


@pytest.mark.parametrize("data", [LARGE, b"", b"x", b"x" * CHUNK, b"x" * (CHUNK + 1)])
async def test_what_was_put_is_read_again(store: FileStore, data: bytes) -> None:
    file = await put(store, data)
    found = await store.find(file.id)
    read = await whole(store, file.id)

    assert found == file
    assert (file.name, file.media, file.size) == ("picture.png", "image/png", len(data))
    assert read == data


async def test_other_clients_of_nats_can_list_and_get_and_delete_a_file(
    store: FileStore, shared_server: EmbeddedServer
) -> None:
    file = await put(store)
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        STRANGER,
        shared_server.url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    asked = f"list -\nget {file.id}\ndelete {file.id}\n"
    said, _ = await asyncio.wait_for(program.communicate(asked.encode()), 20)
    after = await store.find(file.id)

    assert [json.loads(line) for line in said.splitlines()] == [
        [file.id],
        ["picture.png", len(LARGE), len(LARGE)],
        True,
    ]
    assert after is None


async def test_a_file_is_stored_while_it_comes_and_never_gathered(
    store: FileStore, bus: Bus
) -> None:
    behind: list[int] = []

    async def watched() -> AsyncIterator[bytes]:
        for number in range(12):
            behind.append(number - await messages(bus))
            yield b"x" * CHUNK

    await store.put("x", watched(), ttl=HOUR)

    assert len(behind) == 12
    assert max(behind) <= 2


async def test_a_file_is_read_in_pieces(store: FileStore) -> None:
    file = await put(store)
    sizes = [len(chunk) async for chunk in store.read(file.id)]

    assert max(sizes) == CHUNK
    assert sum(sizes) == len(LARGE)


async def test_of_a_file_that_is_too_large_nothing_stays(store: FileStore, bus: Bus) -> None:
    with pytest.raises(FileTooLarge, match="a file of more than 300000 bytes"):
        await store.put("x", pieces(LARGE), ttl=HOUR, most=300_000)

    await until_empty(bus)


async def test_of_an_upload_that_breaks_off_nothing_stays(store: FileStore, bus: Bus) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 3 * CHUNK
        raise ConnectionResetError("the sender has gone")

    with pytest.raises(ConnectionResetError):
        await store.put("x", broken(), ttl=HOUR)

    await until_empty(bus)


async def test_of_an_upload_that_is_cancelled_nothing_stays(store: FileStore, bus: Bus) -> None:
    begun = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"x" * 3 * CHUNK
        begun.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(store.put("x", stuck(), ttl=HOUR))
    async with asyncio.timeout(10):
        await begun.wait()
    stored = await messages(bus)
    upload.cancel()
    await asyncio.wait([upload], timeout=10)

    assert upload.cancelled()
    assert stored == 3
    await until_empty(bus)


async def test_a_file_expires_and_its_bytes_live_longer(store: FileStore, bus: Bus) -> None:
    file = await put(store, b"x", ttl=timedelta(seconds=1))
    held = await bus.read_all("$O.files.>", after=0, stream=STREAM)

    async def gone() -> bool:
        return await store.find(file.id) is None

    await until_known(gone)
    with pytest.raises(FileMissing, match="it may have expired"):
        await whole(store, file.id)

    assert [one.headers["Nats-TTL"] for one in held] == ["3601s", "1s"]


async def test_a_file_that_is_deleted_is_gone_with_its_bytes(store: FileStore, bus: Bus) -> None:
    file = await put(store)
    deleted = await store.delete(file.id)
    again = await store.delete(file.id)
    found = await store.find(file.id)

    assert (deleted, again, found) == (True, False, None)
    with pytest.raises(FileMissing):
        await whole(store, file.id)
    await until_empty(bus)


@pytest.mark.parametrize("file", ["", "x", "a" * 33, "A" * 32, "*", ">", "../" + "a" * 29])
async def test_what_is_no_id_of_ours_names_no_file(store: FileStore, file: str) -> None:
    found = await store.find(file)

    assert found is None
    with pytest.raises(FileMissing):
        await whole(store, file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: [data[0], data[1]],
        lambda data: [*data, b"more"],
        lambda data: [data[1], data[0], *data[2:]],
        lambda data: [],
    ],
    ids=["cut short", "too long", "in another order", "empty"],
)
async def test_a_file_whose_bytes_are_not_its_own_is_never_read_to_the_end(
    store: FileStore, bus: Bus, damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    file = await put(store, b"".join(bytes([n]) * CHUNK for n in range(3)))
    subject = f"$O.files.C.{file.id}"
    held = await bus.read_all(subject, after=0, stream=STREAM)
    await bus.api(f"STREAM.PURGE.{STREAM}", {"filter": subject})
    for data in damage([one.data for one in held]):
        await bus.publish(subject, data)

    with pytest.raises(FileDamaged, match=f"file {file.id}"):
        await whole(store, file.id)


async def test_a_name_that_is_too_long_is_refused(store: FileStore) -> None:
    with pytest.raises(FileFault, match="1025 characters, at most 1024"):
        await store.put("x" * 1025, pieces(b"x"), ttl=HOUR)


async def test_a_connection_that_is_lost_meanwhile_makes_no_difference(
    proxy: Proxy, connect: Connect, bus: Bus
) -> None:
    store = FileStore(await connect(proxy.url))

    async def interrupted() -> AsyncIterator[bytes]:
        for number, piece in enumerate([one async for one in pieces(LARGE, CHUNK)]):
            if number in (2, 5):
                proxy.cut()
            yield piece

    async with asyncio.timeout(20):
        file = await store.put("x", interrupted(), ttl=HOUR)
        read = b""
        async for chunk in store.read(file.id):
            if not read:
                proxy.cut()
            read += chunk

    assert read == LARGE
    assert await messages(bus) == 10
