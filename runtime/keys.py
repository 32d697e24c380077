"""The keys that open the edge: from environment variables only, kept as hashes only."""

import hashlib
import ipaddress
from collections.abc import Mapping

import msgspec

from runtime.config import Config, KeyTable, split_address
from runtime.errors import ConfigError
from runtime.log import mask

PUBLIC_DEFAULT = "lynker_relay_secret_2025"
"""The relay's documented default. Everybody knows it, so it opens loopback addresses only."""

SHORTEST = 16
WEAK = {PUBLIC_DEFAULT, "changeme", "change-me", "password", "secret", "admin", "default", "test"}


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
    """Whether nobody but this machine can reach the edge."""
    return all(_is_loopback(split_address(address)[0]) for address in config.edge.listen)


def resolve_keys(config: Config, environ: Mapping[str, str]) -> list[Key]:
    """Read the keys; raises ConfigError, naming the variable and never the value.

    Off loopback, a default, empty, short or well-known secret is refused.
    """
    local = listens_on_loopback_only(config)
    tables = list(config.edge.key)
    if "RELAY_API_KEY" in environ and not any(t.id == "relay" for t in tables):
        tables.append(KeyTable(id="relay", secret_env="RELAY_API_KEY"))
    keys = [_resolve(table, environ, local) for table in tables]
    if not keys:
        if not local:
            raise ConfigError(
                "weak_or_missing_secret: the edge listens beyond loopback and has no key;"
                f" set RELAY_API_KEY to {SHORTEST} or more characters"
            )
        keys = [_key(KeyTable(id="relay", secret_env=""), PUBLIC_DEFAULT)]
    ids = [key.id for key in keys]
    if repeated := next((one for one in ids if ids.count(one) > 1), None):
        raise ConfigError(f"edge.key: the id {repeated!r} is given twice")
    return keys


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
    if secret.lower() in WEAK:
        return "holds a well-known value; choose another before listening beyond loopback"
    if len(secret) < SHORTEST:
        return f"holds {len(secret)} characters; beyond loopback it needs {SHORTEST} or more"
    return ""


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
