"""The files that jobs name, as far as they can be read."""

from collections.abc import AsyncIterator
from typing import Protocol

from schemas.model import FileRef


class Files(Protocol):
    """Where files are."""

    async def find(self, id: str) -> FileRef | None:
        """What is known of a file, None if it is gone."""
        ...

    def read(self, id: str) -> AsyncIterator[bytes]:
        """Its bytes."""
        ...


class NoFiles:
    """A store that has none."""

    async def find(self, id: str) -> FileRef | None:
        """None: every file is gone."""
        return None

    async def read(self, id: str) -> AsyncIterator[bytes]:
        """Nothing."""
        if await self.find(id) is not None:
            yield b""
