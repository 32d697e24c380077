"""The one path that two protocols share: who answers is chosen by the request's Content-Type.

A form is Async-Chat's batch, JSON is OpenAI's chat completion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge.auth import CHAT_SEND
from edge.openai_shapes import OpenAIError
from edge.operation import Endpoint, Operation, Parameter
from edge.problem import Refusal, quote, read_media
from schemas.ownership import Arriving

PATH = "/v1/chat/completions"
CONVERSATION = Parameter(
    "X-Conversation-Id",
    Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")],
    "The conversation that a completion (JSON) belongs to; without it, one of its own. A form "
    "names it in its field `conversation_id`.",
)
ARRIVING = Parameter(
    "X-Arriving",
    Arriving,
    "What becomes of it if an answer is on its way in its conversation: it is answered beside it "
    "(`parallel`), after it (`queue`, until then its tasks are PENDING), or in its place "
    "(`interrupt`: what is going ends as aborted). Without it, as the conversation's policy is.",
)


@dataclass(frozen=True)
class Dialect:
    """One way to ask: its media type, who answers, what it takes and answers, and its stream."""

    media: str
    endpoint: Endpoint
    takes: Any
    answers: Any
    stream_event: Any = None


class Chat:
    """The operation of the path, in as many dialects as there are."""

    def __init__(self, *dialects: Dialect) -> None:
        self._dialects: Mapping[str, Dialect] = {each.media: each for each in dialects}

    def operations(self) -> Sequence[Operation]:
        """The table of them: none without a dialect."""
        if not self._dialects:
            return ()
        json, form = (self._dialects.get(m) for m in ("application/json", "multipart/form-data"))
        answers = tuple(dict.fromkeys(each.answers for each in self._dialects.values()))
        return (
            Operation(
                "POST",
                PATH,
                self.complete,
                "Ask one model (as OpenAI does), or several at once by a form",
                description=(
                    "The Content-Type decides: `application/json` is OpenAI's chat completion, "
                    "streaming or not; a form, `multipart/form-data` or URL-encoded, starts a "
                    "batch, and what goes wrong with it is told as problem+json."
                ),
                scope=CHAT_SEND,
                body=json.takes if json else None,
                form=form.takes if form else None,
                headers=(CONVERSATION, ARRIVING),
                answers={200: answers, 404: "There is no such model, or no such conversation"},
                stream_event=json.stream_event if json else None,
                resumable=False,
                error=OpenAIError,
                tag="models",
            ),
        )

    async def complete(self, request: Request) -> Response:
        """Pass a request to its dialect. Raises Refusal 415 for one that nobody speaks."""
        values = request.headers.getlist("content-type")
        media = read_media(values[0]) if len(values) == 1 else ""
        if media not in self._dialects:
            found = quote(", ".join(values))
            expected = " or ".join(self._dialects)
            detail = f"Content-Type is {found}, expected {expected}"
            raise Refusal(
                415, "unsupported_media_type", detail, headers={"Accept": ", ".join(self._dialects)}
            )
        return await self._dialects[media].endpoint(request)
