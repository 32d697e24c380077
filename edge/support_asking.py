"""Who a customer is, what they say and to whom it goes, and whether they may say that much.

Next: `edge/support.py`, which answers.
"""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from starlette.requests import Request

from edge.asking import fingerprint, wait_for_bus
from edge.auth import Principal, principal_of
from edge.body import read_json
from edge.catalog import Catalog, Offer
from edge.exchange import ROUTE, Question
from edge.failures import NO_RETRY
from edge.lockout import network
from edge.parameters import read_idempotency_key
from edge.problem import Refusal
from edge.rates import Policy, Rates
from edge.remembered import Remembered
from edge.shared import Shared
from edge.support_shapes import MOST_MESSAGE, ChatAsked, Profile
from runtime.bus import message_id, new_id
from runtime.tables import SupportTable
from schemas.base import Address
from schemas.conversation import MOST_ACTORS, SESSION, OpenBatch, Wanted
from schemas.model import Prompt, Text, Utterance
from schemas.ownership import IN_MANUAL, Customer

COZE = "coze"
PLAIN = "echo"
"""The provider that answers only where there is no other."""
AGENT = "agent"
VIP = "vip"


@dataclass(frozen=True)
class Asked:
    """What is asked of which session, for which `user` it counts, and the headers that tell
    what they may still ask."""

    request: Request
    session: str
    user: str | None
    question: Question
    headers: dict[str, str]


def user_of(principal: Principal, session: str | None) -> str | None:
    """Who counts for limits: the session of a key or of nobody, a key; nobody alike is None."""
    if session:
        return f"{principal.id}/{session}"
    return principal.id if principal.known else None


class Customers:
    """What all routes of customers need to know of them."""

    def __init__(
        self,
        shared: Shared,
        catalog: Catalog,
        remembered: Remembered,
        rates: Rates,
        limits: SupportTable,
        *,
        believed: Callable[[Request], bool],
    ) -> None:
        self._shared = shared
        self._catalog = catalog
        self._remembered = remembered
        self._limits = limits
        self._believed = believed
        self._rates = rates
        self._user = Policy("user", limits.user_rate)
        self._vip = Policy("vip", limits.vip_rate)
        self._address = Policy("address", limits.address_rate)

    async def asked(self, request: Request) -> Asked:
        """Read what a customer says. Raises Refusal, BusFault."""
        said: ChatAsked = await read_json(request, ChatAsked)
        check_said(said.message, "/message")
        headers = await self.count(request, said.user_id)
        await wait_for_bus(self._shared.bus)
        session = said.user_id or _made_session(request)
        wanted = await self.model()
        if await self._shared.deployed.find(SESSION) is None:
            raise _not_deployed("no actor 'session' is deployed, which keeps conversations")
        bodyhash = fingerprint(said) if read_idempotency_key(request) else ""
        message = self._message(request, said, wanted)
        user = user_of(principal_of(request), said.user_id)
        question = Question(Address(SESSION, session), message, bodyhash)
        return Asked(request, session, user, question, headers)

    def _message(self, request: Request, said: ChatAsked, wanted: Wanted) -> OpenBatch:
        utterance = Utterance(role="user", content=(Text(said.message),))
        settings = {"parameters": said.parameters} if said.parameters else {}
        return OpenBatch(
            tasks=(wanted,),
            prompt=Prompt(messages=(utterance,), settings=settings),
            said=utterance,
            deadline=self._limits.answer_within.total_seconds(),
            team=self._limits.team,
            customer=self.customer(request, said.user_profile),
            thread=said.conversation_id or "",
        )

    def customer(self, request: Request, profile: Profile | None) -> Customer | None:
        """Who is served, as far as that is said, and believed."""
        if profile is None:
            return None
        known = msgspec.structs.asdict(profile)
        return Customer(**{**known, "vip": profile.vip and self._believed(request)})

    # -- who answers -----------------------------------------------------------------------

    async def model(self) -> Wanted:
        """The task of whoever answers customers. Raises Refusal 503 if nobody does."""
        offers = await self._chosen()
        if not offers:
            named = ", ".join(self._limits.models)
            raise _not_deployed(f"none of {named} is deployed" if named else "no model is deployed")
        actors = dict.fromkeys(actor for offer in offers for actor in offer.actors)
        return Wanted(actors=tuple(actors)[:MOST_ACTORS], model=offers[0].id)

    async def _chosen(self) -> list[Offer]:
        """Those that are configured; else one, of Coze before any other."""
        found = []
        for name in self._limits.models:
            with contextlib.suppress(Refusal):
                found.append(await self._catalog.find(name))
        if self._limits.models:
            return found
        offers = await self._catalog.offers()
        ranked = sorted(offers, key=lambda one: (one.provider != COZE, one.provider == PLAIN))
        return ranked[:1]

    # -- how much --------------------------------------------------------------------------

    async def count(self, request: Request, session: str | None, what: str = "") -> dict[str, str]:
        """Count a request against what its user may do of its kind; returns headers.

        Raises Refusal 429.
        """
        principal = principal_of(request)
        if principal.tier == AGENT:
            return {}
        if self._limits.address_rate and request.client:
            await self._rates.take(f"address/{network(request.client.host)}", self._address)
        user = user_of(principal, session)
        if user is None:
            return {}
        if what:
            user = f"{what}/{user}"
        if principal.tier == VIP:
            return await self._rates.take(user, self._vip)
        deserves = self._is_vip(session) if session else None
        return await self._rates.take(user, self._user, self._vip, deserves)

    def _is_vip(self, session: str) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            state = await self._remembered.find_conversation(session)
            return state is not None and state.hold.customer.vip

        return look

    # -- who may speak ---------------------------------------------------------------------

    async def check_bot(self, session: str) -> None:
        """Raise Refusal 409 `MANUAL_IN_PROGRESS` unless it is the bot who may speak."""
        state = await self._remembered.find_conversation(session)
        if state is not None and state.hold.mode != "bot_active":
            detail = "a person has this session, or is waited for"
            raise Refusal(409, IN_MANUAL, detail, headers=NO_RETRY, mode=state.hold.mode)


def check_said(text: str, pointer: str) -> None:
    """Raise Refusal 422 for what says nothing, 413 for what is too long."""
    if not text.strip():
        faults = [{"detail": "says nothing", "pointer": pointer}]
        raise Refusal(422, "invalid_field", f"{pointer}: says nothing", errors=faults)
    if (size := len(text.encode())) > MOST_MESSAGE:
        detail = f"{pointer}: takes {size} bytes, at most {MOST_MESSAGE}"
        raise Refusal(413, "message_too_large", detail, limit=MOST_MESSAGE)


def _made_session(request: Request) -> str:
    """A session for somebody who names none; the same one for a repeat."""
    key = read_idempotency_key(request)
    return message_id(principal_of(request).id, ROUTE, key) if key else new_id()


def _not_deployed(detail: str) -> Refusal:
    return Refusal(503, "not_deployed", detail)
