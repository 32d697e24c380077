"""Which URLs and addresses beyond this machine and its networks may be called.

A URL is checked when it is configured, and every address of its host again at each call.
"""

import asyncio
import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv6Address

import httpx

PORTS = {"http": 80, "https": 443}
CLOSED_PORTS = {22, 25, 4222, 8222}
LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa")
INTERNET = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is in use on the internet; the rest maps, translates or is local."""
EMBEDDING = [ipaddress.ip_network(net) for net in ("2001::/32", "2002::/16")]
"""Teredo and 6to4: an IPv4 address inside an IPv6 one."""
_PLAIN = re.compile(r"[!-\[\]-~]+")


class NotAllowedError(ValueError):
    """A URL or address that is not to be called, and why."""


def check_url(text: str, *, allow_private: bool = False) -> httpx.URL:
    """Return the URL, if it may be called as far as can be told without asking DNS.

    Raises NotAllowedError. `allow_private` lets it name this machine and its networks.
    """
    # What one parser takes for the host is the user to another: only spellings that all
    # parsers read alike are let through.
    if not _PLAIN.fullmatch(text) or "#" in text:
        raise NotAllowedError(
            "url: expected printable ASCII without spaces, backslashes and fragments;"
            " spell an international name as xn--…"
        )
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise NotAllowedError(f"url: {error}") from None
    if url.scheme not in PORTS or not url.host:
        raise NotAllowedError(f"url: expected http://… or https://…, not {url.scheme or '?'}://…")
    if url.userinfo:
        raise NotAllowedError("url: secrets do not belong in it; leave out user and password")
    if not 0 < port_of(url) < 65536 or port_of(url) in CLOSED_PORTS:
        raise NotAllowedError(f"url: port {port_of(url)} is not for webhooks")
    if not allow_private:
        _check_host(url.host)
    return url


def port_of(url: httpx.URL) -> int:
    """The port that a URL means."""
    return url.port if url.port is not None else PORTS.get(url.scheme, 0)


async def resolve(host: str, port: int, *, allow_private: bool = False) -> list[str]:
    """Every address of a host, asked once; raises NotAllowedError if one of them is not public.

    Raises OSError if the name has none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private:
        for address in addresses:
            if not is_public(address):
                raise NotAllowedError(f"{host} is {address}, which is not a public address")
    return addresses


def is_public(address: str) -> bool:
    """Whether an address is one of the internet's, by whatever way it is written."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return _is_public_v4(parsed)
    return _is_public_v6(parsed)


def _is_public_v4(address: IPv4Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved


def _is_public_v6(address: IPv6Address) -> bool:
    if address not in INTERNET or any(address in network for network in EMBEDDING):
        return False
    return address.is_global and not address.is_multicast


def _check_host(host: str) -> None:
    name = host.rstrip(".").lower()
    if name in LOCAL_NAMES or name.endswith(tuple(f".{local}" for local in LOCAL_NAMES)):
        raise NotAllowedError(f"url: {host!r} is a name of this machine or its networks")
    address = _as_address(name)
    if address is not None and not is_public(address):
        raise NotAllowedError(f"url: {host} is {address}, which is not a public address")


def _as_address(host: str) -> str | None:
    """The address a host is, also as C libraries read it: 127.1, 0x7f.1, 2130706433."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None
