"""Messages of a chat as Async-Chat's clients see them: one text, and the files as URLs."""

from collections.abc import Iterable

from starlette.requests import Request

from schemas.model import FileRef, Text, Utterance

FILES_PATH = "/files/"


def text_of(utterance: Utterance | None) -> str:
    """Return all the text of a message."""
    parts = utterance.content if utterance else ()
    return "\n".join(part.text for part in parts if isinstance(part, Text))


def files_of(utterance: Utterance | None) -> list[FileRef]:
    """Return the files of ours that a message holds."""
    parts = utterance.content if utterance else ()
    found = [part.file for part in parts if not isinstance(part, Text)]
    return [each for each in found if each is not None]


def file_urls(request: Request, files: Iterable[FileRef]) -> list[str]:
    """Return where files can be had, as absolute URLs of the server that was asked."""
    base = str(request.base_url).rstrip("/")
    return [f"{base}{FILES_PATH}{each.id}" for each in files]
