"""`callboard deploy`: shows what would change, changes it at once, and waits for the hosts."""

import argparse
import asyncio
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from runtime.actor import read_options
from runtime.audit import operator, record_action
from runtime.bus import Bus
from runtime.deployments import read_history, read_roster, replace_roster
from runtime.errors import ConfigError, Conflict, NotPossible, Unknown
from runtime.loads import Load, read_held, read_loads
from runtime.modules import add_modules
from runtime.open import opened
from runtime.system import handled_by, load_class
from runtime.tables import Config
from runtime.terminal.difference import Difference, compare, describe
from runtime.terminal.manifest import read_manifest
from runtime.terminal.overview import read_nodes
from runtime.terminal.plan import Plan, plan_deployment, plan_rollback
from runtime.terminal.shown import align, harmless
from schemas.deployment import Deployment, Roster
from schemas.node import Node

LOOK_EVERY = 0.1
HEADING = ("revision", "when", "by", "what", "why")


def deploy_arguments(parser: argparse.ArgumentParser) -> None:
    """What `callboard deploy` takes."""
    parser.add_argument("file", nargs="?", type=Path, help="a TOML file with [[actor]] tables")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, only")
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    parser.add_argument(
        "--remove",
        metavar="NAME",
        action="append",
        default=[],
        help="an actor to take away; may be repeated",
    )
    parser.add_argument("--prune", action="store_true", help="remove all that FILE does not name")
    parser.add_argument(
        "--rollback",
        metavar="REVISION",
        type=_revision,
        nargs="?",
        const=0,
        help="deploy what a revision did; by default the one before the newest",
    )
    parser.add_argument("--history", action="store_true", help="show the revisions that are kept")
    parser.add_argument(
        "--wait", metavar="SECONDS", type=_seconds, default=15.0, help="for hosts to follow: 15"
    )
    parser.set_defaults(refuse=parser.error)


def _revision(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a revision of --history")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, 0 to 9999")
    return float(text)


async def deploy(config: Config, given: argparse.Namespace) -> int:
    """Deploy a file, remove actors or go back to a revision; 1 if a host does not follow."""
    _check_arguments(given)
    add_modules(config.host.modules)
    manifest = read_manifest(given.file) if given.file else None
    for hint in manifest.hints if manifest else []:
        print(f"note: {harmless(hint, lines=False)}")
    async with opened(config) as bus:
        if given.history:
            return await _show_history(bus)
        plan = await _make_plan(bus, manifest.deployments if manifest else [], given)
        difference = compare(plan.old, plan.new)
        await _show(bus, plan, difference)
        if plan.new == plan.old:
            await _say_what_is_stale(bus, await read_nodes(bus), plan)
            return 0
        if given.dry_run:
            print("nothing was changed: this was a dry run")
            return 0
        if difference.removed and not _is_sure(given):
            print("nothing was changed")
            return 1
        roster = await _carry_out(bus, plan, difference)
        nodes = await _wait_for_hosts(bus, roster, given.wait)
        good = _say_who_follows(nodes, roster, difference, given.wait)
        await _say_what_is_stale(bus, nodes, plan)
        return 0 if good else 1


def _check_arguments(given: argparse.Namespace) -> None:
    changes = bool(given.file or given.remove)
    if changes + (given.rollback is not None) + given.history != 1:
        given.refuse("expected FILE or --remove, or --rollback, or --history")
    if given.prune and not given.file:
        given.refuse("--prune removes what a FILE does not name; expected one")


async def _make_plan(bus: Bus, deployments: list[Deployment], given: argparse.Namespace) -> Plan:
    before = await read_roster(bus)
    if given.rollback is not None:
        plan = plan_rollback(before, await read_history(bus), given.rollback or None)
        plan = _load(plan)
    else:
        note = f"from {given.file.name}" if given.file else "removed"
        plan = plan_deployment(
            before, deployments, remove=given.remove, prune=given.prune, note=note
        )
    await _check_kinds(bus, plan)
    return plan


def _load(plan: Plan) -> Plan:
    """A rollback may name what is not there any more, or handles other messages by now."""
    after = dict(plan.after)
    for name, one in plan.new.items():
        if plan.old.get(name) == one:
            continue
        try:
            cls = load_class(name, one.type)
            read_options(cls, name, one.options)
        except ConfigError as error:
            raise NotPossible(f"{error}; deploy a file instead, or bring the module back") from None
        after[name] = replace(after[name], deployment=replace(one, handles=handled_by(cls)))
    return plan._replace(after=after)


async def _check_kinds(bus: Bus, plan: Plan) -> None:
    """What waits for a keyed actor no worker can do, nor the other way round."""
    for old, new in plan.changed_kinds():
        if waiting := await _waiting(bus, old):
            raise NotPossible(
                f"{old.name} was {old.kind} and would be {new.kind}, but {waiting}: nobody would"
                f" handle that; deploy it under another name, or as it was until nothing waits"
            )


async def _waiting(bus: Bus, one: Deployment) -> str:
    """What is in an actor's mailbox, in words; nothing if it is empty."""
    load = (await read_loads(bus, [one])).get(one.name, Load())
    kept = await read_held(bus)
    held = [each.waiting for each in kept if each.control.address.startswith(f"{one.name}/")]
    timers = await bus.api(
        f"STREAM.INFO.{bus.stream}", {"subjects_filter": f"timer.{one.name}.>", "offset": 0}
    )
    found = (
        (load.waiting + sum(held), "waiting"),
        (load.in_hand, "in hand"),
        (int(timers.get("total", 0)), "reminders"),
    )
    return ", ".join(f"{count} {what}" for count, what in found if count)


# -- showing -----------------------------------------------------------------------------------


async def _show(bus: Bus, plan: Plan, difference: Difference) -> None:
    for line in describe(plan.old, plan.new):
        print(line)
    for name in difference.removed:
        if waiting := await _waiting(bus, plan.old[name]):
            print(
                f"note: {name} has {waiting}; it waits until {name} is deployed again, and goes"
                " when its time to live is over"
            )
    if difference:
        return
    if plan.new != plan.old:
        print("note: other messages are handled by the code of today; that is deployed with it")
    else:
        revision = plan.before.roster.revision if plan.before else 0
        print(f"nothing to change: revision {revision} is just so")


async def _show_history(bus: Bus) -> int:
    history = await read_history(bus)
    rows = [HEADING]
    before: dict[str, Deployment] = {}
    for n, roster in enumerate(history):
        after = roster.deployments()
        what = compare(before, after).summary() or "="
        # Of the oldest that is kept it is not known what it was before.
        what = what if n or roster.revision == 1 else f"{len(after)} actors"
        when = f"{roster.at:%Y-%m-%d %H:%M:%S}"
        rows.append((str(roster.revision), when, harmless(roster.by), what, harmless(roster.note)))
        before = after
    for line in align(rows):
        print(line)
    return 0


def _is_sure(given: argparse.Namespace) -> bool:
    if given.yes:
        return True
    if not sys.stdin.isatty():
        raise NotPossible("something would be removed; say --yes where nobody can be asked")
    return input("remove what is marked with -? [y/N] ").strip().lower() in ("y", "yes")


# -- doing -------------------------------------------------------------------------------------


async def _carry_out(bus: Bus, plan: Plan, difference: Difference) -> Roster:
    """Write it down, then replace the roster, unless somebody else did meanwhile."""
    by = operator()
    revision = plan.before.roster.revision + 1 if plan.before else 1
    detail = f"{difference.summary()} ({plan.note})"
    await record_action(bus, "deploy", f"revision {revision}", detail)
    try:
        roster = await replace_roster(bus, plan.before, plan.after.values(), by=by, note=plan.note)
    except Unknown:
        raise NotPossible(
            "the server did not say in time whether it took this; look with --history"
        ) from None
    except Conflict:
        found = await read_roster(bus)
        who = f" by {harmless(found.roster.by)}" if found else ""
        raise NotPossible(
            f"revision {revision} was deployed{who} meanwhile, so nothing of this was;"
            " look at it with --history, and deploy again"
        ) from None
    print(f"deployed as revision {roster.revision}")
    return roster


async def _wait_for_hosts(bus: Bus, roster: Roster, seconds: float) -> list[Node]:
    """The living hosts, once all of them run it, or the time is up."""
    deadline = time.monotonic() + seconds
    nodes = await read_nodes(bus)
    while time.monotonic() < deadline and any(one.revision < roster.revision for one in nodes):
        await asyncio.sleep(LOOK_EVERY)
        nodes = await read_nodes(bus)
    return nodes


def _say_who_follows(
    nodes: Sequence[Node], roster: Roster, difference: Difference, seconds: float
) -> bool:
    """Say how each host does; whether all is well."""
    if not nodes:
        print("no host is alive; each takes it when it starts")
    names = [*difference.added, *difference.changed]
    good = [_say_how_it_does(node, roster.revision, names, seconds) for node in nodes]
    deployed = roster.deployments()
    for name in names if nodes and all(good) else []:
        served = any(name in [*node.actors, *node.paused] for node in nodes)
        if not served and deployed[name].kind != "remote":
            print(f"note: no host runs {name}; look at host.run in their configuration")
    return all(good)


def _say_how_it_does(node: Node, revision: int, names: Sequence[str], seconds: float) -> bool:
    """Say whether a host took it, and what of it stands still there."""
    if node.revision < revision:
        print(f"{node.name} did not take it within {seconds:g} s; it is at {node.revision}")
        return False
    still = [name for name in names if name in node.paused]
    if not still:
        print(f"{node.name} runs it")
    for name in still:
        reason = harmless(node.paused[name], lines=False)
        print(f"{node.name} took it, but {name} stands still there: {reason}")
    return not still


async def _say_what_is_stale(bus: Bus, nodes: Iterable[Node], plan: Plan) -> None:
    """A host that has imported a module does not look at its file again."""
    history = await read_history(bus)
    for module in sorted({m for one in plan.new.values() for m in _modules_of(one)}):
        file = getattr(sys.modules.get(module), "__file__", None)
        if not file:
            continue
        changed, loaded = Path(file).stat().st_mtime, _first_named(module, history)
        behind = [one.name for one in nodes if max(one.started.timestamp(), loaded) < changed]
        if behind:
            print(
                f"note: {file} was changed after {', '.join(behind)} had loaded it;"
                " a host runs the code that it has loaded until it is restarted"
            )


def _first_named(module: str, history: Sequence[Roster]) -> float:
    """Since when a module is in use, as far as is known: no host had loaded it before."""
    naming = [r for r in history if any(module in _modules_of(e.deployment) for e in r.entries)]
    if not naming or (naming[0] is history[0] and history[0].revision > 1):
        return 0.0
    return naming[0].at.timestamp()


def _modules_of(deployment: Deployment) -> Iterator[str]:
    for path in (deployment.type, deployment.options.get("call")):
        if isinstance(path, str) and ":" in path:
            yield path.partition(":")[0]
