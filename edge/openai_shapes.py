"""What clients of OpenAI's API get, field by field.

Source: OpenAI's API reference, as of its SDKs of 2026.
"""

from typing import Literal

import msgspec


class Fault(msgspec.Struct):
    """Why a request was not done. Programs decide by `code`; `param` is the field at fault."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(msgspec.Struct):
    """How an error is told to clients of OpenAI's API."""

    error: Fault


class Model(msgspec.Struct, kw_only=True):
    """A model that may be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class Models(msgspec.Struct, kw_only=True):
    """All models that may be asked."""

    object: Literal["list"] = "list"
    data: list[Model]
