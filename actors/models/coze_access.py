"""What a deployment says of its workflow at Coze, and of how it is let in there."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec


class Access(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `dialect` of a deployment at Coze.

    `client` is the id of an OAuth app and `key_id` the fingerprint of its public key: then the
    upstream's key is the private one. Without them it is an access token. `audience` is the
    host that claims are made for, if it is not the URL's; a token lasts so many `seconds`.
    """

    client: str = ""
    key_id: str = ""
    audience: str = ""
    seconds: Annotated[int, msgspec.Meta(ge=60, le=86399)] = 3600


def read_access(dialect: Mapping[str, Any]) -> Access:
    """Raises ValueError for what Coze's access does not know, or half of what it needs."""
    access = msgspec.convert(dict(dialect), Access)
    if bool(access.client) != bool(access.key_id):
        raise ValueError("client and key_id: expected both for an OAuth app, or neither")
    return access


def check_coze(model: str, extra: Mapping[str, Any], dialect: Mapping[str, Any]) -> None:
    """Raise ValueError for a deployment that Coze could not serve."""
    if not model:
        raise ValueError("model: expected the id of a workflow at Coze")
    if bool(extra.get("app_id")) == bool(extra.get("bot_id")):
        raise ValueError('extra: expected one of app_id and bot_id, such as { app_id = "…" }')
    try:
        read_access(dialect)
    except ValueError as error:
        raise ValueError(f"dialect: {error}") from None
