"""How the edge asks an actor on a client's behalf, and what its failures mean to the client.

A client that repeats a request under the same Idempotency-Key asks the same thing again.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge.auth import principal_of
from edge.failures import NO_RETRY
from edge.parameters import read_idempotency_key
from edge.problem import NOTHING, OWN_MEMBERS, Refusal, Translation
from edge.storegate import unless_in_trouble
from runtime.ask import Origin, ask
from runtime.bus import Bus, message_id
from runtime.errors import AskTimeout, BusFault, NoRoom, Refused, Unavailable, Unknown
from schemas.base import Address, Message
from schemas.base import Request as Asked
from schemas.ownership import IN_MANUAL

Reply = TypeVar("Reply", bound=Message)

ANSWER_WITHIN = 10.0
CONNECT_WITHIN = 0.8
"""Seconds that a lost connection is given to come back before a client is told."""


async def ask_for(
    request: Request,
    bus: Bus,
    route: str,
    to: Address,
    message: Asked[Reply],
    *,
    bodyhash: str = "",
    **told: Any,
) -> Reply:
    """Ask an actor what the client of `request` wants of it, and return the answer.

    A repeat is told from another request by `bodyhash`, or by the message if it is empty.

    Raises Refusal with the actor's reason, 503 if it cannot be stored, 507 if there is no room,
    504 if it is stored and not answered yet. `told` is in the answer if what became of the
    request is not known.
    """
    await wait_for_bus(bus)
    principal, key = principal_of(request), read_idempotency_key(request)
    origin = Origin(
        id=message_id(principal.id, route, f"{to}", key) if key else "",
        principal=principal.id,
        bodyhash=bodyhash or fingerprint(message),
        traceparent=request.state.traceparent,
    )
    try:
        asking = ask(
            bus, to, message, timeout=ANSWER_WITHIN, origin=origin, patience=CONNECT_WITHIN
        )
        return await unless_in_trouble(request.app.state.shared.store, asking)
    except TRANSLATED as fault:
        refusal = translate(fault)
        if isinstance(fault, AskTimeout | Unknown):
            headers = {} if key else NO_RETRY
            detail = _advise(fault, key)
            refusal = Refusal(refusal.status, refusal.code, detail, headers=headers, **told)
        raise refusal from None


async def wait_for_bus(bus: Bus) -> None:
    """Return once there is a connection. Raises Refusal 503 if there is none for a moment."""
    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            await bus.link.connected.wait()
    except TimeoutError:
        raise Refusal(503, "unavailable", "there is no connection to NATS; try again") from None


def fingerprint(message: Any) -> str:
    """A hash of what was said, whatever the order of its fields was."""
    return hashlib.sha256(msgspec.json.encode(message, order="sorted")).hexdigest()


def _advise(fault: AskTimeout | Unknown, key: str | None) -> str:
    """What is known of a request without an outcome, and how its client learns more."""
    known = "stored, but not answered yet" if isinstance(fault, AskTimeout) else "perhaps stored"
    if key:
        return f"it is {known}; repeat it under the same Idempotency-Key"
    return f"it is {known}, and came without an Idempotency-Key: look before you repeat it"


def translate(fault: Exception) -> Refusal:
    """Return what a failure of the runtime means to a client."""
    if isinstance(fault, Refused):
        refusal = fault.refusal
        members = {name: value for name, value in refusal.told.items() if name not in OWN_MEMBERS}
        headers = NO_RETRY if refusal.code == IN_MANUAL else NOTHING
        return Refusal(refusal.status, refusal.code, refusal.detail, headers=headers, **members)
    if isinstance(fault, AskTimeout):
        return Refusal(504, "not_answered_yet", "it is stored, but not answered yet")
    if isinstance(fault, NoRoom):
        return Refusal(507, "storage_full", "the server has no room; nothing was stored")
    if isinstance(fault, Unavailable):
        return Refusal(503, "unavailable", "nothing was stored; try again in a moment")
    return Refusal(503, "unavailable", "the server did not answer; try again in a moment")


TRANSLATED = (Refused, AskTimeout, BusFault)
TRANSLATIONS: Mapping[type[Exception], Translation] = dict.fromkeys(TRANSLATED, translate)


def answer(body: Any, status: int = 200) -> Response:
    """Return a body, which msgspec can encode, as an answer in JSON."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")
