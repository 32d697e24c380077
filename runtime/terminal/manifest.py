"""A file of deployments: `[[actor]]` tables, as in the configuration, checked whole.

Everything that is wrong with it is found at once, each with its line. What the tables mean is
said in runtime/config.py.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from runtime.actor import Actor, Worker, read_options
from runtime.actor_table import DURATIONS, ActorTable, find_faults
from runtime.config import duration
from runtime.errors import ConfigError
from runtime.lines import Place
from runtime.source import Source, one_line, quote, suggest
from runtime.system import handled_by, kind_of, load_class
from runtime.tables import Config
from schemas.deployment import Deployment

OTHER_TABLES = tuple(name for name in Config.__struct_fields__ if name != "actor")
ONLY_FOR_JOBS = ("concurrency", "deadline", "attempts")
SECRET = re.compile(
    "secret|key|token|password|passwd|passphrase|credential|authorization|bearer|cookie|signature"
)
"""Names of options whose values are not shown, unless they only name a variable."""

_FIELDS = {field.name: field for field in msgspec.structs.fields(ActorTable)}
_STAND_IN = {"name": "stand-in", "type": "stand:In"}


class Manifest(NamedTuple):
    """What a file deploys; `hints` are sentences about what is allowed and perhaps not meant."""

    deployments: list[Deployment]
    hints: list[str]


def read_manifest(path: Path) -> Manifest:
    """Read a file and load all it names; raises ConfigError with a line for each fault."""
    return _Reader(path).read()


def is_secret(name: str) -> bool:
    """Whether an option of this name holds a secret, and does not only say where one is."""
    return bool(SECRET.search(name.lower())) and not name.lower().endswith("_env")


def deployment_of(table: ActorTable, cls: type[Actor] | type[Worker]) -> Deployment:
    """What an `[[actor]]` table deploys; raises ConfigError for options the class refuses."""
    options = read_options(cls, table.name, table.options)
    deployment = Deployment(
        name=table.name,
        type=table.type,
        kind=kind_of(cls),
        concurrency=table.concurrency,
        options=table.options,
        mail_ttl=table.mail_ttl,
        lifetime=table.lifetime,
        deadline=table.deadline,
        attempts=table.attempts,
        handles=handled_by(cls),
    )
    try:
        cls.check_deployment(deployment, options)
    except ValueError as error:
        raise ConfigError(f'actor "{table.name}": options: {error}') from None
    return deployment


class _Reader:
    """Reads one file, and gathers what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source = Source(path)
        self._faults: list[str] = []
        self._hints: list[str] = []
        self._seen: set[str] = set()

    def read(self) -> Manifest:
        tables = self._check_tables()
        found = [self._read_actor(table, ("actor", n)) for n, table in enumerate(tables)]
        if self._faults:
            raise ConfigError("\n".join(sorted(self._faults, key=_line_of)))
        return Manifest([each for each in found if each is not None], self._hints)

    def _blame(self, fault: ConfigError) -> None:
        self._faults.append(one_line(str(fault)))

    def _check_tables(self) -> list[dict[str, Any]]:
        """The `[[actor]]` tables; the others of a whole configuration are passed over."""
        raw = self._source.raw
        for name in sorted(raw.keys() - {"actor", *OTHER_TABLES}):
            known = suggest(name, ("actor", *OTHER_TABLES))
            self._blame(self._source.fault((name,), known))
        if passed := [f"[{name}]" for name in OTHER_TABLES if name in raw]:
            said = f"{self._path}: {', '.join(passed)} passed over: read when a process starts"
            self._hints.append(one_line(said))
        tables = raw.get("actor")
        if isinstance(tables, list) and tables and all(isinstance(t, dict) for t in tables):
            return tables
        self._blame(self._source.fault(("actor",), "expected at least one table [[actor]]"))
        return []

    def _read_actor(self, table: dict[str, Any], place: Place) -> Deployment | None:
        values = self._read_fields(table, place)
        actor = ActorTable(**{**_STAND_IN, **values})
        wrong = table.keys() & _FIELDS.keys() - values.keys()
        for inner, reason in find_faults(actor):
            wrong.add(str(inner[0]))
            self._blame(self._source.fault((*place, *inner), reason))
        if "name" in values:
            self._check_once(actor.name, place)
        if "type" not in values or wrong & {"type", "options"}:
            return None
        if deployment := self._load(actor, place):
            self._hint(deployment, table, place)
        return deployment

    def _read_fields(self, table: dict[str, Any], place: Place) -> dict[str, Any]:
        """The fields that can be read; what is wrong with the others is noted."""
        values: dict[str, Any] = {}
        for name in sorted(table.keys() - _FIELDS.keys()):
            said = suggest(name, tuple(_FIELDS))
            self._blame(self._source.fault((*place, name), said))
        for name, field in _FIELDS.items():
            if name not in table:
                if field.required:
                    said = "is missing, and has no default"
                    self._blame(self._source.fault((*place, name), said))
                continue
            try:
                values[name] = self._read_field((*place, name), field.type)
            except ConfigError as fault:
                self._blame(fault)
        return values

    def _read_field(self, place: Place, kind: Any) -> Any:
        if place[-1] in DURATIONS:
            text = self._source.raw["actor"][place[1]][place[-1]]
            return self._source.at(place, duration, text)
        return self._source.convert_part(place, kind, Config)

    def _check_once(self, name: str, place: Place) -> None:
        if name in self._seen:
            self._blame(self._source.fault((*place, "name"), f"{quote(name)} is given twice"))
        self._seen.add(name)

    def _load(self, actor: ActorTable, place: Place) -> Deployment | None:
        """Load the class and decode its options, as a host would."""
        inner: Place = ("type",)
        try:
            cls = load_class(actor.name, actor.type)
            inner = ("options",)
            return deployment_of(actor, cls)
        except ConfigError as error:
            reason = str(error).removeprefix(f'actor "{actor.name}": ').removeprefix("options: ")
            if inner == ("options",):
                inner += _place_in(reason)
            self._blame(self._source.fault((*place, *inner), reason))
            return None

    def _hint(self, deployment: Deployment, table: dict[str, Any], place: Place) -> None:
        for name in ONLY_FOR_JOBS:
            if name in table and deployment.kind == "keyed":
                said = "means nothing here: a keyed actor does no jobs"
                self._hints.append(str(self._source.fault((*place, name), said)))
        for name in _find_secrets(deployment.options):
            said = f"{name} is kept as it is here; name a variable that holds it, {name}_env"
            self._hints.append(str(self._source.fault((*place, "options", name), said)))


def _line_of(fault: str) -> int:
    found = re.search(r":(\d+): ", fault)
    return int(found[1]) if found else 0


def _find_secrets(options: dict[str, Any]) -> Iterator[str]:
    return (name for name, value in options.items() if value and is_secret(name))


def _place_in(reason: str) -> Place:
    """Where in the options an error of msgspec is."""
    _, _, where = reason.partition(" - at `$")
    known = where.partition("`")[0].partition("[...]")[0]
    found = re.findall(r"\.([A-Za-z_]\w*)|\[(\d+)\]", known)
    return tuple(name or int(index) for name, index in found)
