"""The keys that open the edge: from environment variables only, kept as hashes only."""

import hashlib
import ipaddress
from collections.abc import Mapping

import msgspec

from runtime.config import split_address
from runtime.errors import ConfigError
from runtime.log import mask
from runtime.tables import Config, KeyTable

PUBLIC_DEFAULT = "lynker_relay_secret_2025"
"""The relay's documented default. Everybody knows it, so it opens loopback addresses only."""

SHORTEST = 16
FEWEST_DIFFERENT = 6
WEAK_WORDS = ("changeme", "change-me", "change_me", "password", "yoursecret", "your-secret")
WEAK = {PUBLIC_DEFAULT, "0123456789abcdef", "1234567890123456", "abcdefghijklmnop"}
RELAY = KeyTable(id="relay", secret_env="RELAY_API_KEY")
"""The one key of the relay as its documents have it."""


class Key(msgspec.Struct, frozen=True):
    """One key: whose, the SHA-256 of it, what it opens, and as which children it may act."""

    id: str
    secret_hash: bytes
    scopes: frozenset[str]
    children: frozenset[str] = frozenset()
    tier: str = "user"

    def __repr__(self) -> str:
        return f"Key(id={self.id!r})"


def listens_on_loopback_only(config: Config) -> bool:
    """Whether nobody but this machine can reach the edge.

    Whoever names hosts to serve has a proxy in front, or a name that others know.
    """
    if config.edge.hosts:
        return False
    return all(_is_loopback(split_address(address)[0]) for address in config.edge.listen)


def resolve_keys(config: Config, environ: Mapping[str, str]) -> list[Key]:
    """Read the keys; raises ConfigError, naming the variable and never the value.

    Off loopback, a default, empty, short or well-known secret is refused. Without any key,
    loopback is opened by the public default.
    """
    local = listens_on_loopback_only(config)
    tables = list(config.edge.key)
    if RELAY.secret_env in environ:
        _refuse_another_source(tables, environ)
        if not any(table.id == RELAY.id for table in tables):
            tables.append(RELAY)
    if not tables and not local:
        reach = "names hosts to serve" if config.edge.hosts else "listens beyond loopback"
        raise ConfigError(
            f"weak_or_missing_secret: the edge {reach} and has no key;"
            f" set {RELAY.secret_env} to {SHORTEST} or more characters"
        )
    if not tables:
        return [_key(RELAY, PUBLIC_DEFAULT)]
    keys = [_resolve(table, environ, local) for table in tables]
    _refuse_repeated(tables, keys)
    return keys


def _refuse_another_source(tables: list[KeyTable], environ: Mapping[str, str]) -> None:
    """Which of two variables holds the relay's key must not be a guess."""
    for table in tables:
        other = environ.get(table.secret_env)
        if table.id == RELAY.id and other not in (None, environ[RELAY.secret_env]):
            raise ConfigError(
                f"weak_or_missing_secret: {RELAY.secret_env} and {table.secret_env} both hold the"
                f" key {RELAY.id!r}, and they differ; unset one of them"
            )


def _refuse_repeated(tables: list[KeyTable], keys: list[Key]) -> None:
    """One secret under two names would be whichever comes first."""
    ids: set[str] = set()
    holders: dict[bytes, str] = {}
    for table, key in zip(tables, keys, strict=True):
        if key.id in ids:
            raise ConfigError(f"edge.key: the id {key.id!r} is given twice")
        ids.add(key.id)
        if first := holders.get(key.secret_hash):
            raise ConfigError(
                f"weak_or_missing_secret: {first} and {table.secret_env} hold the same secret;"
                " each key needs its own"
            )
        holders[key.secret_hash] = table.secret_env


def _resolve(table: KeyTable, environ: Mapping[str, str], local: bool) -> Key:
    secret = environ.get(table.secret_env)
    if reason := _weakness(secret, local):
        raise ConfigError(f"weak_or_missing_secret: the variable {table.secret_env} {reason}")
    assert secret is not None
    if secret != PUBLIC_DEFAULT:
        mask(secret)
    return _key(table, secret)


def _weakness(secret: str | None, local: bool) -> str:
    if secret is None:
        return "is not set"
    if not secret.strip():
        return "is empty; an empty key does not mean that none is needed"
    if any(c.isspace() for c in secret) or not secret.isascii() or not secret.isprintable():
        return "contains white space or characters that a header cannot carry"
    if local:
        return ""
    if _is_well_known(secret.lower()):
        return "holds a well-known value; choose another before listening beyond loopback"
    if len(secret) < SHORTEST:
        return f"holds {len(secret)} characters; beyond loopback it needs {SHORTEST} or more"
    return ""


def _is_well_known(secret: str) -> bool:
    few = len(set(secret)) < FEWEST_DIFFERENT <= len(secret)
    return few or secret in WEAK or any(word in secret for word in WEAK_WORDS)


def _key(table: KeyTable, secret: str) -> Key:
    return Key(
        id=table.id,
        secret_hash=hashlib.sha256(secret.encode()).digest(),
        scopes=frozenset(table.scopes),
        children=frozenset(table.children),
        tier=table.tier,
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
