"""On whose behalf something is done at a desk: an agent's own, or whom a lead or program names."""

from starlette.requests import Request

from edge.auth import DESK_LEAD, Principal, principal_of
from edge.problem import Refusal, quote
from runtime.accounts import Accounts
from schemas.account import ACCOUNT_ID
from schemas.ownership import Assignee


async def acting(
    request: Request, accounts: Accounts, id: str = "", name: str = "", *, field: str = "agent_id"
) -> Assignee:
    """Return the agent for whom something is done; `id` is whom the body names, if anybody.

    Who has logged in is that agent, and may name another only as a lead. Others are believed:
    programs with a key, and this machine as long as it needs none.

    Raises Refusal 400 where nobody is named, 403 `NOT_YOU` where somebody else is, BusFault.
    """
    principal = principal_of(request)
    if not principal.agent:
        if not id.strip():
            raise Refusal(400, "missing_agent", f"{field} is required where nobody has logged in")
        return Assignee(id=id, name=name or await name_of(accounts, id))
    if id in ("", principal.agent):
        return Assignee(id=principal.agent, name=principal.name)
    if DESK_LEAD not in principal.scopes:
        detail = f"{field} is {quote(id)}, and the token is {quote(principal.agent)}'s"
        raise Refusal(403, "NOT_YOU", f"{detail}; only a lead may act for another")
    return Assignee(id=id, name=name or await name_of(accounts, id))


def check_force(principal: Principal, wanted: bool) -> bool:
    """Return whether something is forced. Raises Refusal 403 for whoever may not."""
    if wanted and DESK_LEAD not in principal.scopes:
        raise Refusal(403, "missing_scope", f"'force' needs the scope {DESK_LEAD!r}")
    return wanted


async def name_of(accounts: Accounts, id: str) -> str:
    """Return the name of an agent, empty if they have no account. Raises BusFault."""
    found = await accounts.find(id) if ACCOUNT_ID.fullmatch(id) else None
    return found.name if found else ""
