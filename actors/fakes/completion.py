"""One chat completion as OpenAI and its imitators say it: in chunks, or whole."""

from collections.abc import Iterator
from typing import Any

from actors.fakes.dialects import Dialect
from actors.fakes.frames import Frame, Phase, frame
from actors.fakes.ledger import Asked
from actors.fakes.script import CREATED, THOUGHTS, Script, pieces
from actors.fakes.switches import number

TAGGED = {
    "think": ["<think>", *THOUGHTS, "</think>", "\n\n"],
    "lone": [*THOUGHTS, "</think>", "\n\n"],
    "split": ["<th", "ink>", *THOUGHTS[:-1], f"{THOUGHTS[-1]}</thi", "nk>\n\n"],
}
"""Thoughts within the text, in the ways in which models put them there."""
ARGUMENTS = ('{"city"', ': "Pa', 'ris"}')


class Completion:
    """What is said to one question."""

    def __init__(self, asked: Asked, script: Script, dialect: Dialect) -> None:
        self._asked = asked
        self._script = script
        self._dialect = dialect
        self._switches = asked.switches
        self._said = 0
        self._thought = 0
        # Ollama's ids are numbers below 999.
        self.name = f"chatcmpl-{asked.number % 3 if dialect.collides else f'fake{asked.number}'}"

    # -- in chunks

    def frames(self) -> Iterator[Frame]:
        yield from self._signs_of_life()
        choices = range(self._choices())
        for index in choices:
            yield self._chunk("start", index, {"role": "assistant", "content": ""})
        for delta in self._deltas():
            for index in choices:
                yield self._chunk("text", index, delta)
        if "no-finish" not in self._switches:
            for index in choices:
                yield self._chunk("end", index, {}, self._finish())
        yield from self._usage_chunk()
        if "no-done" not in self._switches:
            yield Frame(b"[DONE]", phase="end")

    def _signs_of_life(self) -> Iterator[Frame]:
        if "wait" in self._switches:
            for _ in range(int(number(self._switches, "wait", 60))):
                yield Frame(b": keep-alive\n\n", phase="wait", raw=True)

    def _deltas(self) -> Iterator[dict[str, Any]]:
        yield from self._thoughts()
        if "refusal" in self._switches:
            yield {"refusal": "I can't help with that."}
        elif "tools" in self._switches:
            yield from self._tool_deltas()
        else:
            for text in self._texts():
                self._said += 1
                yield {"content": text} | self._null(self._dialect.reasoning)

    def _thoughts(self) -> Iterator[dict[str, Any]]:
        way = self._switches.get("reasoning")
        if way is None or way in TAGGED:
            return
        for text in THOUGHTS:
            self._thought += 1
            yield {way or self._dialect.reasoning: text} | self._null("content")

    def _texts(self) -> Iterator[str]:
        way = "split" if "split-think" in self._switches else self._switches.get("reasoning", "")
        yield from TAGGED.get(way, ())
        yield from pieces(self._asked, self._script, last_said(self._asked.body))

    def _null(self, field: str) -> dict[str, Any]:
        """What stands in the field that has nothing to say."""
        return {field: None} if self._dialect.nulls else {}

    def _tool_deltas(self) -> Iterator[dict[str, Any]]:
        for index, call in enumerate(self._calls()):
            if not self._dialect.fragments:
                yield {"role": "assistant", "content": "", "tool_calls": [{"index": index} | call]}
                continue
            function = {"name": call["function"]["name"], "arguments": ""}
            yield {"tool_calls": [{"index": index} | call | {"function": function}]}
            for part in ARGUMENTS:
                yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}

    def _chunk(
        self, phase: Phase, index: int, delta: dict[str, Any], finish: str | None = None
    ) -> Frame:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        said = self._named("chat.completion.chunk") | {"choices": [choice]}
        if self._counts():
            said["usage"] = None
        if "obfuscation" in self._switches:
            said["obfuscation"] = "x7Qm2"
        return frame(said, phase)

    def _usage_chunk(self) -> Iterator[Frame]:
        if self._counts():
            said = {"choices": [], "usage": self._usage()}
            yield frame(self._named("chat.completion.chunk") | said, "end")

    def _counts(self) -> bool:
        """Whether a stream ends with what it used."""
        asked = (self._asked.body.get("stream_options") or {}).get("include_usage")
        return ("usage" in self._switches or bool(asked)) and "no-usage" not in self._switches

    # -- whole

    def whole(self) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": self._message(),
                "logprobs": None,
                "finish_reason": self._finish(),
            }
            for index in range(self._choices())
        ]
        said = self._named("chat.completion") | {"choices": choices}
        return said if "no-usage" in self._switches else said | {"usage": self._usage()}

    def _message(self) -> dict[str, Any]:
        said: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        for delta in self._thoughts():
            field, text = next((name, text) for name, text in delta.items() if text)
            said[field] = said.get(field, "") + text
        if "refusal" in self._switches:
            return said | {"refusal": "I can't help with that."}
        if "tools" in self._switches:
            return said | {"tool_calls": self._calls()}
        texts = list(self._texts())
        self._said = len(texts)
        return said | {"content": "".join(texts)}

    # -- both

    def _named(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.name,
            "object": kind,
            "created": CREATED,
            "model": self._asked.model,
            "system_fingerprint": self._dialect.fingerprint,
        }

    def _choices(self) -> int:
        return int(self._asked.body.get("n") or 1) if self._dialect.many else 1

    def _finish(self) -> str:
        if "finish" in self._switches:
            return self._switches["finish"] or "length"
        return "tool_calls" if "tools" in self._switches else "stop"

    def _calls(self) -> list[dict[str, Any]]:
        tools = self._asked.body.get("tools") or [{"function": {"name": "get_weather"}}]
        function = {"name": tools[0]["function"]["name"], "arguments": "".join(ARGUMENTS)}
        return [
            {"id": f"call_{place}", "type": "function", "function": function}
            for place in range(int(number(self._switches, "tools", 1)))
        ]

    def _usage(self) -> dict[str, Any]:
        prompt = sum(len(said_by(each).split()) for each in self._asked.body["messages"])
        spoken = self._said + self._thought
        said: dict[str, Any] = {
            "prompt_tokens": prompt,
            "completion_tokens": spoken,
            "total_tokens": prompt + spoken,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self._thought},
        }
        if self._dialect.cached:
            said |= {"prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": prompt}
        return said


def last_said(body: dict[str, Any]) -> str:
    """What the user said last."""
    users = [each for each in body["messages"] if each.get("role") == "user"]
    return said_by(users[-1]) if users else ""


def said_by(message: dict[str, Any]) -> str:
    """The text of a message."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if part.get("type") == "text")
