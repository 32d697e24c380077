"""The wire of Google's Gemini: generateContent, whole, as events, or as one long array.

Source: google-genai 3.4.0 and the documents of generativelanguage.googleapis.com.
"""

import re
from typing import Any

from actors.fakes.candidate import Candidate
from actors.fakes.frames import (
    Answer,
    Elements,
    EventStream,
    Frame,
    Streamed,
    Whole,
    encode,
    frame,
)
from actors.fakes.ledger import Asked
from actors.fakes.script import Script

MENU = {
    "blocked": "the question is blocked (for the reason named, SAFETY)",
    "safety": "the answer is blocked (by the finishReason named, SAFETY), without content",
    "max-tokens": "MAX_TOKENS without any text",
    "finish": "the finishReason named (MAX_TOKENS) after all text",
    "reasoning": "thought parts first, asked for or not",
    "tools": "so many (1) function calls",
    "quota": "429: no more today",
    "key": "400: the key is wrong",
    "region": "400: not in this region",
    "no-model": "there is no such model",
    "error-frame": "with error: within a frame instead of raw JSON",
    "models": "a fault for the list of models: models=500",
}
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
GOOGLE = "type.googleapis.com/google.rpc."
PLACE = re.compile("/v1(?:beta|alpha)?/models/(.+):(generateContent|streamGenerateContent)")
METRIC = "generativelanguage.googleapis.com/generate_content_free_tier_requests"


class Gemini:
    """The Gemini API, under every version."""

    base = "/v1beta"
    menu = MENU

    def __init__(self, script: Script) -> None:
        self._script = script

    def model_of(self, asked: Asked) -> str | None:
        found = PLACE.fullmatch(asked.path)
        return found[1] if found and asked.method == "POST" else None

    def part_of(self, asked: Asked) -> str:
        return "models"

    def failure(self, asked: Asked, status: int, hint: str = "", message: str = "") -> Whole:
        details = [_quota("PerMinute")] if status == 429 else []
        if hint:
            delay = re.sub("([0-9]+)ms", lambda found: f"{int(found[1]) / 1000}", hint)
            details.append({"@type": f"{GOOGLE}RetryInfo", "retryDelay": f"{delay}s"})
        return _error(asked, status, message or f"The fake says {status}", details)

    def answer(self, asked: Asked) -> Answer:
        if self._script.key and asked.secret != self._script.key:
            return _bad_key(asked)
        if not asked.generates:
            return self._models(asked)
        if refused := self._refused(asked):
            return refused
        made = Candidate(asked, self._script)
        if not asked.path.endswith(":streamGenerateContent"):
            return Whole(200, encode(made.whole()), media="application/json; charset=UTF-8")
        if asked.query.get("alt") == "sse":
            render = EventStream(asked.switches, b"\r\n")
            return Streamed(made.frames(), render, _mishap(asked), media="text/event-stream")
        media = "application/json; charset=UTF-8"
        said = (frame(_said(500, "An internal error has occurred."), "end"),)
        return Streamed(made.frames(), Elements(), said, b"]", media=media)

    def _refused(self, asked: Asked) -> Whole | None:
        """What is wrong with a question, or said to be."""
        switches = asked.switches
        if "quota" in switches:
            message = "You exceeded your current quota, please check your plan"
            return _error(asked, 429, message, [_quota("PerDay"), _retry("50s")])
        if "key" in switches:
            return _bad_key(asked)
        if "region" in switches:
            message = "User location is not supported for the API use."
            return _error(asked, 400, message, [], "FAILED_PRECONDITION")
        known = self._script.models
        if "no-model" in switches or (known and asked.model not in known):
            message = f"models/{asked.model} is not found for API version v1beta"
            return _error(asked, 404, message, [])
        wrong = _wrong(asked.body)
        return _error(asked, 400, wrong, []) if wrong else None

    def _models(self, asked: Asked) -> Whole:
        models = [{"name": f"models/{name}"} for name in self._script.models or ("demo-1",)]
        methods = {"supportedGenerationMethods": ["generateContent"]}
        if asked.path.endswith("/models"):
            return Whole(200, encode({"models": [model | methods for model in models]}))
        name = asked.path.partition("/models/")[2]
        found = [model for model in models if model["name"] == f"models/{name}"]
        if not found:
            return _error(asked, 404, f"{asked.path} is not found", [])
        return Whole(200, encode(found[0] | methods))


def _wrong(body: Any) -> str:
    """What Gemini does not take of a question; empty if it takes it."""
    if not isinstance(body, dict):
        return "Invalid JSON payload received."
    contents = body.get("contents")
    if not contents:
        return "* GenerateContentRequest.contents: contents is not specified"
    for content in contents:
        if content.get("role", "user") not in {"user", "model"}:
            return "Please use a valid role: user, model."
        if not content.get("parts"):
            return "* GenerateContentRequest.contents.parts: contents.parts must not be empty."
    return ""


def _mishap(asked: Asked) -> tuple[Frame, ...]:
    """How a stream of events fails on the way."""
    said = _said(503, "The model is overloaded. Please try again later.")
    if "error-frame" in asked.switches:
        return (frame(said, "end"),)
    text = (
        '{\n  "error": {\n    "code": 503,\n    "message": "The model is overloaded. Please try'
        ' again later.",\n    "status": "UNAVAILABLE"\n  }\n}\n'
    )
    return (Frame(text.encode(), phase="end", raw=True),)


def _said(
    status: int, message: str, details: list[dict[str, Any]] | None = None, name: str = ""
) -> dict[str, Any]:
    usual = STATUSES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
    said: dict[str, Any] = {"code": status, "message": message, "status": name or usual}
    return {"error": said | ({"details": details} if details else {})}


def _error(
    asked: Asked, status: int, message: str, details: list[dict[str, Any]], name: str = ""
) -> Whole:
    """An error; in an array where the answer would have been one."""
    said: Any = _said(status, message, details, name)
    if asked.path.endswith(":streamGenerateContent") and asked.query.get("alt") != "sse":
        said = [said]
    return Whole(status, encode(said), media="application/json; charset=UTF-8")


def _bad_key(asked: Asked) -> Whole:
    reason = {
        "@type": f"{GOOGLE}ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
    }
    message = "API key not valid. Please pass a valid API key."
    return _error(asked, 400, message, [reason])


def _quota(period: str) -> dict[str, Any]:
    name = f"GenerateRequests{period}PerProjectPerModel-FreeTier"
    return {
        "@type": f"{GOOGLE}QuotaFailure",
        "violations": [{"quotaMetric": METRIC, "quotaId": name}],
    }


def _retry(delay: str) -> dict[str, Any]:
    return {"@type": f"{GOOGLE}RetryInfo", "retryDelay": delay}
