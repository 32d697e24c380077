"""What all parts of one host share: the bus, the committer, the clock, what is deployed."""

import asyncio
import importlib
import secrets
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from runtime.actor import Actor, Worker, read_options
from runtime.bus import Bus
from runtime.clock import Clock
from runtime.committer import Committer
from runtime.controls import Controls
from runtime.errors import ActorDefinitionError, ConfigError
from runtime.lookup import Lookup
from runtime.marker import Marker
from runtime.memory import Held, Idle
from runtime.modules import check_name
from runtime.objects import FileStore
from schemas.base import tag_of
from schemas.deployment import Deployment, Kind
from schemas.node import Failing

LOADS_AT_ONCE = 256


class System:
    """One host's shared parts. `fail` is how a part says that it cannot go on."""

    def __init__(self, bus: Bus, *, name: str, clock: Clock | None = None) -> None:
        self.bus = bus
        self.name = name
        self.incarnation = f"{name}-{secrets.token_hex(4)}"
        """Tells this process from an earlier one of the same name."""
        self.broken = False
        """A part of this host could not go on: what it was at may be the reason."""
        self.suspect = ""
        """The run that is being tried alone, because hosts ended while they tried it."""
        self.marker = Marker(bus, self.incarnation)
        self.clock = clock or Clock()
        self.committer = Committer(bus)
        self.lookup = Lookup(bus)
        self.files = FileStore(bus)
        self.loading = asyncio.Semaphore(LOADS_AT_ONCE)
        """Taken to read a record: after a start every key wants its own at once."""
        self.idle = Idle()
        self.held = Held()
        self.first_backoff = 0.05
        """Seconds before a failed handler is tried again; each further wait is four times it."""
        self.deployments: dict[str, Deployment] = {}
        self.controls = Controls(bus)
        self.failing: dict[tuple[str, str], Failing] = {}
        """By actor and key's token: the instances here whose first message fails."""
        self.fail: Callable[[BaseException, str], None] = _raise


def _raise(error: BaseException, actor: str) -> None:
    raise error


class ActorType:
    """A keyed type as it is deployed: its class, its options, how its state is decoded.

    It may be changed between any two turns, so ask it each time.
    """

    def __init__(self, deployment: Deployment, cls: type[Actor]) -> None:
        self.name = deployment.name
        self.change(deployment, cls)

    def change(self, deployment: Deployment, cls: type[Actor]) -> None:
        """Be deployed like this from the next turn on; raises ConfigError and stays as it was."""
        self.options = read_options(cls, deployment.name, deployment.options)
        self.deployment = deployment
        self.cls = cls
        self.new_state: Callable[[], Any] = cls.state_type
        self.decode_state = msgspec.json.Decoder(cls.state_type).decode


def load_class(name: str, path: str) -> type[Actor] | type[Worker]:
    """Import `package.module:Class`; raises ConfigError with what is wrong with it."""
    module_name, _, class_name = path.partition(":")
    check_name(module_name)
    # Modules may have been added to the folder since the last look.
    importlib.invalidate_caches()
    known = module_name in sys.modules
    try:
        found: Any = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        if not known:
            # Once it is mended it is to be read again.
            sys.modules.pop(module_name, None)
        raise ConfigError(
            f'actor "{name}": cannot load type "{path}" (expected "package.module:Class"):'
            f" {_describe(error)}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Actor | Worker)):
        raise ConfigError(f'actor "{name}": {path} is neither an Actor nor a Worker')
    return found


def _describe(error: BaseException) -> str:
    """What went wrong, with its kind where the words alone would not tell."""
    plain = isinstance(error, ImportError | AttributeError | ActorDefinitionError | ValueError)
    return str(error) if plain else f"{type(error).__name__}: {error}"


def handled_by(cls: type[Actor] | type[Worker]) -> tuple[str, ...]:
    """The messages that a class handles, by their names on the wire."""
    return tuple(sorted(tag_of(message) for message in cls.handlers))


def kind_of(cls: type[Actor] | type[Worker]) -> Kind:
    """Which kind of deployment a class makes."""
    if issubclass(cls, Actor):
        return "keyed"
    return "remote" if cls.remote else "worker"
