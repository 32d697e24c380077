"""A TOML file: read with care, and able to say where in it something is wrong.

Where its keys are is found by runtime/lines.py; what they mean is said by runtime/config.py.
"""

import difflib
import re
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec

from runtime.errors import ConfigError
from runtime.lines import Place, find_lines

Value = TypeVar("Value")
Root = TypeVar("Root", bound=msgspec.Struct)

MOST_BYTES = 1024 * 1024
MOST_SHOWN = 80

_MAY_HOLD_A_SECRET = re.compile("secret|password|token|url|creds")
_OF_TYPES = ("Expected", "Invalid")
"""How what msgspec itself finds wrong begins; the rest is said by a Struct's own check."""
_WORDS = {
    "`int`": "a whole number",
    "`float`": "a number",
    "`str`": "a text in quotes",
    "`bool`": "true or false",
    "`array`": "a list",
    "`object`": "a table",
}


class Source:
    """One file and what it says, as `raw`. Raises ConfigError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = _decode(path, _read(path))
        self.raw = _parse(path, self._text)
        if not self.raw:
            raise ConfigError(f"{path}: the file is empty; see config/local.toml for an example")

    def convert(self, root: type[Root]) -> Root:
        """What the file says, as a Struct; raises ConfigError for the first thing wrong."""
        try:
            return msgspec.convert(self.raw, root)
        except msgspec.ValidationError as error:
            raise self._explain(error, root) from None

    def convert_part(self, place: Place, kind: Any, root: type[Root]) -> Any:
        """What the file says at one place of `root`, as `kind`; raises ConfigError."""
        found: Any = self.raw
        for part in place:
            found = found[part]
        try:
            return msgspec.convert(found, kind)
        except msgspec.ValidationError as error:
            raise self._explain(error, root, place) from None

    def at(self, place: Place, check: Callable[..., Value], *values: Any) -> Value:
        """Run a check; the ValueError it raises is a fault of that place."""
        try:
            return check(*values)
        except ValueError as error:
            raise self.fault(place, str(error)) from None

    def fault(self, place: Place, reason: str) -> ConfigError:
        """An error at `place`, or at the table that should hold it."""
        lines = find_lines(self._text)
        known = (place[:length] for length in range(len(place), 0, -1))
        line = next((lines[part] for part in known if part in lines), 1)
        return ConfigError(one_line(f"{self._path}:{line}: {_dotted(place)}: {reason}"))

    def _explain(
        self, error: msgspec.ValidationError, root: type[Root], within: Place = ()
    ) -> ConfigError:
        """Say in our words what msgspec found."""
        reason, _, where = str(error).partition(" - at `$")
        found = re.findall(r"\.([A-Za-z_]\w*)|\[(\d+)\]", where)
        place: Place = (*within, *(name or int(index) for name, index in found))
        if unknown := re.search("unknown field `(.*)`", reason, re.DOTALL):
            keys = _type_at(root, place).__struct_fields__
            return self.fault((*place, unknown[1]), suggest(unknown[1], keys))
        if missing := re.search("missing required field `(.*)`", reason):
            return self.fault((*place, missing[1]), "is missing, and has no default")
        if not reason.startswith(_OF_TYPES):
            return self.fault(place, reason)
        wanted = _wanted(reason, place, _type_at(root, place))
        return self.fault(place, f"{self._shown(place)}expected {wanted}")

    def _shown(self, place: Place) -> str:
        """The value at `place` with a colon; nothing if it may be a secret, or is large."""
        found: Any = self.raw
        for part in place:
            found = found[part]
        if isinstance(found, list | dict) or _MAY_HOLD_A_SECRET.search(_dotted(place)):
            return ""
        return f"{str(found).lower() if isinstance(found, bool) else quote(found)}: "


def quote(value: object) -> str:
    """A value for an error: shortened, on one line."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def one_line(text: str) -> str:
    """Escape whatever would break a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        kind = found.st_mode
        # Not opened before it is known to end: a pipe or a device need not.
        data = path.read_bytes() if stat.S_ISREG(kind) and found.st_size <= MOST_BYTES else b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(one_line(f"{path}: cannot be read: {reason}")) from None
    if stat.S_ISDIR(kind):
        raise ConfigError(f"{path}: is a folder, expected a TOML file")
    if not stat.S_ISREG(kind):
        raise ConfigError(f"{path}: is a pipe or a device, expected a TOML file")
    if found.st_size > MOST_BYTES:
        raise ConfigError(f"{path}: larger than {MOST_BYTES} bytes, hardly a configuration")
    return data


def _decode(path: Path, data: bytes) -> str:
    if data[:3] == b"\xef\xbb\xbf" or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError(f"{path}:1: begins with a byte order mark; save it as plain UTF-8")
    if b"\0" in data:
        raise ConfigError(f"{path}: holds NUL bytes, so it may be UTF-16; save it as plain UTF-8")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8: {error.reason}; save it as UTF-8") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason, _, where = str(error).rpartition(" (at ")
        found = re.match(r"line (\d+)", where)
        line = int(found[1]) if found else text.rstrip().count("\n") + 1
        raise ConfigError(one_line(f"{path}:{line}: not valid TOML: {reason}")) from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from None
    except ValueError:
        raise ConfigError(f"{path}: not valid TOML: a number is too long") from None


def _dotted(place: Place) -> str:
    return ".".join(part for part in place if isinstance(part, str))


def _type_at(kind: Any, place: Place) -> Any:
    """The type of what stands at a place."""
    for part in place:
        if isinstance(part, int):
            kind = get_args(kind)[0]
        else:
            fields = msgspec.structs.fields(kind)
            kind = next(field.type for field in fields if field.name == part)
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
    return kind


def suggest(name: str, keys: tuple[str, ...]) -> str:
    """Say which of the known keys was perhaps meant."""
    near = difflib.get_close_matches(name, keys, 1, 0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(keys)}"
    return f"unknown key; {hint}"


def _wanted(reason: str, place: Place, kind: Any) -> str:
    if reason.startswith("Invalid enum value"):
        return f"one of {', '.join(get_args(kind))}"
    inner = get_args(kind)[0] if get_origin(kind) is list else None
    if _is_struct(kind):
        return f"a table [{_dotted(place)}]"
    if _is_struct(inner) and reason.startswith("Expected `array`, got"):
        return f"tables [[{_dotted(place)}]]"
    wanted = reason.removeprefix("Expected ").partition(", got")[0]
    for word, plain in _WORDS.items():
        wanted = wanted.replace(word, plain)
    return wanted


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
