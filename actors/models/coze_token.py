"""Access tokens of Coze: one for each session, had for claims signed with an app's key (RS256).

RFC 7515, RFC 7519, RFC 7523; `expires_in` is a time and no duration, as Coze's clients read it.
"""

import asyncio
import base64
import math
import random
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from actors.models.coze_access import Access
from actors.models.coze_api import locate, post
from actors.models.events import Call
from actors.models.faults import UpstreamFault
from actors.models.wording import Discretion

ENDPOINT = "/api/permission/oauth2/token"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLAIMS_LAST = 3600
MOST_TOKENS = 4096
EARLY = (30.0, 300.0)
"""Seconds before its end that a token is renewed: spread out, or all would be at once."""
LAST_MOMENT = 10.0
"""Seconds before its end that a token is not used any more."""
ABSOLUTE = 10**9
"""What is more than this is a time, not a duration."""
MOST_KEY = 64 * 1024

Who: TypeAlias = tuple[str, str, str, str]


@dataclass(frozen=True)
class Token:
    """A token, when it is to be renewed, and when it ends."""

    text: str = field(repr=False)
    renew: float
    ends: float


class Tokens:
    """The tokens that are good now. Of those who want the same one, one asks for it."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: OrderedDict[Who, Token] = OrderedDict()
        self._asking: dict[Who, asyncio.Task[Token]] = {}

    async def get(self, call: Call, access: Access) -> str:
        """The token of a call's session; raises UpstreamFault."""
        if not access.client:
            return call.upstream.key
        who = _who(call, access)
        kept, now = self._kept.get(who), self._clock()
        if kept is not None and now < kept.renew:
            self._kept.move_to_end(who)
            return kept.text
        try:
            return (await self._ask_once(who, call, access)).text
        except UpstreamFault as fault:
            if fault.passing and kept is not None and now < kept.ends - LAST_MOMENT:
                return kept.text
            raise

    def forget(self, call: Call, access: Access, text: str) -> None:
        """A token was refused. A newer one that somebody has by now stays."""
        who = _who(call, access)
        if (kept := self._kept.get(who)) is not None and kept.text == text:
            del self._kept[who]

    async def close(self) -> None:
        """Ask for nothing more."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_once(self, who: Who, call: Call, access: Access) -> Token:
        """Whoever waits may leave; the token comes all the same, for those who stay."""
        task = self._asking.get(who)
        if task is None:
            task = asyncio.create_task(self._ask(who, call, access))
            self._asking[who] = task
            task.add_done_callback(lambda done: self._settle(who, done))
        return await asyncio.shield(task)

    def _settle(self, who: Who, done: asyncio.Task[Token]) -> None:
        del self._asking[who]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[who] = done.result()
        self._kept.move_to_end(who)
        while len(self._kept) > MOST_TOKENS:
            self._kept.popitem(last=False)

    async def _ask(self, who: Who, call: Call, access: Access) -> Token:
        key = load_key(call.upstream.key)
        audience = access.audience or locate(call.upstream, "").netloc.decode("ascii")
        claims = make_claims(access, audience, call.conversation, int(self._clock()))
        assertion = sign(claims, access.key_id, key)
        body = {"grant_type": GRANT, "duration_seconds": access.seconds}
        said = await post(call, ENDPOINT, assertion, msgspec.json.encode(body))
        return self._read(said, access, Discretion(call.upstream.key, assertion))

    def _read(self, said: dict[str, Any], access: Access, discretion: Discretion) -> Token:
        text = said.get("access_token")
        if not isinstance(text, str) or not text:
            raise discretion.fault("garbled", "answered without an access_token")
        now = self._clock()
        ends = read_end(said.get("expires_in"), now, access.seconds)
        early = min(random.uniform(*EARLY), (ends - now) / 2)
        return Token(text, ends - early, ends)


def read_end(expires: object, now: float, seconds: float) -> float:
    """When a token ends, by our clock: `expires` is a time, or a duration if it is small.

    Without one it is what was asked for, and never longer than that.
    """
    said: object = expires
    if isinstance(expires, str) and expires.isdecimal():
        said = float(expires)
    if isinstance(said, bool) or not isinstance(said, int | float) or not math.isfinite(said):
        return now + seconds
    return min(said if said > ABSOLUTE else now + said, now + seconds)


def make_claims(access: Access, audience: str, session: str, now: int) -> dict[str, Any]:
    """What is said of us, and of the session that a token is to be for."""
    claims = {
        "iss": access.client,
        "aud": audience,
        "iat": now,
        "exp": now + CLAIMS_LAST,
        "jti": secrets.token_hex(16),
    }
    return claims | ({"session_name": session} if session else {})


def sign(claims: dict[str, Any], key_id: str, key: RSAPrivateKey) -> str:
    """Claims as a JWT."""
    head = {"alg": "RS256", "typ": "JWT", "kid": key_id}
    said = f"{_pack(msgspec.json.encode(head))}.{_pack(msgspec.json.encode(claims))}"
    return f"{said}.{_pack(key.sign(said.encode('ascii'), PKCS1v15(), SHA256()))}"


def load_key(key: str) -> RSAPrivateKey:
    """A private key in PEM, or in the file of that name, read anew each time.

    Raises UpstreamFault, which shows nothing of either.
    """
    text = key
    if "-----BEGIN" not in text:
        try:
            with Path(key).open(encoding="ascii") as file:
                text = file.read(MOST_KEY)
        except (OSError, ValueError):
            raise UpstreamFault(
                "unauthorized",
                "the key is neither a private key in PEM nor a readable file that holds one",
            ) from None
    # Files of variables often have a line end written as two characters.
    return _parse(text.replace("\\n", "\n"))


@lru_cache(maxsize=16)
def _parse(pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode("ascii"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UpstreamFault("unauthorized", "the private key cannot be read as PEM") from None
    if not isinstance(key, RSAPrivateKey):
        raise UpstreamFault("unauthorized", "the private key is not one of RSA, as RS256 needs")
    return key


def _who(call: Call, access: Access) -> Who:
    return call.upstream.url, access.client, access.key_id, call.conversation


def _pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
