"""Who of a team is there, what they have, and who should get what: pure, from a desk's state.

What is kept of a case or of an agent is cut to what choosing needs, for hundreds must fit.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec.structs import replace

from actors.limits import clip
from schemas.desk import AgentView, DeskState, Taken, Waiting, prioritise
from schemas.ownership import Assignee, Case, Customer, Escalation

MOST_SKILLS = 8
MOST_SKILL = 32
MOST_NAME = 64
MOST_OPEN = 50
MOST_TRIED = 8
"""Agents that let a case pass; after them it waits for anybody."""
SKILLS = ("skill", "skills")

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

Loads = dict[str, set[str]]
"""By agent: the sessions that are theirs or offered to them."""


def trim_case(case: Case) -> Case:
    """What is kept of a case."""
    escalation = case.escalation
    skills = sorted(_named(case.customer.metadata))
    return Case(
        session=case.session,
        mode=case.mode,
        epoch=case.epoch,
        team=case.team,
        assignee=None if case.assignee is None else Assignee(case.assignee.id),
        escalation=escalation
        and Escalation(
            reason=escalation.reason,
            severity=escalation.severity,
            evidence=clip(escalation.evidence, 40),
        ),
        escalations=case.escalations,
        customer=Customer(
            vip=case.customer.vip,
            language=case.customer.language[:MOST_SKILL],
            metadata={"skills": skills} if skills else {},
        ),
        pending_since=case.pending_since,
        waiting_since=case.waiting_since,
        created=case.created,
    )


def trim_agent(agent: AgentView, taken: Mapping[str, Taken]) -> AgentView:
    """What is kept of an agent; cases of this desk are kept with it, the others here."""
    return replace(
        agent,
        name=clip(agent.name, MOST_NAME),
        avatar=agent.avatar if len(agent.avatar) <= 2 * MOST_NAME else "",
        skills=tuple(one[:MOST_SKILL] for one in agent.skills[:MOST_SKILLS]),
        teams=(),
        open=tuple(one for one in agent.open if one not in taken)[:MOST_OPEN],
    )


def is_there(agent: AgentView | None) -> bool:
    """Whether an agent can go on with what they have."""
    return agent is not None and agent.presence in ("online", "busy")


def is_watched(agent: AgentView | None) -> bool:
    """Whether anybody would notice if the agent went: who was never seen cannot go."""
    return agent is not None and agent.seen is not None


def by_urgency(state: DeskState, now: datetime) -> list[Waiting]:
    """The queue, in the order in which it is served."""
    ranks = {name: prioritise(one.case, now).rank for name, one in state.waiting.items()}
    return [state.waiting[name] for name in sorted(ranks, key=lambda name: (ranks[name], name))]


def loads(state: DeskState) -> Loads:
    """What each agent has, or is offered."""
    found: Loads = defaultdict(set)
    for agent in state.agents.values():
        found[agent.id].update(agent.open)
    for session, one in state.taken.items():
        found[one.agent].add(session)
    for session, waiting in state.waiting.items():
        if waiting.offered is not None:
            found[waiting.offered.id].add(session)
    return found


def able(state: DeskState, held: Loads) -> list[AgentView]:
    """The agents who can be offered something."""
    return [
        agent
        for agent in state.agents.values()
        if agent.presence == "online" and len(held[agent.id]) < agent.capacity
    ]


def choose(state: DeskState, waiting: Waiting, held: Loads) -> AgentView | None:
    """The agent to whom a case is offered; None if nobody has room who has not let it pass.

    Who has more of the skills that are wanted goes first, then who has less to do for their
    capacity, then who has been idle for longest. A lack of skills alone leaves nobody waiting.
    """
    if len(waiting.tried) >= MOST_TRIED:
        return None
    wanted = wanted_skills(waiting.case)
    return min(
        (agent for agent in able(state, held) if agent.id not in waiting.tried),
        key=lambda agent: (
            len(wanted - {skill.casefold() for skill in agent.skills}),
            len(held[agent.id]) / agent.capacity,
            state.idle.get(agent.id) or agent.since or _LONG_AGO,
            agent.id,
        ),
        default=None,
    )


def wanted_skills(case: Case) -> frozenset[str]:
    """What an agent should know for a case: the customer's language, and what is named for it."""
    language = case.customer.language.strip().casefold()[:MOST_SKILL]
    return frozenset({*_named(case.customer.metadata), language} - {""})


def _named(metadata: Mapping[str, object]) -> set[str]:
    found: set[str] = set()
    for name in SKILLS:
        given = metadata.get(name)
        each = given if isinstance(given, list | tuple) else [given]
        found.update(one.strip().casefold()[:MOST_SKILL] for one in each if isinstance(one, str))
    return set(sorted(found - {""})[:MOST_SKILLS])
