"""One answer as Gemini says it: in frames that each hold a candidate, or whole."""

from collections.abc import Iterator
from typing import Any

from actors.fakes.frames import Frame, Phase, frame
from actors.fakes.ledger import Asked
from actors.fakes.script import THOUGHTS, Script, pieces
from actors.fakes.switches import number


class Candidate:
    """What is said to one question. Both camelCase and snake_case are understood in it."""

    def __init__(self, asked: Asked, script: Script) -> None:
        self._asked = asked
        self._script = script
        self._switches = asked.switches
        self._said = 0
        self._thought = 0

    def frames(self) -> Iterator[Frame]:
        if silent := self._silent():
            yield frame(silent, "end")
            return
        parts = self._parts()
        part = next(parts)
        for following in parts:
            yield self._frame("text", part)
            part = following
        yield self._frame("last", part, self._finish())

    def whole(self) -> dict[str, Any]:
        """The same as one object, pieces of text joined."""
        if silent := self._silent():
            return silent
        parts: list[dict[str, Any]] = []
        for part in self._parts():
            if parts and "text" in part and parts[-1].get("thought") == part.get("thought"):
                parts[-1] = parts[-1] | {"text": parts[-1]["text"] + part["text"]}
            else:
                parts.append(part)
        return self._about([self._candidate(parts, self._finish())])

    def _silent(self) -> dict[str, Any] | None:
        """What comes instead of any text."""
        if "blocked" in self._switches:
            reason = {"blockReason": self._switches["blocked"] or "SAFETY"}
            return self._about([]) | {"promptFeedback": reason}
        finish = self._switches.get("safety")
        if finish is not None or "max-tokens" in self._switches:
            name = "MAX_TOKENS" if finish is None else finish or "SAFETY"
            return self._about([{"finishReason": name, "index": 0}])
        return None

    def _parts(self) -> Iterator[dict[str, Any]]:
        if self._thinks():
            for text in THOUGHTS:
                self._thought += 1
                yield {"text": text, "thought": True}
        if "tools" in self._switches:
            for _ in range(int(number(self._switches, "tools", 1))):
                yield {"functionCall": {"name": self._tool(), "args": {"city": "Paris"}}}
            return
        for text in pieces(self._asked, self._script, self._last_said()):
            self._said += 1
            yield {"text": text}

    def _frame(self, phase: Phase, part: dict[str, Any], finish: str = "") -> Frame:
        return frame(self._about([self._candidate([part], finish)]), phase)

    def _candidate(self, parts: list[dict[str, Any]], finish: str) -> dict[str, Any]:
        said: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
        return said | ({"finishReason": finish} if finish else {})

    def _about(self, candidates: list[dict[str, Any]]) -> dict[str, Any]:
        prompt = len(" ".join(self._texts()).split())
        usage = {"promptTokenCount": prompt}
        if self._said:
            usage["candidatesTokenCount"] = self._said
        if self._thought:
            usage["thoughtsTokenCount"] = self._thought
        usage["totalTokenCount"] = prompt + self._said + self._thought
        said = {
            "usageMetadata": usage,
            "modelVersion": self._asked.model,
            "responseId": f"r{self._asked.number}",
        }
        return ({"candidates": candidates} if candidates else {}) | said

    def _finish(self) -> str:
        return self._switches["finish"] or "MAX_TOKENS" if "finish" in self._switches else "STOP"

    def _thinks(self) -> bool:
        config = either(self._asked.body, "generationConfig")
        wanted = either(either(config, "thinkingConfig"), "includeThoughts")
        return bool(wanted) or "reasoning" in self._switches

    def _tool(self) -> str:
        for tool in self._asked.body.get("tools") or ():
            for declared in either(tool, "functionDeclarations"):
                return str(declared["name"])
        return "get_weather"

    def _texts(self) -> list[str]:
        """The texts of the question, the last said last."""
        parts = [part for each in self._asked.body["contents"] for part in each["parts"]]
        return [part["text"] for part in parts if "text" in part]

    def _last_said(self) -> str:
        texts = self._texts()
        return texts[-1] if texts else ""


def either(said: Any, name: str) -> Any:
    """A field under its name in camelCase or in snake_case; an empty object without it."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return said.get(name, said.get(snake, {}))
