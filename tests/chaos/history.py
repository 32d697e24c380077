"""What was asked of the accounts and what came of it, in the manner of a Jepsen history.

Each operation is invoked and ends as ok, or never ends: then it is unknown whether it was done.
"""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

How = Literal["tell", "ask"]
Place = tuple[int, float]
"""Where something is stored: its sequence, and when, in seconds."""
WINDOW = 120.0
"""Seconds for which the broker knows a message id. A request that is repeated later is stored
again, and answered from the memory of its account."""
SLACK = 1.0
LOST = -1
"""The sequence of an operation whose storing was never confirmed."""


@dataclass
class Operation:
    """One entry: what it says, and what is known of it. Times are of the monotonic clock."""

    id: str
    key: str
    number: int
    amount: int
    how: How
    lane: int = 0
    invoked: float = 0.0
    ended: float = 0.0
    outcome: Literal["", "unknown", "ok"] = ""
    unknowns: int = 0
    again: int = 0
    """How often it was stored once more on purpose, as if the broker had forgotten its id."""
    seq: int = LOST
    answer: Any = None


@dataclass
class History:
    """All operations, by id."""

    operations: dict[str, Operation] = field(default_factory=dict)
    forgetful: bool = False
    """Whether the broker may forget an id before its time, as three nodes do that were killed and
    cut off in turns (nats-server 2.15.1). A request is answered from memory then, too."""
    forgotten: int = 0
    """How many requests were stored again because of that."""

    def invoke(self, operation: Operation) -> None:
        """Note that an operation begins."""
        operation.invoked = time.monotonic()
        operation.outcome = "unknown"
        self.operations[operation.id] = operation

    def doubt(self, operation: Operation) -> None:
        """Note that what became of one try is unknown."""
        operation.unknowns += 1

    def end(self, operation: Operation, *, seq: int = LOST, answer: Any = None) -> None:
        """Note that an operation was done."""
        operation.ended = time.monotonic()
        operation.outcome = "ok"
        operation.seq = seq
        operation.answer = answer

    def count(self) -> Counter[str]:
        """How many operations ended how, and how many tries were unknown."""
        counts = Counter(f"{one.how} {one.outcome}" for one in self.operations.values())
        counts["unknown tries"] = sum(one.unknowns for one in self.operations.values())
        return counts

    def check(self, stored: dict[str, list[Place]]) -> list[str]:
        """Compare with the log: `stored` holds the places of every id in it.

        What is ok is there once, where it was said to be; what is unknown at most once;
        and nothing else is there.
        """
        wrong = []
        for one in self.operations.values():
            found = self._sequences(one, stored)
            if len(found) > 1 + one.again:
                wrong.append(f"{one.how} {one.id} is stored {len(found)} times: {found}")
            elif one.outcome == "ok" and not found:
                wrong.append(f"{one.how} {one.id} was acknowledged and is lost")
            elif one.seq != LOST and found != [one.seq]:
                wrong.append(f"{one.how} {one.id} is at {found}, acknowledged at {one.seq}")
        wrong += [f"{name} is stored, and nobody sent it" for name in stored.keys() - self.ids()]
        return wrong + self._check_order(stored)

    def _sequences(self, one: Operation, stored: dict[str, list[Place]]) -> list[int]:
        """Where an operation is stored, without the repeats of a request that was forgotten."""
        found: list[int] = []
        before = 0.0
        for place, (seq, at) in enumerate(stored.get(one.id, [])):
            late = at - before > WINDOW - SLACK
            before = at
            if place and one.how == "ask" and (late or self.forgetful):
                self.forgotten += not (late or one.again)
            else:
                found.append(seq)
        return found

    def ids(self) -> set[str]:
        """The id of every operation."""
        return set(self.operations)

    def _check_order(self, stored: dict[str, list[Place]]) -> list[str]:
        """Of one key, what ended before another began is stored before it."""
        wrong = []
        keys: dict[str, list[Operation]] = {}
        for one in self.operations.values():
            if one.id in stored:
                keys.setdefault(one.key, []).append(one)
        for key, operations in keys.items():
            ended = sorted((o for o in operations if o.outcome == "ok"), key=lambda o: o.ended)
            newest, at = 0, 0
            for one in sorted(operations, key=lambda o: o.invoked):
                while at < len(ended) and ended[at].ended < one.invoked:
                    newest = max(newest, stored[ended[at].id][0][0])
                    at += 1
                if stored[one.id][0][0] < newest:
                    wrong.append(f"{key!r}: {one.id} is stored before what ended before it began")
        return wrong


class Journal:
    """A history on disk, a line each, written before what it tells: its writer may be killed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, what: str, **facts: Any) -> None:
        """Append one line, and hand it to the system."""
        line = json.dumps({"what": what, "at": time.monotonic(), **facts}) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)

    def read(self) -> list[dict[str, Any]]:
        """Every whole line so far."""
        if not self._path.exists():
            return []
        lines = self._path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def replay(self, history: History) -> list[str]:
        """Put what was journalled into a history; says where repeats were answered otherwise."""
        wrong = []
        for line in self.read():
            if line["what"] == "invoke":
                fields = {k: v for k, v in line.items() if k not in ("what", "at")}
                known = history.operations.get(fields["id"])
                if known is None:
                    known = Operation(**fields)
                    history.invoke(known)
                    known.invoked = line["at"]
                continue
            one = history.operations[line["id"]]
            if line["what"] == "doubt":
                history.doubt(one)
            elif line["what"] == "again":
                one.again += 1
            elif one.outcome == "ok" and one.answer != line["answer"]:
                wrong.append(f"{one.id} was answered {one.answer}, then {line['answer']}")
            elif one.outcome != "ok":
                history.end(one, answer=line["answer"])
                one.ended = line["at"]
        return wrong
