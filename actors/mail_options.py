"""How letters are sent: by which server, as whom, to whom, and what may be linked in them."""

import re
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit

import msgspec

from runtime.actor_table import check_actor_name
from runtime.config import duration
from schemas.conversation import SESSION

SESSION_MARK = "{session}"
MOST_RECIPIENTS = 20
MOST_ADDRESS = 254
GROWTH = (1, 4, 16, 64)
LOOPBACK = ("localhost", "127.0.0.1", "::1")

_ADDRESS = re.compile(
    r"(?![^@]{65})[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@"
    r"([A-Za-z0-9-]{1,63}\.)*[A-Za-z0-9-]{1,63}"
)
_HOST = re.compile(r"[A-Za-z0-9.:_-]{1,253}")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class MailOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server and how to speak to it: `tls` from the start (465), `starttls` (587) or `plain`.

    `to` are those who get every letter; a letter that names others goes to them only if their
    domain is one of `domains`. `link` is where a colleague goes on,
    with `{session}` in it. An attempt that fails is made again after `backoff`, then after four
    times that; how often is the deployment's `attempts`. `certificates` is a file of those that
    are trusted beside the system's.
    """

    host: str
    sender: str
    to: tuple[str, ...]
    port: Port = 587
    security: Literal["starttls", "tls", "plain"] = "starttls"
    user: str = ""
    password_env: str = ""
    name: str = "Callboard"
    link: str = ""
    domains: tuple[str, ...] = ()
    timeout: str = "20s"
    backoff: str = "30s"
    certificates: str = ""
    sessions: str = SESSION

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise ValueError(f"host {self.host!r}: expected the name or address of an SMTP server")
        for name in ("timeout", "backoff"):
            try:
                duration(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name} = {error}") from None
        check_address("sender", self.sender)
        check_recipients("to", self.to)
        for one in self.domains:
            check_address("domains", f"x@{one}", shown=one)
        if not self.to:
            raise ValueError("to: expected at least one address")
        check_actor_name(self.sessions)
        _check_login(self)
        _check_link(self.link)

    @property
    def patience(self) -> float:
        """Seconds that the server may take to answer."""
        return duration(self.timeout).total_seconds()

    def pause(self, attempt: int) -> timedelta:
        """How long after an attempt the next one is made."""
        return duration(self.backoff) * GROWTH[min(attempt, len(GROWTH)) - 1]

    def may_write_to(self, address: str) -> bool:
        """Whether somebody may be sent what customers say."""
        domain = address.rpartition("@")[2].casefold()
        return address in self.to or domain in {one.casefold() for one in self.domains}

    def link_to(self, session: str) -> str:
        """Where a colleague goes on with a session; empty if nowhere is named."""
        return self.link.replace(SESSION_MARK, quote(session, safe=""))


def check_address(what: str, address: str, *, shown: str = "") -> None:
    """Raise ValueError unless this is one e-mail address, and nothing besides."""
    if len(address) > MOST_ADDRESS or not _ADDRESS.fullmatch(address):
        raise ValueError(f"{what}: {(shown or address)[:80]!r} is not an e-mail address")


def check_recipients(what: str, addresses: tuple[str, ...]) -> None:
    """Raise ValueError unless these are addresses, and not too many."""
    if len(addresses) > MOST_RECIPIENTS:
        raise ValueError(f"{what}: {len(addresses)} addresses, expected at most {MOST_RECIPIENTS}")
    for one in addresses:
        check_address(what, one)


def _check_login(options: MailOptions) -> None:
    if bool(options.user) != bool(options.password_env):
        raise ValueError("user and password_env belong together: give both, or neither")
    if options.password_env and not _VARIABLE.fullmatch(options.password_env):
        raise ValueError(
            "password_env: expected the name of a variable in capitals, such as SMTP_PASSWORD;"
            " a password itself belongs in no file"
        )
    if options.user and options.security == "plain" and options.host not in LOOPBACK:
        raise ValueError(
            'security = "plain" would send the password for everybody to read; use "starttls" or'
            ' "tls"'
        )


def _check_link(link: str) -> None:
    if not link:
        return
    parts = urlsplit(link)
    if parts.scheme not in ("http", "https") or not parts.hostname or SESSION_MARK not in link:
        raise ValueError(
            f"link {link[:80]!r}: expected a URL with {SESSION_MARK} in it, such as"
            ' "https://desk.example/workbench?session={session}"'
        )
    if parts.username or parts.password:
        raise ValueError("link: a login has no place in a letter; leave it out")
