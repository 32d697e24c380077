"""Who is asking: the principal behind a key, what it may do, and when it is not even asked.

Keys come from runtime/keys.py as hashes. They are sent in headers, never in URLs.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from edge.credentials import (
    READING,
    SAFE,
    address_of,
    forwarded_by,
    is_token,
    read_secret,
    read_ticket,
    refuse_foreign_origin,
    refuse_forwarded,
    unauthorized,
)
from edge.lockout import LockOut
from edge.operation import operation_of
from edge.parameters import refuse_credentials
from edge.problem import Refusal, quote
from runtime.keys import PUBLIC_DEFAULT, Key

SEND = "relay:send"
READ = "relay:read"
CALLBACK = "relay:callback"
CHAT_SEND = "chat:send"
CHAT_READ = "chat:read"
CHAT_ALL = "chat:all"
NODES_READ = "nodes:read"
NODES_WRITE = "nodes:write"
DESK_READ = "desk:read"
DESK_ACT = "desk:act"
DESK_LEAD = "desk:lead"
DESK_ADMIN = "desk:admin"
READS = frozenset({READ, CHAT_READ})
LOCAL_READS = READS | {CHAT_ALL, NODES_READ}
DESK = frozenset({DESK_READ, DESK_ACT, DESK_LEAD, DESK_ADMIN})

API = "/api/"
CHAT = "/v1/"
FILES = "/files/"
CUSTOMERS = ("/api/chat", "/api/conversation/", "/api/manual/")
"""Where customers ask, be it with a key of their website or, if that is open, with none."""
OPEN = frozenset({"/api/agent/login", "/api/agent/refresh", "/api/health"})
"""Where somebody proves who they are, or need not: what they send along does not matter there."""
DESKS = ("/api/agent/", "/api/sessions", "/api/shift/", "/api/approvals")

_DEFAULT = hashlib.sha256(PUBLIC_DEFAULT.encode()).digest()


@dataclass(frozen=True)
class Principal:
    """Who is asking. Without `children` it may act as any child, else only as those.

    An `agent` has an id as such, a name that others may be told, teams, and a login by which it
    was admitted.
    """

    id: str
    kind: Literal["key", "anonymous", "agent"] = "key"
    scopes: frozenset[str] = frozenset()
    tier: str = "user"
    children: frozenset[str] = frozenset()
    name: str = ""
    agent: str = ""
    teams: frozenset[str] = frozenset()
    login: str = ""

    @property
    def known(self) -> bool:
        """Whether it said who it is."""
        return self.kind != "anonymous"

    def check_child(self, *names: str) -> None:
        """Raise Refusal 403 unless it may act as every child of these names."""
        for name in names:
            if self.children and name not in self.children:
                detail = f"this key may not act as child {quote(name)}"
                raise Refusal(403, "foreign_child", detail)


class Bearers(Protocol):
    """Knows those who bring a token instead of a key."""

    async def admit(self, token: bytes) -> Principal | None:
        """Return whose it is, None if it is none. Raises Refusal 401 if it counts no more."""
        ...

    async def admit_ticket(self, ticket: str, path: str) -> Principal:
        """Return whose ticket it is, which is then used. Raises Refusal 401."""
        ...


STRANGER = Principal("anonymous", "anonymous")


class Doorkeeper:
    """Knows the keys, and admits those who have one.

    Reading may be open to everybody (`open_reads`), or to this machine (`local_reads`), which a
    request is not from that says it was forwarded; only this machine sees everybody's
    conversations. With `open_chat` customers need no key where they ask. As long as nobody has
    chosen a key, this machine may also ask models, with any key (clients of OpenAI insist on
    sending one), and do at the desk what anybody may.
    """

    def __init__(
        self,
        keys: Iterable[Key],
        *,
        open_reads: bool,
        local_reads: bool = False,
        open_chat: bool = False,
        lock_out: LockOut | None = None,
        bearers: Bearers | None = None,
    ) -> None:
        self._keys = [(key.secret_hash, _principal_of(key)) for key in keys]
        may_read = LOCAL_READS if local_reads else frozenset[str]()
        if open_reads:
            may_read = READS
        self._anonymous = Principal("anonymous", "anonymous", may_read)
        self._guest = replace(self._anonymous, scopes=may_read | {CHAT_SEND} | DESK)
        self._customer = replace(self._anonymous, scopes=frozenset({CHAT_SEND, CHAT_READ}))
        self._open_chat = open_chat
        self._keyless = local_reads and all(known == _DEFAULT for known, _ in self._keys)
        self._local_only = local_reads and not open_reads
        self._local = local_reads
        self._lock_out = lock_out or LockOut()
        self._bearers = bearers

    async def welcome(self, connection: HTTPConnection) -> Principal:
        """As `admit`, and who brings an agent's token, or a ticket in the URL of what it is for.

        Raises Refusal as that does, and 401 for a token or a ticket that counts no more.
        """
        secret, ticket = read_secret(connection), read_ticket(connection)
        if ticket is not None and self._bearers is not None:
            if secret is not None:
                detail = "a key or token and a ticket were sent; send one"
                raise Refusal(400, "ambiguous_credentials", detail)
            return await self._bearers.admit_ticket(ticket, connection.scope["path"])
        if secret is not None and self._bearers is not None and is_token(secret):
            self._lock_out.check(address_of(connection))
            if self._find(secret) is None and (found := await self._bearers.admit(secret)):
                return self._with_open_reads(found, connection)
        return self.admit(connection)

    def admit(self, connection: HTTPConnection) -> Principal:
        """Return who is asking; somebody anonymous if they do not say.

        Raises Refusal 400 for two different keys, 401 for a wrong one, 429 after too many. What
        opens this machine only, as everybody's key does, is 401 behind a proxy.
        """
        secret = read_secret(connection)
        if secret is None:
            return self._admit_nobody(connection)
        address = address_of(connection)
        self._lock_out.check(address)
        found = self._find(secret)
        if found is None:
            if self._keyless and connection.scope["path"].startswith((CHAT, FILES)):
                return self._admit_nobody(connection)
            self._lock_out.count(address)
            raise unauthorized()
        if hashlib.sha256(secret).digest() == _DEFAULT:
            refuse_forwarded(connection, "the relay's default key")
        return self._with_open_reads(found, connection)

    def _admit_nobody(self, connection: HTTPConnection) -> Principal:
        if self._keyless and not forwarded_by(connection):
            return self._guest
        if self._open_chat and connection.scope["path"].startswith(CUSTOMERS):
            return self._customer
        if self._local_only and connection.scope["method"] in READING:
            refuse_forwarded(connection, "reads without a key")
        return self._anonymous

    def trusts(self, connection: HTTPConnection) -> bool:
        """Whether a request comes from this machine, with a key, or from who was admitted."""
        if self._local and not forwarded_by(connection):
            return True
        admitted = connection.scope.get("state", {}).get("principal")
        if isinstance(admitted, Principal):
            return admitted.known
        try:
            secret = read_secret(connection)
            # An agent's token is no key, and no wrong one either.
            return secret is not None and not is_token(secret) and self.admit(connection).known
        except Refusal:
            return False

    def _find(self, secret: bytes) -> Principal | None:
        """Look at every key, so that the time tells nothing about which it was."""
        digest = hashlib.sha256(secret).digest()
        found = None
        for known, principal in self._keys:
            if hmac.compare_digest(known, digest):
                found = principal
        return found

    def _with_open_reads(self, found: Principal, connection: HTTPConnection) -> Principal:
        """A key opens nothing less than having none does."""
        opened = self._anonymous.scopes
        if opened <= found.scopes or (self._local_only and forwarded_by(connection)):
            return found
        return replace(found, scopes=found.scopes | opened)


class Authentication:
    """Middleware: nobody gets further without having said who they are, where that is needed.

    The principal is `request.state.principal`. Below `/api/`, `/v1/` and `/files/` even a path
    that does not exist is told only to who may ask.
    """

    def __init__(self, app: ASGIApp, doorkeeper: Doorkeeper) -> None:
        self._app = app
        self._doorkeeper = doorkeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. Raises Refusal."""
        if scope["type"] == "http":
            connection = HTTPConnection(scope)
            refuse_credentials(connection)
            refuse_foreign_origin(connection)
            if scope["path"].startswith((API, CHAT, FILES)):
                principal = await self._principal(connection)
                connection.state.principal = principal
                connection.state.login = principal.login
        await self._app(scope, receive, send)

    async def _principal(self, connection: HTTPConnection) -> Principal:
        path, method = connection.scope["path"], connection.scope["method"]
        if path in OPEN:
            return STRANGER
        principal = await self._doorkeeper.welcome(connection)
        if method != "OPTIONS" and not principal.known:
            _check(principal, _least_scope(path, method))
        return principal


class Authorization:
    """Middleware of each route: who has said who they are must also have the scope for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. Raises Refusal 401 or 403."""
        connection = HTTPConnection(scope)
        operation = operation_of(connection)
        if operation is not None and operation.scope is not None:
            _check(connection.state.principal, operation.scope, *operation.also)
        await self._app(scope, receive, send)


def principal_of(request: Request) -> Principal:
    """Return who is asking."""
    found = request.state.principal
    assert isinstance(found, Principal)
    return found


def stream_owner(request: Request) -> str | None:
    """Return whose stream this would be: the principal's, nobody's in particular if anonymous."""
    principal = principal_of(request)
    return principal.id if principal.known else None


def _least_scope(path: str, method: str) -> str:
    """What somebody unknown needs to be told anything at all."""
    if path.startswith((CHAT, FILES, *CUSTOMERS)):
        return CHAT_READ if method in SAFE else CHAT_SEND
    if path.startswith(DESKS):
        return DESK_READ if method in SAFE else DESK_ACT
    return READ if method in SAFE else ""


def _check(principal: Principal, scope: str, *also: str) -> None:
    if not principal.scopes.isdisjoint((scope, *also)):
        return
    if not principal.known:
        raise unauthorized()
    raise Refusal(403, "missing_scope", f"this key does not have the scope {scope!r}")


def _principal_of(key: Key) -> Principal:
    return Principal(key.id, "key", key.scopes, key.tier, key.children)
