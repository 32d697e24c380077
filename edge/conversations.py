"""Conversations: the list of them, what was said, and everything as it is being said."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge.asking import answer, ask_for, wait_for_bus
from edge.auth import CHAT_ALL, CHAT_READ, CHAT_SEND, Principal, principal_of, stream_owner
from edge.batch_shapes import (
    AbortedView,
    ArrivingPolicy,
    ConversationEntry,
    ConversationList,
    HistoryEntry,
    Snapshot,
)
from edge.batches import abort, read_reason
from edge.body import LIMIT as MOST_BODY
from edge.body import read_json
from edge.company import WithPresence, accompany
from edge.feeds import join_feed
from edge.newest import read_newest
from edge.operation import Endpoint, Operation, Parameter
from edge.parameters import read_cursor, read_int
from edge.remembered import NO_CONVERSATION, Remembered, may_read, read_key
from edge.shared import Shared
from edge.sse import PER_KEY, EventStream
from edge.standing import MOST_BYTES, Standing
from schemas import subjects
from schemas.arriving import SetArriving
from schemas.assist import ThreadFailed, ThreadOpened
from schemas.base import Address
from schemas.conversation import SESSION, Abort, ConversationEvent
from schemas.envelope import Envelope
from schemas.model import conversation_topic
from schemas.record import Delta, RunStarted, RunSuperseded
from schemas.session import SessionState

TAG = "conversations"
ID = Parameter("conversation_id", str, "The id of the conversation.")
MOST_LISTED = 200
MOST_LOOKED_AT = 1000
"""Conversations that are looked at for those that somebody may see."""
MOST_HISTORY = 1000
UNNAMED = "新对话"

LIMIT = Parameter(
    "limit",
    Annotated[int, msgspec.Meta(ge=1, le=MOST_LISTED)],
    f"How many at most. The newest {MOST_LOOKED_AT} of all are looked at.",
    default=20,
)
MESSAGES = Parameter(
    "limit",
    Annotated[int, msgspec.Meta(ge=1, le=MOST_HISTORY)],
    "How many of the newest messages at most.",
    default=MOST_HISTORY,
)
VIEWED = "See how a conversation stands, as a follower is told it first"
FOLLOWED = (
    "Without a cursor the first event is a `reset`, whose `snapshot` tells what was said and what "
    "running models have said so far; then comes what is said from then on. A `reset` comes too "
    "where the log no longer reaches back to the cursor. Pieces of an answer (`run.delta`) are "
    "numbered from 1 in each attempt of a run; `run.superseded` and `task.moved` mean that what "
    "was said before is to be discarded. Beside that, without ids and never again, come `presence` "
    "(who looks on) and `typing`."
)


class ConversationFact(
    Envelope[ConversationEvent | RunStarted | RunSuperseded | Delta | ThreadOpened | ThreadFailed],
    frozen=True,
    kw_only=True,
):
    """One event of a conversation; a `reset` has a `reason` and a `snapshot` instead."""


class Conversing:
    """The operations on conversations."""

    def __init__(self, shared: Shared, remembered: Remembered) -> None:
        self._shared = shared
        self._remembered = remembered
        self._standing = Standing(shared.bus, remembered)

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            Operation(
                "GET",
                "/v1/conversations",
                self.list_newest,
                "List conversations, the one that changed last first",
                name="conversations",
                scope=CHAT_READ,
                answers={200: ConversationList},
                query=(LIMIT,),
                tag=TAG,
            ),
            _read("", self.view, VIEWED, "conversation", answers={200: Snapshot}),
            _read(
                "/history",
                self.history,
                "Read what was said in a conversation",
                "history",
                answers={200: list[HistoryEntry]},
                query=(MESSAGES,),
            ),
            _read(
                "/events",
                self.follow,
                "Follow a conversation, from how it stands now or from a cursor",
                "follow_conversation",
                description=FOLLOWED,
                answers={200: "Its events, each with its sequence as the id"},
                stream_event=ConversationFact,
            ),
            abort(
                "conversations/{conversation_id}",
                self.abort_conversation,
                "Stop whoever is speaking in a conversation",
                NO_CONVERSATION,
            ),
            _choose_arriving(self.set_arriving),
        )

    async def list_newest(self, request: Request) -> Response:
        """Answer the conversations that changed last."""
        limit = read_int(request, "limit", default=20, low=1, high=MOST_LISTED)
        await wait_for_bus(self._shared.bus)
        return answer(ConversationList(await self._newest(principal_of(request), limit)))

    async def history(self, request: Request) -> Response:
        """Answer what was said, and what is about to be."""
        limit = read_int(request, "limit", default=MOST_HISTORY, low=1, high=MOST_HISTORY)
        id = str(request.path_params["conversation_id"])
        state = await self._remembered.conversation(principal_of(request), id)
        return answer(await self._standing.history(request, id, state, limit))

    async def view(self, request: Request) -> Response:
        """Answer what was said by now, what is being said, and the cursor to go on from."""
        id = str(request.path_params["conversation_id"])
        await self._remembered.conversation(principal_of(request), id)
        return answer((await self._standing.snapshot(request, id)).data)

    async def follow(self, request: Request) -> EventStream:
        """Answer a stream of what happens in a conversation."""
        id, after = str(request.path_params["conversation_id"]), read_cursor(request)
        principal = principal_of(request)

        async def open_source() -> WithPresence:
            await self._remembered.conversation(principal, id)
            topic, shared = conversation_topic(id), self._shared
            feed = await join_feed(
                shared.hub, topic, after, lambda: self._standing.snapshot(request, id)
            )
            return accompany(feed, shared.presence, id, principal)

        owner = stream_owner(request)
        return EventStream(self._shared.streams, owner, open_source, most=PER_KEY)

    async def abort_conversation(self, request: Request) -> Response:
        """Stop every run of a conversation."""
        id = str(request.path_params["conversation_id"])
        reason = await read_reason(request)
        await self._remembered.conversation(principal_of(request), id)
        bus, to = self._shared.bus, Address(SESSION, id)
        done = await ask_for(request, bus, "abort", to, Abort(reason=reason))
        return answer(AbortedView(list(done.runs), list(done.tasks)))

    async def set_arriving(self, request: Request) -> Response:
        """Give a conversation a policy of its own."""
        id = str(request.path_params["conversation_id"])
        asked: ArrivingPolicy = await read_json(request, ArrivingPolicy, MOST_BODY)
        await self._remembered.conversation(principal_of(request), id)
        to, message = Address(SESSION, id), SetArriving(arriving=asked.arriving)
        done = await ask_for(request, self._shared.bus, "arriving", to, message)
        return answer(ArrivingPolicy(done.arriving))

    async def _newest(self, principal: Principal, limit: int) -> list[ConversationEntry]:
        """Each change writes a record anew, so they stand in the stream by their last one."""
        bus, subject = self._shared.bus, subjects.state(SESSION, "*")
        everything = CHAT_ALL in principal.scopes
        count = min(2 * limit if everything else MOST_LOOKED_AT, MOST_LOOKED_AT)
        records = await read_newest(bus, subject, count, MOST_BYTES)
        found: list[ConversationEntry] = []
        for stored in reversed(records):
            state = await self._remembered.decode_state(SESSION, stored, SessionState)
            id = read_key(stored)
            if state is not None and may_read(principal, id, state):
                entry = ConversationEntry(
                    conversation_id=id, title=state.title or UNNAMED, modified=state.modified
                )
                found.append(entry)
            if len(found) == limit:
                break
        return found


def _read(
    path: str, endpoint: Endpoint, summary: str, name: str, *, answers: dict[int, Any], **rest: Any
) -> Operation:
    return Operation(
        "GET",
        f"/v1/conversations/{{conversation_id}}{path}",
        endpoint,
        summary,
        name=name,
        scope=CHAT_READ,
        answers={**answers, 404: NO_CONVERSATION},
        variables=(ID,),
        tag=TAG,
        **rest,
    )


def _choose_arriving(endpoint: Endpoint) -> Operation:
    return Operation(
        "POST",
        "/v1/conversations/{conversation_id}/arriving",
        endpoint,
        "Say what becomes of messages that come while one is answered",
        scope=CHAT_SEND,
        body=ArrivingPolicy,
        answers={200: ArrivingPolicy, 404: NO_CONVERSATION},
        variables=(ID,),
        tag=TAG,
    )
