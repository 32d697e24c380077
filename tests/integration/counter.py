"""An actor that counts, reminds itself, passes on, and misbehaves on request."""

from datetime import timedelta

import msgspec

from runtime import Actor, Reject, Turn, Worker, handler
from runtime.work import Work
from schemas.base import Address, Job, Message, Request, Topic
from schemas.record import RunFailed

EVENTS = Topic("counter", "a")
HERE = Address("counter", "a")


class Total(Message, tag="counter.total"):
    n: int
    said: list[str] = msgspec.field(default_factory=list)


class Add(Request[Total], tag="counter.add"):
    n: int


class Get(Request[Total], tag="counter.get"): ...


class Fail(Request[Total], tag="counter.fail"):
    times: int


class Pass(Message, tag="counter.pass"):
    to: str
    n: int


class Wake(Message, tag="counter.wake"):
    text: str


class SetAlarm(Request[Total], tag="counter.set_alarm"):
    name: str
    text: str
    seconds: float


class DropAlarm(Request[Total], tag="counter.drop_alarm"):
    name: str


class Stray(Request[Total], tag="counter.stray"): ...


class Huge(Request[Total], tag="counter.huge"):
    size: int


class Doubled(Message, tag="doubler.doubled"):
    n: int


class Double(Job[Doubled], tag="doubler.double"):
    n: int


class StartTwice(Request[Total], tag="counter.start_twice"): ...


class CounterState(msgspec.Struct):
    n: int = 0
    said: list[str] = []


failures: dict[str, int] = {}


class Counter(Actor):
    """Counts, and misbehaves on request."""

    state: CounterState

    @handler
    def add(self, message: Add, ctx: Turn) -> Total:
        self.state.n += message.n
        if message.n < 0:
            ctx.emit(EVENTS, Total(n=-1))
            raise Reject("NEGATIVE", f"{message.n} is below zero", status=422, told={"least": 0})
        ctx.emit(EVENTS, Total(n=self.state.n))
        return self._total()

    @handler
    def get(self, message: Get, ctx: Turn) -> Total:
        return self._total()

    @handler
    def fail(self, message: Fail, ctx: Turn) -> Total:
        self.state.n += 1000
        ctx.emit(EVENTS, Total(n=-2))
        failures[ctx.key] = failures.get(ctx.key, 0) + 1
        if failures[ctx.key] <= message.times:
            raise ValueError("not yet")
        return self._total()

    @handler
    def pass_on(self, message: Pass, ctx: Turn) -> None:
        self.state.n -= message.n
        ctx.tell(Address("counter", message.to), Wake(text=f"{message.n} from {ctx.key}"))

    @handler
    def wake(self, message: Wake, ctx: Turn) -> None:
        self.state.said.append(message.text)
        ctx.emit(Topic("counter", ctx.key), message)

    @handler
    def set_alarm(self, message: SetAlarm, ctx: Turn) -> Total:
        ctx.remind(message.name, Wake(text=message.text), after=timedelta(seconds=message.seconds))
        return self._total()

    @handler
    def drop_alarm(self, message: DropAlarm, ctx: Turn) -> Total:
        ctx.forget(message.name)
        return self._total()

    @handler
    def stray(self, message: Stray, ctx: Turn) -> Total:
        ctx.tell(Address("nobody", "x"), Wake(text="?"))
        return self._total()

    @handler
    def grow(self, message: Huge, ctx: Turn) -> Total:
        self.state.said.append("x" * message.size)
        return self._total()

    @handler
    def start_twice(self, message: StartTwice, ctx: Turn) -> Total:
        run = ctx.start(Address("doubler", ctx.key), Double(n=1))
        ctx.start(Address("doubler", ctx.key), Double(n=21))
        ctx.stop(run, "not needed after all")
        return self._total()

    @handler
    def take_result(self, message: Doubled, ctx: Turn) -> None:
        self.state.said.append(f"doubled {message.n}")
        ctx.emit(Topic("counter", ctx.key), message)

    @handler
    def take_failure(self, message: RunFailed, ctx: Turn) -> None:
        self.state.said.append(f"failed {message.reason}")

    def _total(self) -> Total:
        return Total(n=self.state.n, said=self.state.said)


class Doubler(Worker):
    """Doubles numbers."""

    @handler
    async def double(self, job: Double, ctx: Work) -> Doubled:
        return Doubled(n=2 * job.n)
