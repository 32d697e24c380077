"""The menu of faults: what an answer can be told to do, by the name of its model or a header.

Written `name`, `name=value`, several joined by `+`: the model `fault:truncated`, the model
`demo+reset=3+crlf`, the header `x-fault: slow=30`.
"""

import re

from runtime.errors import ConfigError

HEADER = "x-fault"

BEFORE = {
    "slow": "nothing at all for so many seconds (30)",
    "hold": "nothing at all until released",
    "first": "the head at once, the first piece after so many seconds (30)",
    "hold-first": "the head at once, the first piece when released",
    "reset-first": "a TCP reset instead of an answer",
    "close-first": "the connection closed instead of an answer",
}
INSTEAD = {
    "400 to 599": "that error in its words; =7, =1500ms, =date, =reset say when to retry",
    "html": "a proxy's HTML page under 502 (or =200)",
    "empty": "200 with nothing in it",
}
MIDWAY = {
    "truncated": "a proper end of the body before the answer's, after so many pieces (2)",
    "cut": "the same in the middle of a frame",
    "dropped": "the connection closed without the end of the body, after so many pieces (2)",
    "reset": "a TCP reset after so many pieces (2)",
    "error": "the provider's error within the stream after so many pieces (2)",
    "garbage": "a frame that is no JSON after so many pieces (2), then the rest",
    "long-line": "a line of so many bytes (100000000) after two pieces, then the rest",
    "hold-middle": "silence after so many pieces (2) until released",
    "every": "so many seconds (1) between signs of life before an answer",
    "step": "each piece when released",
    "endless": "pieces for ever",
}
FORM = {
    "bytes": "one byte in each write",
    "utf8": "characters of several bytes, each split between two writes",
    "together": "everything in one write",
    "crlf": "lines end with CR LF",
    "cr": "lines end with CR",
    "no-space": "no space after the colon",
    "multi-line": "data in several lines",
    "comments": "a comment before each frame",
    "ids": "id: and retry: lines, and a block without data",
    "bom": "a byte order mark at the beginning",
    "gzip": "a gzip body, asked for or not",
    "close": "a body that ends with its connection",
}
SIZE = {
    "tokens": "so many pieces of text",
    "rate": "so many pieces per second",
    "stamp": "each piece is the time when it was sent, in nanoseconds of time.monotonic_ns",
}
MENU = BEFORE | INSTEAD | MIDWAY | FORM | SIZE
"""What every fake understands; each adds its provider's own."""

STATUS = re.compile("[45][0-9][0-9]")


def read_switches(text: str, menu: dict[str, str]) -> dict[str, str]:
    """The switches that a text names; an error's number is the value of `status`.

    Raises ConfigError for a name that is not on the menu.
    """
    found: dict[str, str] = {}
    for word in re.split("[+,]", text):
        name, _, value = word.strip().partition("=")
        if STATUS.fullmatch(name):
            found |= {"status": name, "hint": value}
        elif name in menu:
            found[name] = value
        elif name:
            raise ConfigError(f"fault {name!r} is not on the menu: {', '.join(sorted(menu))}")
    return found


def split_model(name: str, menu: dict[str, str]) -> tuple[str, dict[str, str]]:
    """A model's own name, and the switches written behind it. Raises ConfigError like above."""
    model, _, rest = name.partition("+")
    if model.startswith("fault:"):
        model, rest = "fault", f"{model.removeprefix('fault:')}+{rest}"
    return model, read_switches(rest, menu)


def number(switches: dict[str, str], name: str, default: float) -> float:
    """The value of a switch as a number. Raises ConfigError if it is none."""
    text = switches.get(name, "")
    try:
        return float(text) if text else default
    except ValueError:
        raise ConfigError(f"{name}={text!r}: expected a number") from None
