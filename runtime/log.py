"""Logging as structlog does it, in its fast form: a line per fact, secrets never in it.

Whatever is logged, a line stays one line of bounded length, and logging never raises.
"""

import contextlib
import logging
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from functools import lru_cache
from itertools import islice
from typing import IO, Any, Literal

import msgspec
import structlog

from runtime.errors import ConfigError

Format = Literal["console", "json"]
Fields = MutableMapping[str, Any]

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
MASK = "***"
SECRET_NAMES = re.compile(
    "secret|token|password|passwd|api_?key|private_?key|authorization|credential|cookie"
)
SHORTEST = 4
"""Characters of a value worth masking: a shorter one would blot out innocent text."""
MOST = 2000
"""Characters of one value that are shown; of a traceback the last four times as many."""
MOST_ITEMS = 50
DEEPEST = 4

_PLAIN = frozenset({int, float, bool, type(None)})

_secrets: set[str] = set()
_secret: re.Pattern[str] | None = None
get_logger = structlog.get_logger


def mask(value: str) -> None:
    """Never show this value, wherever it turns up."""
    global _secret
    if len(value) >= SHORTEST:
        _secrets.add(value)
        # The longest first, or one that begins another would leave the rest of it standing.
        longest_first = sorted(_secrets, key=len, reverse=True)
        _secret = re.compile("|".join(map(re.escape, longest_first)))
        _read_name.cache_clear()


def configure(format: Format = "console", level: str = "info") -> None:
    """Set up logging for this process; what the libraries log at warning joins in.

    Raises ConfigError for a level that does not exist.
    """
    if level not in LEVELS:
        raise ConfigError(f"log.level: {level!r}, expected one of {', '.join(LEVELS)}")
    chain: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        clean,
    ]
    factory: Any
    if format == "json":
        chain.append(_as_json)
        factory = structlog.BytesLoggerFactory(_Patient(sys.stderr.buffer))  # type: ignore[arg-type]  # all it uses
    else:
        chain += [_indent_trace, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        factory = structlog.WriteLoggerFactory(_Patient(sys.stderr))  # type: ignore[arg-type]  # all it uses
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    _take_in_the_libraries()


def clean(logger: Any, method: str, fields: Fields) -> Fields:
    """Leave what may be shown: no secret, no control character, nothing endless."""
    trace = fields.pop("exception", None)
    shown: Fields = {}
    for name, value in fields.items():
        safe_name, secret = _read_name(name)
        shown[safe_name] = _hide(name, value) if secret else _show(value)
    if trace is not None:
        shown["exception"] = _show_trace(str(trace))
    return shown


@lru_cache(maxsize=1024)
def _read_name(name: str) -> tuple[str, bool]:
    """A field's name as it may be shown, and whether it is that of a secret."""
    return _tame(name), SECRET_NAMES.search(name.lower().replace("-", "_")) is not None


def _hide(name: str, value: Any) -> Any:
    """Models count tokens; a number of them is no secret, nor is that there is none."""
    is_count = type(value) in (int, float) and "token" in name.lower()
    return value if is_count or value is None else MASK


def _show(value: Any, depth: int = 0) -> Any:
    """A value as it may be shown: text, a number, or a list or dict of such."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, str):
        return _tame(str(value))
    if depth < DEEPEST:
        if isinstance(value, Mapping):
            return _show_items(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return [_show(item, depth + 1) for item in islice(value, MOST_ITEMS)]
    return _tame(_text(value))


def _show_items(mapping: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    shown = {}
    for key, value in islice(mapping.items(), MOST_ITEMS):
        name, secret = _read_name(_tame(_text(key)))
        shown[name] = _hide(name, value) if secret else _show(value, depth + 1)
    return shown


def _text(value: Any) -> str:
    try:
        return repr(value) if isinstance(value, BaseException | bytes) else str(value)
    except Exception:
        return f"<a {type(value).__name__} that cannot be shown>"


def _tame(text: str) -> str:
    """Mask secrets, escape what would break or forge a line, and cut what is endless."""
    if _secret is not None:
        text = _secret.sub(MASK, text)
    if len(text) > MOST:
        text = f"{text[:MOST]}… ({len(text)} characters)"
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()


def _show_trace(trace: str) -> str:
    """A traceback keeps its lines, and its end, which says what happened."""
    if _secret is not None:
        trace = _secret.sub(MASK, trace)
    if len(trace) > 4 * MOST:
        trace = f"({len(trace)} characters) …{trace[-4 * MOST :]}"
    return "\n".join(_tame(line) for line in trace.split("\n"))


def _indent_trace(logger: Any, method: str, fields: Fields) -> Fields:
    """At a terminal, nothing inside a traceback can pass for a line of its own."""
    if trace := fields.get("exception"):
        fields["exception"] = "    " + trace.replace("\n", "\n    ")
    return fields


_encode = msgspec.json.Encoder().encode


def _as_json(logger: Any, method: str, fields: Fields) -> bytes:
    return _encode(fields)


class _Patient:
    """A stream that drops what it cannot write: a terminal that is gone, a disk that is full.

    Whoever logs is in the middle of something else, and must not fail for it.
    """

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    def write(self, line: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _Joined(logging.Handler):
    """Hands the standard library's records to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # a library's arguments that do not fit its own text
            message = f"{record.msg} {record.args}"
        failed = record.exc_info if record.exc_info and record.exc_info[0] else None
        logger = structlog.get_logger(library=record.name)
        logger.log(_nearest(LEVELS.values(), record.levelno), message, exc_info=failed)


def _nearest(levels: Iterable[int], number: int) -> int:
    """The level at or below a number; libraries invent their own between ours."""
    return max((level for level in levels if level <= number), default=10)


def _take_in_the_libraries() -> None:
    root = logging.getLogger()
    # Both: a library that sets a level of its own goes past the root's, not past the handler's.
    root.handlers[:] = [_Joined(level=logging.WARNING)]
    root.setLevel(logging.WARNING)
    # nats-py reports what the connection's own supervisor tells better.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
