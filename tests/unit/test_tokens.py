"""Which tokens of agents count, and which do not, whoever made them."""

import time
from typing import Any, cast

import jwt
import msgspec
import pytest

from edge.identities import Identities
from edge.tokens import ACCESS, ISSUER, LASTS, SKEW, TICKET, Expired, Forged, Tokens

KEY = b"k" * 64
NOW = 1_700_000_000


class Kept(msgspec.Struct):
    data: bytes = KEY


class Bucket:
    """Has the key already."""

    async def get(self, key: str) -> Kept:
        return Kept()


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> Tokens:
    return Tokens(cast(Identities, Bucket()), clock)


def made(key: bytes | None = KEY, algorithm: str = "HS256", **changed: Any) -> bytes:
    headers = changed.pop("headers", None)
    claims = {
        "iss": ISSUER,
        "aud": ACCESS,
        "sub": "ann",
        "jti": "j1",
        "iat": NOW,
        "exp": NOW + 3600,
        "login": "f" * 32,
        **changed,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    # Not by `jwt.encode`, which would refuse to make some of what must be refused.
    payload = msgspec.json.encode(claims)
    return jwt.PyJWS().encode(payload, key, algorithm=algorithm, headers=headers).encode()  # type: ignore[arg-type]  # "none" takes no key


async def test_what_is_issued_is_read_as_it_was_issued(tokens: Tokens) -> None:
    token = await tokens.issue(ACCESS, "ann", "f" * 32)

    claims = await tokens.read(token.encode(), ACCESS)
    assert (claims.sub, claims.login, claims.path) == ("ann", "f" * 32, "")
    assert claims.exp - claims.iat == LASTS[ACCESS] == 3600


async def test_a_token_that_is_made_by_hand_as_we_make_them_counts(tokens: Tokens) -> None:
    assert (await tokens.read(made(), ACCESS)).sub == "ann"


@pytest.mark.parametrize(
    "token",
    [
        made(algorithm="none", key=None),
        made(algorithm="HS512"),
        made(key=b"o" * 64),
        made(iss="somebody"),
        made(iss=None),
        made(aud=TICKET),
        made(aud=[ACCESS]),
        made(aud=None),
        made(sub=None),
        made(sub=7),
        made(jti=None),
        made(login=None),
        made(login=7),
        made(exp=None),
        made(exp=str(NOW + 3600)),
        made(exp=NOW + 3600.5),
        made(exp=NOW + 3601),
        made(exp=NOW + 10 * 365 * 86400),
        made(exp=NOW),
        made(iat=None),
        made(iat=NOW + SKEW + 1, exp=NOW + SKEW + 100),
        made(headers={"kid": "../../etc/passwd"}),
        made(headers={"jku": "https://evil.example/keys"}),
        made(headers={"crit": ["exp"]}),
        made() + b"x",
        made()[:-1],
        b"",
        b"..",
        b"eyJ.eyJ.eyJ",
        b"\xff" * 30,
        b"e" * 100_000,
    ],
)
async def test_what_we_would_not_issue_was_never_a_token(tokens: Tokens, token: bytes) -> None:
    with pytest.raises(Forged):
        await tokens.read(token, ACCESS)


async def test_clocks_may_differ_by_a_minute_and_no_more(tokens: Tokens, clock: Clock) -> None:
    token = made()
    clock.now = NOW + 3600 + SKEW - 1
    assert (await tokens.read(token, ACCESS)).sub == "ann"
    clock.now += 1

    with pytest.raises(Expired):
        await tokens.read(token, ACCESS)


async def test_a_ticket_is_no_token_and_a_token_no_ticket(tokens: Tokens) -> None:
    token = await tokens.issue(ACCESS, "ann", "f" * 32)
    ticket = await tokens.issue(TICKET, "ann", "f" * 32, "/api/agent/events")

    with pytest.raises(Forged):
        await tokens.read(token.encode(), TICKET)
    with pytest.raises(Forged):
        await tokens.read(ticket.encode(), ACCESS)
    assert (await tokens.read(ticket.encode(), TICKET)).path == "/api/agent/events"


async def test_the_systems_clock_is_used_unless_another_is_given() -> None:
    tokens = Tokens(cast(Identities, Bucket()))

    claims = await tokens.read((await tokens.issue(ACCESS, "ann", "f")).encode(), ACCESS)
    assert abs(claims.iat - time.time()) < 5
