"""The newest messages on a subject: no more than were asked for, and than fit into one answer."""

from itertools import accumulate

from runtime.bus import Bus, Stored


async def read_newest(bus: Bus, subject: str, count: int, most_bytes: int) -> list[Stored]:
    """Return the newest `count` messages on a subject, oldest first.

    Fewer of them within `most_bytes`, but one in any case. Raises BusFault.
    """
    after = await _find_start(bus, subject, count)
    found: list[Stored] = []
    while count > 0 and (page := await bus.read(subject, after=after)):
        found = _newest_of(found + page, count, most_bytes)
        after = page[-1].seq
        if page[-1].pending == 0:
            break
    return found


async def _find_start(bus: Bus, subject: str, count: int) -> int:
    """A sequence after which there are `count` messages, not many more if there are more.

    The stream reads forward only, so steps back grow until enough messages lie between.
    """
    newest = await bus.last(subject)
    last, step = newest.seq if newest else 0, max(count, 1)
    while (start := max(0, last - step)) > 0:
        first = await bus.read(subject, after=start, limit=1)
        if first and first[0].pending + 1 >= count:
            break
        step *= 4
    return start


def _newest_of(messages: list[Stored], count: int, most_bytes: int) -> list[Stored]:
    newest = messages[-count:]
    sizes = accumulate(len(one.data) for one in reversed(newest))
    return newest[-max(1, sum(size <= most_bytes for size in sizes)) :]
