"""Signed claims (JWT, RS256) as Coze's token endpoint takes them: what is wrong with some.

RFC 7519 and RFC 7515; the claims are those that cozepy 0.20.0 sends.
"""

import base64
import binascii
import time
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

WANTED = ("iss", "aud", "iat", "exp", "jti")


def read_claims(token: str, public_key: str, audience: str) -> tuple[dict[str, Any], str]:
    """The claims of a token, and what is wrong with it; empty if nothing is.

    A signature is checked by `public_key` (PEM) and an audience compared where they are given.
    """
    parts = token.split(".")
    try:
        head, claims = (msgspec.json.decode(_unpacked(part)) for part in parts[:2])
        signature = _unpacked(parts[2])
    except (IndexError, ValueError, binascii.Error, msgspec.DecodeError):
        return {}, "The assertion is no JWT of three parts"
    if public_key and not _signed(".".join(parts[:2]), signature, public_key):
        return claims, "The signature of the JWT does not hold"
    return claims, _wrong_head(head) or _wrong_claims(claims, audience)


def _wrong_head(head: dict[str, Any]) -> str:
    if head.get("alg") != "RS256" or head.get("typ") != "JWT" or not head.get("kid"):
        return "The header of the JWT needs alg RS256, typ JWT and kid"
    return ""


def _wrong_claims(claims: dict[str, Any], audience: str) -> str:
    if missing := [name for name in WANTED if name not in claims]:
        return f"The JWT lacks {', '.join(missing)}"
    if audience and claims["aud"] != audience:
        return f"The JWT is for {claims['aud']!r}"
    if not claims["iat"] - 600 <= time.time() < claims["exp"]:
        return "The JWT has expired"
    return ""


def _signed(said: str, signature: bytes, public_key: str) -> bool:
    key = load_pem_public_key(public_key.encode())
    assert isinstance(key, RSAPublicKey), "a fake that was given another kind of key"
    try:
        key.verify(signature, said.encode(), PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def _unpacked(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
