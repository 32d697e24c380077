"""How two rosters differ, field by field, as a person reads it. Secrets are not shown."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec

from runtime.terminal.manifest import is_secret
from runtime.terminal.shown import harmless
from schemas.deployment import Deployment, is_same

HIDDEN = "***"
LONGEST = 200
_USERINFO = re.compile(r"://[^/@\s]+@")
# In the query of an address, and among the arguments of a program.
_NAMED = re.compile(r"(^|[?&;\s])([^=?&;\s]+)=([^&;\s]+)")
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))

Deployments = Mapping[str, Deployment]


class Difference(NamedTuple):
    """The names of what is added, changed, removed, and as it was."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: list[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def summary(self) -> str:
        """On one line: `+new ~other -gone`."""
        marks = (("+", self.added), ("~", self.changed), ("-", self.removed))
        return " ".join(f"{mark}{name}" for mark, names in marks for name in names)


def compare(before: Deployments, after: Deployments) -> Difference:
    """Which names differ, and how."""
    both = sorted(before.keys() & after.keys())
    return Difference(
        added=sorted(after.keys() - before.keys()),
        changed=[name for name in both if not is_same(before[name], after[name])],
        removed=sorted(before.keys() - after.keys()),
        unchanged=[name for name in both if is_same(before[name], after[name])],
    )


def describe(before: Deployments, after: Deployments) -> Iterator[str]:
    """The difference in lines: `+` added, `~` changed, `-` removed, `=` unchanged."""
    found = compare(before, after)
    for name in found.added:
        yield f"+ {name}  {after[name].kind}"
        yield from (f"    {where}: {one.text}" for where, one in _fields(after[name]).items())
    for name in found.changed:
        yield f"~ {name}"
        yield from _describe_change(before[name], after[name])
    for name in found.removed:
        yield f"- {name}  {before[name].kind}  {harmless(before[name].type, lines=False)}"
    if found.unchanged:
        yield f"= unchanged: {', '.join(found.unchanged)}"


def _describe_change(before: Deployment, after: Deployment) -> Iterator[str]:
    old, new = _fields(before, whole=True), _fields(after, whole=True)
    for field in [*old, *(field for field in new if field not in old)]:
        was, now = old.get(field, _NONE), new.get(field, _NONE)
        if was.text != now.text:
            yield f"    {field}: {was.text} → {now.text}"
        elif was.value != now.value:
            yield f"    {field}: {was.text} → another one"


class _Field(NamedTuple):
    """A value, and as it may be shown."""

    text: str
    value: Any = None


_NONE = _Field("none")


def _fields(deployment: Deployment, *, whole: bool = False) -> dict[str, _Field]:
    """Fields as text; without `whole` only those that are not as they are by default."""
    found: dict[str, _Field] = {}
    for field in msgspec.structs.fields(deployment):
        value = getattr(deployment, field.name)
        if field.name == "options":
            found |= dict(_flatten(value, "options"))
        elif field.name in ("type", "kind"):
            if whole or field.name == "type":
                found[field.name] = _Field(harmless(value, lines=False), value)
        elif field.name not in ("name", "handles") and (whole or value != field.default):
            found[field.name] = _Field(_show(value), value)
    return found


def _flatten(options: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, _Field]]:
    for name, value in options.items():
        where = f"{prefix}.{harmless(name, lines=False)}"
        if is_secret(name):
            yield where, _Field(HIDDEN, value)
        elif isinstance(value, dict) and value:
            yield from _flatten(value, where)
        else:
            yield where, _Field(_show(_without_secrets(value)), value)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return _NAMED.sub(_hide, value)
    if isinstance(value, list):
        words = zip([None, *value], value, strict=False)
        return [HIDDEN if _announces(word) else _without_secrets(each) for word, each in words]
    if isinstance(value, dict):
        return {k: HIDDEN if is_secret(k) else _without_secrets(v) for k, v in value.items()}
    return value


def _hide(named: re.Match[str]) -> str:
    before, name, _ = named.groups()
    return f"{before}{name}={HIDDEN}" if is_secret(name) else named[0]


def _announces(word: Any) -> bool:
    """Whether an argument says that the next one is a secret: `--token`."""
    return isinstance(word, str) and word.startswith("-") and "=" not in word and is_secret(word)


def _show(value: Any) -> str:
    if isinstance(value, timedelta):
        return show_duration(value)
    text = msgspec.json.encode(value).decode()
    text = harmless(_USERINFO.sub(f"://{HIDDEN}@", text), lines=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def show_duration(value: timedelta) -> str:
    """As the configuration would say it: `90s`, `24h`, `250ms`."""
    for size, unit in _UNITS:
        if value and value % timedelta(seconds=size) == timedelta():
            return f"{value // timedelta(seconds=size)}{unit}"
    return f"{value // timedelta(milliseconds=1)}ms"
