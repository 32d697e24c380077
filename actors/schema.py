"""JSON Schema of answers, as far as it can be checked at once whatever is in it.

Dialect: JSON Schema 2020-12. References go to places in the schema itself, and not round in
circles; nothing is ever fetched. `format` says something to people only.
"""

from itertools import islice
from typing import Any
from urllib.parse import unquote

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match

from actors.limits import clip
from actors.patterns import LONGEST_TEXT, Pattern, read_pattern
from schemas.envelope import encode

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MOST_BYTES = 16 * 1024
"""Of a schema, and of an answer."""
MOST_PARTS = 400
"""Of a schema with all it refers to, and of an answer: each part is held against each."""
DEEPEST = 16
MOST_ERRORS = 32

ONE = ("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then")
SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems")
NAMED = ("dependentSchemas", "patternProperties", "properties")
APART = ("$defs", "definitions", "$schema", "$comment")
NOT_TAKEN = (
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$recursiveAnchor",
    "$recursiveRef",
    "$vocabulary",
    "unevaluatedItems",
    "unevaluatedProperties",
)


class AnswerSchema:
    """A schema that answers are held against.

    Raises ValueError if it cannot be used, with the place in it.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        if (size := len(encode(given))) > MOST_BYTES:
            raise ValueError(f"a schema of {size} bytes, at most {MOST_BYTES}")
        if given.get("$schema", DIALECT).rstrip("#") != DIALECT:
            raise ValueError(f"/$schema: {given['$schema']!r}: expected {DIALECT!r}, or none")
        self._reading = _Reading(given)
        schema = self._reading.read(given, "", 0)
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"{to_pointer(error) or 'the schema'}: {_words(error)}") from None
        self._validator = Draft202012Validator(schema)

    def find_fault(self, answer: Any) -> str:
        """What is wrong with an answer, behind its place in it; nothing if it fits."""
        if fault := find_excess(answer, self._reading.room):
            return fault
        found = best_match(islice(self._validator.iter_errors(answer), MOST_ERRORS))
        return f"{to_pointer(found)}: {_words(found)}" if found is not None else ""


class _Reading:
    """A schema being read: references are replaced by what they refer to."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.room = LONGEST_TEXT
        """How long a text may be that its patterns are tried on."""
        self._root = root
        self._parts = 0
        self._within: list[str] = []

    def read(self, given: Any, place: str, depth: int) -> Any:
        """Return a schema without references; raises ValueError."""
        if isinstance(given, bool):
            return given
        if not isinstance(given, dict):
            raise ValueError(f"{place or 'the schema'}: {clip(repr(given), 40)} is not a schema")
        self._parts += 1 + len(given)
        if self._parts > MOST_PARTS:
            raise ValueError(f"{place}: more than {MOST_PARTS} parts, with what is referred to")
        if depth > DEEPEST:
            raise ValueError(f"{place}: deeper than {DEEPEST} levels")
        read = {
            key: self._read_key(key, value, f"{place}/{_escaped(key)}", depth + 1)
            for key, value in given.items()
            if key not in APART and key != "$ref"
        }
        if "patternProperties" in read:
            patterns = read["patternProperties"].items()
            read["patternProperties"] = {self._pattern(key).python: sub for key, sub in patterns}
        if "$ref" in given:
            target = self._follow(given["$ref"], f"{place}/$ref", depth + 1)
            read["allOf"] = [*read.get("allOf", ()), target]
        return read

    def _read_key(self, key: str, value: Any, place: str, depth: int) -> Any:
        if key in NOT_TAKEN:
            raise ValueError(f"{place}: {key} is not taken")
        if key in ONE:
            return self.read(value, place, depth)
        if key in SEVERAL and isinstance(value, list):
            return [self.read(one, f"{place}/{n}", depth) for n, one in enumerate(value)]
        if key in NAMED and isinstance(value, dict):
            return {n: self.read(one, f"{place}/{_escaped(n)}", depth) for n, one in value.items()}
        if key == "pattern" and isinstance(value, str):
            try:
                return self._pattern(value).python
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None
        return value

    def _pattern(self, source: str) -> Pattern:
        pattern = read_pattern(source)
        self.room = min(self.room, pattern.room)
        return pattern

    def _follow(self, reference: Any, place: str, depth: int) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise ValueError(
                f"{place}: {clip(repr(reference), 80)}: expected a place in this very schema,"
                " such as '#/$defs/name'; nothing is fetched"
            )
        if reference in self._within:
            raise ValueError(f"{place}: {reference!r} refers to itself")
        self._within.append(reference)
        target = self._root
        for step in reference[2:].split("/"):
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or name not in target:
                raise ValueError(f"{place}: there is no {reference!r}")
            target = target[name]
        read = self.read(target, place, depth)
        self._within.pop()
        return read


def find_excess(value: Any, longest: int = LONGEST_TEXT) -> str:
    """What of a JSON value is more than can be kept and checked; nothing if it is not."""
    if (size := len(encode(value))) > MOST_BYTES:
        return f": {size} bytes, at most {MOST_BYTES}"
    level, parts = [value], 0
    for _ in range(DEEPEST):
        parts += len(level)
        texts = [one for one in level if isinstance(one, str)]
        texts += [key for one in level if isinstance(one, dict) for key in one]
        if any(len(text) > longest for text in texts):
            return f": a text of more than {longest} characters, the most its patterns are tried on"
        level = [part for one in level if isinstance(one, dict | list) for part in _inside(one)]
        if not level:
            break
    else:
        return f": deeper than {DEEPEST} levels"
    return f": {parts} parts, at most {MOST_PARTS}" if parts > MOST_PARTS else ""


def to_pointer(error: ValidationError | SchemaError) -> str:
    """Where an error is, as a JSON pointer."""
    return "".join(f"/{_escaped(str(step))}" for step in error.absolute_path)


def _inside(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _escaped(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")


def _words(error: ValidationError | SchemaError) -> str:
    """What an error says, in few words; a pattern as it was given."""
    if error.validator == "pattern":
        given = (
            str(error.validator_value).removeprefix("(?a:").removesuffix(")").replace(r"\Z", "$")
        )
        return clip(f"{clip(repr(error.instance), 80)} does not match {given!r}", 300)
    shown = clip(_shown(error.instance), 80)
    expected = clip(_shown(error.validator_value), 120)
    return f"{shown} is not right: {error.validator} is {expected}"


def _shown(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        return repr(value)
