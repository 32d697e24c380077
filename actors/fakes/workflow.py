"""One chat with a workflow as Coze tells it: what happens to the chat, and to its messages."""

from collections.abc import Iterator
from typing import Any

from actors.fakes.frames import Frame, Phase, encode, frame
from actors.fakes.ledger import Asked
from actors.fakes.script import CREATED, THOUGHTS, Script, pieces

DEBUG = "https://www.coze.cn/work_flow?execute_id=1&space_id=2&workflow_id="


class Workflow:
    """What is said to one question."""

    def __init__(self, asked: Asked, script: Script, conversation: str) -> None:
        self._asked = asked
        self._script = script
        self._switches = asked.switches
        self._conversation = conversation
        self._chat = str(7600000000000000000 + asked.number)
        self._said: list[str] = []

    def frames(self) -> Iterator[Frame]:
        yield self._state("created", "start")
        yield self._state("in_progress", "start")
        if "verbose" in self._switches:
            yield self._verbose("knowledge_recall", "start")
        yield from self._deltas()
        if "failed" in self._switches:
            yield self._state("failed", "end", "workflow failed")
        elif "requires-action" in self._switches:
            yield self._state("requires_action", "end")
        else:
            yield from self._completed()
        if "no-done" not in self._switches and "no-end" not in self._switches:
            yield self._done()

    def _deltas(self) -> Iterator[Frame]:
        if "reasoning" in self._switches:
            for text in THOUGHTS:
                yield self._message("delta", "answer", "", "text", reasoning_content=text)
        for text in pieces(self._asked, self._script, self._last_said()):
            self._said.append(text)
            if "ping" in self._switches:
                yield Frame(b"{}", "ping", "start")
            if "no-delta" not in self._switches:
                yield self._message("delta", "answer", text, "text")

    def _completed(self) -> Iterator[Frame]:
        yield self._message("completed", "answer", "".join(self._said), "end")
        yield self._verbose("generate_answer_finish", "end")
        if "follow-up" in self._switches:
            for text in ("And then?", "Why?"):
                yield self._message("completed", "follow_up", text, "end")
        if "no-end" not in self._switches:
            yield self._state("completed", "end")

    def _state(self, status: str, phase: Phase, error: str = "") -> Frame:
        """What happens to the chat."""
        output, question = len(self._said), len(self._last_said().split())
        ended = {"completed": "completed_at", "failed": "failed_at"}
        counts = (output + question, output, question) if status in ended else (0, 0, 0)
        names = ("token_count", "output_count", "input_count")
        said: dict[str, Any] = {
            "id": self._chat,
            "conversation_id": self._conversation,
            "created_at": CREATED,
            "last_error": {"code": 5000 if error else 0, "msg": error},
            "status": status,
            "usage": dict(zip(names, counts, strict=True)),
            "section_id": self._conversation,
        }
        if status in ended:
            said[ended[status]] = CREATED + 1
        return frame(said, phase, f"conversation.chat.{status}")

    def _message(self, what: str, kind: str, content: str, phase: Phase, **more: str) -> Frame:
        said = {
            "id": f"{self._chat}1" if kind == "answer" else f"{self._chat}2",
            "conversation_id": self._conversation,
            "role": "assistant",
            "type": kind,
            "content": content,
            "content_type": "text",
            "chat_id": self._chat,
            "section_id": self._conversation,
            "created_at": CREATED + 1,
        }
        return frame(said | more, phase, f"conversation.message.{what}")

    def _verbose(self, kind: str, phase: Phase) -> Frame:
        data = encode({"finish_reason": 0}).decode()
        said = {"msg_type": kind, "data": data, "from_module": None, "from_unit": None}
        return self._message("completed", "verbose", encode(said).decode(), phase)

    def _done(self) -> Frame:
        if "done-text" in self._switches:
            return Frame(b'"[DONE]"', "done", "end")
        return frame({"debug_url": f"{DEBUG}{self._asked.model}"}, "end", "done")

    def _last_said(self) -> str:
        return str(self._asked.body["additional_messages"][-1].get("content", ""))
