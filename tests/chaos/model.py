"""What must have become of every account, computed from what the log accepted, in its order.

Pure Python on plain JSON: nothing of the runtime, nothing of tests/chaos/ledger.py.
"""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

KEYS = 200
HOSTILE = ["a.b", "*", ">", "two words", "ключ", "😀" * 20, "x" * 300, "\u202egnp", "a/b", "%00"]
NAMES = HOSTILE + [f"account-{index}" for index in range(len(HOSTILE), KEYS)]
INDEX = {name: index for index, name in enumerate(NAMES)}

Json = dict[str, Any]


@dataclass(frozen=True)
class Mail:
    """One message to an account, as the stream holds it."""

    seq: int
    body: Json
    at: float = 0.0
    """When it was stored, in seconds."""
    shard: int = -1

    @property
    def key(self) -> str:
        """The account."""
        return str(self.body["subject"])

    @property
    def cause(self) -> str:
        """Its name, unique in the whole log."""
        return f"{self.body['source']} {self.body['id']}"


@dataclass(frozen=True)
class Fact:
    """One event that an account must have told, apart from the ids of the jobs it started."""

    n: int
    kind: str
    cause: str
    number: int
    jobs: int
    stopped: str


@dataclass
class Account:
    """One account while it is replayed."""

    applied: int = 0
    balance: int = 0
    entries: int = 0
    sent: int = 0
    received: int = 0
    ticks: int = 0
    tocks: int = 0
    squares: int = 0
    songs: int = 0
    late: int = 0
    failed: int = 0
    singing: list[str] = field(default_factory=list)
    squaring: list[str] = field(default_factory=list)
    digest: str = ""
    reminders: dict[str, int] = field(default_factory=dict)
    done: int = 0


@dataclass
class Expected:
    """Everything that must be found, and nothing besides."""

    accounts: dict[str, Account] = field(default_factory=lambda: defaultdict(Account))
    facts: dict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    transfers: dict[tuple[str, int], tuple[str, int, int]] = field(default_factory=dict)
    jobs: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    """Run: worker, account, and the number that it was given."""
    stopped: set[str] = field(default_factory=set)
    answers: dict[str, Json | str] = field(default_factory=dict)
    """What is answered to each entry: the answer, or the code of the refusal."""
    dead: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Replay:
    """Applies mail in stream order. `started` tells the ids of the jobs that a cause started."""

    def __init__(self, started: dict[str, list[str]]) -> None:
        self.expected = Expected()
        self._started = started

    def apply(self, mail: Mail) -> None:
        """Apply one message."""
        account = self.expected.accounts[mail.key]
        account.done = mail.seq
        data = mail.body["data"]
        kind = data["type"].removeprefix("ledger.")
        if self._is_dropped(account, mail):
            return
        if kind == "enter":
            self._enter(account, mail, data["number"], data["amount"])
        elif kind == "transfer":
            self._receive(account, mail, data["amount"], data["hops"])
        elif kind in ("tick", "tock"):
            self._remind(account, mail, kind, data)
        elif kind in ("squared", "sung"):
            self._result(account, mail, kind, data)
        elif kind == "run.failed":
            account.failed += 1
            self._fact(account, mail, "failed", data["attempts"])
        else:
            self.expected.problems.append(f"message {mail.seq} is of an unknown type {kind!r}")

    def _is_dropped(self, account: Account, mail: Mail) -> bool:
        """Whether it is a repeat answered from memory, or a reminder that is not current."""
        if mail.body.get("replyto") and mail.body["id"] in self.expected.answers:
            return True  # the broker did not know its id any more
        if name := mail.body.get("reminder"):
            if account.reminders.get(name) != mail.body["generation"]:
                return True
            del account.reminders[name]
        return False

    def _enter(self, account: Account, mail: Mail, number: int, amount: int) -> None:
        answer_id = mail.body["id"]
        if number % 13 == 0:
            self.expected.answers[answer_id] = "UNLUCKY"
            return
        if number < 0:
            self.expected.answers[answer_id] = "handler_failed"
            self.expected.dead.append(mail.seq)
            return
        account.entries += 1
        account.balance += amount
        if number % 3 == 0:
            self._send(account, mail, amount, number % 4, number)
        for name, every in (("tock", 4), ("tick", 5)):
            if number % every == 0:
                account.reminders[name] = mail.seq
        if number % 7 == 0:
            account.reminders.pop("tick", None)
        jobs = self._jobs(account, mail, number)
        stopped = ""
        if number % 21 == 0 and account.singing:
            stopped = account.singing.pop(0)
            self.expected.stopped.add(stopped)
        self._fact(account, mail, "enter", number, jobs, stopped)
        self.expected.answers[answer_id] = {"applied": account.applied, "balance": account.balance}

    def _jobs(self, account: Account, mail: Mail, number: int) -> int:
        told = list(self._started.get(mail.cause, []))
        wanted = [("squarer", number)] if number % 10 == 0 else []
        if number % 15 == 0:
            wanted.append(("singer", 3 + number % 6))
        for (worker, given), run in zip(wanted, told, strict=False):
            if run in self.expected.jobs:
                self.expected.problems.append(f"run {run} was started twice")
            self.expected.jobs[run] = (worker, mail.key, given)
            (account.squaring if worker == "squarer" else account.singing).append(run)
        return len(wanted)

    def _receive(self, account: Account, mail: Mail, amount: int, hops: int) -> None:
        account.received += 1
        account.balance += amount
        if hops:
            self._send(account, mail, amount, hops - 1, hops)
        self._fact(account, mail, "transfer", amount)

    def _remind(self, account: Account, mail: Mail, kind: str, data: Json) -> None:
        if kind == "tick":
            account.ticks += 1
            left = data.get("left", 0)
            if left:
                account.reminders["tick"] = mail.seq
            self._fact(account, mail, "tick", left)
        else:
            account.tocks += 1
            self._send(account, mail, 1, 0, account.tocks)
            self._fact(account, mail, "tock", account.tocks)

    def _result(self, account: Account, mail: Mail, kind: str, data: Json) -> None:
        run = mail.body["runid"]
        worker, _, given = self.expected.jobs.get(run, ("", "", 0))
        singing = kind == "sung"
        running = account.singing if singing else account.squaring
        if run in running:
            running.remove(run)
        else:
            account.late += 1
        value = len(data["text"]) if singing else data["value"]
        right = sum(len(f"{n} ") for n in range(given)) if singing else given**2
        if worker != ("singer" if singing else "squarer") or value != right:
            self.expected.problems.append(f"run {run} of {given} ended with {value}, not {right}")
        if singing:
            account.songs += 1
        else:
            account.squares += value
        self._fact(account, mail, kind, value)

    def _send(self, account: Account, mail: Mail, amount: int, hops: int, step: int) -> None:
        account.sent += 1
        account.balance -= amount
        target = NAMES[(INDEX[mail.key] + 7 * step + 1) % KEYS]
        self.expected.transfers[mail.key, mail.seq] = (target, amount, hops)

    def _fact(
        self, account: Account, mail: Mail, kind: str, number: int, jobs: int = 0, stopped: str = ""
    ) -> None:
        account.applied += 1
        chain = f"{account.digest}|{kind}|{number}|{account.balance}"
        account.digest = hashlib.sha256(chain.encode()).hexdigest()[:16]
        fact = Fact(account.applied, kind, mail.cause, number, jobs, stopped)
        self.expected.facts[mail.key].append(fact)


def read_mail(seq: int, subject: str, data: bytes, at: float) -> Mail:
    """A message as the stream holds it, on `mail.<shard>.ledger.<key>`."""
    return Mail(seq, json.loads(data), at, int(subject.split(".")[1]))
