"""What a form of Async-Chat asks for: its fields as the request that a session takes.

Source: Async-Chat's own words for models, modes and concurrency; `policy` and `deadline` are ours.
"""

import re
from collections.abc import Mapping

from edge.catalog import Catalog, Offer
from edge.forms import invalid_field
from edge.problem import Refusal, quote
from edge.uploads import TakenForm, Upload
from runtime.config import duration
from schemas.conversation import LONGEST, MOST_TASKS, OpenBatch, Policy, Wanted
from schemas.model import Attachment, FileRef, Image, Part, Prompt, Text, Utterance

FILES = "files"
FIELDS = frozenset(
    {"prompt", "model", "conversation_id", "mode", "gemini_concurrency", "policy", "deadline"}
)
DEFAULT_MODEL = "gemini-2.5-flash"
PLAIN = "echo"
"""The provider that is the default only where there is no other."""
GEMINI = "gemini"
MOST_PATHS = 8

WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
NUMBER = re.compile(r"[0-9]{1,9}")
SECONDS = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,3})?")
FOR_A_PICTURE = "Answer with a picture: draw it, and put it into your response.\n"


def read_conversation(fields: Mapping[str, str]) -> str:
    """Return the conversation that a form continues, nothing if it names none.

    Raises Refusal 422.
    """
    conversation = fields.get("conversation_id", "")
    if conversation and not WORD.fullmatch(conversation):
        wanted = "expected 1 to 64 letters, digits, _ or -"
        raise invalid_field("conversation_id", f"{quote(conversation)}, {wanted}")
    return conversation


async def read_batch(form: TakenForm, catalog: Catalog) -> OpenBatch:
    """Return what a form asks a session for. Raises Refusal 422 with the field, BusFault."""
    fields = form.fields
    said = fields.get("prompt", "")
    if not said.strip():
        raise invalid_field("prompt", "is empty" if "prompt" in fields else "is missing")
    mode = fields.get("mode") or "text"
    if mode not in ("text", "image"):
        raise invalid_field("mode", f"{quote(mode)}, expected text or image")
    files = [_part(each.ref) for each in form.files]
    asked = FOR_A_PICTURE + said if mode == "image" else said
    return OpenBatch(
        tasks=await _read_tasks(fields, catalog),
        prompt=Prompt(messages=(_utterance(asked, files),)),
        said=_utterance(said, files),
        policy=await _read_policy(fields, catalog),
        deadline=_read_deadline(fields),
    )


def _utterance(text: str, files: list[Part]) -> Utterance:
    return Utterance(role="user", content=(Text(text), *files))


def _part(ref: FileRef) -> Part:
    return Image(file=ref) if ref.media.startswith("image/") else Attachment(file=ref)


async def _read_tasks(fields: Mapping[str, str], catalog: Catalog) -> tuple[Wanted, ...]:
    paths = _read_paths(fields)
    tasks: list[Wanted] = []
    for name, offer in (await _read_models(fields, catalog)).items():
        several = paths > 1 and GEMINI in (offer.provider, *name.lower().split("-"))
        for slot in range(paths if several else 1):
            label = f"{name}(#{slot + 1})" if several else name
            tasks.append(Wanted(actors=offer.actors, model=label, slot=slot))
    if len(tasks) > MOST_TASKS:
        raise invalid_field("model", f"makes {len(tasks)} tasks, expected at most {MOST_TASKS}")
    return tuple(tasks)


async def _read_models(fields: Mapping[str, str], catalog: Catalog) -> dict[str, Offer]:
    """The models that are asked, by the names they are asked by; each of them once."""
    listed = fields.get("model", "").split(",")
    names = list(dict.fromkeys(name.strip() for name in listed if name.strip()))
    if not names:
        return await _default(catalog)
    if len(names) > MOST_TASKS:
        raise invalid_field("model", f"names {len(names)} models, expected at most {MOST_TASKS}")
    found: dict[str, Offer] = {}
    for name in names:
        offer = await _find(catalog, name, "model")
        if all(other.actors != offer.actors for other in found.values()):
            found[name] = offer
    return found


async def _default(catalog: Catalog) -> dict[str, Offer]:
    """The default model; where it is not deployed, the first one that is."""
    offers = await catalog.offers()
    try:
        offer = await catalog.find(DEFAULT_MODEL)
        return {DEFAULT_MODEL: offer}
    except Refusal:
        first = next((each for each in offers if each.provider != PLAIN), None)
    if first is None and not offers:
        raise invalid_field("model", "is missing, and no model is deployed") from None
    offer = first or offers[0]
    return {offer.id: offer}


async def _find(catalog: Catalog, name: str, field: str) -> Offer:
    try:
        return await catalog.find(name)
    except Refusal as refusal:
        raise invalid_field(field, refusal.detail) from None


def _read_paths(fields: Mapping[str, str]) -> int:
    text = fields.get("gemini_concurrency", "").strip() or "1"
    if not NUMBER.fullmatch(text) or not 1 <= int(text) <= MOST_PATHS:
        wanted = f"expected an integer from 1 to {MOST_PATHS}"
        raise invalid_field("gemini_concurrency", f"{quote(text)}, {wanted}")
    return int(text)


async def _read_policy(fields: Mapping[str, str], catalog: Catalog) -> Policy:
    text = fields.get("policy", "").strip() or "all"
    kind, _, rest = (piece.strip() for piece in text.partition(":"))
    if kind == "judge" and rest:
        return Policy(kind="judge", judge=(await _find(catalog, rest, "policy")).actors[0])
    if kind == "quorum" and NUMBER.fullmatch(rest) and 1 <= int(rest) <= MOST_TASKS:
        return Policy(kind="quorum", n=int(rest))
    if text == "first":
        return Policy(kind="first")
    if text == "all":
        return Policy(kind="all")
    raise invalid_field("policy", f"{quote(text)}, expected all, first, quorum:2 or judge:<model>")


def _read_deadline(fields: Mapping[str, str]) -> float:
    text = fields.get("deadline", "").strip()
    if not text:
        return 0
    try:
        seconds = float(text) if SECONDS.fullmatch(text) else duration(text).total_seconds()
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST:
        wanted = f"expected seconds, or a duration such as 90s, up to {LONGEST / 3600:g}h"
        raise invalid_field("deadline", f"{quote(text)}, {wanted}")
    return seconds


def said_by(form: TakenForm) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """What a form says, for telling a repeat from another form: files by name and content."""
    return form.fields, [_said_of(each) for each in form.files]


def _said_of(upload: Upload) -> tuple[str, str, str]:
    return upload.ref.name, upload.ref.media, upload.digest
