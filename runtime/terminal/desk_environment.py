"""What the environment says of the human desk: its hours, and the server that sends its letters.

What is configured goes before: hours of a desk's own options, or an actor called `mailer`.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from runtime.actor_table import ActorTable
from runtime.errors import ConfigError
from runtime.source import quote
from runtime.system import load_class
from runtime.terminal.manifest import deployment_of
from schemas.deployment import Deployment
from schemas.desk import MAILER
from schemas.shifts import SHANGHAI, Calendar, Shift, check_calendar

log = structlog.get_logger()

DESK_TYPE = "actors.desk:Desk"
MAILER_TYPE = "actors.mailer:Mailer"
HOURS = ("HUMAN_SHIFT_START", "HUMAN_SHIFT_END", "WEEKENDS_DISABLED", "HOLIDAYS")
"""Any of these makes hours; TIMEZONE alone does not, for others have a use for it too."""
TIMEZONE = "TIMEZONE"
MAIL = (
    "SMTP_HOST",
    "SMTP_PORT",
    "SMTP_USER",
    "SMTP_PASSWORD",
    "SMTP_FROM",
    "SUPPORT_EMAILS",
    "WORKBENCH_LINK",
)
TLS_PORT = 465
LOOPBACK = ("localhost", "127.0.0.1", "::1")
MAIL_ATTEMPTS = 3

_TRUTH = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


def with_hours(tables: list[ActorTable], environ: Mapping[str, str]) -> list[ActorTable]:
    """The tables, desks among them with the environment's hours unless they have their own.

    Raises ConfigError for hours that cannot be.
    """
    calendar = read_hours(environ)
    if calendar is None:
        return tables
    if not any(one.type == DESK_TYPE for one in tables):
        log.warning("hours_without_desk", expected=f'an actor of the type "{DESK_TYPE}"')
    return [
        replace(one, options={"calendar": calendar, **one.options})
        if one.type == DESK_TYPE
        else one
        for one in tables
    ]


def read_hours(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """A desk's calendar as its options have it; None if the environment has no hours.

    Raises ConfigError that names the variables.
    """
    given = {name: environ.get(name, "").strip() for name in HOURS}
    if not any(given.values()):
        return None
    worked = range(1, 6 if _read_truth("WEEKENDS_DISABLED", given["WEEKENDS_DISABLED"]) else 8)
    shift = {
        "start": given["HUMAN_SHIFT_START"] or Shift().start,
        "end": given["HUMAN_SHIFT_END"] or Shift().end,
        "days": list(worked),
    }
    calendar = {
        "timezone": environ.get(TIMEZONE, "").strip() or SHANGHAI,
        "shifts": [shift],
        "holidays": _split(given["HOLIDAYS"]),
    }
    try:
        check_calendar(msgspec.convert(calendar, Calendar))
    except ValueError as error:
        raise ConfigError(f"{', '.join(HOURS)}, {TIMEZONE}: {error}") from None
    return calendar


def named_mailer(environ: Mapping[str, str], configured: Collection[str]) -> list[Deployment]:
    """The mailer whose server the environment names, unless one is configured.

    Raises ConfigError that names the variables, and never the password.
    """
    host = environ.get("SMTP_HOST", "").strip()
    if not host or MAILER in configured:
        return []
    port = _read_port(environ.get("SMTP_PORT", "").strip())
    user = environ.get("SMTP_USER", "").strip()
    to = _split(environ.get("SUPPORT_EMAILS", ""))
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "security": _security(host, port),
        "sender": environ.get("SMTP_FROM", "").strip() or user,
        "to": to,
        "link": environ.get("WORKBENCH_LINK", "").strip(),
    }
    if user:
        options |= {"user": user, "password_env": "SMTP_PASSWORD"}
    table = ActorTable(name=MAILER, type=MAILER_TYPE, options=options, attempts=MAIL_ATTEMPTS)
    try:
        return [deployment_of(table, load_class(MAILER, MAILER_TYPE))]
    except ConfigError as error:
        said = str(error).removeprefix(f'actor "{MAILER}": options: ')
        raise ConfigError(f"{', '.join(MAIL)}: {said}") from None


def _security(host: str, port: int) -> str:
    """How a server is spoken to that nobody has said it of: in the clear on this machine only."""
    if port == TLS_PORT:
        return "tls"
    return "plain" if host in LOOPBACK else "starttls"


def _read_port(text: str) -> int:
    if not text:
        return 587
    if not re.fullmatch("[0-9]{1,5}", text):
        raise ConfigError(f"SMTP_PORT: {quote(text)}: expected a port, such as 587")
    return int(text)


def _read_truth(name: str, text: str) -> bool:
    if not text:
        return True
    try:
        return _TRUTH[text.casefold()]
    except KeyError:
        raise ConfigError(f"{name}: {quote(text)}: expected true or false") from None


def _split(text: str) -> list[str]:
    return [one for one in re.split(r"[\s,;]+", text) if one]
