"""What an embedded server says of its store in its log, and nowhere else.

It drops what it cannot read with a warning, and does not say so a second time.
"""

import re
from pathlib import Path

_DAMAGE = re.compile(
    r"could not locate msg block|past last stream sequence|Error recreating (stream|consumer)"
    r"|checksums do not match|corrupt"
)
_WRITE_FAILED = re.compile(
    r"critical write error|failed to store a msg|no space left on device"
    r"|read-only file system|input/output error",
    re.IGNORECASE,
)
_STAMP = re.compile(r"^\[\d+\] \S+ \S+ \[\w+\]\s*")
_LAST_BLOCK = re.compile(r"corrupt record state in (.*)/(\d+)\.blk")
LONGEST = 400


class ServerLog:
    """A log from where it ended when this was made, or was last asked to begin anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0
        self._read = 0

    def begin(self) -> None:
        """From here on, the server is another one."""
        self._start = self._read = self._size()

    def damages(self) -> list[str]:
        """What this server has said that means lost messages, without its stamps."""
        lines = [line for line in self._lines(self._start) if _DAMAGE.search(line)]
        said = [_STAMP.sub("", line).strip()[:LONGEST] for line in lines if not _is_torn_end(line)]
        return list(dict.fromkeys(said))

    def write_failed(self) -> bool:
        """Whether it has said since it was last asked that it could not write."""
        lines, self._read = self._lines(self._read), self._size()
        return any(_WRITE_FAILED.search(line) for line in lines)

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def _lines(self, start: int) -> list[str]:
        try:
            with self.path.open("rb") as file:
                # The server begins a new file when this one is too long.
                file.seek(start if start <= self._size() else 0)
                return file.read().decode(errors="replace").splitlines()
        except OSError:
            return []


def _is_torn_end(line: str) -> bool:
    """What was being written when the power went was not acknowledged: marks tell if it was."""
    found = _LAST_BLOCK.search(line)
    if found is None:
        return False
    blocks = [int(path.stem) for path in Path(found[1]).glob("*.blk") if path.stem.isdigit()]
    return not blocks or int(found[2]) >= max(blocks)
