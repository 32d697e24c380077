"""What the server's API refuses only for now, and what for good."""

import pytest

from runtime.codes import read_refusal
from runtime.errors import BusFault, Denied, Unavailable


@pytest.mark.parametrize(
    ("code", "words", "fault"),
    [
        (10008, "JetStream system temporarily unavailable", Unavailable),
        # A cluster says so whose nodes have not heard of each other yet.
        (10005, "no suitable peers for placement, peer offline", Unavailable),
        (10005, "no suitable peers for placement, insufficient storage", Denied),
        (10074, "replicas > 1 not supported in non-clustered mode", Denied),
    ],
)
def test_what_passes_by_itself_is_told_apart(code: int, words: str, fault: type[BusFault]) -> None:
    refusal = read_refusal(code, words)

    assert type(refusal) is fault
    assert words in str(refusal)
