"""What a prompt carries along is stored before the prompt is; so is a prompt that is large."""

from collections.abc import AsyncIterator, Sequence

import msgspec

from edge.auth import Principal
from edge.problem import Refusal
from edge.prompting import Carried, Draft, Named, Piece, invalid, store_as
from edge.remembered import may_see
from runtime.objects import FileStore
from runtime.tables import FilesTable
from schemas.model import MOST_INLINE, Attachment, FileRef, Image, Part, Prompt, Text, Utterance

BODY = "prompt.json"
SAID = "message.txt"


class Keeping:
    """Stores what belongs to one request, for as long as it may be needed."""

    def __init__(
        self, files: FileStore, limits: FilesTable, whose: Principal | None = None
    ) -> None:
        self._files = files
        self._limits = limits
        self._whose = whose

    def of(self, principal: Principal) -> "Keeping":
        """The same for one client: what is stored is theirs, and what they name must be too."""
        return Keeping(self._files, self._limits, principal)

    async def utterances(self, drafts: Sequence[Draft]) -> tuple[Utterance, ...]:
        """Return messages whose files are stored.

        Raises Refusal 400 for one that is not there or not taken here, 413 for one too large.
        """
        for number, each in enumerate(drafts):
            for part, piece in enumerate(each.pieces):
                if isinstance(piece, Carried):
                    self._check(piece, f"messages[{number}].content[{part}]")
        return tuple([await self._utterance(each) for each in drafts])

    async def prompt(self, prompt: Prompt) -> Prompt:
        """Return a prompt that fits into a message."""
        body = msgspec.json.encode(prompt)
        if len(body) <= MOST_INLINE:
            return prompt
        return Prompt(body=await self._put(BODY, body, "application/json"))

    async def said(self, said: Utterance) -> Utterance:
        """Return what was said so that it fits into a message: a long text as a file."""
        if len(msgspec.json.encode(said)) <= MOST_INLINE:
            return said
        text = "\n".join(part.text for part in said.content if isinstance(part, Text))
        files = tuple(part for part in said.content if not isinstance(part, Text))
        written = Attachment(await self._put(SAID, text.encode(), "text/plain"))
        return msgspec.structs.replace(said, content=(written, *files))

    def _check(self, carried: Carried, place: str) -> None:
        limits = self._limits
        if carried.media not in limits.kinds:
            taken = ", ".join(limits.kinds)
            raise invalid(place, f"is {carried.media}, expected one of {taken}")
        if len(carried.content) > limits.most_bytes:
            detail = f"{place}: is longer than {limits.most_bytes} bytes"
            raise Refusal(413, "file_too_large", detail, param=place, limit=limits.most_bytes)

    async def _utterance(self, draft: Draft) -> Utterance:
        return Utterance(
            role=draft.role,
            content=tuple([await self._part(piece) for piece in draft.pieces]),
            name=draft.name,
            calls=draft.calls,
            call=draft.call,
            reasoning=draft.reasoning,
        )

    async def _part(self, piece: Piece) -> Part:
        if isinstance(piece, Carried):
            return store_as(piece, await self._put(piece.name, piece.content, piece.media))
        if isinstance(piece, Named):
            return await self._find(piece)
        return piece

    async def _find(self, named: Named) -> Part:
        found = await self._files.find(named.id)
        mine = self._whose is None or may_see(self._whose, await self._files.owner(named.id))
        if found is None or not mine:
            raise invalid(named.place, "there is no such file, or not any more")
        return Image(file=found) if found.media.startswith("image/") else Attachment(found)

    async def _put(self, name: str, content: bytes, media: str) -> FileRef:
        async def once() -> AsyncIterator[bytes]:
            yield content

        owner = self._whose.id if self._whose else ""
        return await self._files.put(name, once(), media=media, ttl=self._limits.keep, owner=owner)
