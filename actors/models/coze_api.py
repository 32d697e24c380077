"""Coze's routes that answer in one JSON object: tokens, conversations, files."""

import secrets
from typing import Any
from urllib.parse import quote

import httpx

from actors.models.addresses import join, parse
from actors.models.events import Call, Upstream
from actors.models.exchange import Exchange, Request
from actors.models.objects import decode
from actors.models.parts import Blob
from actors.models.trouble import Refused, explain, read_trouble
from actors.models.wording import Discretion


def locate(upstream: Upstream, path: str) -> httpx.URL:
    """A route of Coze's; raises UpstreamFault for a URL that is none."""
    return join(parse(upstream.url, version=""), path)


async def open_conversation(call: Call, token: str) -> str:
    """A new conversation of the token's session: Coze's id for it."""
    return await _made(call, "/v1/conversation/create", token, b"{}")


async def upload(call: Call, token: str, file: Blob) -> str:
    """A file, to be named in a message: Coze's id for it."""
    boundary = secrets.token_hex(16)
    # Quoted, a name can end neither its parameter nor its line.
    name = quote(file.name or "file", safe=" ")
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: {file.media}\r\n\r\n"
    )
    body = head.encode() + file.data + f"\r\n--{boundary}--\r\n".encode()
    media = f"multipart/form-data; boundary={boundary}"
    return await _made(call, "/v1/files/upload", token, body, media)


async def post(
    call: Call, path: str, bearer: str, body: bytes, media: str = "application/json"
) -> dict[str, Any]:
    """What a route answers; raises UpstreamFault, also for an error under HTTP 200."""
    discretion = Discretion(call.upstream.key, bearer)
    exchange = Exchange(call.client, call.timeouts, discretion)
    headers = {"Content-Type": media, "Authorization": f"Bearer {bearer}"}
    try:
        await exchange.open(Request(locate(call.upstream, path), body, headers))
        said = _read(await exchange.read_all(), discretion)
        if said.get("code") or said.get("error_code"):
            raise explain(read_trouble(said), discretion)
        return said
    except Refused as refused:
        raise discretion.fault("unauthorized", refused.reason) from None
    finally:
        await exchange.close()


async def _made(
    call: Call, path: str, token: str, body: bytes, media: str = "application/json"
) -> str:
    """The id of what a route has made."""
    said = await post(call, path, token, body, media)
    data = said.get("data")
    name = data.get("id") if isinstance(data, dict) else None
    if not isinstance(name, str) or not name:
        discretion = Discretion(call.upstream.key, token)
        raise discretion.fault("garbled", f"{path} answered without an id")
    return name


def _read(text: bytes, discretion: Discretion) -> dict[str, Any]:
    try:
        said = decode(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise discretion.fault("garbled", f"expected JSON, not {discretion.quote(text)}")
    return said
