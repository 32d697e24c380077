"""What messages look like on the wire. A difference here is a change of the protocol.

tests/data/wire.json holds each message and some records twice: with all fields, and the least.
New fields need defaults; a name or a tag, once used, is never changed.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import schemas
from schemas.base import Job, Message, Request, reply_type, tag_of
from schemas.envelope import Envelope, encode
from schemas.record import RunRecord
from schemas.suspects import Mark, Suspects

GOLDEN = Path(__file__).parents[1] / "data" / "wire.json"
HELD = ("schemas.record", "schemas.relay")
TAG = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*\.[a-z][a-z0-9]*(_[a-z0-9]+)*")

for module in pkgutil.iter_modules(schemas.__path__):
    importlib.import_module(f"schemas.{module.name}")


RECORDS: dict[str, type[msgspec.Struct]] = {
    "run": RunRecord,
    "suspects": Suspects,
    "mark": Mark,
}


def below(cls: type[Message]) -> Iterator[type[Message]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from below(sub)


MESSAGES = [
    cls
    for cls in below(Message)
    if cls.__module__.startswith("schemas.") and cls not in (Request, Job)
]
WIRE: dict[str, Any] = msgspec.json.decode(GOLDEN.read_bytes())


def held() -> list[type[Message]]:
    return [cls for cls in MESSAGES if cls.__module__ in HELD]


def required(cls: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(cls) if field.required}


def again(cls: Any, value: Any) -> Any:
    """What comes of a value that is read as `cls` and written again."""
    return msgspec.json.decode(encode(msgspec.json.decode(msgspec.json.encode(value), type=cls)))


def test_every_message_has_a_name_of_area_and_verb_that_is_spelled_out() -> None:
    unnamed = {cls.__name__: tag_of(cls) for cls in MESSAGES if not TAG.fullmatch(tag_of(cls))}

    assert unnamed == {}
    assert len(MESSAGES) > 20


def test_no_two_messages_have_the_same_name() -> None:
    names: dict[str, list[str]] = {}
    for cls in MESSAGES:
        names.setdefault(tag_of(cls), []).append(f"{cls.__module__}.{cls.__name__}")

    assert {name: users for name, users in names.items() if len(users) > 1} == {}


def test_every_message_says_its_name_in_the_field_type() -> None:
    elsewhere = [cls.__name__ for cls in MESSAGES if cls.__struct_config__.tag_field != "type"]

    assert elsewhere == []


def test_every_request_and_job_says_what_it_is_answered_with() -> None:
    silent = [
        cls.__name__
        for cls in MESSAGES
        if issubclass(cls, Request | Job) and reply_type(cls) is None
    ]

    assert silent == []


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_written_as_it_always_was(name: str) -> None:
    golden, cls = WIRE["records"][name], RECORDS[name]

    assert set(golden["all"]) == set(cls.__struct_encode_fields__)
    assert set(golden["least"]) == required(cls)
    assert again(cls, golden["all"]) == golden["all"]
    assert again(cls, golden["least"]) == golden["least"]


def test_readers_of_any_message_ignore_what_they_do_not_know() -> None:
    strict = [cls.__name__ for cls in MESSAGES if cls.__struct_config__.forbid_unknown_fields]

    assert strict == []


def test_the_messages_held_fast_are_those_there_are() -> None:
    assert set(WIRE["messages"]) == {tag_of(cls) for cls in held()}


@pytest.mark.parametrize("cls", held(), ids=tag_of)
def test_a_message_has_the_fields_it_always_had(cls: type[Message]) -> None:
    golden = WIRE["messages"][tag_of(cls)]

    assert set(golden["all"]) == {"type", *cls.__struct_encode_fields__}
    assert set(golden["least"]) == {"type", *required(cls)}
    assert golden["all"]["type"] == golden["least"]["type"] == tag_of(cls)


@pytest.mark.parametrize("cls", held(), ids=tag_of)
def test_a_message_is_written_as_it_always_was(cls: type[Message]) -> None:
    golden = WIRE["messages"][tag_of(cls)]

    assert again(cls, golden["all"]) == golden["all"]
    assert again(cls, golden["least"]) == golden["least"]


@pytest.mark.parametrize("shape", ["all", "least"])
def test_an_envelope_is_written_as_it_always_was(shape: str) -> None:
    golden = WIRE["envelope"][shape]
    fields = required(Envelope) if shape == "least" else set(Envelope.__struct_encode_fields__)

    assert set(golden) == fields
    assert again(Envelope[msgspec.Raw], golden) == golden
    assert all(name.isalnum() and name.islower() for name in golden)  # as CloudEvents demands
