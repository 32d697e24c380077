"""How many requests a user may make in a minute, counted over all edges together.

What was granted stands in the bucket `limits`, by quarters of a second; whoever grants more must
have seen all of it. Headers: draft-ietf-httpapi-ratelimit-headers.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec
import structlog

from edge.contended import Contended, Values
from edge.problem import Refusal
from runtime.errors import BusFault
from schemas.base import token

log = structlog.get_logger("edge")

BUCKET = "limits"
WINDOW = 60.0
TICKS = 4
"""In a second: what was granted in one tick leaves the window together."""
KEPT = timedelta(seconds=WINDOW + 5)
DRAW_WITHIN = 3.0
"""Seconds that the store has to say how much is left. Then this edge counts for itself."""
ALONE_FOR = 3.0
"""Seconds for which it goes on so, before it asks again."""
MOST_USERS = 20_000
LOOK_AGAIN = 5.0
"""Seconds for which it is believed that somebody is no VIP."""

_decode = msgspec.json.Decoder(dict[int, int]).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Policy:
    """So many requests in a window, under the name that the headers have."""

    name: str
    quota: int

    def headers(self, left: int, reset: float) -> dict[str, str]:
        """What a client is told: the policy, how much is left, and when there is more."""
        seconds = math.ceil(max(reset, 0))
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.quota};w={WINDOW:g}',
            "RateLimit": f'"{self.name}";r={left};t={seconds}',
        }


@dataclass
class _Budget:
    """What was granted to one user, as this edge knows it, and who waits to be told."""

    stored: Contended
    granted: dict[int, int] = field(default_factory=dict)
    waiting: list[tuple[int, asyncio.Future[bool]]] = field(default_factory=list)
    drawing: asyncio.Task[None] | None = None
    vip: bool = False
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    looked_at: float = -math.inf

    def forget(self, now: int) -> None:
        """Let go what has left the window."""
        first = now - int(WINDOW * TICKS)
        self.granted = {at: n for at, n in self.granted.items() if at > first}

    @property
    def used(self) -> int:
        return sum(self.granted.values())

    def reset(self, now: float) -> float:
        """Seconds until the oldest grant leaves the window."""
        oldest = min(self.granted, default=now * TICKS)
        return (oldest + 1) / TICKS + WINDOW - now


class Rates:
    """The budgets of all users that this edge has seen of late."""

    def __init__(self, bucket: Values, clock: Callable[[], float] = time.time) -> None:
        self._bucket = bucket
        self._clock = clock
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()
        self._alone_until = -math.inf

    async def take(
        self,
        user: str,
        policy: Policy,
        better: Policy | None = None,
        deserves: Callable[[], Awaitable[bool]] | None = None,
    ) -> dict[str, str]:
        """Count a request of a user; returns the headers that tell what is left.

        Where there is nothing left, `deserves` says whether the `better` policy holds for them.
        Raises Refusal 429 `rate_limited` with Retry-After.
        """
        budget = self._budget(user)
        if better is not None and budget.vip:
            policy = better
        if await self._draw(budget, policy.quota):
            return self._told(budget, policy)
        if better is not None and deserves is not None and policy is not better:
            await self._look(budget, deserves)
            if budget.vip and await self._draw(budget, better.quota):
                return self._told(budget, better)
            policy = better if budget.vip else policy
        raise self._refusal(budget, policy)

    def _budget(self, user: str) -> _Budget:
        budget = self._budgets.get(user)
        if budget is None:
            key = f"rate.{token(user)}"
            budget = self._budgets[user] = _Budget(Contended(self._bucket, key, KEPT))
        self._budgets.move_to_end(user)
        while len(self._budgets) > MOST_USERS:
            self._budgets.popitem(last=False)
        return budget

    def _told(self, budget: _Budget, policy: Policy) -> dict[str, str]:
        left = max(policy.quota - budget.used, 0)
        return policy.headers(left, budget.reset(self._clock()))

    def _refusal(self, budget: _Budget, policy: Policy) -> Refusal:
        reset = max(math.ceil(budget.reset(self._clock())), 1)
        headers = {**policy.headers(0, reset), "Retry-After": str(reset)}
        detail = f"Too many requests: {policy.quota} in {WINDOW:g} s are allowed; wait {reset} s"
        return Refusal(
            429, "rate_limited", detail, headers=headers, violated_policies=[policy.name]
        )

    async def _look(self, budget: _Budget, deserves: Callable[[], Awaitable[bool]]) -> None:
        """Learn whether somebody is a VIP, who is not asked about for each request of a flood."""
        async with budget.looking:
            if budget.vip or time.monotonic() < budget.looked_at + LOOK_AGAIN:
                return
            try:
                budget.vip = await deserves()
            except BusFault as fault:
                log.info("tier_not_read", error=str(fault))
            budget.looked_at = time.monotonic()

    # -- drawing ---------------------------------------------------------------------------

    async def _draw(self, budget: _Budget, quota: int) -> bool:
        """Whether one more may pass. What is full here is full everywhere."""
        budget.forget(self._now())
        # Who was a VIP in another minute need not be one for ever.
        budget.vip = budget.vip and bool(budget.granted)
        if budget.used >= quota:
            return False
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        budget.waiting.append((quota, told))
        if budget.drawing is None or budget.drawing.done():
            budget.drawing = asyncio.create_task(self._serve(budget), name="rates")
        return await told

    async def _serve(self, budget: _Budget) -> None:
        """Draw for all that wait, together, until nobody does."""
        while budget.waiting:
            waiting, budget.waiting = budget.waiting, []
            try:
                granted = await self._grant(budget, [quota for quota, _ in waiting])
            except BaseException:
                granted = [False] * len(waiting)
                raise
            finally:
                for (_, told), passes in zip(waiting, granted, strict=True):
                    if not told.done():
                        told.set_result(passes)

    async def _grant(self, budget: _Budget, quotas: list[int]) -> list[bool]:
        """Who of several passes, stored before it is said."""
        if time.monotonic() < self._alone_until:
            return self._grant_alone(budget, quotas)
        passed: list[bool] = []

        def decide(stored: bytes | None) -> bytes | None:
            budget.granted = _read(stored)
            budget.forget(self._now())
            passed[:] = self._count(budget, quotas)
            return _encode(budget.granted) if any(passed) else None

        try:
            async with asyncio.timeout(DRAW_WITHIN):
                await budget.stored.change(decide)
        except (BusFault, TimeoutError) as fault:
            self._alone_until = time.monotonic() + ALONE_FOR
            log.warning("rates_counted_alone", error=str(fault) or f"{DRAW_WITHIN:g} s are over")
            return passed or self._grant_alone(budget, quotas)
        return passed

    def _grant_alone(self, budget: _Budget, quotas: list[int]) -> list[bool]:
        budget.forget(self._now())
        return self._count(budget, quotas)

    def _count(self, budget: _Budget, quotas: list[int]) -> list[bool]:
        """Note those that pass, in the order in which they came."""
        now, passed = self._now(), []
        for quota in quotas:
            passes = budget.used < quota
            if passes:
                budget.granted[now] = budget.granted.get(now, 0) + 1
            passed.append(passes)
        return passed

    def _now(self) -> int:
        return int(self._clock() * TICKS)


def _read(stored: bytes | None) -> dict[int, int]:
    """What was granted by tick; what nobody can read counts as nothing, or nobody would pass."""
    try:
        return _decode(stored) if stored else {}
    except msgspec.MsgspecError:
        return {}
