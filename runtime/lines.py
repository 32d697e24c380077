"""On which line of a TOML file each table and each key begins.

tomllib keeps no positions; this reads headers and keys again, of a file known to be valid.
"""

import re
import tomllib

Place = tuple[str | int, ...]
"""The way to a key: `("actor", 1, "name")` is the name in the second `[[actor]]`."""

_TOKEN = re.compile(
    r'"{3}(?:\\.|[^\\])*?"{3,5}'
    r"|'{3}.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[A-Za-z0-9_-]+"
    r"|.",
    re.DOTALL,
)


def find_lines(text: str) -> dict[Place, int]:
    """The line on which each table and each key begins. What an inline table holds is left out."""
    return _Reader(text).read()


class _Reader:
    """Goes through the tokens of a file once."""

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text.replace("\r\n", "\n"))
        self._at = 0
        self._line = 1
        self._lines: dict[Place, int] = {}
        self._counts: dict[Place, int] = {}
        self._table: Place = ()

    def read(self) -> dict[Place, int]:
        while token := self._next():
            if token.isspace() or token.startswith("#"):
                continue
            if token == "[":
                self._read_header()
            else:
                self._read_key(token)
            self._skip_statement()
        return self._lines

    def _next(self) -> str:
        if self._at == len(self._tokens):
            return ""
        token: str = self._tokens[self._at]
        self._at += 1
        self._line += token.count("\n")
        return token

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _read_header(self) -> None:
        repeated = self._peek() == "["
        if repeated:
            self._next()
        parts = self._read_parts(self._next(), "]")
        place: Place = ()
        for part in parts[:-1]:
            place = self._inside((*place, part))
        place = (*place, parts[-1])
        if repeated:
            self._lines.setdefault(place, self._line)
            self._counts[place] = self._counts.get(place, 0) + 1
        self._table = self._inside(place)
        self._lines.setdefault(self._table, self._line)

    def _inside(self, place: Place) -> Place:
        """The table that is meant by a name: of a repeated one, the last so far."""
        return (*place, self._counts[place] - 1) if place in self._counts else place

    def _read_key(self, first: str) -> None:
        parts = self._read_parts(first, "=")
        for length in range(1, len(parts) + 1):
            self._lines.setdefault((*self._table, *parts[:length]), self._line)

    def _read_parts(self, token: str, end: str) -> list[str]:
        parts: list[str] = []
        while token and token != end:
            if token[0] in "\"'":
                token = str(tomllib.loads(f"key = {token}")["key"])
                parts.append(token)
            elif token != "." and not token.isspace():
                parts.append(token)
            token = self._next()
        return parts

    def _skip_statement(self) -> None:
        """To the end of the line on which brackets are closed again."""
        depth = 0
        while (token := self._peek()) and not (token == "\n" and depth <= 0):
            depth += (token in "[{") - (token in "]}")
            self._next()
