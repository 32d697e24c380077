"""Coze's wire: tokens for signed claims, conversations, and the chat of a workflow as events.

Source: cozepy 0.20.0, coze-studio 4f786d6a9 (server side).
"""

import time
from typing import Any

import msgspec

from actors.fakes.claims import read_claims
from actors.fakes.frames import Answer, EventStream, Streamed, Whole, encode, frame
from actors.fakes.ledger import Asked
from actors.fakes.script import CREATED, Script
from actors.fakes.switches import number
from actors.fakes.workflow import Workflow

MENU = {
    "verbose": "a message of what goes on inside, before and after the answer",
    "follow-up": "suggestions after the answer",
    "failed": "conversation.chat.failed after the pieces",
    "requires-action": "conversation.chat.requires_action after the pieces",
    "number": "with error: its code as a number",
    "no-delta": "the answer in its completed message only",
    "no-end": "a completed message, and no end of the chat",
    "no-done": "no done at the end",
    "done-text": 'done with the text "[DONE]"',
    "ping": "a ping before each piece",
    "reasoning": "thoughts first",
    "json": "instead of a stream, JSON under 200 with this code (700012006)",
    "token": "a fault for tokens: token=401, token=expires=3600, token=relative",
    "files": "a fault for uploads: files=500",
    "create": "a fault for new conversations: create=500, create=json",
    "expires": "for tokens: so many seconds of life, whatever was asked for",
    "relative": "for tokens: expires_in is a duration",
    "error_code": "for tokens: the error_code named, under 401",
}
CODES = {400: 4000, 401: 4100, 403: 4101, 404: 4200, 429: 4013}
WORDS = {
    4000: "Request parameter error",
    4100: "authentication is invalid",
    4101: "permission denied",
    4200: "resource not found",
    4013: "rate limit exceeded",
}
FILES = "/v1/files/upload"
TOKEN = "/api/permission/oauth2/token"
SHARED = "7543000000000000000"
"""The conversation that everybody gets who names none."""


class Coze:
    """Coze, international or Chinese. `public_key` (PEM) checks the signatures of claims, and
    `audience` whom they are for, where they are given."""

    base = ""
    menu = MENU

    def __init__(self, script: Script, *, public_key: str = "", audience: str = "") -> None:
        self._script = script
        self._public_key = public_key
        self._audience = audience
        self._tokens: dict[str, tuple[str, float]] = {}
        self._made = 0
        self.claims: list[dict[str, Any]] = []
        self.conversations: dict[str, str] = {}
        self.files: list[str] = []

    def revoke(self) -> None:
        """Let no token given so far be good any more."""
        self._tokens.clear()

    def model_of(self, asked: Asked) -> str | None:
        if asked.method != "POST" or asked.path != "/v1/workflows/chat":
            return None
        return str(asked.body.get("workflow_id", "")) if isinstance(asked.body, dict) else ""

    def part_of(self, asked: Asked) -> str:
        parts = {TOKEN: "token", FILES: "files"}
        return parts.get(asked.path, "create")

    def failure(self, asked: Asked, status: int, hint: str = "", message: str = "") -> Whole:
        if asked.path == TOKEN:
            return _no_token(status, "invalid_request", message or f"The fake says {status}")
        return _error(asked, status, CODES.get(status, status), message)

    def answer(self, asked: Asked) -> Answer:
        if asked.path == TOKEN and asked.method == "POST":
            return self._give_token(asked)
        if (session := self._session(asked)) is None:
            return _error(asked, 401, 4100)
        asked.note = session
        if "json" in asked.switches:
            return _error(asked, 200, int(number(asked.switches, "json", 700012006)))
        if asked.generates:
            return self._chat(asked)
        if (asked.method, asked.path) == ("POST", "/v1/conversation/create"):
            return self._create(asked, session)
        if (asked.method, asked.path) == ("POST", FILES):
            return self._keep_file(asked)
        return _error(asked, 404, 4200)

    def _give_token(self, asked: Asked) -> Whole:
        """A token of a session for claims that hold, good until an absolute time."""
        claims, wrong = read_claims(asked.secret, self._public_key, self._audience)
        if wrong or "error_code" in asked.switches:
            code = asked.switches.get("error_code", "") or "invalid_client"
            return _no_token(401, code, wrong or "The client is not who it says")
        self.claims.append(claims)
        self._made += 1
        lasts = number(asked.switches, "expires", asked.body.get("duration_seconds", 900))
        until = time.time() + lasts
        token = f"czs_fake{self._made}"
        asked.note = str(claims.get("session_name", ""))
        self._tokens[token] = (asked.note, until)
        expires = lasts if "relative" in asked.switches else until
        said = {"access_token": token, "expires_in": int(expires), "token_type": "Bearer"}
        return Whole(200, encode(said), _headers(asked))

    def _session(self, asked: Asked) -> str | None:
        """The session whose token a request has; None if it is no good."""
        if self._script.key and asked.secret == self._script.key:
            return ""
        session, until = self._tokens.get(asked.secret, ("", 0.0))
        return session if until > time.time() else None

    def _create(self, asked: Asked, session: str) -> Whole:
        name = str(int(SHARED) + 1 + len(self.conversations))
        self.conversations[name] = session
        data = {"id": name, "created_at": CREATED, "meta_data": {}, "last_section_id": name}
        said = {"code": 0, "msg": "", "data": data, "detail": {"logid": _logid(asked)}}
        return Whole(200, encode(said), _headers(asked))

    def _keep_file(self, asked: Asked) -> Whole:
        media = asked.headers.get("content-type", "")
        if (
            not media.startswith("multipart/form-data; boundary=")
            or b'name="file"' not in asked.body
        ):
            return _error(asked, 200, 4000, "Request parameter error: file is required")
        name = str(int(SHARED) + 10**6 + len(self.files))
        self.files.append(name)
        data = {"id": name, "bytes": len(asked.body), "created_at": CREATED, "file_name": "file"}
        said = {"code": 0, "msg": "", "data": data, "detail": {"logid": _logid(asked)}}
        return Whole(200, encode(said), _headers(asked))

    def _chat(self, asked: Asked) -> Answer:
        if wrong := _wrong(asked.body, set(self.conversations), set(self.files)):
            return _error(asked, *wrong)
        known = self._script.models
        if known and asked.model not in known:
            return _error(asked, 200, 4200, f"workflow {asked.model} does not exist")
        chat = Workflow(asked, self._script, asked.body.get("conversation_id") or SHARED)
        code: int | str = 5000 if "number" in asked.switches else "5000"
        said = {"code": code, "msg": "Internal service error", "debug_url": ""}
        mishap = (frame(said, "end", "error"),)
        render = EventStream(asked.switches)
        media = "text/event-stream; charset=utf-8"
        return Streamed(chat.frames(), render, mishap, headers=_headers(asked), media=media)


def _wrong(
    body: dict[str, Any], conversations: set[str], files: set[str]
) -> tuple[int, int, str] | None:
    """HTTP status, code and words of what Coze does not take of a question."""
    messages = body.get("additional_messages")
    if not body.get("workflow_id"):
        return 200, 4000, "Request parameter error: workflow_id is required"
    if not messages or len(messages) > 50 or messages[-1].get("role") != "user":
        return 200, 4000, "Request parameter error: additional_messages must end with the user's"
    if bool(body.get("app_id")) == bool(body.get("bot_id")):
        return 200, 4000, "Request parameter error: one of app_id and bot_id is required"
    for message in messages:
        if message.get("content_type") == "object_string" and _unknown(message["content"], files):
            return 200, 4000, "Request parameter error: content is not valid"
    named = body.get("conversation_id")
    if named and named not in conversations | {SHARED}:
        return 200, 103000002, "conversation not found"
    return None


def _unknown(content: str, files: set[str]) -> bool:
    """Whether an object_string names a file that is not there, or is none."""
    try:
        parts = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return True
    return any(
        part["type"] != "text" and part.get("file_id") not in files and not part.get("file_url")
        for part in parts
    )


def _error(asked: Asked, status: int, code: int, message: str = "") -> Whole:
    words = message or WORDS.get(code, "authentication failed" if code == 700012006 else "failed")
    said = {"code": code, "msg": words, "detail": {"logid": _logid(asked)}}
    return Whole(status, encode(said), _headers(asked), "application/json; charset=utf-8")


def _no_token(status: int, code: str, message: str) -> Whole:
    said = {"error_code": code, "error_message": message, "error": code}
    return Whole(status, encode(said), media="application/json; charset=utf-8")


def _headers(asked: Asked) -> dict[str, str]:
    return {"x-tt-logid": _logid(asked)}


def _logid(asked: Asked) -> str:
    return f"20261120{asked.number:026d}"
