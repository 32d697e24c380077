"""Why a server is out of reach or says no, in words that hold no secret."""

import re
import socket
from collections.abc import Mapping

# As nats-py tells it: in lower case.
_PUBLISH = re.compile(r'permissions violation for publish to "([^"]*)"')
_SUBSCRIBE = re.compile(r'permissions violation for subscription to "([^"]*)"')
_NOT_LET_IN = re.compile("authorization|authentication|user credentials", re.IGNORECASE)
LONGEST = 200


def shown(url: str) -> str:
    """The host and port of an address: what may be shown of it."""
    return url.rpartition("@")[2].rpartition("://")[2]


def why(error: BaseException) -> str:
    """Say in a few words why one server cannot be used."""
    if isinstance(error, TimeoutError):
        return "does not answer; it is frozen, or another program"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved: {_tame(error.strerror or error)}"
    if isinstance(error, OSError) and error.strerror:
        return _tame(error.strerror)
    if "INFO" in str(error) or "info message" in str(error):
        return "is no NATS server"
    words = _tame(error).removeprefix("nats: ").strip("' ")
    if _NOT_LET_IN.search(words):
        return f"does not let us in: {words}; look at nats.user and its password"
    return words or type(error).__name__


def explain(failures: Mapping[str, BaseException]) -> str:
    """Say why none of several servers can be used, by their addresses."""
    each = "; ".join(f"at {shown(url)}: {why(error)}" for url, error in failures.items())
    return f"no NATS server {each}"


def unheard(subject: str) -> str:
    """Say that nobody listens at `subject`."""
    if subject.startswith("$JS."):
        return f"JetStream does not answer on this server; is it enabled there? ({subject})"
    return f"{subject}: nobody listens there"


def refused_publish(words: str) -> str:
    """The subject, in lower case, that the server did not let us publish to; else nothing."""
    found = _PUBLISH.search(words)
    return found[1] if found else ""


def refused_subscription(words: str) -> str:
    """The subject, in lower case, that the server did not let us hear; else nothing."""
    found = _SUBSCRIBE.search(words)
    return found[1] if found else ""


def _tame(error: object) -> str:
    """One line of bounded length: a server may say anything."""
    text = str(error)[:LONGEST]
    return "".join(c if c.isprintable() else " " for c in text).strip()
