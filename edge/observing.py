"""What is done to every request: a name, a trace, safe headers, and a word if it was slow."""

import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.problem import quote
from runtime.bus import new_id

log = structlog.get_logger("edge")

SLOW = 1.0

# W3C trace context 3.2.2. Later versions may be longer; what we know of them is the beginning.
TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
LONGEST_TRACEPARENT = 256

ALWAYS = {
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Observing:
    """Middleware: each request gets an id, which its answer and its log lines carry.

    `request.state.traceparent` is the client's if it is valid, else empty. An answer that took
    longer than a second is logged, unless its endpoint said that it would wait
    (`request.state.patient`).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, began = new_id(), time.perf_counter()
        state = scope.setdefault("state", {})
        state.update(request_id=request_id, traceparent=read_traceparent(Headers(scope=scope)))

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        with structlog.contextvars.bound_contextvars(request=request_id):
            try:
                await self._app(scope, receive, send_marked)
            finally:
                _report(scope, time.perf_counter() - began)


def read_traceparent(headers: Headers) -> str:
    """Return the trace a client says its request is part of; nothing if it is not valid."""
    values = headers.getlist("traceparent")
    if len(values) != 1 or len(values[0]) > LONGEST_TRACEPARENT:
        return ""
    found = TRACEPARENT.match(values[0])
    if found is None:
        return ""
    rest = values[0][found.end() :]
    # Version 00 ends here; a later one may go on, behind a dash.
    later = values[0][:2] != "00" and rest.startswith("-")
    return f"00{found[0][2:]}" if not rest or later else ""


def _report(scope: Scope, took: float) -> None:
    if took > SLOW and not scope["state"].get("patient"):
        log.warning(
            "request_slow",
            method=scope["method"],
            path=quote(scope["path"]),
            seconds=round(took, 3),
        )
