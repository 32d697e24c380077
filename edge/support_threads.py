"""Where a provider keeps a conversation: opened before its first message, and begun anew.

Its id is the provider's; where a provider keeps none it is the session's own name.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge.asking import answer, ask_for
from edge.auth import CHAT_SEND
from edge.body import read_json
from edge.failures import meaning_of
from edge.following import Event, Following
from edge.operation import Endpoint, Operation
from edge.problem import Refusal
from edge.shared import Shared
from edge.support_asking import Customers
from edge.support_shapes import SessionName, SupportError
from runtime.tables import SupportTable
from schemas.assist import OpenThread, ThreadFailed, ThreadOpened
from schemas.base import Address, tag_of
from schemas.conversation import SESSION
from schemas.envelope import UNREADABLE, Envelope
from schemas.model import conversation_topic

TAG = "support"
ROUTE = "thread"
OPENED_WITHIN = 45.0
"""Seconds, longer than a provider may take to connect and to answer."""
OPENED, FAILED = tag_of(ThreadOpened), tag_of(ThreadFailed)

_decode_opened = msgspec.json.Decoder(Envelope[ThreadOpened]).decode
_decode_failed = msgspec.json.Decoder(Envelope[ThreadFailed]).decode


class SessionAsked(msgspec.Struct):
    """Which session it is about."""

    session_id: SessionName


class UserAsked(msgspec.Struct):
    """The same, as others call it."""

    user_id: SessionName


class ThreadAnswered(msgspec.Struct, kw_only=True):
    """The conversation's id, to be sent along with what is said in the session."""

    success: bool
    conversation_id: str
    session_name: str


class Threads:
    """The operations on a session's conversation with its provider."""

    def __init__(self, shared: Shared, customers: Customers, limits: SupportTable) -> None:
        self._shared = shared
        self._customers = customers
        self._limits = limits

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            _operation("new", self.open, SessionAsked, "Open a session's conversation"),
            _operation("create", self.create, UserAsked, "Open a user's conversation"),
            _operation("clear", self.clear, SessionAsked, "Leave what was said behind"),
        )

    async def open(self, request: Request) -> Response:
        """Answer a session's conversation, which is opened unless it has one."""
        asked: SessionAsked = await read_json(request, SessionAsked, missing=400)
        return await self._open(request, asked.session_id)

    async def create(self, request: Request) -> Response:
        """The same for a user."""
        asked: UserAsked = await read_json(request, UserAsked, missing=400)
        return await self._open(request, asked.user_id)

    async def clear(self, request: Request) -> Response:
        """Answer a new conversation for a session."""
        asked: SessionAsked = await read_json(request, SessionAsked, missing=400)
        return await self._open(request, asked.session_id, anew=True)

    async def _open(self, request: Request, session: str, *, anew: bool = False) -> Response:
        request.state.patient = True
        headers = await self._customers.count(request, session, ROUTE)
        wanted = await self._customers.model()
        message = OpenThread(actors=wanted.actors, anew=anew, team=self._limits.team)
        following = await self._shared.hub.follow(conversation_topic(session), None)
        try:
            to = Address(SESSION, session)
            kept = await ask_for(request, self._shared.bus, ROUTE, to, message)
            thread = kept.thread or await _wait_for(following, kept.run)
        finally:
            following.close()
        made = answer(ThreadAnswered(success=True, conversation_id=thread, session_name=session))
        made.headers.update(headers)
        return made


async def _wait_for(following: Following, run: str) -> str:
    """Return the thread that a run opens. Raises Refusal for one that it does not."""
    try:
        async with asyncio.timeout(OPENED_WITHIN):
            async for item in following:
                if isinstance(item, Event) and (thread := _read(item, run)):
                    return thread
    except TimeoutError:
        pass
    detail = f"the provider did not open a conversation within {OPENED_WITHIN:g} s"
    raise Refusal(504, "timeout", detail)


def _read(event: Event, run: str) -> str:
    """The thread, if an event tells of it. Raises Refusal if it tells that there is none."""
    try:
        if event.name == OPENED:
            opened = _decode_opened(event.data).data
            return opened.thread if opened.run == run else ""
        failed = _decode_failed(event.data).data if event.name == FAILED else None
    except UNREADABLE:
        return ""
    if failed is not None and failed.run == run:
        meaning = meaning_of(failed.code, failed.status, failed.reason)
        # That no conversation can be had is the provider's trouble, never the client's.
        status = meaning.status if meaning.status >= 500 else 503
        raise Refusal(status, meaning.code, meaning.detail, headers=meaning.headers)
    return ""


def _operation(name: str, endpoint: Endpoint, body: Any, summary: str) -> Operation:
    return Operation(
        "POST",
        f"/api/conversation/{name}",
        endpoint,
        summary,
        name=f"{name}_conversation",
        scope=CHAT_SEND,
        body=body,
        answers={
            200: ThreadAnswered,
            400: "A field is missing",
            409: "A person has the session: it is not begun anew meanwhile",
            503: "The provider opens none",
        },
        error=SupportError,
        tag=TAG,
    )
