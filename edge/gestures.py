"""Typing, as customers and agents tell it: passed on at once to whoever looks, and not stored."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge.auth import CHAT_SEND, DESK_ACT, principal_of
from edge.body import decode, read_body, read_json
from edge.company import LONGEST, customer_of, person_of
from edge.operation import Operation, Parameter
from edge.problem import Refusal
from edge.remembered import NO_CONVERSATION, Remembered, may_read
from edge.session_shapes import case_of, may_handle
from edge.shared import Shared
from edge.strict import check_json
from edge.support_shapes import SupportError

TAG = "presence"
SESSION = Parameter("name", str, "The name of the session.")
LIMIT = 4096
PASSED_ON = "It was passed on to whoever is there. Repeat it every few seconds while it is so."

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST)]


class TypingNow(msgspec.Struct):
    """Whether the agent is typing; it is taken to have ended after six seconds."""

    on: bool = True


class CustomerTyping(msgspec.Struct):
    """Whether a customer is typing in the session of this name, as `/api/chat` knows it."""

    user_id: Name
    on: bool = True


class Gestures:
    """The operations that say that somebody types."""

    def __init__(self, shared: Shared, remembered: Remembered) -> None:
        self._presence = shared.presence
        self._remembered = remembered

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            Operation(
                "POST",
                "/api/sessions/{name}/typing",
                self.agent_types,
                "Tell a customer and colleagues that an agent is typing",
                scope=DESK_ACT,
                body=TypingNow,
                bodiless=True,
                answers={204: PASSED_ON, 404: NO_CONVERSATION},
                error=SupportError,
                variables=(SESSION,),
                repeatable=False,
                tag=TAG,
            ),
            Operation(
                "POST",
                "/api/chat/typing",
                self.customer_types,
                "Tell the agents of a session that its customer is typing",
                scope=CHAT_SEND,
                body=CustomerTyping,
                answers={204: PASSED_ON, 404: NO_CONVERSATION},
                repeatable=False,
                tag=TAG,
            ),
        )

    async def agent_types(self, request: Request) -> Response:
        """Pass on that an agent types; whose name it is, is known by their token."""
        told = await _read_typing(request)
        name = str(request.path_params["name"])
        if len(name) > LONGEST:
            raise Refusal(404, "conversation_not_found", NO_CONVERSATION)
        principal = principal_of(request)
        who = person_of(principal, colleague=True)
        if not self._presence.has_just_told(name, who, on=told.on):
            found = await self._remembered.find_conversation(name)
            if found is not None and not may_handle(principal, case_of(name, found)):
                raise Refusal(404, "conversation_not_found", NO_CONVERSATION)
            self._presence.type(name, who, on=told.on)
        return Response(status_code=204)

    async def customer_types(self, request: Request) -> Response:
        """Pass on that a customer types, unless the session is somebody else's."""
        told = await read_json(request, CustomerTyping, LIMIT)
        principal = principal_of(request)
        who = customer_of(principal, told.user_id)
        # Looked up only where something is said: a client that says it very often costs nothing.
        if not self._presence.has_just_told(told.user_id, who, on=told.on):
            found = await self._remembered.find_conversation(told.user_id)
            if found is not None and not may_read(principal, told.user_id, found):
                raise Refusal(404, "conversation_not_found", NO_CONVERSATION)
            self._presence.type(told.user_id, who, on=told.on)
        return Response(status_code=204)


async def _read_typing(request: Request) -> TypingNow:
    raw = await read_body(request, LIMIT)
    if not raw:
        return TypingNow()
    check_json(raw)
    told: TypingNow = decode(raw, TypingNow)
    return told
