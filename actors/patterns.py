"""Which regular expressions a schema may hold: those that cannot keep us busy for long.

Python tries every way of dividing a text among the parts of an expression, so the ways are
counted: they and the text together must stay within a bound.
"""

import math
import re
from dataclasses import dataclass

LONGEST = 256
"""Characters of an expression."""
MOST_STEPS = 5_000_000
SHORTEST_TEXT = 32
"""An expression that could not be tried on a text of so many characters is refused."""
LONGEST_TEXT = 16 * 1024
MOST_REPEATS = 1000

_TOKEN = re.compile(
    r"(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])"
    r"|(?P<escape>\\(?:[dDwWsSbBtnrfv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[^A-Za-z0-9]))"
    r"|(?P<open>\((?:\?:)?)"
    r"|(?P<close>\))"
    r"|(?P<many>[*+]\??|\?\??|\{(?P<least>\d+)(?P<comma>,(?P<most>\d*))?\}\??)"
    r"|(?P<or>\|)"
    r"|(?P<start>\^)|(?P<end>\$)"
    r"|(?P<literal>[^\\()\[\]{}*+?|^$])",
    re.DOTALL,
)


@dataclass(frozen=True)
class Pattern:
    """An expression of JSON Schema, as Python matches it, and on how long a text it may be tried.

    As in ECMA 262, `$` is the very end, and `\\d` and `\\w` are of ASCII.
    """

    source: str
    python: str
    room: int


def read_pattern(source: str) -> Pattern:
    """Read an expression; raises ValueError with what is wrong with it."""
    if len(source) > LONGEST:
        raise ValueError(f"a pattern of {len(source)} characters, at most {LONGEST}")
    tokens = _tokens(source)
    translated = "".join(r"\Z" if name == "end" else text for name, text, _ in tokens)
    python = f"(?a:{translated})"
    try:
        re.compile(python)
    except re.error as error:
        raise ValueError(f"the pattern {source!r} cannot be read: {error}") from None
    unbounded, ways = _count(source, tokens)
    # Unless it is held at the start it is tried from every place of the text.
    held = source.startswith("^") and not any(name == "or" for name, _, _ in tokens)
    room = _room(unbounded + (0 if held else 1), ways)
    if room < SHORTEST_TEXT:
        raise ValueError(
            f"the pattern {source!r} could take very long to match; begin it with ^, and use"
            " fewer * + ? and {,}"
        )
    return Pattern(source, python, room)


_Token = tuple[str, str, "re.Match[str]"]


def _tokens(source: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None or match.lastgroup is None:
            raise ValueError(
                f"the pattern {source!r} has at {at} what is not taken: {source[at : at + 8]!r}"
            )
        name = next(key for key in _NAMES if match.group(key) is not None)
        if name == "open" and source[match.end() : match.end() + 1] == "?":
            raise ValueError(f"the pattern {source!r}: of groups only (…) and (?:…) are taken")
        found.append((name, match[0], match))
        at = match.end()
    return found


_NAMES = ("set", "escape", "open", "close", "many", "or", "start", "end", "literal")


def _count(source: str, tokens: list[_Token]) -> tuple[int, float]:
    """How many parts may be of any length, and in how many ways the others may be matched."""
    unbounded, ways = 0, 1.0
    before = ""
    for name, text, match in tokens:
        if name == "or":
            ways *= 2
        elif name == "many":
            if before == "many":
                raise ValueError(f"the pattern {source!r} repeats what is repeated, with {text!r}")
            if before == "close" and text.rstrip("?"):
                raise ValueError(
                    f"the pattern {source!r} repeats a group with {text!r}; of groups only ? is"
                    " taken, for others could take for ever"
                )
            least, most = _range(match)
            if max(least, 0 if math.isinf(most) else most) > MOST_REPEATS:
                raise ValueError(
                    f"the pattern {source!r} repeats by {text!r}, at most {MOST_REPEATS}"
                )
            if math.isinf(most):
                unbounded += 1
            else:
                ways *= max(1, most - least + 1)
        before = name
    return unbounded, ways


def _range(match: "re.Match[str]") -> tuple[int, float]:
    text = match[0]
    if text[0] == "{":
        least = int(match["least"])
        if not match["comma"]:
            return least, least
        return least, int(match["most"]) if match["most"] else math.inf
    return (1 if text[0] == "+" else 0), (1 if text[0] == "?" else math.inf)


def _room(power: int, ways: float) -> int:
    """The longest text on which so many steps are done."""
    return int(min(LONGEST_TEXT, (MOST_STEPS / ways) ** (1 / max(1, power))))
