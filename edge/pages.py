"""The page at `/`: a chat with several models side by side, made of plain modules of our own.

It speaks only to the routes that any client has. What is said is set as text, never as markup.
"""

from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from edge.docs import HEADERS

FOLDER = Path(__file__).parent / "page"

FILES: Mapping[str, tuple[str, str]] = {
    "/": ("index.html", "text/html"),
    "/page/chat.css": ("chat.css", "text/css"),
    "/page/chat.js": ("chat.js", "text/javascript"),
    "/page/conversation.js": ("conversation.js", "text/javascript"),
    "/page/feed.js": ("feed.js", "text/javascript"),
}


def pages() -> list[BaseRoute]:
    """Return the routes of the page and of what it is made of."""
    return [_file(path, name, media) for path, (name, media) in FILES.items()]


def _file(path: str, name: str, media: str) -> Route:
    async def file(request: Request) -> Response:
        headers = {**HEADERS, "Cache-Control": "no-cache"}
        return FileResponse(FOLDER / name, media_type=media, headers=headers)

    return Route(path, file, methods=["GET"], name=path)
