"""A stream as clients of OpenAI's API read it, byte by byte: its chunks, its error, its end.

Only `data:` lines and comments stand in it: their parsers break on `id:`, `retry:` and `event:`.
"""

from typing import Any

import msgspec

from edge.openai_shapes import CompletionTokens, PromptTokens, TokenUsage
from edge.problem import Refusal, openai_error
from schemas.model import Finish, Usage
from schemas.record import Delta

COMMENT = b":\n\n"
DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class Chunks:
    """Writes the chunks of one answer: the same id, time and model stand on each of them.

    With `usage` each has a field of that name, which is null but on the last one.
    """

    def __init__(self, completion: str, created: int, model: str, *, usage: bool = False) -> None:
        head = {
            "id": completion,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._before = b"data: " + _encode(head)[:-1] + b',"choices":['
        self._after = b'],"usage":null}\n\n' if usage else b"]}\n\n"

    def role(self, index: int) -> bytes:
        """How each choice begins."""
        delta = b'{"role":"assistant","content":"","refusal":null},"logprobs":null'
        return self._chunk(index, delta, b"null")

    def piece(self, index: int, delta: Delta) -> bytes:
        """A piece of an answer, of what its model thinks, or of a call of a tool."""
        if delta.kind == "text":
            return self.add(index, "content", delta.text)
        if delta.kind == "reasoning":
            return self.add(index, "reasoning_content", delta.text)
        return self.add(index, "tool_calls", [_call(delta)])

    def add(self, index: int, field: str, value: Any) -> bytes:
        """What is added to one field of a message."""
        return self._chunk(index, b'{"%b":%b}' % (field.encode(), _encode(value)), b"null")

    def finish(self, index: int, reason: Finish) -> bytes:
        """How each choice ends."""
        return self._chunk(index, b"{}", b'"%b"' % reason.encode())

    def usage(self, usage: TokenUsage) -> bytes:
        """The chunk behind all choices that tells what they took."""
        return self._before + b'],"usage":%b}\n\n' % _encode(usage)

    def _chunk(self, index: int, delta: bytes, reason: bytes) -> bytes:
        choice = b'{"index":%d,"delta":%b,"finish_reason":%b}' % (index, delta, reason)
        return self._before + choice + self._after


def _call(delta: Delta) -> dict[str, Any]:
    if not delta.call:
        return {"index": delta.index, "function": {"arguments": delta.text}}
    function = {"name": delta.name, "arguments": delta.text}
    return {"index": delta.index, "id": delta.call, "type": "function", "function": function}


def error_chunk(refusal: Refusal) -> bytes:
    """What ends a stream that cannot go on. Without it, a client would take it for whole."""
    return b"data: %b\n\n" % bytes(openai_error(refusal).body)


def count(usages: list[Usage]) -> TokenUsage:
    """What several choices took together."""
    prompt, completion = sum(u.prompt for u in usages), sum(u.completion for u in usages)
    return TokenUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokens(cached_tokens=sum(u.cached for u in usages)),
        completion_tokens_details=CompletionTokens(
            reasoning_tokens=sum(u.reasoning for u in usages)
        ),
    )
