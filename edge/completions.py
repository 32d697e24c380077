"""Chat completions as OpenAI's clients ask for them: read, made a batch of one model, answered.

Next: `edge/prompting.py` for what is read, `edge/exchange.py` for how it is asked.
"""

import re
import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from edge.asking import answer, fingerprint, wait_for_bus
from edge.auth import principal_of
from edge.body import read_json
from edge.catalog import Catalog, Offer
from edge.chat import Dialect
from edge.exchange import ROUTE, Exchange, Question
from edge.keeping import Keeping
from edge.openai_shapes import ChatChunk, ChatCompletion, ChatRequest
from edge.parameters import read_arriving, read_idempotency_key
from edge.problem import Refusal, field_at, quote
from edge.prompting import draft, invalid, read_settings
from edge.room import Room
from edge.shared import Shared
from edge.sse import IN_TOTAL
from edge.streaming import CompletionStream
from edge.telling import Broken
from edge.whole import complete, processing, until_answered
from runtime.bus import message_id, new_id
from runtime.objects import FileStore
from runtime.tables import FilesTable
from schemas.base import Address
from schemas.conversation import COMPLETION, SESSION, OpenBatch
from schemas.model import Prompt

MOST_BYTES = 20 * 1024 * 1024
"""Of one request, with the files that stand in it."""
MOST_BYTES_AT_ONCE = 256 * 1024 * 1024
HEADER = "x-conversation-id"
FIELD = "conversation_id"
CONVERSATION = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Completions:
    """Answers chat completions in JSON, whole or as a stream."""

    def __init__(
        self, shared: Shared, catalog: Catalog, files: FileStore, limits: FilesTable
    ) -> None:
        self._shared = shared
        self._catalog = catalog
        self._keeping = Keeping(files, limits)
        self._room = Room(MOST_BYTES_AT_ONCE)

    def dialect(self) -> Dialect:
        """How the path of chat completions answers JSON."""
        return Dialect("application/json", self.complete, ChatRequest, ChatCompletion, ChatChunk)

    async def complete(self, request: Request) -> Response:
        """Answer a completion. Raises Refusal, BusFault."""
        began = time.perf_counter()
        request.state.patient = True
        with self._room.held() as count:
            asked = await _read(request, count)
            await wait_for_bus(self._shared.bus)
            offer = await self._catalog.find(asked.model)
            question = await self._make_question(request, asked, offer)
        exchange = Exchange(self._shared, request, question)
        if asked.stream:
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return CompletionStream(self._shared, exchange, asked.model, usage=usage, began=began)
        return await self._answer(request, exchange, asked.model, began)

    async def _make_question(self, request: Request, asked: ChatRequest, offer: Offer) -> Question:
        """What a session is asked, whose parts are stored then. Raises Refusal 400, 503."""
        to, named = await self._conversation(request, asked)
        drafts = draft(asked)
        keeping = self._keeping.of(principal_of(request))
        messages = await keeping.utterances(drafts)
        said = messages[-1] if named and messages[-1].role == "user" else None
        message = OpenBatch(
            tasks=tuple(offer.wanted(asked.model, slot) for slot in range(asked.n or 1)),
            prompt=await keeping.prompt(Prompt(messages=messages, settings=read_settings(asked))),
            said=await keeping.said(said) if said else None,
            whole=True,
            arriving=read_arriving(request),
        )
        # Without a key it is nobody's repeat; and its files have other names each time.
        bodyhash = fingerprint(asked) if read_idempotency_key(request) else ""
        return Question(to, message, bodyhash)

    async def _conversation(self, request: Request, asked: ChatRequest) -> tuple[Address, bool]:
        """Who is asked: the conversation that the client names, or one for this request alone."""
        named = _read_conversation(request, asked)
        actor = SESSION if named else COMPLETION
        if await self._shared.deployed.find(actor) is None:
            detail = f"no actor {actor!r} is deployed, which keeps conversations of this kind"
            raise Refusal(503, "not_deployed", detail)
        if named:
            return Address(SESSION, named), True
        key = read_idempotency_key(request)
        made = message_id(principal_of(request).id, ROUTE, key) if key else new_id()
        return Address(COMPLETION, made), False

    async def _answer(
        self, request: Request, exchange: Exchange, model: str, began: float
    ) -> Response:
        """Answer as a whole, unless the client leaves before."""
        with self._shared.completions.seat(exchange, None, IN_TOTAL):
            try:
                async with exchange:
                    outcome = await until_answered(request, exchange)
                    made = answer(complete(exchange, outcome, model))
            except Broken as broken:
                raise broken.refusal from None
        made.headers.update(processing(began))
        return made


async def _read(request: Request, count: Callable[[int], None]) -> ChatRequest:
    """Return what is asked. Raises Refusal 400 for what is not as it should be, 413."""
    try:
        asked: ChatRequest = await read_json(request, ChatRequest, MOST_BYTES, count=count)
    except Refusal as refusal:
        if refusal.code != "invalid_field":
            raise
        # What others call 422, OpenAI calls 400, and its clients know no other.
        fault = refusal.members["errors"][0]
        if "pointer" not in fault:
            raise Refusal(400, refusal.code, refusal.detail) from None
        raise invalid(field_at(fault["pointer"]), fault["detail"]) from None
    return asked


def _read_conversation(request: Request, asked: ChatRequest) -> str:
    """The conversation that a client names, nothing if it names none. Raises Refusal 400."""
    values = [(HEADER, value) for value in request.headers.getlist(HEADER)]
    if asked.metadata and FIELD in asked.metadata:
        values.append((f"metadata.{FIELD}", asked.metadata[FIELD]))
    for place, value in values:
        if not isinstance(value, str) or not CONVERSATION.fullmatch(value):
            shown = quote(value) if isinstance(value, str) else type(value).__name__
            raise invalid(place, f"is {shown}, expected 1 to 64 letters, digits, _ or -")
        if value != values[0][1]:
            raise invalid(place, "names another conversation than the header does")
    return str(values[0][1]) if values else ""
