"""Asks a model, and says what it answers, piece by piece: one deployment for each model.

Which upstream is asked: actors/models/asking.py. What it is given: prompts.py and context.py.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from functools import cache, partial
from typing import Any

import httpx

from actors.models import prompts
from actors.models.answer import Answer
from actors.models.asking import Asking
from actors.models.context import read_candidates, recall
from actors.models.events import Adapter, Call, Upstream
from actors.models.faults import UpstreamFault
from actors.models.options import ModelOptions, Terms, check_deadline
from actors.models.patience import Patience
from actors.models.pools import Pools
from actors.models.providers import make_adapter
from actors.models.refusals import Refusals
from actors.models.report import Report
from actors.models.threads import KeepsThreads, make_thread
from actors.models.watch import Watch, build_fleet
from runtime.actor import Worker, handler
from runtime.errors import Retry
from runtime.work import Work
from schemas.assist import MakeThread, ThreadMade
from schemas.deployment import Deployment
from schemas.model import Generate, Generated
from schemas.record import Delta

AGAIN_AFTER = timedelta(milliseconds=500)
MOST_SHUNNED = 1000
KEEPALIVE = 30.0


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust; read once for all models, since that takes longer than all else."""
    return httpx.create_ssl_context()


class Model(Worker):
    """One model, wherever its upstreams are. The same answer is never put together from two."""

    Options = ModelOptions
    options: ModelOptions

    def __init__(self, options: ModelOptions) -> None:
        super().__init__(options)
        self._terms = Terms(options)
        self._refusals = Refusals(options.refusals)
        self._fleet = build_fleet(self._terms)
        self._shunned: dict[str, set[str]] = {}
        """By run: the upstreams that have begun to answer it and not gone on."""
        self._adapter: Adapter = make_adapter(options.provider)
        self._client: httpx.AsyncClient
        self._watch: Watch

    @classmethod
    def check_deployment(cls, deployment: Deployment, options: Any) -> None:
        """Raise ValueError unless an answer has its time within the deployment's deadline."""
        check_deadline(options, deployment.deadline.total_seconds())

    async def on_start(self) -> None:
        """Make ready to ask, and tell of the upstreams."""
        # The environment's proxies and logins are not followed: who is asked is deployed.
        pools = Pools(KEEPALIVE, _certificates())
        self._client = httpx.AsyncClient(transport=pools, trust_env=False)
        self._watch = Watch(self._fleet, self._terms, self.workplace)
        await self._watch.start()

    async def on_stop(self) -> None:
        """Leave nothing behind."""
        await self._watch.stop()
        await self._adapter.close()
        await self._client.aclose()

    @handler
    async def generate(self, job: Generate, ctx: Work) -> AsyncIterator[Delta | Generated]:
        """Yield what the model says, and how it ended; raises Retry if it stopped midway."""
        answer, report = Answer(), Report(job, ctx)
        patience = Patience(self._terms.total)
        asking = Asking(self._fleet, self._adapter, slot=job.slot, patience=patience)
        try:
            call = await self._prepare(job, ctx)
            later = self._shunned.get(ctx.run, set())
            events = asking.events(call, rounds=self.options.tries, later=later)
            async with aclosing(events):
                async for event in events:
                    if delta := answer.take(event):
                        yield delta
                    if answer.full:
                        break
        except UpstreamFault as fault:
            report.upstream = asking.upstream
            if not patience.over:
                self._retry(asking, fault, ctx)
            yield report.fail(fault)
        else:
            report.upstream = asking.upstream
            yield report.end(answer, self._refusals)
        self._shunned.pop(ctx.run, None)

    @handler
    async def make_thread(self, job: MakeThread, ctx: Work) -> ThreadMade:
        """Have the provider open a thread; one that keeps none calls it as we do."""
        if not isinstance(self._adapter, KeepsThreads):
            return ThreadMade(thread=job.conversation)
        call = self._call(job.conversation, ctx)
        return await make_thread(self._fleet, self._adapter, call, rounds=self.options.tries)

    async def _prepare(self, job: Generate, ctx: Work) -> Call:
        """The question as it goes to whichever upstream: context, prompt, settings."""
        options = self.options
        prompt = await prompts.load_prompt(job.prompt, ctx.files)
        messages = prompts.put_first(options.system, prompt.messages)
        before = await recall(job, ctx, options.context)
        messages = prompts.put_together(before.joined, messages)
        if job.candidates:
            messages.append(prompts.put_to_judge(await read_candidates(job, ctx)))
        thread = prompts.go_on(before.thread, messages)
        messages = prompts.put_before(before.messages, messages)
        settings = prompts.settle(options.settings, prompt.settings, options.limits)
        call = self._call(job.conversation, ctx)
        return replace(call, messages=tuple(messages), settings=settings, thread=thread)

    def _call(self, conversation: str, ctx: Work) -> Call:
        """What all questions about a conversation have in common."""
        return Call(
            client=self._client,
            upstream=Upstream(url=""),
            model=self.options.model,
            messages=(),
            load=partial(prompts.load_file, files=ctx.files),
            conversation=conversation,
            timeouts=self._terms.timeouts,
            extra=self.options.extra,
            dialect=self.options.dialect,
        )

    def _retry(self, asking: Asking, fault: UpstreamFault, ctx: Work) -> None:
        """After the first piece, only another attempt may mend a fault: raises Retry for it."""
        last = ctx.attempt >= self.workplace.deployment.attempts
        if last or not asking.began or not fault.passing:
            return
        while len(self._shunned) >= MOST_SHUNNED:
            del self._shunned[next(iter(self._shunned))]
        self._shunned.setdefault(ctx.run, set()).add(asking.upstream)
        raise Retry(f"{asking.upstream}: {fault}", after=AGAIN_AFTER)
