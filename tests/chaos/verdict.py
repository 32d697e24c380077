"""Reads everything that the log holds in the end, and compares it with what must be there."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from runtime.bus import Bus, Stored
from schemas import subjects
from schemas.base import token
from tests.chaos.follower import Follower, heard
from tests.chaos.history import History, Place
from tests.chaos.model import Account, Expected, Fact, Mail, Replay, read_mail
from tests.chaos.songs import check_runs

Json = dict[str, Any]
MOST_SHOWN = 8

COUNTERS = (
    "applied",
    "balance",
    "entries",
    "sent",
    "received",
    "ticks",
    "tocks",
    "squares",
    "songs",
    "late",
    "failed",
    "singing",
    "squaring",
    "digest",
)


@dataclass
class Log:
    """What the stream holds, by what it is."""

    mail: list[Mail] = field(default_factory=list)
    events: dict[str, list[tuple[Stored, Json]]] = field(default_factory=lambda: defaultdict(list))
    songs: list[tuple[int, Json]] = field(default_factory=list)
    jobs: list[tuple[int, Json]] = field(default_factory=list)
    records: dict[str, Json] = field(default_factory=dict)
    runs: dict[str, tuple[int, Json]] = field(default_factory=dict)
    dead: list[Json] = field(default_factory=list)
    timers: list[str] = field(default_factory=list)
    sequences: int = 0


async def read_log(bus: Bus) -> Log:
    """Read the whole stream."""
    log = Log()
    for stored in await bus.read_all("mail.*.ledger.*", after=0):
        at = stored.time.timestamp()
        log.mail.append(read_mail(stored.seq, stored.subject, stored.data, at))
    for stored in await bus.read_all("event.ledger.*", after=0):
        body = json.loads(stored.data)
        log.events[body["subject"]].append((stored, body))
    for name, found in (
        ("event.song.*", log.songs),
        ("work.squarer.>", log.jobs),
        ("work.singer.>", log.jobs),
    ):
        found += [(s.seq, json.loads(s.data)) for s in await bus.read_all(name, after=0)]
    for stored in await bus.lasts("state.ledger.*"):
        log.records[subjects.key_token(stored.subject)] = json.loads(stored.data)
    for stored in await bus.lasts("run.*"):
        record = json.loads(stored.data)
        if not record.get("job", "").startswith("child/"):
            log.runs[subjects.key_token(stored.subject)] = (stored.seq, record)
    log.dead = [json.loads(s.data)["data"] for s in await bus.read_all("dead.>", after=0)]
    log.timers = [stored.subject for stored in await bus.lasts("timer.>")]
    info = await bus.api(f"STREAM.INFO.{bus.stream}")
    log.sequences = info["state"]["last_seq"]
    return log


def judge(log: Log, history: History, followers: list[Follower]) -> list[str]:
    """Everything that is wrong, in words; nothing if all is well."""
    started = {
        body["data"]["cause"]: body["data"].get("runs", [])
        for told in log.events.values()
        for _, body in told
    }
    replay = Replay(started)
    for mail in log.mail:
        replay.apply(mail)
    expected = replay.expected
    checks = {
        "model": expected.problems,
        "inputs": _check_inputs(log, history),
        "states": _check_states(log, expected),
        "events": _check_events(log, expected),
        "transfers": _check_transfers(log, expected),
        "runs": check_runs(log.jobs, log.songs, log.runs, log.mail, expected),
        "answers": _check_answers(history, expected),
        "dead letters": _check_dead(log, expected),
        "reminders": _check_reminders(log, expected),
        "amounts": _check_amounts(log, history),
        "transcripts": [w for one in followers for w in _check_transcripts(log, one)],
    }
    return [line for name, wrong in checks.items() for line in _shorten(name, wrong)]


def _shorten(name: str, wrong: list[str]) -> list[str]:
    more = len(wrong) - MOST_SHOWN
    shown = [f"{name}: {line}" for line in wrong[:MOST_SHOWN]]
    return [*shown, f"{name}: and {more} more"] if more > 0 else shown


def _check_inputs(log: Log, history: History) -> list[str]:
    """What came from outside is stored once; what came from inside has a name of its own."""
    stored: dict[str, list[Place]] = defaultdict(list)
    causes: Counter[str] = Counter()
    for mail in log.mail:
        if mail.body["source"] in ("chaos", "edge"):
            stored[mail.body["id"]].append((mail.seq, mail.at))
        else:
            causes[mail.cause] += 1
    wrong = history.check(stored)
    reminders = {mail.cause for mail in log.mail if mail.body.get("reminder")}
    for cause, count in causes.items():
        # A reminder may come twice: its generation counts once, which the model shows.
        if count > 1 and cause not in reminders:
            wrong.append(f"{cause} is stored {count} times")
    return wrong


def _check_states(log: Log, expected: Expected) -> list[str]:
    wrong = []
    for key, account in expected.accounts.items():
        record = log.records.get(token(key))
        if record is None:
            wrong.append(f"{key!r} has no record")
            continue
        if record["done"] != account.done:
            wrong.append(f"{key!r} got to {record['done']}, its last message is {account.done}")
        wrong += _compare(key, record.get("data") or {}, account)
    known = {token(key) for key in expected.accounts}
    return wrong + [f"{name} has a record and no messages" for name in log.records.keys() - known]


def _compare(key: str, found: Json, account: Account) -> list[str]:
    return [
        f"{key!r}: {name} is {found.get(name)!r}, expected {getattr(account, name)!r}"
        for name in COUNTERS
        if found.get(name, getattr(Account(), name)) != getattr(account, name)
    ]


def _check_events(log: Log, expected: Expected) -> list[str]:
    wrong = []
    for key in log.events.keys() | expected.facts.keys():
        told = [_fact(body["data"]) for _, body in log.events.get(key, [])]
        wanted = expected.facts.get(key, [])
        if told == wanted:
            continue
        pairs = enumerate(zip(told, wanted, strict=False))
        at = next((n for n, (one, other) in pairs if one != other), min(len(told), len(wanted)))
        wrong.append(
            f"{key!r} told {len(told)} events, expected {len(wanted)}; they differ at {at}:"
            f" {told[at : at + 1]} is not {wanted[at : at + 1]}"
        )
    return wrong


def _fact(data: Json) -> Fact:
    return Fact(
        n=data["n"],
        kind=data["kind"],
        cause=data["cause"],
        number=data["number"],
        jobs=len(data.get("runs", [])),
        stopped=data.get("stopped", ""),
    )


def _check_transfers(log: Log, expected: Expected) -> list[str]:
    found: dict[tuple[str, int], list[tuple[str, int, int]]] = defaultdict(list)
    for mail in log.mail:
        data = mail.body["data"]
        if data["type"] == "ledger.transfer":
            sender = mail.body["source"].removeprefix("ledger/")
            cause = int(mail.body["id"].partition(".")[0])
            found[sender, cause].append((mail.key, data["amount"], data["hops"]))
    wrong = []
    for place in found.keys() | expected.transfers.keys():
        wanted = [expected.transfers[place]] if place in expected.transfers else []
        if found.get(place, []) != wanted:
            wrong.append(f"{place} sent {found.get(place, [])}, expected {wanted}")
    return wrong


def _check_answers(history: History, expected: Expected) -> list[str]:
    return [
        f"{one.id} was answered {one.answer}, expected {expected.answers.get(one.id)}"
        for one in history.operations.values()
        if one.how == "ask" and one.outcome == "ok" and one.answer != expected.answers.get(one.id)
    ]


def _check_dead(log: Log, expected: Expected) -> list[str]:
    found = sorted(letter["sequence"] for letter in log.dead)
    if found == sorted(expected.dead):
        return []
    return [f"dead letters of {found}, expected {sorted(expected.dead)}"]


def _check_reminders(log: Log, expected: Expected) -> list[str]:
    wrong = [f"{subject} is still there" for subject in log.timers]
    for key, account in expected.accounts.items():
        record = log.records.get(token(key), {})
        if account.reminders:
            wrong.append(f"{key!r}: {account.reminders} never came")
        if record.get("timers", {}) != account.reminders:
            wrong.append(f"{key!r}: keeps {record.get('timers')}, expected {account.reminders}")
    return wrong


def _check_amounts(log: Log, history: History) -> list[str]:
    """Nothing is made or lost on the way: shown without the model."""
    stored = {mail.body["id"] for mail in log.mail if mail.body["source"] in ("chaos", "edge")}
    put_in = sum(
        one.amount
        for one in history.operations.values()
        if one.id in stored and one.number % 13 and one.number > 0
    )
    states = [record.get("data") or {} for record in log.records.values()]
    totals = {
        name: sum(state.get(name, 0) for state in states)
        for name in ("balance", "sent", "received")
    }
    wrong = []
    if totals["balance"] != put_in:
        wrong.append(f"the accounts hold {totals['balance']}, put in were {put_in}")
    if totals["sent"] != totals["received"]:
        wrong.append(f"{totals['sent']} transfers were sent, {totals['received']} received")
    return wrong


def _check_transcripts(log: Log, follower: Follower) -> list[str]:
    wrong = []
    told = {
        rows[0][0].subject: [heard(stored.seq, stored.data) for stored, _ in rows]
        for rows in log.events.values()
    }
    for subject in told.keys() | follower.transcripts.keys():
        transcript, wanted = follower.transcripts.get(subject, []), told.get(subject, [])
        if transcript != wanted:
            wrong.append(f"{subject}: heard {len(transcript)} events of {len(wanted)} or otherwise")
    return wrong
