"""Holds on to the streams of an embedded server while it starts.

One that it cannot read because of a single bad block it removes whole. A second name for each
file costs nothing, and what was removed is put back under it.
"""

import os
import shutil
from pathlib import Path

import structlog

log = structlog.get_logger()

FOLDER = "starting"


class Safekeeping:
    """The streams in a folder, as they were before its server started."""

    def __init__(self, data: Path) -> None:
        self._store = data / "jetstream"
        self._kept = data / FOLDER

    def take(self) -> None:
        """Give every file a second name; where that cannot be done, nothing is kept."""
        self.give_back()  # of a start that was cut short
        for stream in self._store.glob("**/streams/*"):
            try:
                kept = self._kept / stream.relative_to(self._store)
                shutil.copytree(stream, kept, copy_function=os.link)
            except (OSError, shutil.Error) as error:
                log.warning("stream_not_held", stream=stream.name, error=str(error))
                shutil.rmtree(self._kept, ignore_errors=True)
                return

    def give_back(self) -> list[str]:
        """Put back what has been removed since, and keep nothing; returns the streams' names."""
        returned = []
        for kept in self._kept.glob("**/streams/*"):
            stream = self._store / kept.relative_to(self._kept)
            if not stream.exists():
                stream.parent.mkdir(parents=True, exist_ok=True)
                kept.rename(stream)
                returned.append(stream.name)
                log.error("stream_put_back", stream=stream.name, why="the server had removed it")
        shutil.rmtree(self._kept, ignore_errors=True)
        return returned
