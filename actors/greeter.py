"""The smallest useful actor. Start here."""

from runtime import Work, Worker, handler
from schemas.relay import Execute, Executed


class Greeter(Worker):
    """A child that greets people by name."""

    @handler
    async def greet(self, job: Execute, ctx: Work) -> Executed:
        payload = job.order.payload if isinstance(job.order.payload, dict) else {}
        greeting = f"Hello, {payload.get('name', 'world')}!"
        return Executed(task_id=job.task_id, result={"greeting": greeting})
