"""What the roster is to be after a deployment: by a file, by removing, by going back.

A plan changes nothing yet; runtime/terminal/rollout.py shows it and carries it out.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from runtime.deployments import Kept
from runtime.errors import NotPossible
from schemas.deployment import Deployment, Entry, Roster, is_same

Entries = dict[str, Entry]


class Plan(NamedTuple):
    """The entries that a roster is to be replaced with, and why."""

    before: Kept | None
    after: Entries
    note: str

    @property
    def old(self) -> dict[str, Deployment]:
        """What is deployed now."""
        return self.before.roster.deployments() if self.before else {}

    @property
    def new(self) -> dict[str, Deployment]:
        """What would be deployed."""
        return {name: one.deployment for name, one in self.after.items() if not one.removed}

    def changed_kinds(self) -> list[tuple[Deployment, Deployment]]:
        """What is of another kind than what last had its name, which its mail may be for."""
        entries = entries_of(self.before)
        pairs = [(entries[n].deployment, one) for n, one in self.new.items() if n in entries]
        return [(old, new) for old, new in pairs if (old.kind == "keyed") != (new.kind == "keyed")]


def entries_of(kept: Kept | None) -> Entries:
    """The entries of a roster by name, removed ones too."""
    return {one.deployment.name: one for one in kept.roster.entries} if kept else {}


def plan_deployment(
    before: Kept | None,
    deployments: Iterable[Deployment],
    *,
    remove: Sequence[str] = (),
    prune: bool = False,
    note: str,
) -> Plan:
    """Deploy these, and remove some, or with `prune` all others; raises NotPossible.

    What is deployed just so already stays as it is, the file's if it came from a file.
    """
    after = entries_of(before)
    named: set[str] = set()
    for one in deployments:
        named.add(one.name)
        there = after.get(one.name)
        if there is None or there.removed or not is_same(there.deployment, one):
            after[one.name] = Entry(source="live", deployment=one)
        else:
            after[one.name] = replace(there, deployment=one)
    if both := named & set(remove):
        raise NotPossible(f"the file deploys {', '.join(sorted(both))}, and --remove takes it away")
    _check_deployed(after, remove)
    gone = [name for name in after if name in remove or (prune and name not in named)]
    return Plan(before, after | {name: _removed(after[name]) for name in gone}, note)


def plan_rollback(before: Kept | None, history: Sequence[Roster], revision: int | None) -> Plan:
    """Deploy again what an earlier revision did; by default the one before the newest.

    Raises NotPossible if it is not kept. What is not in it is removed, so that no file brings
    it back; what differs from now counts as deployed live.
    """
    target = _find_revision(history, revision)
    now, then = entries_of(before), {one.deployment.name: one for one in target.entries}
    after = {name: _removed(one) for name, one in now.items() if name not in then}
    for name, one in then.items():
        there = now.get(name)
        if there and there.removed == one.removed and is_same(there.deployment, one.deployment):
            after[name] = there
        else:
            after[name] = replace(one, source="live")
    return Plan(before, after, f"back to revision {target.revision}")


def _find_revision(history: Sequence[Roster], revision: int | None) -> Roster:
    if not history:
        raise NotPossible("nothing was ever deployed")
    kept = [one.revision for one in history]
    if revision is None and len(history) > 1:
        return history[-2]
    if found := [one for one in history if one.revision == revision]:
        return found[-1]
    if revision is None:
        raise NotPossible(f"revision {kept[-1]} is the only one; there is nothing to go back to")
    raise NotPossible(f"revision {revision} is not kept; kept are {kept[0]} to {kept[-1]}")


def _removed(entry: Entry) -> Entry:
    return entry if entry.removed else replace(entry, source="live", removed=True)


def _check_deployed(entries: Entries, names: Sequence[str]) -> None:
    deployed = [name for name, one in entries.items() if not one.removed]
    for name in names:
        if name not in deployed:
            near = difflib.get_close_matches(name, deployed, 1)
            known = ", ".join(sorted(deployed)) or "nothing"
            hint = f"did you mean {near[0]!r}?" if near else f"deployed is {known}"
            raise NotPossible(f"--remove {name}: no such actor is deployed; {hint}")
