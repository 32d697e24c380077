"""What a fake upstream can be asked about itself over HTTP, where it runs as a process of its own.

GET /fake/calls, GET /fake/menu, POST /fake/release?count=1, POST /fake/open, POST /fake/forget
"""

from typing import TYPE_CHECKING, Any

from actors.fakes.frames import Whole, encode
from actors.fakes.ledger import Asked
from actors.fakes.switches import number
from runtime.errors import ConfigError

if TYPE_CHECKING:
    from actors.fakes.upstream import Upstream

HIDDEN = {"secret"}


def control(upstream: "Upstream", asked: Asked) -> Whole:
    """The answer to a request about the fake itself."""
    try:
        return _do(upstream, asked)
    except ConfigError as error:
        return Whole(400, encode({"error": str(error)}))


def _do(upstream: "Upstream", asked: Asked) -> Whole:
    match asked.method, asked.path.removeprefix("/fake/"):
        case "GET", "calls":
            return Whole(200, encode([told(call) for call in upstream.calls]))
        case "GET", "menu":
            return Whole(200, encode(upstream.menu))
        case "POST", "release":
            upstream.release(int(number(asked.query, "count", 1)))
        case "POST", "open":
            upstream.open()
        case "POST", "forget":
            upstream.calls.clear()
        case _:
            return Whole(404, encode({"error": f"there is no {asked.method} {asked.path}"}))
    return Whole(200, encode({"status": "ok"}))


def told(call: Asked) -> dict[str, Any]:
    """A call for others to read, without its secret."""
    body = call.body if not isinstance(call.body, bytes) else {"bytes": len(call.body)}
    names = [name for name in Asked.__slots__ if name not in HIDDEN]
    return {name: getattr(call, name) for name in names} | {"body": body}
