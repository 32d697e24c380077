"""Reads answers whose thoughts may stand in the text, until they turn out to have a field."""

from collections.abc import Iterator

from actors.models.events import ProviderEvent, ReasoningDelta, TextDelta
from actors.models.reader import Reader
from actors.models.think import Piece, Thinks, ThinkSplitter, split_whole
from actors.models.wording import Discretion


class ThinkingReader(Reader):
    """A reader that tells thoughts from text by tags."""

    def __init__(self, discretion: Discretion, thinks: Thinks = "tags") -> None:
        super().__init__(discretion)
        self.thinks: Thinks = thinks
        self._splitter: ThinkSplitter | None = ThinkSplitter(thinks)

    def take_thought(self, text: str) -> Iterator[ProviderEvent]:
        """A piece from a field of its own: from now on tags are nothing but text."""
        splitter, self._splitter = self._splitter, None
        if splitter is not None:
            # Nothing is held back but what looked like the beginning of a tag.
            yield from (TextDelta(held) for _, held in splitter.end(complete=False))
        yield ReasoningDelta(text)

    def take_text(self, text: str) -> Iterator[ProviderEvent]:
        """A piece of the text."""
        if self._splitter is None:
            yield TextDelta(text)
        else:
            yield from map(_as_delta, self._splitter.feed(text))

    def take_whole(self, text: str) -> Iterator[ProviderEvent]:
        """All of the text at once: where thoughts end is seen better than piece by piece."""
        thought, answer = split_whole(text, self.thinks)
        yield from (self.take_thought(thought) if thought else ())
        self._splitter = None
        yield from (self.take_text(answer) if answer else ())

    def last_pieces(self) -> Iterator[ProviderEvent]:
        """What was held back, for it might have been a tag."""
        if self._splitter is not None:
            yield from map(_as_delta, self._splitter.end(complete=self.finish == "stop"))


def _as_delta(piece: Piece) -> TextDelta | ReasoningDelta:
    kind, text = piece
    return ReasoningDelta(text) if kind == "reasoning" else TextDelta(text)
