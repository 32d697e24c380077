"""What was said in a conversation as whole turns: what was asked and answered, by whomever.

People talk to people too: what they said while no model was asked is part of it.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from schemas.conversation import MessageAnswered, MessageSaid
from schemas.model import Text, Utterance
from schemas.ownership import ManualMessage

ROLES = {"user": "user", "agent": "assistant"}
"""What people are called to a model: an agent speaks in the model's place."""


@dataclass
class Entry:
    """What was said at once: to models, or from `person` to person. Of all answers only the
    first and the asking actor's own: there may be many, and each may be long."""

    said: Utterance
    person: bool = False
    first: MessageAnswered | None = None
    own: dict[int, MessageAnswered] = field(default_factory=dict)
    """By the slots of their tasks."""

    @property
    def answer(self) -> MessageAnswered | None:
        """The actor's own answer, else the first."""
        return next(iter(self.own.values()), self.first)


@dataclass
class Turn:
    """One turn as a model is shown it. `answer` is a model's, and none if people talked."""

    messages: list[Utterance]
    answer: MessageAnswered | None = None
    threads: frozenset[str] = frozenset()
    """Where the provider of the asking actor knows it from."""


class Entries:
    """The last entries of a conversation, by the ids of batches and of what people said."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: OrderedDict[str, Entry] = OrderedDict()

    def add_said(self, id: str, said: MessageSaid) -> None:
        """Somebody asked models, or, without a batch, called a person."""
        person = not said.batch
        message = as_one([*self.take_unanswered(said.joined), said.message])
        self._add(id if person else said.batch, Entry(message, person=person))

    def add_manual(self, message: ManualMessage) -> None:
        """Somebody said something to a person."""
        if (role := ROLES.get(message.role)) and message.content:
            said = Utterance(role=role, content=(Text(message.content),))  # type: ignore[arg-type]  # one of two roles
            self._add(message.id, Entry(said, person=True))

    def add_answer(self, answer: MessageAnswered, *, own: bool) -> None:
        """A model answered: to what is no longer here, it is left out."""
        entry = self._found.get(answer.batch)
        if entry is not None and answer.remembered and answer.outcome == "answered":
            entry.first = entry.first or answer
            if own:
                entry.own.setdefault(answer.slot, answer)

    def all(self) -> list[Entry]:
        """What is here, oldest first."""
        return list(self._found.values())

    def last_own(self, slot: int) -> MessageAnswered | None:
        """The actor's own answer to the very last that was said."""
        last = next(reversed(self._found.values()), None)
        return last.own.get(slot) if last else None

    def take_unanswered(self, batches: Iterable[str]) -> list[Utterance]:
        """What was said in batches that were interrupted before any answer; it goes from here."""
        waiting = [one for one in batches if one in self._found and not self._found[one].answer]
        return [self._found.pop(one).said for one in waiting]

    def _add(self, id: str, entry: Entry) -> None:
        if known := self._found.get(id):
            known.said = entry.said  # said again, with the answers that it has
            return
        self._found[id] = entry
        while len(self._found) > self._most:
            self._found.popitem(last=False)


def make_turns(entries: Iterable[Entry], *, unanswered: bool) -> list[Turn]:
    """Whole turns, oldest first.

    What no model has answered counts only if a person was told it then; with `unanswered`
    also what nobody has answered yet.
    """
    turns: list[Turn] = []
    waiting: list[Utterance] = []
    for entry in entries:
        if entry.answer is not None:
            threads = frozenset(one.thread for one in entry.own.values() if one.thread)
            turns.append(Turn([entry.said], entry.answer, threads))
            waiting = []
        elif not entry.person:
            waiting.append(entry.said)
        else:
            for said in [*waiting, entry.said]:
                _add_persons(turns, said)
            waiting = []
    for said in waiting if unanswered else ():
        _add_persons(turns, said)
    return turns


def chain(turns: Sequence[Turn], then: Sequence[Utterance]) -> list[list[Utterance]]:
    """Each turn's messages. Tool calls are left out unless what follows answers them, as
    providers demand; so is what answers a call that is not there."""
    chained: list[list[Utterance]] = []
    following = [turn.messages[0] for turn in turns[1:]] + list(then[:1])
    calling = False
    for n, turn in enumerate(turns):
        said, messages = turn.messages[0], turn.messages
        if turn.answer is not None:
            answered = n < len(following) and following[n].role == "tool"
            message = as_said(turn.answer, calls=answered)
            lost = said.role == "tool" and not calling
            messages = [] if lost or not (message.content or message.calls) else [said, message]
        calling = bool(messages[-1].calls) if messages else calling
        chained.append(messages)
    return chained


def as_said(answer: MessageAnswered, *, calls: bool = True) -> Utterance:
    """An answer as a message."""
    return Utterance(
        role="assistant",
        content=(Text(answer.text),) if answer.text else (),
        calls=answer.calls if calls else (),
        reasoning=answer.reasoning if calls and answer.calls else "",
    )


def as_one(said: Sequence[Utterance]) -> Utterance:
    """Several messages of one side as one: some models' templates demand that sides alternate."""
    *earlier, last = said
    content = [part for one in earlier for part in (*one.content, Text("\n\n"))]
    return msgspec.structs.replace(last, content=(*content, *last.content))


def _add_persons(turns: list[Turn], said: Utterance) -> None:
    """Put what people said into their last turn, or a new one where an answered user goes on."""
    last = turns[-1] if turns and turns[-1].answer is None else None
    if last is None or (said.role == "user" and last.messages[-1].role == "assistant"):
        turns.append(Turn([said]))
    elif last.messages[-1].role == said.role:
        last.messages.append(as_one([last.messages.pop(), said]))
    else:
        last.messages.append(said)
