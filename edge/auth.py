"""Who is asking: the principal behind a key, what it may do, and when it is not even asked.

Keys come from runtime/keys.py as hashes. They are sent in headers, never in URLs.
"""

import hashlib
import hmac
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

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
READS = frozenset({READ, CHAT_READ})
LOCAL_READS = READS | {CHAT_ALL, NODES_READ}

API = "/api/"
CHAT = "/v1/"
FILES = "/files/"
CUSTOMERS = ("/api/chat", "/api/conversation/", "/api/manual/")
"""Where customers ask, be it with a key of their website or, if that is open, with none."""
HEALTH = "/api/health"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
READING = frozenset({"GET", "HEAD"})

TRIES = 10
WITHIN = 60.0
ADDRESSES = 10_000

# Clients of the relay compare these words.
UNAUTHORIZED = "Unauthorized: Invalid or missing API key"

_DEFAULT = hashlib.sha256(PUBLIC_DEFAULT.encode()).digest()


@dataclass(frozen=True)
class Principal:
    """Who is asking. Without `children` it may act as any child, else only as those.

    Only an `agent` has a `name` that others may be told.
    """

    id: str
    kind: Literal["key", "anonymous", "agent"] = "key"
    scopes: frozenset[str] = frozenset()
    tier: str = "user"
    children: frozenset[str] = frozenset()
    name: str = ""

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


class LockOut:
    """Addresses that have tried too many wrong keys. The oldest are forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raise Refusal 429 while an address is locked out."""
        tries = self._tries.get(network(address))
        if tries is None or len(tries) < TRIES:
            return
        left = tries[0] + WITHIN - self._clock()
        if left > 0:
            wait = {"Retry-After": str(int(left) + 1)}
            detail = f"{TRIES} wrong keys came from this address; wait {int(left) + 1} s"
            raise Refusal(429, "locked_out", detail, headers=wait)

    def count(self, address: str) -> None:
        """Remember a wrong key."""
        key = network(address)
        tries = self._tries.setdefault(key, deque(maxlen=TRIES))
        tries.append(self._clock())
        self._tries.move_to_end(key)
        while len(self._tries) > ADDRESSES:
            self._tries.popitem(last=False)


class Doorkeeper:
    """Knows the keys, and admits those who have one.

    Reading may be open to everybody (`open_reads`), or to this machine (`local_reads`), which a
    request is not from that says it was forwarded; only this machine sees everybody's
    conversations. With `open_chat` customers need no key where they ask. As long as nobody has
    chosen a key, this machine may also ask models, with any key: clients of OpenAI insist on
    sending one.
    """

    def __init__(
        self,
        keys: Iterable[Key],
        *,
        open_reads: bool,
        local_reads: bool = False,
        open_chat: bool = False,
        lock_out: LockOut | None = None,
    ) -> None:
        self._keys = [(key.secret_hash, _principal_of(key)) for key in keys]
        may_read = LOCAL_READS if local_reads else frozenset[str]()
        if open_reads:
            may_read = READS
        self._anonymous = Principal("anonymous", "anonymous", may_read)
        self._guest = replace(self._anonymous, scopes=may_read | {CHAT_SEND})
        self._customer = replace(self._anonymous, scopes=may_read | {CHAT_SEND, CHAT_READ})
        self._open_chat = open_chat
        self._keyless = local_reads and all(known == _DEFAULT for known, _ in self._keys)
        self._local_only = local_reads and not open_reads
        self._local = local_reads
        self._lock_out = lock_out or LockOut()

    def admit(self, connection: HTTPConnection) -> Principal:
        """Return who is asking; somebody anonymous if they do not say.

        Raises Refusal 400 for two different keys, 401 for a wrong one, 429 after too many. What
        opens this machine only, as everybody's key does, is 401 behind a proxy.
        """
        secret = _read_secret(connection)
        if secret is None:
            return self._admit_nobody(connection)
        address = connection.client.host if connection.client else ""
        self._lock_out.check(address)
        found = self._find(secret)
        if found is None:
            if self._keyless and connection.scope["path"].startswith((CHAT, FILES)):
                return self._admit_nobody(connection)
            self._lock_out.count(address)
            raise unauthorized()
        if hashlib.sha256(secret).digest() == _DEFAULT:
            _refuse_forwarded(connection, "the relay's default key")
        return self._with_open_reads(found, connection)

    def _admit_nobody(self, connection: HTTPConnection) -> Principal:
        if self._open_chat and connection.scope["path"].startswith(CUSTOMERS):
            return self._customer
        if self._local_only and connection.scope["method"] in READING:
            _refuse_forwarded(connection, "reads without a key")
        guest = self._keyless and not _forwarded_by(connection)
        return self._guest if guest else self._anonymous

    def trusts(self, connection: HTTPConnection) -> bool:
        """Whether a request comes from this machine, or with a key."""
        if self._local and not _forwarded_by(connection):
            return True
        try:
            return self.admit(connection).known
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
        if opened <= found.scopes or (self._local_only and _forwarded_by(connection)):
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
            _refuse_foreign_origin(connection)
            if scope["path"].startswith((API, CHAT, FILES)):
                principal = self._doorkeeper.admit(connection)
                needed = _least_scope(scope["path"], scope["method"])
                public = scope["method"] == "OPTIONS" or scope["path"] == HEALTH
                if not public and not principal.known:
                    _check(principal, needed)
                connection.state.principal = principal
        await self._app(scope, receive, send)


class Authorization:
    """Middleware of each route: who has said who they are must also have the scope for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. Raises Refusal 401 or 403."""
        connection = HTTPConnection(scope)
        operation = operation_of(connection)
        if operation is not None and operation.scope is not None:
            _check(connection.state.principal, operation.scope)
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


def unauthorized() -> Refusal:
    """The refusal of somebody who did not say who they are, or not truly."""
    return Refusal(401, "unauthorized", UNAUTHORIZED)


def _least_scope(path: str, method: str) -> str:
    """What somebody unknown needs to be told anything at all."""
    if path.startswith((CHAT, FILES, *CUSTOMERS)):
        return CHAT_READ if method in SAFE else CHAT_SEND
    return READ if method in SAFE else ""


def _check(principal: Principal, scope: str) -> None:
    if scope in principal.scopes:
        return
    if not principal.known:
        raise unauthorized()
    raise Refusal(403, "missing_scope", f"this key does not have the scope {scope!r}")


def _read_secret(connection: HTTPConnection) -> bytes | None:
    """Return the key as it was sent, None if there is none. It may be sent in two ways."""
    headers = connection.headers
    sent = [value.encode("latin-1") for value in headers.getlist("x-relay-api-key")]
    authorization = headers.getlist("authorization")
    if len(authorization) > 1:
        raise Refusal(400, "ambiguous_credentials", "there is more than one Authorization header")
    sent += [_read_bearer(value) for value in authorization]
    if len(set(sent)) > 1:
        raise Refusal(400, "ambiguous_credentials", "two different keys were sent; send one")
    if sent and not sent[0]:
        raise unauthorized()
    return sent[0] if sent else None


def _read_bearer(value: str) -> bytes:
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise unauthorized()
    return token.encode("latin-1")


def _refuse_forwarded(connection: HTTPConnection, what: str) -> None:
    """Raise Refusal 401 for what a proxy passed on: its client may be anybody, anywhere."""
    if name := _forwarded_by(connection):
        detail = f"Unauthorized: {what} open this machine only, and {name} says it came from"
        raise Refusal(401, "unauthorized", f"{detail} elsewhere; set a key of your own")


def _forwarded_by(connection: HTTPConnection) -> str:
    """The header by which a proxy says that it passed a request on; nothing if there is none."""
    names = (n for n in connection.headers if n == "forwarded" or n.startswith("x-forwarded-"))
    return next(names, "")


def _refuse_foreign_origin(connection: HTTPConnection) -> None:
    """Raise Refusal 403 where another site's page would change something with our user's rights.

    Only the authority is compared: behind a proxy we do not know our own scheme.
    """
    origins = connection.headers.getlist("origin")
    if not origins or connection.scope["method"] in SAFE:
        return
    own = connection.headers.get("host", "").lower()
    authority = origins[0].lower().partition("://")[2]
    if len(origins) > 1 or not authority or authority != own:
        detail = f"Origin {quote(origins[0])} is not this server"
        raise Refusal(403, "foreign_origin", detail)


def _principal_of(key: Key) -> Principal:
    return Principal(key.id, "key", key.scopes, key.tier, key.children)


def network(address: str) -> str:
    """Return one address of IPv4, but a whole /64 of IPv6, of which one client has them all."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(ip_network((parsed, 64), strict=False))
    return str(parsed)
