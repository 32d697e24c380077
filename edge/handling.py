"""What agents do with a session: take it, give it back, hand it on, note, write, draft."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge.acting import acting, check_force
from edge.asking import answer, ask_for
from edge.auth import DESK_ACT, principal_of
from edge.board import Board
from edge.body import read_json, read_json_if_any
from edge.catalog import Catalog, Offer
from edge.handling_shapes import (
    Begun,
    CancelAsked,
    CustomerAsked,
    DraftAsked,
    EmailAsked,
    Handled,
    NoteAsked,
    NotedAnswer,
    NotedData,
    ReleaseAsked,
    RunData,
    TakeOverAsked,
    TransferAsked,
)
from edge.operation import Operation
from edge.problem import Refusal, quote
from edge.remembered import NO_CONVERSATION
from edge.session_shapes import case_of, seconds, view_of
from edge.sessions import NAME, PATH, TAG, Sessions
from edge.shared import Shared
from edge.support_shapes import SupportError
from runtime.tables import SupportTable
from schemas.account import ACCOUNT_ID
from schemas.assist import WriteDraft
from schemas.base import Address, Message
from schemas.base import Request as Asked
from schemas.conversation import SESSION
from schemas.desk import MailCase
from schemas.ownership import (
    DESK,
    AddNote,
    Assignee,
    Cancel,
    Held,
    Release,
    SetCustomer,
    TakeOver,
    Transfer,
)

Reply = TypeVar("Reply", bound=Message)

TAKEN = (
    "`ALREADY_TAKEN`: a person has it. `ASSIGNED_TO_OTHER`: it is offered to somebody else. "
    "`STALE_EPOCH`: it has changed. `assignee` says who"
)
NOT_LIVE = "`INVALID_STATUS`: no person has it"
NOT_YOURS = "`NOT_YOURS`: another agent has it. `NOT_YOU`: the token is another agent's"
PREFERRED = {"coze": 0, "echo": 2}
"""Providers that write drafts before others do, or after them."""


class Handling:
    """The operations that change sessions."""

    def __init__(
        self,
        shared: Shared,
        sessions: Sessions,
        board: Board,
        catalog: Catalog,
        limits: SupportTable,
    ) -> None:
        self._shared = shared
        self._accounts = shared.agents.accounts
        self._sessions = sessions
        self._board = board
        self._catalog = catalog
        self._limits = limits

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (*self._moving(), *self._beside())

    def _moving(self) -> Sequence[Operation]:
        taken, yours = {409: TAKEN, 403: NOT_YOURS}, {409: NOT_LIVE, 403: NOT_YOURS}
        return (
            _operation(
                "takeover",
                self.take_over,
                "Take a session over",
                TakeOverAsked,
                more=taken,
            ),
            _operation(
                "release",
                self.release,
                "Give a session back to the bot",
                ReleaseAsked,
                more=yours,
            ),
            _operation(
                "cancel",
                self.cancel,
                "Call nobody after all: back to the bot before anybody came",
                CancelAsked,
                more={409: "`MANUAL_IN_PROGRESS`: a person has it"},
            ),
            _operation(
                "transfer",
                self.transfer,
                "Hand a session to a colleague",
                TransferAsked,
                more={**yours, 422: "The colleague has it already"},
            ),
            _operation("customer", self.set_customer, "Say who is served", CustomerAsked),
        )

    def _beside(self) -> Sequence[Operation]:
        return (
            _operation(
                "note", self.note, "Leave a note for colleagues", NoteAsked, shape=NotedAnswer
            ),
            _operation(
                "email",
                self.email,
                "Have a letter written about a session",
                EmailAsked,
                shape=Begun,
                more={503: "No desk or no mailer is deployed"},
            ),
            _operation(
                "draft",
                self.draft,
                "Have a model write what an agent might answer",
                DraftAsked,
                shape=Begun,
                more={409: NOT_LIVE},
            ),
        )

    # -- whose it is -----------------------------------------------------------------------

    async def take_over(self, request: Request) -> Response:
        """Take a session over; of two at once the second is told of the first."""
        body = await read_json_if_any(request, TakeOverAsked)
        agent = await acting(request, self._accounts, body.agent_id, body.agent_name)
        force = check_force(principal_of(request), body.force)
        message = TakeOver(agent=agent, force=force, epoch=body.epoch)
        return await self._handle(request, "takeover", message)

    async def release(self, request: Request) -> Response:
        """Give a session back."""
        body = await read_json_if_any(request, ReleaseAsked)
        agent = await acting(request, self._accounts, body.agent_id)
        force = check_force(principal_of(request), body.force)
        message = Release(agent=agent.id, reason=body.reason, force=force)
        return await self._handle(request, "release", message)

    async def cancel(self, request: Request) -> Response:
        """Call nobody after all."""
        body = await read_json_if_any(request, CancelAsked)
        by = body.agent_id or principal_of(request).agent
        if by:
            by = (await acting(request, self._accounts, body.agent_id)).id
        message = Cancel(reason=body.reason, by=by or principal_of(request).id, desk=True)
        return await self._handle(request, "cancel", message)

    async def transfer(self, request: Request) -> Response:
        """Hand a session on."""
        body: TransferAsked = await read_json(request, TransferAsked, missing=400)
        giver = await acting(request, self._accounts, body.from_agent_id, field="from_agent_id")
        to = await self._colleague(request, body.to_agent_id, body.to_agent_name)
        message = Transfer(
            agent=giver.id,
            to=to,
            reason=body.reason,
            note=body.note,
            force=check_force(principal_of(request), body.force),
        )
        return await self._handle(request, "transfer", message)

    async def set_customer(self, request: Request) -> Response:
        """Say who is served."""
        body = await read_json_if_any(request, CustomerAsked)
        _, state = await self._sessions.find(request)
        sent = msgspec.structs.asdict(body).items()
        news = {name: value for name, value in sent if value is not None}
        known = msgspec.structs.replace(state.hold.customer, **news)
        return await self._handle(request, "customer", SetCustomer(customer=known, desk=True))

    # -- beside it -------------------------------------------------------------------------

    async def note(self, request: Request) -> Response:
        """Leave a note."""
        body: NoteAsked = await read_json(request, NoteAsked, missing=400)
        by = await acting(request, self._accounts, body.agent_id, body.agent_name)
        noted = await self._ask(request, "note", AddNote(content=body.content, by=by))
        return answer(NotedAnswer(NotedData(noted.id, seconds(noted.at))))

    async def email(self, request: Request) -> Response:
        """Have a letter written."""
        body = await read_json_if_any(request, EmailAsked)
        name, state = await self._sessions.find(request)
        if await self._shared.deployed.find(DESK) is None:
            detail = "no desk is deployed, which has letters written"
            raise Refusal(503, "desk_not_deployed", detail)
        to = Address(DESK, case_of(name, state).team)
        message = MailCase(session=name, to=tuple(body.to), messages=body.messages)
        begun = await ask_for(request, self._shared.bus, "email", to, message)
        return answer(Begun(RunData(begun.run)))

    async def draft(self, request: Request) -> Response:
        """Have a draft written."""
        body = await read_json_if_any(request, DraftAsked)
        by = await acting(request, self._accounts, body.agent_id, body.agent_name)
        offer = await self._offer(body.model)
        message = WriteDraft(agent=by, actor=offer.actors[0], hint=body.hint, model=offer.id)
        return answer(Begun(RunData((await self._ask(request, "draft", message)).run)))

    async def _offer(self, model: str) -> Offer:
        """The model that is named, else the one that answers customers, else any.

        Raises Refusal 404 for one that is not deployed, 503 if none is.
        """
        named = model or next(iter(self._limits.models), "")
        if named:
            return await self._catalog.find(named)
        offers = await self._catalog.offers()
        if not offers:
            raise Refusal(503, "model_not_deployed", "no model is deployed that could write")
        return min(offers, key=lambda offer: PREFERRED.get(offer.provider, 1))

    # -- asking ----------------------------------------------------------------------------

    async def _handle(self, request: Request, route: str, message: Asked[Held]) -> Response:
        """Ask a session for a change, and answer how it stands then."""
        held = await self._ask(request, route, message)
        self._board.learn(held.case)
        view = view_of(held.case, datetime.now(UTC), held.case.thread)
        return answer(Handled(data=view, changed=held.changed))

    async def _ask(self, request: Request, route: str, message: Asked[Reply]) -> Reply:
        name, _ = await self._sessions.find(request)
        return await ask_for(request, self._shared.bus, route, Address(SESSION, name), message)

    async def _colleague(self, request: Request, id: str, name: str) -> Assignee:
        """Who is to go on; raises Refusal 422 for somebody who cannot."""
        account = await self._accounts.find(id) if ACCOUNT_ID.fullmatch(id) else None
        # Where nobody logs in there need be no accounts.
        missing = account is None and bool(principal_of(request).agent)
        if missing or (account is not None and account.disabled):
            detail = f"to_agent_id is {quote(id)}: no agent of that id can log in"
            raise Refusal(422, "agent_not_found", detail)
        return Assignee(id=id, name=name or (account.name if account else ""))


def _operation(
    path: str,
    endpoint: Any,
    summary: str,
    body: Any,
    *,
    shape: Any = Handled,
    more: dict[int, Any] | None = None,
    **rest: Any,
) -> Operation:
    return Operation(
        "POST",
        f"{PATH}/{{name}}/{path}",
        endpoint,
        summary,
        name=f"desk_{path}",
        scope=DESK_ACT,
        answers={200: shape, 404: NO_CONVERSATION, **(more or {})},
        body=body,
        bodiless=not any(field.required for field in msgspec.structs.fields(body)),
        error=SupportError,
        variables=(NAME,),
        tag=TAG,
        **rest,
    )
