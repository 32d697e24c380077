"""Agents as their actors know them: told when they log in and out, and seen while they look on.

None of it keeps anybody from working: what cannot be told is logged, and told again.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator

import structlog

from edge.shared import Deployed
from runtime.ask import MAIL_TTL, ask
from runtime.bus import Bus, expiry, new_id
from runtime.errors import AskTimeout, BusFault, Refused
from schemas import subjects
from schemas.account import Account
from schemas.base import Address
from schemas.desk import AgentView, Attend, Presence, Seen
from schemas.envelope import encode, seal
from schemas.ownership import HUMAN_AGENT

log = structlog.get_logger("edge")

SEEN_EVERY = 10.0
WITHIN = 10.0


class Attendance:
    """Tells agents' actors how they are, as far as there are any."""

    def __init__(self, bus: Bus, deployed: Deployed) -> None:
        self._bus = bus
        self._deployed = deployed
        self._looking: Counter[str] = Counter()
        """Agents whose live queue is open here, and how often."""
        self._task: asyncio.Task[None] | None = None

    async def know(self, account: Account, presence: Presence | None = None) -> None:
        """Tell an agent's actor what their account says, and how they are if that is news."""
        said = Attend(
            name=account.name,
            avatar=account.avatar,
            presence=presence,
            capacity=account.capacity,
            skills=account.skills,
            teams=account.teams,
        )
        await self.say(account.id, said)

    async def say(self, agent: str, said: Attend) -> AgentView | None:
        """Tell an agent's actor how they are; None if there is none, or it does not answer."""
        try:
            if await self._deployed.find(HUMAN_AGENT) is None:
                return None
            return await ask(self._bus, Address(HUMAN_AGENT, agent), said, timeout=WITHIN)
        except (BusFault, AskTimeout, Refused) as fault:
            log.info("agent_not_told", agent=agent, error=str(fault))
            return None

    @contextlib.contextmanager
    def looking(self, agent: str) -> Iterator[None]:
        """Have an agent seen for as long as this lasts; nobody (empty) is not."""
        if not agent:
            yield
            return
        self._looking[agent] += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep_seeing(), name="attendance")
        try:
            yield
        finally:
            self._looking[agent] -= 1
            if not self._looking[agent]:
                del self._looking[agent]

    async def close(self) -> None:
        """See nobody any more."""
        if self._task is not None:
            self._task.cancel()

    async def _keep_seeing(self) -> None:
        while self._looking:
            for agent in list(self._looking):
                try:
                    await self._see(agent)
                except BusFault as fault:
                    log.debug("agent_not_seen", agent=agent, error=str(fault))
            await asyncio.sleep(SEEN_EVERY)

    async def _see(self, agent: str) -> None:
        if await self._deployed.find(HUMAN_AGENT) is None:
            return
        address = Address(HUMAN_AGENT, agent)
        sealed = seal(Seen(), id=new_id(), source="edge", subject=agent)
        await self._bus.publish(subjects.mail(address), encode(sealed), headers=expiry(MAIL_TTL))
