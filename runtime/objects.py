"""Files, streamed in and out of the object store `files`: what is too large for a message.

Laid out as every NATS client knows it (ADR-20): `nats object get files <id>` gives a file.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import structlog

from runtime.bus import Bus, expect, expiry, new_id
from runtime.errors import (
    BusFault,
    Conflict,
    FileDamaged,
    FileFault,
    FileMissing,
    FileTooLarge,
    Unavailable,
    Unknown,
)
from runtime.reading import read_on, wait_for_bus
from schemas.envelope import UNREADABLE, encode
from schemas.model import FileRef

log = structlog.get_logger()

BUCKET = "files"
STREAM = f"OBJ_{BUCKET}"
CHUNK = 128 * 1024
"""Bytes of a file that are one message."""
MOST = 256 * 1024 * 1024
"""Bytes of a file, unless its owner says otherwise."""
MOST_NAME = 1024
OUTLIVES = timedelta(hours=1)
"""By how much a file's bytes outlive its description, which is stored last and read first."""
LONGEST_UPLOAD = 1800.0
"""Seconds. What begins to be read at the last moment can be read for as long again."""
PATIENCE = 20.0
"""Seconds for which a server that is away is waited for."""

_GONE = timedelta(seconds=1)
_ROLLUP = {"Nats-Rollup": "sub"}
_ID = re.compile("[0-9a-f]{32}")
_DIGEST = "SHA-256="


class _Info(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a file, as the object stores of all NATS clients have it."""

    name: str
    bucket: str
    nuid: str
    size: int = 0
    chunks: int = 0
    digest: str = ""
    mtime: str = ""
    description: str = ""
    metadata: dict[str, str] = {}
    options: dict[str, Any] = {}
    deleted: bool = False


_decode = msgspec.json.Decoder(_Info).decode


class FileStore:
    """Files by id: 32 hexadecimal digits, which are a file's name for other clients."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._discarding: set[asyncio.Task[None]] = set()

    async def put(
        self,
        name: str,
        chunks: AsyncIterable[bytes],
        *,
        media: str = "application/octet-stream",
        ttl: timedelta,
        most: int = MOST,
        owner: str = "",
    ) -> FileRef:
        """Store what comes, piece by piece, for `ttl`; it can be read once this returns.

        `name` is what its sender calls it, `owner` the principal whose it is. Nothing stays of a
        file that ends early, by whatever
        `chunks` raises or by being cancelled. Raises FileTooLarge past `most` bytes, FileFault
        after half an hour or for a name that is too long, BusFault if it cannot be stored.
        """
        if len(name) > MOST_NAME:
            raise FileFault(f"a file's name of {len(name)} characters, at most {MOST_NAME}")
        upload = _Upload(self._bus, ttl)
        try:
            async with aclosing(_regroup(chunks, most)) as regrouped:
                async for chunk in regrouped:
                    await upload.add(chunk)
            return await upload.end(name, media, owner)
        except BaseException:
            self._discard_later(upload.id)
            raise

    async def read(self, file: str) -> AsyncGenerator[bytes, None]:
        """The bytes of a file, a chunk at a time.

        Raises FileMissing before the first if it is not there (any more), and FileDamaged, at
        the end at the latest, if they are not what was stored; BusFault if the server is away.
        """
        info = await self._describe(file)
        if info is None:
            raise FileMissing(f"there is no file {file!r}; it may have expired")
        digest, size = hashlib.sha256(), 0
        found = read_on(self._bus, _chunks(info.nuid), stream=STREAM, patience=PATIENCE)
        async with aclosing(found) as chunks:
            async for stored in chunks:
                size += len(stored.data)
                if size > info.size:
                    break
                digest.update(stored.data)
                yield stored.data
        if size != info.size or _sum(digest) != info.digest:
            raise FileDamaged(f"file {file}: {size} of {info.size} bytes, which are not its own")

    async def find(self, file: str) -> FileRef | None:
        """What is known of a file; None if it is not there (any more). Raises BusFault."""
        info = await self._describe(file)
        if info is None:
            return None
        said = info.metadata
        media = said.get("media", "application/octet-stream")
        return FileRef(id=info.name, name=said.get("name", ""), media=media, size=info.size)

    async def owner(self, file: str) -> str:
        """The principal whose a file is; nothing if it is nobody's, or not there. As `find`."""
        info = await self._describe(file)
        return info.metadata.get("owner", "") if info else ""

    async def delete(self, file: str) -> bool:
        """Take a file away; False if it was not there. Raises BusFault."""
        info = await self._describe(file)
        if info is None:
            return False
        gone = msgspec.structs.replace(info, deleted=True, size=0, chunks=0, digest="")
        headers = {**_ROLLUP, **expiry(_GONE)}
        await self._bus.publish(_meta(file), encode(gone), headers=headers)
        await self._discard(info.nuid)
        return True

    async def _describe(self, file: str) -> _Info | None:
        if not _ID.fullmatch(file):
            return None
        stored = await self._bus.last(_meta(file), stream=STREAM)
        if stored is None:
            return None
        try:
            info = _decode(stored.data)
        except UNREADABLE as error:
            raise FileDamaged(f"file {file}: its description cannot be read: {error}") from None
        return None if info.deleted else info

    def _discard_later(self, upload: str) -> None:
        """Beside whoever gives up, and may be in a hurry. What is left goes with its time."""
        task = asyncio.create_task(self._discard_quietly(upload))
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)

    async def _discard_quietly(self, upload: str) -> None:
        try:
            await self._discard(upload)
        except BusFault as fault:
            log.debug("upload_not_discarded", file=upload, error=str(fault))

    async def _discard(self, upload: str) -> None:
        """One message in place of all, and soon none: purging is an operator's right."""
        headers = {**_ROLLUP, **expiry(_GONE)}
        await self._bus.publish(_chunks(upload), b"", headers=headers)


class _Upload:
    """A file on its way into the store, one chunk at a time."""

    def __init__(self, bus: Bus, ttl: timedelta) -> None:
        self.id = new_id()
        self._bus = bus
        self._ttl = ttl
        self._digest = hashlib.sha256()
        self._size = 0
        self._count = 0
        self._last = 0
        """The sequence of the last chunk: the next is stored behind it, or not at all."""
        self._late = asyncio.get_running_loop().time() + LONGEST_UPLOAD

    async def add(self, chunk: bytes) -> None:
        """Store the next chunk."""
        if asyncio.get_running_loop().time() > self._late:
            raise FileFault(f"an upload that takes longer than {LONGEST_UPLOAD:g} s")
        self._digest.update(chunk)
        headers = {**expect(self._last), **expiry(self._ttl + OUTLIVES)}
        self._last = await self._store(_chunks(self.id), chunk, headers)
        self._size += len(chunk)
        self._count += 1

    async def end(self, name: str, media: str, owner: str) -> FileRef:
        """Store the description, which makes it a file."""
        info = _Info(
            name=self.id,
            bucket=BUCKET,
            nuid=self.id,
            size=self._size,
            chunks=self._count,
            digest=_sum(self._digest),
            mtime=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            description=name,
            metadata={"name": name, "media": media, "owner": owner},
            options={"max_chunk_size": CHUNK},
        )
        headers = {**_ROLLUP, **expiry(self._ttl)}
        await self._store(_meta(self.id), encode(info), headers)
        return FileRef(id=self.id, name=name, media=media, size=self._size)

    async def _store(self, subject: str, data: bytes, headers: Mapping[str, str]) -> int:
        """Store a message once, whatever becomes of the answer; returns its sequence."""
        loop = asyncio.get_running_loop()
        until, doubt = loop.time() + PATIENCE, False
        while True:
            try:
                return (await self._bus.publish(subject, data, headers=headers)).seq
            except Conflict:
                if not doubt or loop.time() > until:
                    raise
                if found := await self._find(subject, data):
                    return found
            except (Unavailable, Unknown):
                doubt = True
                if loop.time() > until:
                    raise
            await wait_for_bus(self._bus, until)

    async def _find(self, subject: str, data: bytes) -> int:
        """Where a message stands whose answer was lost; 0 if it does not, or nobody tells."""
        try:
            stored = await self._bus.last(subject, stream=STREAM)
        except BusFault:
            return 0
        return stored.seq if stored and stored.seq > self._last and stored.data == data else 0


async def _regroup(pieces: AsyncIterable[bytes], most: int) -> AsyncGenerator[bytes, None]:
    """The same bytes in chunks; never holds much more than one of either."""
    held, size = bytearray(), 0
    async for piece in pieces:
        size += len(piece)
        if size > most:
            raise FileTooLarge(f"a file of more than {most} bytes")
        held += piece
        while len(held) >= CHUNK:
            yield bytes(held[:CHUNK])
            del held[:CHUNK]
    if held:
        yield bytes(held)


def _sum(digest: "hashlib._Hash") -> str:
    return _DIGEST + base64.urlsafe_b64encode(digest.digest()).decode()


def _chunks(upload: str) -> str:
    return f"$O.{BUCKET}.C.{upload}"


def _meta(name: str) -> str:
    return f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
