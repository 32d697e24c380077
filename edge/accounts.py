"""The accounts of agents, for those who may change them: list, make, change and remove."""

from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from edge.account_shapes import (
    AccountAnswer,
    AccountChange,
    AccountList,
    Done,
    NewAccount,
    view_of,
)
from edge.asking import answer, wait_for_bus
from edge.attendance import Attendance
from edge.auth import DESK_ADMIN, principal_of
from edge.body import read_json
from edge.login import check_new_password
from edge.operation import Operation, Parameter
from edge.problem import Refusal, quote
from edge.shared import Shared
from edge.support_shapes import SupportError
from runtime.accounts import with_password
from schemas.account import ACCOUNT_ID, WANTED_ID, Account
from schemas.desk import Presence

log = structlog.get_logger("edge")

TAG = "agents"
PATH = "/api/agent/accounts"
ID = Parameter("id", str, "The id of the agent, which they log in with.")
NOT_FOUND = "There is no such agent"
LAST = "Nobody would be left who may change accounts"
replace = msgspec.structs.replace


class Accounting:
    """The operations on accounts."""

    def __init__(self, shared: Shared, attendance: Attendance) -> None:
        self._shared = shared
        self._attendance = attendance
        self._bus = shared.bus
        self._accounts = shared.agents.accounts
        self._agents = shared.agents

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        one = f"{PATH}/{{id}}"
        return (
            _operation(
                "GET", PATH, self.list_accounts, "List the agents", answers={200: AccountList}
            ),
            _operation(
                "POST",
                PATH,
                self.make_account,
                "Make an agent's account",
                answers={200: AccountAnswer, 409: "There is an agent of that id already"},
                body=NewAccount,
            ),
            _operation(
                "PATCH",
                one,
                self.change_account,
                "Change an agent's account",
                answers={200: AccountAnswer, 404: NOT_FOUND, 409: LAST},
                body=AccountChange,
                variables=(ID,),
            ),
            _operation(
                "DELETE",
                one,
                self.remove_account,
                "Remove an agent's account",
                answers={200: Done, 404: NOT_FOUND, 409: LAST},
                variables=(ID,),
            ),
        )

    async def list_accounts(self, request: Request) -> Response:
        """Answer every account."""
        await wait_for_bus(self._bus)
        found = [view_of(one) for one in await self._accounts.all()]
        return answer(AccountList(agents=found, total=len(found)))

    async def make_account(self, request: Request) -> Response:
        """Make an account."""
        body = await read_json(request, NewAccount)
        id = body.username
        if not ACCOUNT_ID.fullmatch(id):
            raise Refusal(422, "invalid_field", f"/username: {quote(id)}, expected {WANTED_ID}")
        check_new_password(body.password)
        await wait_for_bus(self._bus)
        account = Account(
            id=id,
            secret=await self._agents.passwords.hash(body.password),
            name=body.name or id,
            avatar=body.avatar,
            role=body.role,
            teams=tuple(body.teams),
            skills=tuple(body.skills),
            capacity=body.capacity,
        )
        made = await self._accounts.add(account)
        if made is None:
            raise Refusal(409, "USERNAME_EXISTS", f"there is an agent {quote(id)} already")
        _note("account_made", id, request)
        return answer(AccountAnswer(agent=view_of(made)))

    async def change_account(self, request: Request) -> Response:
        """Change an account."""
        id = str(request.path_params["id"])
        body = await read_json(request, AccountChange)
        secret = ""
        if body.password is not None:
            check_new_password(body.password)
            secret = await self._agents.passwords.hash(body.password)
        await wait_for_bus(self._bus)
        before = await self._find(id)
        if before.role == "admin" and (body.disabled or body.role not in (None, "admin")):
            await self._check_not_last(before)
        changed = await self._accounts.change(id, lambda found: _changed(found, body, secret))
        if changed is None:
            raise _missing(id)
        _note("account_changed", id, request)
        gone: Presence | None = "offline" if changed.disabled and not before.disabled else None
        self._shared.later(self._attendance.know(changed, gone))
        return answer(AccountAnswer(agent=view_of(changed)))

    async def remove_account(self, request: Request) -> Response:
        """Remove an account."""
        id = str(request.path_params["id"])
        await wait_for_bus(self._bus)
        account = await self._find(id)
        await self._check_not_last(account)
        if not await self._accounts.remove(id):
            raise _missing(id)
        _note("account_removed", id, request)
        self._shared.later(self._attendance.know(account, "offline"))
        return answer(Done())

    async def _find(self, id: str) -> Account:
        found = await self._accounts.find(id) if ACCOUNT_ID.fullmatch(id) else None
        if found is None:
            raise _missing(id)
        return found

    async def _check_not_last(self, account: Account) -> None:
        """Raise Refusal 409 where nobody else may change accounts."""
        if account.role != "admin" or account.disabled:
            return
        others = [one for one in await self._accounts.all() if one.id != account.id]
        if not any(one.role == "admin" and not one.disabled for one in others):
            raise Refusal(409, "LAST_ADMIN", f"{quote(account.id)} is the only admin there is")


def _changed(account: Account, change: AccountChange, secret: str) -> Account:
    made = with_password(account, secret) if secret else account
    if change.disabled is not None and change.disabled != account.disabled:
        made = replace(made, disabled=change.disabled, generation=made.generation + 1)
    plain = {"name": change.name, "avatar": change.avatar, "role": change.role}
    lists = {"teams": change.teams, "skills": change.skills}
    fields: dict[str, Any] = {name: value for name, value in plain.items() if value is not None}
    fields |= {name: tuple(value) for name, value in lists.items() if value is not None}
    if change.capacity is not None:
        fields["capacity"] = change.capacity
    return replace(made, **fields)


def _missing(id: str) -> Refusal:
    return Refusal(404, "agent_not_found", f"there is no agent {quote(id)}")


def _note(what: str, id: str, request: Request) -> None:
    log.info(what, agent=id, by=principal_of(request).id)


def _operation(method: str, path: str, endpoint: Any, summary: str, **rest: Any) -> Operation:
    return Operation(
        method,
        path,
        endpoint,
        summary,
        scope=DESK_ADMIN,
        error=SupportError,
        repeatable=False,
        tag=TAG,
        **rest,
    )
