"""What is held of an answer while it comes."""

import tracemalloc

from actors.models.answer import Answer
from actors.models.events import ReasoningDelta, TextDelta, ToolDelta

LETTERS = [chr(0x4E00 + n) for n in range(3000)]


def test_an_answer_in_tiny_pieces_takes_little_more_room_than_its_text() -> None:
    answer = Answer()
    tracemalloc.start()
    try:
        for n in range(60_000):
            answer.take(TextDelta(f"{n % 10000:05}"[:4]))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(answer.text) == 240_000
    assert held < 2 * 240_000


def test_every_piece_is_kept_in_order_however_many_there_are() -> None:
    answer = Answer()
    for letter in LETTERS:
        answer.take(TextDelta(letter))
        answer.take(ReasoningDelta(letter))
        answer.take(ToolDelta(0, letter, call="c", name="n"))

    assert answer.text == answer.reasoning == "".join(LETTERS)
    assert answer.calls[0].arguments == "".join(LETTERS)
