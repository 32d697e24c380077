"""What strict JSON is: no document that two programs could read in two ways.

A first look is cheap and only says whether a closer one is needed; that one finds the place.
"""

import json
import math
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from edge.problem import Refusal, quote

DEPTH = 32
LOWEST, HIGHEST = -(2**63), 2**63 - 1
# CPython reads no longer ones from text, because that takes quadratic time.
MOST_DIGITS = 4300

MOST_MARKS = 2**20
"""Commas and opening brackets, outside of texts, of one document. With more of them it takes
seconds to read, in which nobody else is served; no body of a mebibyte has as many."""

BRACKETS = b"[]{}"
STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
# Digits become 0; e and E become e; + and - become +; the rest becomes a space.
NUMBERS = bytes(
    48 if 48 <= byte <= 57 else 101 if byte in b"eE" else 43 if byte in b"+-" else 32
    for byte in range(256)
)
LONG_NUMBERS = (b"0" * 19, b"0e000", b"0e+000")
DOUBTFUL_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


def check_json(raw: bytes) -> None:
    """Check that `raw` is one JSON document, in UTF-8, nested at most `DEPTH` deep.

    Raises Refusal 400 `invalid_json` for what the standard (RFC 8259) does not allow, and for
    what it leaves open: a BOM, a key twice, NUL, half a surrogate pair, a number beyond a
    double; 413 `too_many_values`; 422 `invalid_field` for an integer beyond 64 bits.
    """
    text = _text(raw)
    _check_count(raw)
    _check_depth(raw)
    try:
        if _doubtful(raw) or not _plain(text):
            _inspect(CLOSER.decode(text))
    except json.JSONDecodeError as error:
        raise _malformed(error, text) from None
    except RecursionError:
        raise _too_deep() from None


class _Doubt(Exception):
    """The first look found something that the closer one has to place."""


class _Flaw:
    """Stands in the tree where something cannot stay as it is."""

    def __init__(self, reason: str, status: int = 400, key: str | None = None) -> None:
        self.reason = reason
        self.status = status
        self.key = key


def _text(raw: bytes) -> str:
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise _invalid("the body begins with a byte order mark, expected none", 0)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid(f"byte {error.start} is not UTF-8", error.start) from None
    if not text.strip(" \t\r\n"):
        raise _invalid("the body is empty, expected a JSON document")
    return text


def _check_count(raw: bytes) -> None:
    if sum(map(raw.count, (b",", b"[", b"{"))) <= MOST_MARKS:
        return
    plain = _without_escapes(raw)
    if plain.count(b'"') > 2 * MOST_MARKS or len(_outside(plain, b",[{")) > MOST_MARKS:
        detail = f"the document has more than {MOST_MARKS} values"
        raise Refusal(413, "too_many_values", detail, limit=MOST_MARKS)


def _check_depth(raw: bytes) -> None:
    if raw.count(b"[") + raw.count(b"{") <= DEPTH:
        return
    brackets = _outside(_without_escapes(raw), BRACKETS)
    if max(accumulate(map(STEPS.__getitem__, brackets)), default=0) > DEPTH:
        raise _too_deep(_place_of_depth(raw))


def _without_escapes(raw: bytes) -> bytes:
    return raw.replace(rb"\\", b"").replace(rb"\"", b"")


def _outside(plain: bytes, kept: bytes) -> bytes:
    """Those of the bytes `kept` that are outside of strings, which have no escapes."""
    marks = plain.translate(None, bytes(set(range(256)) - set(kept + b'"')))
    # Every other piece between quotes is outside of strings.
    return b"".join(marks.split(b'"')[::2])


def _place_of_depth(raw: bytes) -> int:
    depth = 0
    for found in TOKEN.finditer(raw):
        depth += STEPS.get(raw[found.start()], 0)
        if depth > DEPTH:
            return found.start()
    return len(raw)


def _doubtful(raw: bytes) -> bool:
    numbers = raw.translate(NUMBERS)
    if any(shape in numbers for shape in LONG_NUMBERS):
        return True
    return b"\\u" in raw and DOUBTFUL_ESCAPE.search(raw) is not None


def _plain(text: str) -> bool:
    try:
        FIRST.decode(text)
    except _Doubt:
        return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Doubt
    return made


def _doubt(constant: str) -> None:
    raise _Doubt


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Flaw:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            return _Flaw(f"key {quote(key)} is in the object twice", key=key)
        made[key] = value
    return made


def _constant(name: str) -> _Flaw:
    return _Flaw(f"{name} is not a JSON number")


def _float(digits: str) -> float | _Flaw:
    value = float(digits)
    return value if math.isfinite(value) else _Flaw("the number is too large for 64-bit floats")


def _integer(digits: str) -> int | _Flaw:
    if len(digits.lstrip("-")) > MOST_DIGITS:
        return _Flaw(f"the integer has more than {MOST_DIGITS} digits")
    value = int(digits)
    if LOWEST <= value <= HIGHEST:
        return value
    return _Flaw(f"expected an integer of 64 bits, from {LOWEST} to {HIGHEST}", 422)


FIRST = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_doubt)
CLOSER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_constant,
    parse_float=_float,
    parse_int=_integer,
)


def _inspect(tree: Any) -> None:
    """Raise a Refusal for the first flaw of a tree."""
    for pointer, flaw in _flaws(tree, ""):
        place = pointer if flaw.key is None else _below(pointer, flaw.key)
        raise _placed(flaw, place)


def _flaws(value: Any, pointer: str) -> Iterator[tuple[str, _Flaw]]:
    if isinstance(value, _Flaw):
        yield pointer, value
    elif isinstance(value, str):
        if reason := _text_fault(value):
            yield pointer, _Flaw(f"the text has {reason}")
    elif isinstance(value, dict):
        yield from _flaws_of_object(value, pointer)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _flaws(item, f"{pointer}/{index}")


def _flaws_of_object(value: dict[str, Any], pointer: str) -> Iterator[tuple[str, _Flaw]]:
    for key, item in value.items():
        if reason := _text_fault(key):
            yield pointer, _Flaw(f"key {quote(key)} has {reason}")
        yield from _flaws(item, _below(pointer, key))


def _text_fault(text: str) -> str:
    if "\0" in text:
        return "a NUL character"
    if text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half a surrogate pair"
    return ""


def _below(pointer: str, key: str) -> str:
    return f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"


def _placed(flaw: _Flaw, pointer: str) -> Refusal:
    pointer = pointer if len(pointer) <= 160 else f"{pointer[:157]}..."
    code = "invalid_field" if flaw.status == 422 else "invalid_json"
    fault = {"detail": flaw.reason, **({"pointer": pointer} if pointer else {})}
    detail = f"{pointer or 'the body'}: {flaw.reason}"
    return Refusal(flaw.status, code, detail, errors=[fault])


def _malformed(error: json.JSONDecodeError, text: str) -> Refusal:
    offset = len(text[: error.pos].encode())
    found = f"found {text[error.pos]!r}" if error.pos < len(text) else "the document ends there"
    reason = error.msg[:1].lower() + error.msg[1:].removesuffix(" at").removesuffix(" starting at")
    return _invalid(f"{reason} at byte {offset}, {found}", offset)


def _too_deep(offset: int | None = None) -> Refusal:
    shown = "" if offset is None else f" at byte {offset}"
    return _invalid(f"arrays and objects are nested deeper than {DEPTH}{shown}", offset)


def _invalid(reason: str, offset: int | None = None) -> Refusal:
    place: dict[str, Any] = {} if offset is None else {"offset": offset}
    return Refusal(400, "invalid_json", reason, **place)
