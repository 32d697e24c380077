"""Agents' accounts and logins as clients see and send them."""

from typing import Annotated, Any

import msgspec

from schemas.account import CAPACITY, MOST_OPEN, Account, Role
from schemas.ownership import SUPPORT

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Avatar = Annotated[str, msgspec.Meta(max_length=500)]
Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Words = Annotated[list[Word], msgspec.Meta(max_length=32)]
Teams = Annotated[list[Word], msgspec.Meta(min_length=1, max_length=32)]
Capacity = Annotated[int, msgspec.Meta(ge=0, le=MOST_OPEN)]
Secret = Annotated[str, msgspec.Meta(max_length=1024)]


class AccountView(msgspec.Struct, kw_only=True):
    """An agent's account. `id` and `username` are the same; `capacity` is how many sessions they
    have at a time."""

    id: str
    username: str
    name: str
    avatar: str = ""
    role: Role = "agent"
    teams: list[str] = []
    skills: list[str] = []
    capacity: int = CAPACITY
    disabled: bool = False


class LoginRequest(msgspec.Struct, kw_only=True):
    """Somebody says who they are, and proves it."""

    username: Annotated[str, msgspec.Meta(max_length=200)]
    password: Secret


class LoggedIn(msgspec.Struct, kw_only=True):
    """`token` is sent as a bearer for `expires_in` seconds; `refresh_token` gets another pair,
    once, for seven days."""

    token: str
    refresh_token: str
    agent: AccountView
    success: bool = True
    token_type: str = "Bearer"
    expires_in: int = 3600


class RefreshRequest(msgspec.Struct, kw_only=True):
    """The refresh token of the last answer; the one before ends the whole login."""

    refresh_token: Annotated[str, msgspec.Meta(max_length=200)]


class LogoutRequest(msgspec.Struct, kw_only=True):
    """With `all` every login of the agent ends, not this one only."""

    all: bool = False


class Done(msgspec.Struct):
    """It is done."""

    success: bool = True


class Me(msgspec.Struct, kw_only=True):
    """Who asks. Without a token on this machine there is no `agent`, and `scopes` say what may be
    done all the same."""

    agent: AccountView | None
    scopes: list[str]
    success: bool = True


class OwnChange(msgspec.Struct, kw_only=True):
    """What an agent changes of their own account; a password needs the `old_password`, and ends
    every login. The other fields are an admin's to change."""

    name: Name | None = None
    avatar: Avatar | None = None
    password: Secret | None = None
    old_password: Secret | None = None
    id: Any = msgspec.UNSET
    username: Any = msgspec.UNSET
    role: Any = msgspec.UNSET
    teams: Any = msgspec.UNSET
    skills: Any = msgspec.UNSET
    capacity: Any = msgspec.UNSET
    disabled: Any = msgspec.UNSET


class TicketRequest(msgspec.Struct, kw_only=True):
    """The path of what is to be read with it, without a query."""

    path: Annotated[str, msgspec.Meta(min_length=2, max_length=500, pattern=r"^/[^?#\s]+$")]


class TicketGiven(msgspec.Struct, kw_only=True):
    """Sent as `?ticket=` with one GET of that path, within `expires_in` seconds."""

    ticket: str
    path: str
    success: bool = True
    expires_in: int = 30


class NewAccount(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An account to make. A password has 8 or more characters, with letters and digits."""

    username: str
    password: Secret
    name: Name | None = None
    avatar: Avatar = ""
    role: Role = "agent"
    teams: Teams = msgspec.field(default_factory=lambda: [SUPPORT])
    skills: Words = []
    capacity: Capacity = CAPACITY


class AccountChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What an admin changes; what is not sent stays. A password, or `disabled`, ends every login
    of the agent."""

    name: Name | None = None
    avatar: Avatar | None = None
    role: Role | None = None
    teams: Teams | None = None
    skills: Words | None = None
    capacity: Capacity | None = None
    disabled: bool | None = None
    password: Secret | None = None


class AccountAnswer(msgspec.Struct, kw_only=True):
    """One account."""

    agent: AccountView
    success: bool = True


class AccountList(msgspec.Struct, kw_only=True):
    """All accounts, by id."""

    agents: list[AccountView]
    total: int
    success: bool = True


def view_of(account: Account) -> AccountView:
    """Return an account as it may be shown."""
    return AccountView(
        id=account.id,
        username=account.id,
        name=account.name or account.id,
        avatar=account.avatar,
        role=account.role,
        teams=list(account.teams),
        skills=list(account.skills),
        capacity=account.capacity,
        disabled=account.disabled,
    )
