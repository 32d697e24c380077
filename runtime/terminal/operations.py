"""The commands by which an operator steps in: pause, resume, skip and kill, and stopping a run.

What is said is kept in the bucket `config`; the host that has the key does it, now or when it
is there again.
"""

import argparse
import asyncio
import time

import msgspec

from runtime.audit import note, operator, record_action
from runtime.bus import Bus, Outgoing, Stored, expect, expiry
from runtime.controls import change_control, is_done, read_control, read_revision
from runtime.deployments import read_deployments
from runtime.errors import Conflict, NotPossible
from runtime.open import opened
from runtime.record import read_record
from runtime.tables import Config
from runtime.terminal.overview import read_nodes
from runtime.terminal.shown import harmless
from runtime.terminal.workbench import number
from runtime.turn import DAY, MOST_REASON, ROLLUP, run_ttl
from schemas import subjects
from schemas.base import Address, token
from schemas.control import Control, Kill
from schemas.deployment import Deployment
from schemas.envelope import Envelope, decode_any, encode, seal
from schemas.node import Node
from schemas.record import Record, RunFailed, RunRecord

PATIENCE = 5.0
LOOK_EVERY = 0.05

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
replace = msgspec.structs.replace


async def pause(config: Config, given: argparse.Namespace) -> int:
    """Let the messages of a key, or of a whole type, wait."""
    async with opened(config) as bus:
        address, whole = await _address(bus, given.address, "keyed" if "/" in given.address else "")
        await record_action(bus, "pause", given.address, given.reason)

        def change(before: Control) -> Control:
            return replace(before, paused=True, by=operator(), reason=given.reason)

        before = await change_control(bus, address, change, whole=whole)
        await _wait_until_heard(bus, address, whole=whole)
    if before.paused:
        print(f"{harmless(given.address)} was {harmless(before.says)}; the reason is this one now")
    else:
        print(f"{harmless(given.address)} is paused: what is being handled ends, what comes waits")
    return 0


async def _wait_until_heard(bus: Bus, address: Address, *, whole: bool) -> None:
    """Wait until every host goes by what was said; name those that do not, if that takes long."""
    revision = await read_revision(bus, address, whole=whole)
    deadline = time.monotonic() + PATIENCE

    def behind(node: Node) -> bool:
        running = address.actor in node.actors and address.actor not in node.paused
        return node.heard < revision or (whole and running)

    while deaf := [node.name for node in await read_nodes(bus) if behind(node)]:
        if time.monotonic() > deadline:
            print(f"not heard of it yet: {harmless(', '.join(deaf))}")
            return
        await asyncio.sleep(LOOK_EVERY)


async def resume(config: Config, given: argparse.Namespace) -> int:
    """Let a key, or a type, go on."""
    async with opened(config) as bus:
        address, whole = await _address(bus, given.address, "")
        await record_action(bus, "resume", given.address)

        def change(before: Control) -> Control:
            return replace(before, paused=False, by=operator(), reason="")

        before = await change_control(bus, address, change, whole=whole)
        words = "goes on" if before.paused else "was not paused by an operator; it may go on"
        print(f"{harmless(given.address)} {words}")
        if not whole:
            await _say_when_done(bus, address)
    return 0


async def skip(config: Config, given: argparse.Namespace) -> int:
    """Make the first message that waits for a key a dead letter, without running it."""
    async with opened(config) as bus:
        address, _ = await _address(bus, given.address, "keyed", key=True)
        stored = await _first(bus, address, given.seq)
        what = f"message {stored.seq} ({_type(stored)})"
        await record_action(bus, "skip", str(address), what)

        def change(before: Control) -> Control:
            return replace(before, skips={**before.skips, stored.seq: operator()})

        await change_control(bus, address, change)
        print(f"{harmless(what)} of {harmless(str(address))} is to become a dead letter")
        await _say_when_done(bus, address)
    return 0


async def kill(config: Config, given: argparse.Namespace) -> int:
    """End an instance: what waits for it becomes dead letters, and it starts afresh."""
    if not given.yes:
        raise NotPossible(
            f"this ends {given.address!r}: its state and reminders go, and what waits for it"
            " becomes dead letters; say so with --yes"
        )
    async with opened(config) as bus:
        address, _ = await _address(bus, given.address, "keyed", key=True)
        record = await _record(bus, address)
        last = await bus.last(subjects.stored_at(address))
        upto = max(last.seq if last else 0, record.done if record else 0)
        # Greater than any before, whatever the clocks of operators say.
        due = max(time.time_ns(), record.killed + 1 if record else 0)
        await record_action(bus, "kill", str(address), f"up to message {upto}")

        def change(before: Control) -> Control:
            earlier = before.kill.number + 1 if before.kill else 0
            return replace(before, kill=Kill(number=max(due, earlier), upto=upto, by=operator()))

        await change_control(bus, address, change)
        print(f"{harmless(str(address))} is to be ended")
        await _say_when_done(bus, address)
    return 0


async def _say_when_done(bus: Bus, address: Address) -> None:
    """Say so when it is done; a host that is not there does it once it is."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        control = await read_control(bus, address)
        stored = await bus.last(subjects.state(address.actor, token(address.key)))
        if control is None or await is_done(bus, control, stored):
            print("done")
            return
        await asyncio.sleep(LOOK_EVERY)
    print(f"not done yet: it is done once a host that runs {address.actor!r} gets to it")


# -- finding -----------------------------------------------------------------------------------


async def _address(bus: Bus, text: str, kind: str, *, key: bool = False) -> tuple[Address, bool]:
    """Read `actor/key`, or `actor` for the whole type; raises NotPossible for what is not there."""
    actor, slash, rest = text.partition("/")
    deployments = await read_deployments(bus)
    found = deployments.get(actor)
    if found is None:
        names = ", ".join(sorted(deployments)) or "none"
        raise NotPossible(f"no actor {actor!r} is deployed; deployed are {names}")
    if slash and not rest:
        raise NotPossible(f"{text!r}: expected actor/key, or an actor alone")
    if key and not rest:
        raise NotPossible(f"{text!r}: expected actor/key, for example {actor}/k1")
    if kind and found.kind != kind:
        raise NotPossible(
            f"{actor!r} is a {found.kind}, whose jobs have no key of their own: pause all of it,"
            " or stop a run by `callboard run stop`"
        )
    if found.kind == "remote":
        raise NotPossible(f"{actor!r} runs elsewhere, where its jobs are taken; pause it there")
    return Address(actor, rest or "_"), not rest


async def _record(bus: Bus, address: Address) -> Record | None:
    stored = await bus.last(subjects.state(address.actor, token(address.key)))
    try:
        return read_record(stored.data, bus) if stored else None
    except UNREADABLE:
        return None


async def _first(bus: Bus, address: Address, seq: int | None) -> Stored:
    """The first message that waits for a key, or the one at `seq`, if that waits for it."""
    record = await _record(bus, address)
    done = record.done if record else 0
    stored = await bus.at(
        max(seq or 0, done + 1), subjects.stored_mail(address.actor, token(address.key))
    )
    if stored is None or (seq is not None and stored.seq != seq):
        what = f"message {seq} does not wait" if seq is not None else "nothing waits"
        raise NotPossible(f"{what} for {str(address)!r}; see `callboard actors {address}`")
    return stored


def _type(stored: Stored) -> str:
    try:
        return decode_any(stored.data).type
    except UNREADABLE:
        return "unreadable"


# -- runs --------------------------------------------------------------------------------------


async def stop_run(config: Config, given: argparse.Namespace) -> int:
    """Stop a run: whoever does its job is refused from then on, and its sender is told."""
    async with opened(config) as bus:
        stored, record = await _run(bus, given.run)
        if record.state in ("finished", "stopped"):
            print(f"run {harmless(given.run)} was {record.state} before")
            return 0
        reason = f"stopped by {operator()}" + (f": {given.reason}" if given.reason else "")
        messages = await _stopping(bus, stored, record, given.run, reason[:MOST_REASON])
        try:
            await bus.commit(messages)
        except Conflict:
            raise NotPossible(f"run {given.run!r} moved on meanwhile; say it again") from None
    print(f"run {harmless(given.run)} of {harmless(record.job)} is stopped")
    return 0


async def show_run(config: Config, given: argparse.Namespace) -> int:
    """Print where a run stands."""
    async with opened(config) as bus:
        stored, record = await _run(bus, given.run)
    for name, value in msgspec.structs.asdict(record).items():
        if value and name != "epoch":
            print(f"{name + ':':<10}{harmless(str(value))}")
    print(f"{'since:':<10}{stored.time:%Y-%m-%d %H:%M:%S}")
    return 0


async def _run(bus: Bus, run: str) -> tuple[Stored, RunRecord]:
    stored = await bus.last(subjects.run(run))
    if stored is None:
        raise NotPossible(f"there is no run {run!r}: it never was, or its time is over")
    try:
        return stored, msgspec.json.decode(stored.data, type=RunRecord)
    except UNREADABLE:
        raise NotPossible(f"the record of run {run!r} cannot be read") from None


async def _stopping(
    bus: Bus, stored: Stored, record: RunRecord, run: str, reason: str
) -> list[Outgoing]:
    """What to store: the end of the run, what its sender is to hear, and who did it."""
    deployments = await read_deployments(bus)
    actor, _, key = record.job.partition("/")
    known = deployments.get(actor)
    ended = encode(replace(record, state="stopped", reason=reason))
    ttl = run_ttl(known) if known else 2 * DAY
    headers = {**ROLLUP, **expect(stored.seq), **expiry(ttl)}
    messages = [Outgoing(stored.subject, ended, headers)]
    job = await _job(bus, actor, key, run)
    if job is not None and (told := _tell_sender(job, record, run, reason, deployments)):
        messages.append(told)
    return [*messages, note("run.stop", record.job, f"run {run}: {reason}")]


async def _job(bus: Bus, actor: str, key: str, run: str) -> Envelope[msgspec.Raw] | None:
    if not subjects.ACTOR_NAME.fullmatch(actor):
        return None
    for priority in range(subjects.PRIORITIES):
        for stored in await bus.read_all(subjects.work(actor, priority, key), after=0):
            try:
                envelope = decode_any(stored.data)
            except UNREADABLE:
                continue
            if envelope.runid == run:
                return envelope
    return None


def _tell_sender(
    job: Envelope[msgspec.Raw],
    record: RunRecord,
    run: str,
    reason: str,
    deployments: dict[str, Deployment],
) -> Outgoing | None:
    actor, _, key = (job.resultto or job.source).partition("/")
    sender = deployments.get(actor)
    if sender is None or sender.kind != "keyed":
        return None
    failed = RunFailed(run=run, reason=reason, attempts=record.attempt)
    sealed = seal(
        failed,
        id=f"{run}.stopped",
        source=record.job,
        subject=key,
        correlationid=job.correlationid or job.id,
        causationid=job.id,
        principal=job.principal,
        runid=run,
        attempt=record.attempt,
    )
    return Outgoing(subjects.mail(Address(actor, key)), encode(sealed), expiry(sender.mail_ttl))


# -- arguments ---------------------------------------------------------------------------------


def pause_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pause` takes."""
    _takes_address(parser, "actor/key, or an actor for the whole type")
    parser.add_argument("--reason", default="", help="why, for those who look")


def resume_arguments(parser: argparse.ArgumentParser) -> None:
    """What `resume` takes."""
    _takes_address(parser, "actor/key, or an actor for the whole type")


def skip_arguments(parser: argparse.ArgumentParser) -> None:
    """What `skip` takes."""
    _takes_address(parser, "actor/key")
    parser.add_argument("--seq", type=number, help="that message, not the first that waits")


def kill_arguments(parser: argparse.ArgumentParser) -> None:
    """What `kill` takes."""
    _takes_address(parser, "actor/key")
    parser.add_argument("--yes", action="store_true", help="that is what is meant")


def stop_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run stop` takes."""
    show_run_arguments(parser)
    parser.add_argument("--reason", default="", help="why, for its sender and those who look")


def show_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run show` takes."""
    parser.add_argument("run", help="its id, as the log has it")


def _takes_address(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("address", help=text)
