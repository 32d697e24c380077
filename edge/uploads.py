"""Files on their way from a form into the store: counted, looked at, and gone if all fails.

A piece is in memory at a time. What a file is, is sniffed (`edge/kinds.py`).
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import structlog
from starlette.requests import Request

from edge.forms import (
    PAIRS,
    FormLimits,
    Part,
    check_length,
    invalid_field,
    read_form,
    read_pairs,
)
from edge.kinds import HEAD, MOST_PIXELS, TEXT, TextCheck, agrees, pixels, shown_name, sniff
from edge.problem import Refusal, quote, read_media
from runtime.errors import BusFault, FileFault
from runtime.objects import FileStore
from runtime.tables import FilesTable
from schemas.model import MOST_INLINE, FileRef

log = structlog.get_logger("edge")

MOST_FIELDS = 32
MOST_AT_ONCE = 64
"""Forms that one process takes at the same time: each may hold some pieces in memory."""
ROOM_FOR_FIELDS = 1024 * 1024
UNSUPPORTED = "unsupported_file_type"


@dataclass
class Upload:
    """A file that was stored, and the SHA-256 of its content."""

    ref: FileRef
    digest: str


@dataclass
class TakenForm:
    """A form whose files are stored: its text fields by name, and the files in their order."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[Upload] = field(default_factory=list)
    kept: bool = False
    """Whether the files stay whatever happens: somebody may have been told of them."""


class Uploads:
    """Takes forms, their files into the store."""

    def __init__(self, store: FileStore, limits: FilesTable) -> None:
        self.store = store
        self._limits = limits
        self._open = 0

    @contextlib.asynccontextmanager
    async def taking(
        self, request: Request, fields: frozenset[str], files: str, owner: str
    ) -> AsyncIterator[TakenForm]:
        """Read a form with these text fields, and files in the field called `files`.

        What was stored is taken away again if the block raises, unless it is `kept`. Raises
        Refusal 400, 413, 415 or 422 for a form that is not taken, 503 while too many are, BusFault.
        """
        form = TakenForm()
        with self._counted():
            try:
                await self._read(request, form, fields, files, owner)
                yield form
            except BaseException:
                if not form.kept:
                    await asyncio.shield(self.discard(form.files))
                raise

    async def discard(self, files: list[Upload]) -> None:
        """Take files away again; what cannot be reached now goes when its time is over."""
        for each in files:
            try:
                await self.store.delete(each.ref.id)
            except BusFault as fault:
                log.warning("upload_not_discarded", file=each.ref.id, error=str(fault))

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        if self._open >= MOST_AT_ONCE:
            raise Refusal(
                503, "too_many_uploads", f"{MOST_AT_ONCE} forms are being read; try again"
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _read(
        self, request: Request, form: TakenForm, fields: frozenset[str], files: str, owner: str
    ) -> None:
        limits = self._limits
        if read_media(request.headers.get("content-type", "")) == PAIRS:
            for name, value in await read_pairs(request, FormLimits(ROOM_FOR_FIELDS, MOST_FIELDS)):
                check_length(name, len(value.encode()), MOST_INLINE)
                _keep(form, fields, name, value)
            return
        total = FormLimits(limits.most_together + ROOM_FOR_FIELDS, limits.most + MOST_FIELDS)
        async for part in read_form(request, total):
            if part.name == files:
                if part.filename is None:
                    raise invalid_field(files, "is text, expected a file with a filename")
                if len(form.files) == limits.most:
                    detail = f"there are more than {limits.most} files"
                    raise Refusal(413, "too_many_files", detail, limit=limits.most)
                await self._store(part, form, owner)
            else:
                await _read_field(part, form, fields)

    async def _store(self, part: Part, form: TakenForm, owner: str) -> None:
        pieces = part.pieces()
        head = b""
        async for piece in pieces:
            head += piece
            if len(head) >= HEAD:
                break
        if not head and not part.filename:
            return  # a browser's way to say that no file was chosen
        kind = self._kind(part, head)
        digest = hashlib.sha256()
        room = self._limits.most_together - sum(each.ref.size for each in form.files)
        content = self._checked(part, kind, _chain(head, pieces), room)
        try:
            ref = await self.store.put(
                shown_name(part.filename or ""),
                _seen_by(digest.update, content),
                media=kind,
                ttl=self._limits.keep,
                most=self._limits.most_bytes,
                owner=owner,
            )
        except FileFault as fault:
            raise _refused(413, "file_too_large", part.filename or "", f"is {fault}") from None
        form.files.append(Upload(ref, digest.hexdigest()))

    def _kind(self, part: Part, head: bytes) -> str:
        """What a file is, if it is taken. Raises Refusal 413 or 415."""
        name = part.filename or ""
        if not head:
            raise _refused(415, UNSUPPORTED, name, "is empty")
        kind = sniff(head[:HEAD], whole=len(head) < HEAD)
        if kind is None or kind not in self._limits.kinds:
            found = kind or "of no known kind"
            reason = f"is {found}, expected one of {', '.join(self._limits.kinds)}"
            raise _refused(415, UNSUPPORTED, name, reason)
        if not agrees(part.media, kind):
            reason = f"is said to be {quote(part.media)}, and is {kind}"
            raise _refused(415, UNSUPPORTED, name, reason)
        if pixels(kind, head) > MOST_PIXELS:
            reason = f"unpacks to more than {MOST_PIXELS} pixels"
            raise _refused(413, "too_large_unpacked", name, reason)
        return kind

    async def _checked(
        self, part: Part, kind: str, content: AsyncIterator[bytes], room: int
    ) -> AsyncIterator[bytes]:
        """The content as it is to be stored. Raises Refusal 413 or 415 where it may not be."""
        limit, size, text = self._limits.most_bytes, 0, TextCheck()
        name = part.filename or ""
        async for piece in content:
            size += len(piece)
            if size > limit:
                reason = f"is longer than {limit} bytes"
                raise _refused(413, "file_too_large", name, reason, limit=limit)
            if size > room:
                together = self._limits.most_together
                reason = f"and those before it are longer than {together} bytes"
                raise _refused(413, "files_too_large", name, reason, limit=together)
            if kind == TEXT and not text.takes(piece):
                raise _refused(415, UNSUPPORTED, name, "begins as text, and is none")
            yield piece


def _refused(status: int, code: str, name: str, reason: str, **members: Any) -> Refusal:
    """The refusal of a file, which it names as it may be shown."""
    faults = [{"detail": reason, "pointer": "/files"}]
    detail = f"the file {quote(shown_name(name))} {reason}"
    return Refusal(status, code, detail, errors=faults, **members)


async def _chain(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for piece in rest:
        yield piece


async def _seen_by(
    look: Callable[[bytes], None], content: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    async for piece in content:
        look(piece)
        yield piece


async def _read_field(part: Part, form: TakenForm, fields: frozenset[str]) -> None:
    _check_field(form, fields, part.name)
    if part.filename is not None:
        raise invalid_field(part.name, "is a file, expected text")
    _keep(form, fields, part.name, await part.text(MOST_INLINE))


def _check_field(form: TakenForm, fields: frozenset[str], name: str) -> None:
    if name not in fields:
        raise invalid_field(quote(name), f"unknown, expected one of {', '.join(sorted(fields))}")
    if name in form.fields:
        raise invalid_field(name, "is given more than once")


def _keep(form: TakenForm, fields: frozenset[str], name: str, value: str) -> None:
    _check_field(form, fields, name)
    if "\0" in value:
        raise invalid_field(name, "contains the character NUL")
    form.fields[name] = value
