"""What a request brings to say who asks, and what it says about where it came from.

Keys and tokens are sent in headers; in a URL there may only be a ticket, which is used once.
"""

from starlette.requests import HTTPConnection

from edge.problem import Refusal, quote

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
READING = frozenset({"GET", "HEAD"})

# Clients of the relay compare these words.
UNAUTHORIZED = "Unauthorized: Invalid or missing API key"


def unauthorized() -> Refusal:
    """The refusal of somebody who did not say who they are, or not truly."""
    return Refusal(401, "unauthorized", UNAUTHORIZED)


def read_secret(connection: HTTPConnection) -> bytes | None:
    """Return the key as it was sent, None if there is none. It may be sent in two ways.

    Raises Refusal 400 for two different ones, 401 for what is none.
    """
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


def read_ticket(connection: HTTPConnection) -> str | None:
    """Return the ticket in the URL of something to read, None if there is none."""
    if connection.scope["method"] not in READING:
        return None
    sent = connection.query_params.getlist("ticket")
    if len(sent) > 1:
        raise Refusal(400, "ambiguous_credentials", "there is more than one ticket")
    return sent[0] if sent else None


def is_token(secret: bytes) -> bool:
    """Whether a secret is written as a JSON Web Token; a key may be, too."""
    return secret.startswith(b"eyJ") and secret.count(b".") == 2


def address_of(connection: HTTPConnection) -> str:
    """Return the address that a request came from, as the connection has it."""
    return connection.client.host if connection.client else ""


def _read_bearer(value: str) -> bytes:
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise unauthorized()
    return token.encode("latin-1")


def refuse_forwarded(connection: HTTPConnection, what: str) -> None:
    """Raise Refusal 401 for what a proxy passed on: its client may be anybody, anywhere."""
    if name := forwarded_by(connection):
        detail = f"Unauthorized: {what} open this machine only, and {name} says it came from"
        raise Refusal(401, "unauthorized", f"{detail} elsewhere; set a key of your own")


def forwarded_by(connection: HTTPConnection) -> str:
    """The header by which a proxy says that it passed a request on; nothing if there is none."""
    names = (n for n in connection.headers if n == "forwarded" or n.startswith("x-forwarded-"))
    return next(names, "")


def refuse_foreign_origin(connection: HTTPConnection) -> None:
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
