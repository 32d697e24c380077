"""RSA keys made for tests, and claims signed by them."""

import base64
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)


def _pem(key: RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


_KEY = generate_private_key(65537, 2048)
PRIVATE_PEM = _pem(_KEY)
PUBLIC_PEM = (
    _KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
)
STRANGER_PEM = _pem(generate_private_key(65537, 2048))


def sign(claims: dict[str, Any], pem: str = "") -> str:
    """A JWT of claims, which is good for an hour, signed by a PEM key or the usual one."""
    key = load_pem_private_key((pem or PRIVATE_PEM).encode(), None)
    assert isinstance(key, RSAPrivateKey)
    now = int(time.time())
    head = _packed(json.dumps({"alg": "RS256", "typ": "JWT", "kid": "k1"}).encode())
    said = f"{head}.{_packed(json.dumps({'iat': now, 'exp': now + 3600} | claims).encode())}"
    return f"{said}.{_packed(key.sign(said.encode(), PKCS1v15(), SHA256()))}"


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
