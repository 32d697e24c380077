"""A team's desk: who is there, what waits, and who is asked to take it. Next: actors/queueing.py.

The sessions are the truth of who has what; without a desk people still take what they see.
"""

from typing import ClassVar

import msgspec
from msgspec.structs import replace

from actors.desk_options import DeskOptions, check_replies
from actors.limits import clip
from actors.mail_options import check_recipients
from actors.queueing import Queue
from actors.roster import is_there, is_watched, trim_agent
from runtime.actor import Actor, handler
from runtime.errors import Reject
from runtime.turn import Turn
from schemas.base import Address
from schemas.desk import (
    AgentChanged,
    AgentView,
    DeskDue,
    DeskState,
    DropQuickReply,
    ListQuickReplies,
    MailBegan,
    MailCase,
    Mailed,
    QuickReplies,
    QuickReply,
    SaveQuickReply,
)
from schemas.ownership import Case, CaseMoved, MailSettled, desk_topic
from schemas.record import RunFailed

MOST_AGENTS = 100
MOST_AGENT_BYTES = 24 * 1024
"""Of all agents in the desk's state, which they share with the queue."""
MOST_LETTERS = 50
"""Messages that a letter quotes."""


class Desk(Actor):
    """A desk by its team's name."""

    Options: ClassVar[type[msgspec.Struct] | None] = DeskOptions

    state: DeskState
    options: DeskOptions

    # -- cases -----------------------------------------------------------------------------

    @handler
    def hear_case(self, message: CaseMoved, ctx: Turn) -> None:
        """A session says how it stands; what is older than what is known is passed over."""
        case, queue = message.case, self._queue(ctx)
        if queue.is_late(case):
            return
        if case.mode == "manual_live" and case.assignee is not None:
            queue.take(case, case.assignee.id)
        elif case.mode == "pending_manual" and case.team == ctx.key:
            queue.wait(case)
        else:
            queue.end(case)
        queue.go_on()

    @handler
    def come_back(self, message: DeskDue, ctx: Turn) -> None:
        """Something is due."""
        self.state.due = None
        self._queue(ctx).go_on()

    # -- agents ----------------------------------------------------------------------------

    @handler
    def hear_agent(self, message: AgentChanged, ctx: Turn) -> None:
        """An agent has come, gone, or says how much they can do."""
        agent, queue, agents = message.agent, self._queue(ctx), self.state.agents
        was = agents.get(agent.id)
        now = trim_agent(agent, self.state.taken) if ctx.key in agent.teams else None
        if now is None:
            agents.pop(agent.id, None)
            self.state.idle.pop(agent.id, None)
        elif was is not None or self._has_room(now, ctx):
            self._keep(now, was, ctx)
        if not is_there(now) and is_there(was) and is_watched(agent):
            queue.leave(agent.id)
        elif is_there(now) and not is_there(was):
            queue.come(agent.id)
        if _public(was) != _public(now):
            ctx.emit(desk_topic(ctx.key), message)
        queue.go_on()

    def _has_room(self, agent: AgentView, ctx: Turn) -> bool:
        """Whether one more agent can be kept; who is not there makes room for who is."""
        agents, busy = self.state.agents, {one.agent for one in self.state.taken.values()}
        if len(agents) < MOST_AGENTS:
            return True
        gone = [name for name, one in agents.items() if not is_there(one) and name not in busy]
        if gone and is_there(agent):
            del agents[gone[0]]
            self.state.idle.pop(gone[0], None)
            return True
        ctx.log.warning("too_many_agents", agent=agent.id, most=MOST_AGENTS)
        return False

    def _keep(self, agent: AgentView, was: AgentView | None, ctx: Turn) -> None:
        """Know of an agent: with less than they say of themselves where that takes too much."""
        agents = self.state.agents
        slim = replace(agent, avatar="", skills=(), open=())
        # Half of the room is for those yet to come, of whom the least has to be known.
        for one, most in ((agent, MOST_AGENT_BYTES // 2), (slim, MOST_AGENT_BYTES)):
            if len(msgspec.json.encode({**agents, agent.id: one})) <= most:
                agents[agent.id] = one
                return
        if was is None:
            ctx.log.warning("too_many_agents", agent=agent.id, agents=len(agents))
        else:
            agents[agent.id] = replace(slim, name=was.name)

    # -- letters ---------------------------------------------------------------------------

    @handler
    def write_letter(self, message: MailCase, ctx: Turn) -> MailBegan:
        """Have a letter written because somebody wants one."""
        queue = self._queue(ctx)
        if not queue.can_mail:
            raise Reject(
                "mailer_not_deployed",
                f"no worker {self.options.mailer!r} is deployed; deploy actors.mailer:Mailer under"
                " that name, or set SMTP_HOST",
                status=503,
            )
        try:
            check_recipients("to", message.to)
        except ValueError as error:
            raise Reject("bad_recipient", str(error), status=422) from None
        case = Case(session=message.session, team=ctx.key)
        messages = min(max(message.messages, 0), MOST_LETTERS)
        return MailBegan(run=queue.mail(case, message.to, messages))

    @handler
    def hear_mailed(self, message: Mailed, ctx: Turn) -> None:
        """A letter was sent, or will not be."""
        self.state.mails.pop(ctx.envelope.runid, None)
        settled = MailSettled(sent=message.sent, to=message.to, reason=message.reason)
        self._settle(message.conversation, settled, ctx)

    @handler
    def hear_failed(self, message: RunFailed, ctx: Turn) -> None:
        """A letter could not be sent."""
        session = self.state.mails.pop(message.run, None)
        if session is not None:
            settled = MailSettled(sent=False, reason=clip(message.reason, 300))
            self._settle(session, settled, ctx)

    def _settle(self, session: str, settled: MailSettled, ctx: Turn) -> None:
        if ctx.deployed(self.options.sessions, "keyed", handling=MailSettled):
            ctx.tell(Address(self.options.sessions, session), settled)

    # -- quick replies ---------------------------------------------------------------------

    @handler
    def list_replies(self, message: ListQuickReplies, ctx: Turn) -> QuickReplies:
        """All of them."""
        self._seed()
        return QuickReplies(replies=tuple(self.state.replies))

    @handler
    def save_reply(self, message: SaveQuickReply, ctx: Turn) -> QuickReplies:
        """Add one, or change one."""
        self._seed()
        reply = QuickReply(
            id=message.id or ctx.new_id()[:12],
            title=message.title.strip(),
            text=message.text.strip(),
            by=clip(message.by, 64),
        )
        replies = list(self.state.replies)
        if message.id:
            replies[self._find(message.id)] = reply
        else:
            replies.append(reply)
        _check(reply, replies)
        self.state.replies = replies
        return QuickReplies(replies=tuple(replies))

    @handler
    def drop_reply(self, message: DropQuickReply, ctx: Turn) -> QuickReplies:
        """Take one away."""
        self._seed()
        del self.state.replies[self._find(message.id)]
        return QuickReplies(replies=tuple(self.state.replies))

    def _find(self, name: str) -> int:
        for number, one in enumerate(self.state.replies):
            if one.id == name:
                return number
        detail = f"there is no quick reply {clip(name, 80)!r}"
        raise Reject("quick_reply_not_found", detail, status=404)

    def _seed(self) -> None:
        if not self.state.seeded:
            self.state.seeded, self.state.replies = True, self.options.first_replies

    def _queue(self, ctx: Turn) -> Queue:
        return Queue(self.state, self.options, ctx)


def _check(reply: QuickReply, replies: list[QuickReply]) -> None:
    """Raises Reject for one that cannot be kept."""
    try:
        check_replies([reply])
    except ValueError as error:
        raise Reject("invalid_quick_reply", str(error), status=422) from None
    try:
        check_replies(replies)
    except ValueError as error:
        raise Reject("too_many", str(error), status=413) from None


def _public(agent: AgentView | None) -> AgentView | None:
    """What colleagues see of an agent."""
    return None if agent is None else replace(agent, seen=None, since=None)
