"""The newest messages on a subject: no more than were asked for, and than fit into one answer."""

from itertools import accumulate

from runtime.bus import Bus, Stored


async def read_newest(
    bus: Bus, subject: str, count: int, most_bytes: int, *, before: int = 0
) -> list[Stored]:
    """Return the newest `count` messages on a subject, oldest first.

    Fewer of them within `most_bytes`, but one in any case. With `before` the newest of those
    that stand before that sequence. Raises BusFault.
    """
    after = await _find_start(bus, subject, count, before)
    found: list[Stored] = []
    while count > 0 and (page := await bus.read(subject, after=after)):
        wanted = [one for one in page if not before or one.seq < before]
        found = _newest_of(found + wanted, count, most_bytes) if wanted else found
        after = page[-1].seq
        if page[-1].pending == 0 or len(wanted) < len(page):
            break
    return found


async def _find_start(bus: Bus, subject: str, count: int, before: int) -> int:
    """A sequence after which there are `count` messages, not many more if there are more.

    The stream reads forward only, so steps back grow until enough messages lie between.
    """
    last, later = await _find_end(bus, subject, before)
    step = max(count, 1)
    while (start := max(0, last - step)) > 0:
        first = await bus.read(subject, after=start, limit=1)
        if first and first[0].pending + 1 - later >= count:
            break
        step *= 4
    return start


async def _find_end(bus: Bus, subject: str, before: int) -> tuple[int, int]:
    """Where to look back from, and how many messages stand behind that."""
    if before:
        behind = await bus.read(subject, after=before - 1, limit=1)
        return before - 1, behind[0].pending + 1 if behind else 0
    newest = await bus.last(subject)
    return newest.seq if newest else 0, 0


def _newest_of(messages: list[Stored], count: int, most_bytes: int) -> list[Stored]:
    newest = messages[-count:]
    sizes = accumulate(len(one.data) for one in reversed(newest))
    return newest[-max(1, sum(size <= most_bytes for size in sizes)) :]
