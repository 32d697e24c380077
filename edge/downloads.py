"""Files as they are had back: never shown by a browser as a page, only ever saved or embedded."""

from collections.abc import Sequence
from urllib.parse import quote as percent

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge.asking import wait_for_bus
from edge.auth import CHAT_READ, Principal, principal_of
from edge.operation import Operation, Parameter
from edge.outflow import Write, pour
from edge.problem import Refusal
from edge.remembered import may_see
from edge.shared import Shared
from edge.utterances import FILES_PATH
from runtime.errors import FileFault
from runtime.objects import FileStore
from schemas.model import FileRef

TAG = "files"
ID = Parameter("file_id", str, "The id of the file, as it stands at the end of its URL.")
NO_FILE = "File not found"
GONE = "There is no such file, or its time is over"


class Downloads:
    """The operation that gives a file back."""

    def __init__(self, shared: Shared, store: FileStore) -> None:
        self._shared = shared
        self._store = store

    def operations(self) -> Sequence[Operation]:
        """The table of it."""
        return (
            Operation(
                "GET",
                FILES_PATH + "{file_id}",
                self.get,
                "Get a file that was uploaded, or that a model made",
                name="file",
                scope=CHAT_READ,
                answers={200: "Its content", 404: GONE},
                media="application/octet-stream",
                variables=(ID,),
                tag=TAG,
            ),
        )

    async def get(self, request: Request) -> Response:
        """Answer a file's content, piece by piece."""
        await wait_for_bus(self._shared.bus)
        ref = await self._find(str(request.path_params["file_id"]), principal_of(request))
        if request.method == "HEAD":
            return Response(headers=_headers(ref))
        return Content(self._store, ref)

    async def _find(self, id: str, principal: Principal) -> FileRef:
        try:
            ref = await self._store.find(id)
            if ref is not None and may_see(principal, await self._store.owner(id)):
                return ref
        except FileFault as fault:
            raise Refusal(500, "file_damaged", f"{fault}") from None
        raise Refusal(404, "file_not_found", NO_FILE)


class Content(Response):
    """An answer that holds a piece of a file at a time."""

    def __init__(self, store: FileStore, ref: FileRef) -> None:
        self.status_code, self.background = 200, None
        self._store = store
        self._ref = ref

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it; cut off, not completed, if it cannot be read to its end."""
        Request(scope).state.patient = True
        await pour(scope, receive, send, _headers(self._ref), self._produce)

    async def _produce(self, write: Write) -> None:
        async for piece in self._store.read(self._ref.id):
            await write(piece)


def _headers(ref: FileRef) -> dict[str, str]:
    text = ref.media.startswith("text/")
    return {
        "Content-Type": "text/plain; charset=utf-8" if text else ref.media,
        "Content-Length": str(ref.size),
        "Content-Disposition": disposition(ref.name),
        "Cache-Control": "private, max-age=3600, immutable",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    }


def disposition(name: str) -> str:
    """Return the header that has a file saved under its name (RFC 6266, RFC 8187)."""
    if not name:
        return "attachment"
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{percent(name, safe='')}"
