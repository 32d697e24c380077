"""Posts an order to somebody's HTTP address, signed, and takes the answer as its result.

Header names and signature: Standard Webhooks 1.0 (webhook-id, -timestamp, -signature).
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec

from actors.limits import RESULT_LIMIT, clip
from actors.outside import NotAllowedError, check_url, port_of, resolve
from runtime.config import duration
from runtime.errors import ConfigError, Reject, Retry
from runtime.log import mask

CONNECT = 3.0
MOST_ADDRESSES = 4
LONGEST_WAIT = 60
LONGEST_TRY = timedelta(seconds=60)
SECRET_PREFIX = "whsec_"


class WebhookOptions(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="webhook",
):
    """Where to post, and how long one try may take in all.

    `secret_env` names the environment variable with the signing secret; without it nothing
    is signed. `tries` bounds how often one order is posted. `allow_private` is for local
    development: it lets the URL be of this machine or its networks.
    """

    url: str
    secret_env: str = ""
    timeout: str = "10s"
    tries: int = 3
    allow_private: bool = False

    def __post_init__(self) -> None:
        check_url(self.url, allow_private=self.allow_private)
        if duration(self.timeout) > LONGEST_TRY:
            raise ValueError(f"timeout = {self.timeout!r}: expected at most 60s")
        if self.tries < 1:
            raise ValueError(f"tries = {self.tries!r}: expected 1 or more")


class DeliveryFailed(Exception):
    """A try that may go better the next time."""


class Webhook:
    """An address that does orders. It is resolved, and its addresses checked, at each try."""

    def __init__(self, options: WebhookOptions) -> None:
        self._options = options
        self._url = check_url(options.url, allow_private=options.allow_private)
        self._timeout = duration(options.timeout).total_seconds()
        self._secret = _read_secret(options.secret_env)
        self._transport: httpx.AsyncHTTPTransport

    async def open(self) -> None:
        """Read the certificates that servers are checked against."""
        # No client: that would follow the environment's proxies, and keep cookies.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._transport = httpx.AsyncHTTPTransport(trust_env=False, limits=limits)

    async def close(self) -> None:
        """Close what is open."""
        await self._transport.aclose()

    async def do(self, order: dict[str, Any]) -> Any:
        """Post it; raises Reject if no further try is worth it, else Retry or DeliveryFailed."""
        try:
            return await self._try(order)
        except (Retry, DeliveryFailed) as failure:
            if order["attempt"] < self._options.tries:
                raise
            detail = f"given up after {order['attempt']} tries: {failure}"
            raise Reject("webhook_failed", detail) from None

    async def _try(self, order: dict[str, Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._post(order)
        except NotAllowedError as error:
            raise Reject("url_not_allowed", str(error)) from None
        except TimeoutError:
            limit = self._options.timeout
            raise DeliveryFailed(f"{self._host} gave no full answer within {limit}") from None
        except (httpx.HTTPError, OSError) as error:
            what = clip(str(error), 200) or type(error).__name__
            raise DeliveryFailed(f"{self._host} cannot be reached: {what}") from None

    async def _post(self, order: dict[str, Any]) -> Any:
        body = msgspec.json.encode(order)
        headers = {
            "Host": self._url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "callboard",
            **sign(self._secret, order["run"], int(time.time()), body),
        }
        response = await self._send(headers, body)
        try:
            self._check(response)
            return _understand(self._host, await _read(self._host, response))
        finally:
            await response.aclose()

    async def _send(self, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        """Post it to the first address that takes the connection."""
        host, port = self._url.host, port_of(self._url)
        addresses = await resolve(host, port, allow_private=self._options.allow_private)
        failure: httpx.TransportError = httpx.ConnectError(f"{host} has no address")
        for address in addresses[:MOST_ADDRESSES]:
            request = httpx.Request(
                "POST",
                self._url.copy_with(host=address),
                headers=headers,
                content=body,
                extensions=_extensions(host, self._timeout),
            )
            try:
                return await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure

    def _check(self, response: httpx.Response) -> None:
        """Raises for anything but a success that can be read."""
        status = response.status_code
        said = f"{self._host} answered {status}"
        if 300 <= status < 400:
            raise Reject("redirected", f"{said}; redirects are not followed, correct the url")
        if status == 410:
            raise Reject("webhook_gone", said)
        if status in (429, 503) and (wait := _wait(response.headers.get("Retry-After"))):
            raise Retry(f"{said}, to be tried again in {wait} s", after=timedelta(seconds=wait))
        if not 200 <= status < 300:
            raise DeliveryFailed(said)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Reject("answer_encoded", f"{said}, compressed without having been asked to")

    @property
    def _host(self) -> str:
        # Path and query may hold what should not be logged.
        return self._url.host


def sign(secret: bytes, delivery: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that identify and sign a delivery: HMAC-SHA256 of `id.timestamp.body`.

    The id is the same at every try, so that a receiver can tell a repeat.
    """
    headers = {"webhook-id": delivery, "webhook-timestamp": str(timestamp)}
    if secret:
        signed = f"{delivery}.{timestamp}.".encode() + body
        digest = hmac.new(secret, signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _read_secret(variable: str) -> bytes:
    """The secret's bytes: base64 after `whsec_`, as the standard writes it, or plain text."""
    if not variable:
        return b""
    text = os.environ.get(variable, "")
    if not text:
        raise ConfigError(f"secret_env: the environment variable {variable} is missing or empty")
    mask(text)
    if not text.startswith(SECRET_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ConfigError(f"secret_env: {variable}: expected base64 after whsec_") from None


def _extensions(host: str, timeout: float) -> dict[str, Any]:
    """How long each step may take, and whose certificate is expected of the address."""
    steps = {"connect": min(CONNECT, timeout), "read": timeout, "write": timeout, "pool": timeout}
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return {"timeout": steps, "sni_hostname": host}
    return {"timeout": steps}


async def _read(host: str, response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > RESULT_LIMIT:
            detail = f"{host} answered with more than {RESULT_LIMIT} bytes"
            raise Reject("result_too_large", detail, status=413)
    return bytes(body)


def _understand(host: str, body: bytes) -> Any:
    if not body.strip():
        return None
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise Reject("answer_not_json", f"{host}: {error}") from None


def _wait(retry_after: str | None) -> int:
    """Seconds that a Retry-After asks for, at most LONGEST_WAIT; 0 if it cannot be read."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return LONGEST_WAIT if len(text) > 9 else min(int(text), LONGEST_WAIT)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return 0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    seconds = (until - datetime.now(UTC)).total_seconds()
    return int(min(max(seconds, 0), LONGEST_WAIT))
