"""Logging as structlog does it, in its fast form: a line per fact, secrets never in it."""

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Literal

import msgspec
import structlog

Format = Literal["console", "json"]
Fields = MutableMapping[str, Any]

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
MASK = "***"
SECRET_NAMES = ("secret", "token", "password", "api_key", "apikey", "authorization", "credential")
MOST = 2000
"""Characters of one value that are shown."""

_secrets: set[str] = set()
get_logger = structlog.get_logger


def mask(value: str) -> None:
    """Never show this value, wherever it turns up."""
    if len(value) >= 6:
        _secrets.add(value)


def configure(format: Format = "console", level: str = "info") -> None:
    """Set up logging for this process; what the libraries log at warning joins in."""
    chain: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide_secrets,
        keep_to_one_line if format == "json" else _leave_tracebacks,
    ]
    factory: Callable[..., Any]
    if format == "json":
        chain.append(structlog.processors.JSONRenderer(serializer=_to_json))
        factory = structlog.BytesLoggerFactory(sys.stderr.buffer)
    else:
        chain.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
        factory = structlog.WriteLoggerFactory(sys.stderr)
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    _take_in_the_libraries()


def hide_secrets(logger: Any, method: str, fields: Fields) -> Fields:
    """Mask what is named like a secret, and any registered value inside any text."""
    for name, value in fields.items():
        if any(word in name.lower() for word in SECRET_NAMES):
            fields[name] = MASK
        elif _secrets and isinstance(value, str):
            for secret in _secrets:
                if secret in value:
                    value = value.replace(secret, MASK)
            fields[name] = value
    return fields


def keep_to_one_line(logger: Any, method: str, fields: Fields) -> Fields:
    """Escape what would break or forge a line, and cut what is endless."""
    for name, value in fields.items():
        if isinstance(value, str) and (len(value) > MOST or not value.isprintable()):
            fields[name] = _tame(value)
    return fields


def _leave_tracebacks(logger: Any, method: str, fields: Fields) -> Fields:
    """As `keep_to_one_line`, but a traceback at a terminal is to be read."""
    trace = fields.pop("exception", None)
    keep_to_one_line(logger, method, fields)
    if trace is not None:
        fields["exception"] = trace
    return fields


def _tame(text: str) -> str:
    cut = text if len(text) <= MOST else f"{text[:MOST]}… ({len(text)} characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def _to_json(fields: Any, **_: Any) -> bytes:
    return msgspec.json.encode(fields, enc_hook=repr)


class _Joined(logging.Handler):
    """Hands the standard library's records to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(library=record.name)
        logger.log(record.levelno, record.getMessage(), exc_info=record.exc_info)


def _take_in_the_libraries() -> None:
    root = logging.getLogger()
    root.handlers[:] = [_Joined()]
    root.setLevel(logging.WARNING)
    # nats-py reports what the connection's own supervisor tells better.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
