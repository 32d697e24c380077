"""Asks workflows at Coze, as events: a token for each session, a conversation that Coze made.

Sources: cozepy 0.20.0, coze-studio 4f786d6a9. What is sent: coze_request.py; what comes back:
coze_reader.py.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial

import msgspec

from actors.models.coze_access import Access, read_access
from actors.models.coze_api import locate, open_conversation, upload
from actors.models.coze_reader import WorkflowReader
from actors.models.coze_request import build
from actors.models.coze_token import Tokens
from actors.models.events import Call, InThread, ProviderEvent, Thread
from actors.models.exchange import Request
from actors.models.faults import UpstreamFault
from actors.models.reader import SPOKEN, converse
from actors.models.wording import Discretion

ENDPOINT = "/v1/workflows/chat"
OUT = 401
GONE = 404


class Coze:
    """Speaks the workflow chat. The session's name is our conversation's id, in the token and in
    the request; no two conversations share a token, or a conversation at Coze."""

    def __init__(self) -> None:
        self.tokens = Tokens()

    async def stream(self, call: Call) -> AsyncIterator[ProviderEvent]:
        """Ask, and yield what comes. Raises UpstreamFault for anything but a whole answer.

        A token that is refused is renewed once, and a conversation that Coze has no more is
        begun anew once; both before the first piece.
        """
        access, thread = _read_access(call), _find_thread(call)
        mended: set[int] = set()
        while True:
            began, made = False, ""
            token = await self.tokens.get(call, access)
            try:
                async with aclosing(self._ask(call, token, thread)) as events:
                    async for event in events:
                        began = began or isinstance(event, SPOKEN)
                        if isinstance(event, InThread):
                            made = event.id
                        yield event
                return
            except UpstreamFault as fault:
                mendable = {OUT: bool(access.client), GONE: thread is not None}
                if began or fault.status in mended or not mendable.get(fault.status):
                    raise
                mended.add(fault.status)
                if fault.status == GONE:
                    thread = None
                    continue
                self.tokens.forget(call, access, token)
                if thread is None and made:  # with the old token, and is there
                    thread = Thread(made, call.upstream.name, news=None)

    async def open(self, call: Call) -> str:
        """Have a conversation made: Coze's id for it. A token that is refused is renewed once."""
        access = _read_access(call)
        token = await self.tokens.get(call, access)
        try:
            return await open_conversation(call, token)
        except UpstreamFault as fault:
            if fault.status != OUT or not access.client:
                raise
        self.tokens.forget(call, access, token)
        return await open_conversation(call, await self.tokens.get(call, access))

    async def close(self) -> None:
        """Leave no request behind."""
        await self.tokens.close()

    async def _ask(
        self, call: Call, token: str, thread: Thread | None
    ) -> AsyncGenerator[ProviderEvent]:
        conversation = thread.id if thread else await open_conversation(call, token)
        news = thread.news if thread else None
        body = await build(call, conversation, news, partial(upload, call, token))
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            "Authorization": f"Bearer {token}",
        }
        request = Request(locate(call.upstream, ENDPOINT), body, headers)
        reader = WorkflowReader(Discretion(call.upstream.key, token))
        yield InThread(conversation)
        async with aclosing(converse(call, request, reader)) as events:
            async for event in events:
                yield event


def _find_thread(call: Call) -> Thread | None:
    """Where this upstream keeps the conversation, if it does."""
    thread = call.thread
    return thread if thread and thread.upstream in ("", call.upstream.name) else None


def _read_access(call: Call) -> Access:
    try:
        return read_access(call.dialect)
    except (ValueError, msgspec.ValidationError) as error:
        raise UpstreamFault("bad_request", f"dialect: {error}") from None
