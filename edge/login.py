"""Logging in and out at the desk, staying logged in, and what agents may change of themselves."""

from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from edge.account_shapes import (
    AccountAnswer,
    Done,
    LoggedIn,
    LoginRequest,
    LogoutRequest,
    Me,
    OwnChange,
    RefreshRequest,
    TicketGiven,
    TicketRequest,
    view_of,
)
from edge.asking import answer, wait_for_bus
from edge.attendance import Attendance
from edge.auth import DESK_READ, Principal, principal_of
from edge.body import read_json, read_json_if_any
from edge.credentials import address_of
from edge.operation import Operation
from edge.problem import Refusal
from edge.shared import Shared
from edge.support_shapes import SupportError
from edge.tokens import ACCESS, TICKET
from runtime.accounts import with_password
from runtime.passwords import check_password
from schemas.account import Account

log = structlog.get_logger("edge")

TAG = "agents"
WRONG = "There is no such agent with that password, or the agent is disabled"
LOCKED = "Ten wrong passwords came within a minute for this account or from this address"
NOT_AGENT = "This is not an agent's login"
WHY_TICKETS = (
    "A browser's EventSource sends no headers, and a token in a URL ends up in logs. A ticket is "
    "used once, for one path, within half a minute."
)
RESERVED = ("id", "username", "role", "teams", "skills", "capacity", "disabled")
replace = msgspec.structs.replace


class LoggingIn:
    """The operations by which agents come and go."""

    def __init__(self, shared: Shared, attendance: Attendance) -> None:
        self._shared = shared
        self._agents = shared.agents
        self._attendance = attendance

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (*self._coming_and_going(), *self._being_there())

    def _coming_and_going(self) -> Sequence[Operation]:
        return (
            _operation(
                "POST login",
                self.log_in,
                "Log in, and get a token",
                answers={200: LoggedIn, 401: WRONG, 429: LOCKED},
                body=LoginRequest,
            ),
            _operation(
                "POST refresh",
                self.refresh,
                "Get another token by the refresh token of the last one",
                answers={200: LoggedIn, 401: "The refresh token does not count any more"},
                body=RefreshRequest,
            ),
            _operation(
                "POST logout",
                self.log_out,
                "End this login, or all of them",
                scope=DESK_READ,
                answers={200: Done, 403: NOT_AGENT},
                body=LogoutRequest,
                bodiless=True,
            ),
        )

    def _being_there(self) -> Sequence[Operation]:
        return (
            _operation(
                "GET me",
                self.show_me,
                "See who one is, and what one may do",
                scope=DESK_READ,
                answers={200: Me},
            ),
            _operation(
                "PATCH me",
                self.change_me,
                "Change one's own name, avatar or password",
                scope=DESK_READ,
                answers={200: AccountAnswer, 403: "That is an admin's to change"},
                body=OwnChange,
            ),
            _operation(
                "POST ticket",
                self.give_ticket,
                "Get a ticket for one GET where headers cannot be sent",
                description=WHY_TICKETS,
                scope=DESK_READ,
                answers={200: TicketGiven, 403: NOT_AGENT},
                body=TicketRequest,
            ),
        )

    async def log_in(self, request: Request) -> Response:
        """Answer a token to whoever has the password."""
        body = await read_json(request, LoginRequest)
        await wait_for_bus(self._shared.bus)
        account = await self._agents.log_in(body.username, body.password, address_of(request))
        login, refresh = await self._agents.logins.begin(account)
        log.info("agent_logged_in", agent=account.id)
        self._shared.later(self._attendance.know(account, "online"))
        return await self._tokens(account, login, refresh)

    async def refresh(self, request: Request) -> Response:
        """Answer another pair of tokens."""
        body = await read_json(request, RefreshRequest)
        await wait_for_bus(self._shared.bus)
        login, account, refresh = await self._agents.logins.refresh(body.refresh_token)
        return await self._tokens(account, login, refresh)

    async def log_out(self, request: Request) -> Response:
        """End one login, or all of an agent."""
        principal = _agent_of(request)
        body = await read_json_if_any(request, LogoutRequest)
        await wait_for_bus(self._shared.bus)
        await self._agents.logins.end(principal.login)
        account = await self._agents.accounts.find(principal.agent)
        if body.all:
            await self._agents.accounts.change(principal.agent, _end_all)
        if account is not None:
            self._shared.later(self._attendance.know(account, "offline"))
        log.info("agent_logged_out", agent=principal.agent, everywhere=body.all)
        return answer(Done())

    async def show_me(self, request: Request) -> Response:
        """Answer who asks."""
        principal = principal_of(request)
        account = await self._find(principal) if principal.agent else None
        return answer(Me(agent=view_of(account) if account else None, scopes=_scopes(principal)))

    async def change_me(self, request: Request) -> Response:
        """Change what is an agent's own to change."""
        principal = _agent_of(request)
        body = await read_json(request, OwnChange)
        for field in RESERVED:
            if getattr(body, field) is not msgspec.UNSET:
                raise Refusal(403, "not_yours", f"{field!r} is for an admin to change")
        await wait_for_bus(self._shared.bus)
        secret = await self._new_secret(request, principal, body)
        changed = await self._agents.accounts.change(principal.agent, _by(body, secret))
        if changed is None:
            raise Refusal(404, "agent_not_found", "this agent's account was removed")
        log.info("account_changed", agent=principal.agent, by=principal.id)
        self._shared.later(self._attendance.know(changed))
        return answer(AccountAnswer(agent=view_of(changed)))

    async def give_ticket(self, request: Request) -> Response:
        """Answer a ticket."""
        principal = _agent_of(request)
        body = await read_json(request, TicketRequest)
        await wait_for_bus(self._shared.bus)
        tokens, login = self._agents.tokens, principal.login
        ticket = await tokens.issue(TICKET, principal.agent, login, body.path)
        return answer(TicketGiven(ticket=ticket, path=body.path))

    async def _tokens(self, account: Account, login: str, refresh: str) -> Response:
        token = await self._agents.tokens.issue(ACCESS, account.id, login)
        return answer(LoggedIn(token=token, refresh_token=refresh, agent=view_of(account)))

    async def _find(self, principal: Principal) -> Account | None:
        await wait_for_bus(self._shared.bus)
        return await self._agents.accounts.find(principal.agent)

    async def _new_secret(self, request: Request, principal: Principal, body: OwnChange) -> str:
        """The hash of a new password, if there is one and the old one is right."""
        if body.password is None:
            return ""
        check_new_password(body.password)
        if body.old_password is None:
            raise Refusal(422, "invalid_field", "/old_password: required beside a password")
        proved = await self._agents.prove(principal.agent, body.old_password, address_of(request))
        if proved is None:
            raise Refusal(403, "wrong_password", "the old password is not right")
        return await self._agents.passwords.hash(body.password)


def check_new_password(password: str) -> None:
    """Raise Refusal 422 with what a password lacks."""
    try:
        check_password(password)
    except ValueError as fault:
        raise Refusal(422, "invalid_password", str(fault)) from None


def _by(change: OwnChange, secret: str) -> Any:
    def make(account: Account) -> Account:
        made = with_password(account, secret) if secret else account
        name = account.name if change.name is None else change.name
        avatar = account.avatar if change.avatar is None else change.avatar
        return replace(made, name=name, avatar=avatar)

    return make


def _end_all(account: Account) -> Account:
    return replace(account, generation=account.generation + 1)


def _agent_of(request: Request) -> Principal:
    principal = principal_of(request)
    if not principal.agent:
        detail = "this is for agents who have logged in; nobody has here"
        raise Refusal(403, "not_an_agent", detail)
    return principal


def _scopes(principal: Principal) -> list[str]:
    return sorted(principal.scopes)


def _operation(what: str, endpoint: Any, summary: str, **rest: Any) -> Operation:
    method, _, path = what.partition(" ")
    path = f"/api/agent/{path}"
    return Operation(
        method, path, endpoint, summary, error=SupportError, repeatable=False, tag=TAG, **rest
    )
