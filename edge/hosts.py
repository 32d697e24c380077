"""Which names in a Host header mean this server.

A page that rebinds its own name to our address arrives with that name: it is not served.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from edge.problem import Refusal, quote

# RFC 9110 7.2: uri-host with an optional port. Names are what DNS and compose files use.
AUTHORITY = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{0,5})?")
NAME = re.compile(r"[a-z0-9._-]{1,253}")
ANY = "*"


class Hosts:
    """The names this server answers to: loopback, the address a client reached, and `names`.

    A name is a host name or an address, without a port, which is never compared; `*` allows
    everything. Raises ValueError for a name that no Host header could hold.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {_configured(name) for name in names}

    def serves(self, host: str, local: str | None) -> bool:
        """Return whether `host` (see `read_host`) means this server, reached at `local`."""
        if host == "localhost" or not self._names.isdisjoint({host, ANY}):
            return True
        address = _address(host)
        return host == canonical(local or "") or (address is not None and address.is_loopback)


def read_host(value: bytes) -> str:
    """Return the canonical host of a Host header or an authority, without its port.

    Raises Refusal 400 if it is not one.
    """
    found = AUTHORITY.fullmatch(value)
    if found is None or not (host := canonical(found[1].decode("ascii"))):
        detail = f"the Host header is {quote(value)}, expected 'name', 'name:port' or '[address]'"
        raise Refusal(400, "invalid_host", detail)
    return host


def canonical(host: str) -> str:
    """Return the one way to write a host: lower case, no brackets, no dot at the end."""
    bare = host.lower().removeprefix("[").removesuffix("]").removesuffix(".").partition("%")[0]
    address = _address(bare)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address or bare)


def _configured(name: str) -> str:
    host = canonical(name)
    if name == ANY or NAME.fullmatch(host) or _address(host):
        return host
    raise ValueError(f"hosts: {name!r} is not a host name, expected one without port or scheme")


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
