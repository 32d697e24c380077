"""What is stored as an event may be anything: each is one line at a terminal and in an archive."""

from pathlib import Path

import msgspec
import pytest

from runtime.bus import Bus
from runtime.terminal.follow import archive, print_events
from schemas.base import Message, Topic
from schemas.envelope import encode, seal


class Told(Message, tag="tail.told"):
    n: int


TOPIC = Topic("talk", "a")
WHOLE = encode(seal(Told(n=1), id="m1", source="test", subject="a"))
HOSTILE = {
    "nothing": b"",
    "no json": b"what?\nTwo lines",
    "not utf-8": b"\xff\xfe",
    "half an envelope": WHOLE[: len(WHOLE) // 2],
    "an envelope on several lines": WHOLE.replace(b",", b",\r\n"),
    "nested without end": b"[" * 100_000,
    "data nested without end": WHOLE.replace(b'"data":{', b'"data":{"x":' + b"[" * 50_000, 1),
    "data nested deeply": WHOLE.replace(
        b'"data":{', b'"data":{"x":' + b"[" * 900 + b"]" * 900 + b",", 1
    ),
    "data that is a list": msgspec.json.encode({**msgspec.json.decode(WHOLE), "data": [1]}),
    "a string not utf-8": WHOLE.replace(b'"data":{', b'"data":{"x":"\xff",', 1),
    "half a character": WHOLE.replace(b'"data":{', b'"data":{"x":"\\ud800",', 1),
    "what a terminal obeys": WHOLE.replace(b'"data":{', '"data":{"x":"\x9b2J\u202e",'.encode(), 1),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
async def test_whatever_is_stored_is_one_line_and_what_follows_is_shown(
    bus: Bus, data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await bus.publish("event.talk.a", data)
    await bus.publish("event.talk.a", WHOLE)
    capsys.readouterr()
    await print_events(bus, TOPIC, after=None, jsonl=False, once=True)
    shown = capsys.readouterr().out
    await print_events(bus, TOPIC, after=None, jsonl=True, once=True)
    lines = capsys.readouterr().out.splitlines()
    written = await archive(bus, TOPIC, tmp_path)
    again = await archive(bus, TOPIC, tmp_path)
    (path,) = tmp_path.iterdir()

    assert (shown.count("\n"), shown.replace("\n", "").isprintable()) == (2, True)
    assert [msgspec.json.decode(line)["cursor"] for line in lines] == [1, 2]
    assert path.read_text(encoding="utf-8").splitlines() == lines
    assert (written, again) == (2, 0)
