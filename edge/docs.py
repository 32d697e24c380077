"""The page that shows the HTTP interface: Swagger UI from a package, nothing from elsewhere."""

from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route
from swagger_ui_bundle import swagger_ui_path

from edge.openapi import Document, publish
from edge.openapi30 import in_openapi30

OWN = Path(__file__).parent / "swagger"
VENDOR = Path(swagger_ui_path)

# Swagger UI draws its icons from `data:` addresses.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

FILES: Mapping[str, tuple[Path, str]] = {
    "/docs": (OWN / "index.html", "text/html"),
    "/docs/init.js": (OWN / "init.js", "text/javascript"),
    "/docs/swagger-ui-bundle.js": (VENDOR / "swagger-ui-bundle.js", "text/javascript"),
    "/docs/swagger-ui.css": (VENDOR / "swagger-ui.css", "text/css"),
    "/docs/favicon-32x32.png": (VENDOR / "favicon-32x32.png", "image/png"),
}


def documentation(docs: bool, document: Document) -> list[BaseRoute]:
    """Return the routes of `/docs`, none at all if `docs` is off.

    `document` is the published one, in OpenAPI 3.1. The page reads it as `/docs/openapi.json`
    in 3.0, because Swagger UI 4 draws nothing newer.
    """
    if not docs:
        return []
    files = [_file(path, source, media) for path, (source, media) in FILES.items()]
    headers = {**HEADERS, "Cache-Control": "no-cache"}
    return [*files, publish(in_openapi30(document), "/docs/openapi.json", headers)]


def _file(path: str, source: Path, media: str) -> Route:
    # The package has one version; what is ours may change with ours.
    age = "no-cache" if source.parent == OWN else "max-age=86400"

    async def file(request: Request) -> Response:
        return FileResponse(source, media_type=media, headers={**HEADERS, "Cache-Control": age})

    return Route(path, file, methods=["GET"], name=path)
