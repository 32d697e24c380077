"""What an actor is, and how its handlers are found. Next: runtime/turn.py."""

import inspect
from collections.abc import Callable, Mapping
from functools import reduce
from operator import or_
from typing import Any, ClassVar, TypeVar, get_type_hints

import msgspec

from runtime.errors import ActorDefinitionError, ConfigError
from runtime.workplace import Workplace
from schemas.base import Job, Message, reply_type, tag_of
from schemas.deployment import Deployment
from schemas.envelope import Envelope

Method = TypeVar("Method", bound=Callable[..., Any])

_MARK = "__handler__"


def handler(method: Method) -> Method:
    """Mark a method as the handler of the message type that it is annotated with."""
    setattr(method, _MARK, True)
    return method


class _Definition:
    """What both kinds of actor have in common: options, and one method per message type."""

    Options: ClassVar[type[msgspec.Struct] | None] = None
    handlers: ClassVar[Mapping[type[Message], str]] = {}
    messages: ClassVar[Any] = None
    """The union of the message types it handles."""

    def __init__(self, options: Any = None) -> None:
        self.options = options

    @classmethod
    def check_deployment(cls, deployment: Deployment, options: Any) -> None:
        """Raise ValueError if its options do not fit what else a deployment says."""

    @classmethod
    def _find_handlers(cls) -> None:
        found: dict[type[Message], str] = {}
        for name, method in inspect.getmembers(cls, inspect.isfunction):
            if hasattr(method, _MARK):
                message = _message_type(method)
                if message in found:
                    raise ActorDefinitionError(
                        f"{cls.__name__} handles {message.__name__} twice:"
                        f" in {found[message]} and in {name}"
                    )
                cls._check(method, message)
                found[message] = name
        if not found:
            raise ActorDefinitionError(
                f"{cls.__name__} handles nothing; decorate a method with @handler"
            )
        cls.handlers = found
        cls.messages = reduce(or_, found)

    @classmethod
    def _check(cls, method: Callable[..., Any], message: type[Message]) -> None:
        raise NotImplementedError


class Actor(_Definition):
    """A keyed actor: one instance per key, one message at a time, each applied once.

    Its `state:` annotation names a msgspec Struct whose fields all have defaults. Handlers
    are plain functions `(self, message, ctx: Turn)`: they change `self.state`, send through
    `ctx`, and return the answer to a request. Nothing is sent before all of it is stored.
    """

    state_type: ClassVar[type[msgspec.Struct]]
    decode_mail: ClassVar[Callable[[bytes], Envelope[Any]]]
    state: Any

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        state = get_type_hints(cls).get("state")
        if not (isinstance(state, type) and issubclass(state, msgspec.Struct)):
            raise ActorDefinitionError(
                f"{cls.__name__} must annotate `state:` with a msgspec Struct, not {state!r};"
                " without state it would be a Worker"
            )
        try:
            state()
        except TypeError as error:
            raise ActorDefinitionError(
                f"{cls.__name__}: every field of {state.__name__} needs a default,"
                f" because a new instance starts with it: {error}"
            ) from None
        cls.state_type = state
        cls._find_handlers()
        cls.decode_mail = msgspec.json.Decoder(Envelope[cls.messages]).decode  # type: ignore[name-defined]  # a union made here

    @classmethod
    def _check(cls, method: Callable[..., Any], message: type[Message]) -> None:
        where = f"{cls.__name__}.{method.__name__}"
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            raise ActorDefinitionError(
                f"{where} must be a plain function: a turn cannot wait;"
                " start a job and take its result as a message"
            )
        wanted, given = reply_type(message), get_type_hints(method).get("return")
        if wanted is not None and given is not wanted:
            raise ActorDefinitionError(
                f"{where} answers {message.__name__}, so it must return {wanted.__name__},"
                f" not {getattr(given, '__name__', given)!r}"
            )


class Worker(_Definition):
    """Does jobs: stateless, any number at once, slow if need be, perhaps tried again.

    Handlers are coroutines `(self, job, ctx: Work)` that return the result, or async
    generators that yield `Delta`s and last the result. The result goes to whoever started
    the job, as a message. `remote` workers have no handlers run on a host: their jobs are
    taken through the edge.
    """

    remote: ClassVar[bool] = False
    workplace: Workplace
    """Where it runs; known from `on_start` on."""
    speaking: ClassVar[frozenset[type[Message]]]
    """The jobs whose handlers yield what they have to say."""
    decode_job: ClassVar[Callable[[bytes], Envelope[Any]]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._find_handlers()
        cls.speaking = frozenset(
            message
            for message, name in cls.handlers.items()
            if inspect.isasyncgenfunction(getattr(cls, name))
        )
        cls.decode_job = msgspec.json.Decoder(Envelope[cls.messages]).decode  # type: ignore[name-defined]  # a union made here

    async def on_start(self) -> None:
        """Called once per host, before the first job."""

    async def on_stop(self) -> None:
        """Called once per host, after the last job."""

    @classmethod
    def _check(cls, method: Callable[..., Any], message: type[Message]) -> None:
        where = f"{cls.__name__}.{method.__name__}"
        if not issubclass(message, Job):
            raise ActorDefinitionError(
                f"{where} handles {message.__name__}, which is not a Job;"
                f" declare it as `class {message.__name__}(Job[Result], tag={tag_of(message)!r})`"
            )
        if not (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)):
            raise ActorDefinitionError(
                f"{where} must be a coroutine (`async def`): jobs take time, and others must"
                " go on meanwhile"
            )


def read_options(cls: type[_Definition], name: str, options: Mapping[str, Any]) -> Any:
    """Decode a deployment's options into the type's `Options`.

    Raises ConfigError with the actor's name and what is wrong.
    """
    if cls.Options is None:
        if options:
            given = ", ".join(sorted(options))
            raise ConfigError(f'actor "{name}": {cls.__name__} takes no options, but got {given}')
        return None
    try:
        return msgspec.convert(dict(options), cls.Options)
    except msgspec.ValidationError as error:
        raise ConfigError(f'actor "{name}": options: {error}') from None


def _message_type(method: Callable[..., Any]) -> type[Message]:
    parameters = list(inspect.signature(method).parameters)
    if len(parameters) != 3:
        raise ActorDefinitionError(
            f"{method.__qualname__} must take exactly (self, message, ctx),"
            f" but takes ({', '.join(parameters)})"
        )
    hint = get_type_hints(method).get(parameters[1])
    if not (isinstance(hint, type) and issubclass(hint, Message)):
        raise ActorDefinitionError(
            f"{method.__qualname__} must annotate {parameters[1]!r} with the message type"
            f" it handles, not {hint!r}"
        )
    if hint.__struct_config__.tag is None or hint.__struct_config__.tag == hint.__name__:
        raise ActorDefinitionError(
            f'{hint.__name__} needs its name on the wire: class {hint.__name__}(…, tag="area.verb")'
        )
    return hint
