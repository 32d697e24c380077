"""Does a task's order by calling a function, a webhook or a program; or leaves it to the edge.

Each way is a file of its own: actors/function.py, actors/webhook.py, actors/process.py.
"""

from typing import Any, ClassVar, Protocol

from actors.function import Function, FunctionOptions
from actors.limits import as_json
from actors.person import may_ask
from actors.process import Process, ProcessOptions
from actors.webhook import Webhook, WebhookOptions
from runtime.actor import Worker, handler
from runtime.errors import Reject
from runtime.work import Work
from schemas.relay import Execute, Executed


class Way(Protocol):
    """A way of getting an order done. Whatever it raises is the attempt's failure."""

    async def open(self) -> None:
        """Prepare, before the first order."""
        ...

    async def close(self) -> None:
        """Leave nothing behind, after the last one."""
        ...

    async def do(self, order: dict[str, Any]) -> Any:
        """Do an order, and return what came of it."""
        ...


class Child(Worker):
    """A child on this host. Its options say which way it works: `kind = "callable"`,
    `"webhook"` or `"subprocess"`."""

    Options: ClassVar[Any] = FunctionOptions | WebhookOptions | ProcessOptions

    def __init__(self, options: FunctionOptions | WebhookOptions | ProcessOptions) -> None:
        super().__init__(options)
        self._way = _way(options)

    async def on_start(self) -> None:
        """Prepare the way."""
        await self._way.open()

    async def on_stop(self) -> None:
        """Leave nothing behind."""
        await self._way.close()

    @handler
    async def execute(self, job: Execute, ctx: Work) -> Executed:
        """Do the order; raises Reject for a result that no further attempt would mend."""
        with may_ask(ctx):
            result = await self._way.do(_as_given(job, ctx))
        return Executed(task_id=job.task_id, result=as_json(result))


class Remote(Worker):
    """A child elsewhere: it takes its tasks through the edge and calls back there.

    Program: actors/remote.py.
    """

    remote = True

    @handler
    async def execute(self, job: Execute, ctx: Work) -> Executed:
        """Declares what its jobs are; no host ever does one."""
        raise Reject("remote", f"{ctx.address.actor} takes its tasks through the edge")


def _way(options: FunctionOptions | WebhookOptions | ProcessOptions) -> Way:
    if isinstance(options, FunctionOptions):
        return Function(options.call)
    if isinstance(options, WebhookOptions):
        return Webhook(options)
    return Process(options)


def _as_given(job: Execute, ctx: Work) -> dict[str, Any]:
    """The order as a JSON object, by the names that the relay's clients know."""
    order = job.order
    return {
        "task_id": job.task_id,
        "attempt": ctx.attempt,
        "run": ctx.run,
        "from": order.sender,
        "to": order.to,
        "type": order.kind,
        "cmd": order.cmd,
        "payload": order.payload,
        "text": order.text,
    }
