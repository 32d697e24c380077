"""Which models may be asked, by the names that clients know, and which actors answer for them.

A model is a deployment that handles `model.generate`; its options say what it is called.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from edge.problem import Refusal, quote
from edge.shared import Deployed
from schemas.base import tag_of
from schemas.conversation import Wanted
from schemas.deployment import Deployment
from schemas.model import Generate

GENERATE = tag_of(Generate)
MOST_SHOWN = 10


@dataclass(frozen=True)
class Offer:
    """A model as it is offered: its public id, who answers for it in order, whose wire they speak
    and whose it is said to be."""

    id: str
    actors: tuple[str, ...]
    provider: str = ""
    owned_by: str = "callboard"
    aliases: tuple[str, ...] = ()

    def wanted(self, name: str, slot: int = 0) -> Wanted:
        """A task for this model, which its client called `name`.

        `slot` tells several of them in one batch apart.
        """
        return Wanted(actors=self.actors, model=name, slot=slot)


class Catalog:
    """The models that are deployed at the moment."""

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed

    async def offers(self) -> list[Offer]:
        """Every model, each under its public id, in the order of the ids. Raises BusFault."""
        unique = {offer.id: offer for offer in reversed(_offers(await self._deployed.all()))}
        return sorted(unique.values(), key=lambda offer: offer.id)

    async def find(self, name: str) -> Offer:
        """Return the model of a name: its id, its deployment's name, or an alias or a pattern.

        Raises Refusal 404 `model_not_found`, BusFault.
        """
        found = _match(name, _offers(await self._deployed.all()))
        if found is None:
            offers = _offers(await self._deployed.all(missed=True))
            found = _match(name, offers)
        if found is None:
            detail = f"The model {quote(name)} does not exist; {_expected(offers)}"
            raise Refusal(404, "model_not_found", detail, param="model")
        return found


def _offers(deployed: Mapping[str, Deployment]) -> list[Offer]:
    """What is offered, in the order of the deployments' names: the first of an id answers."""
    models = {n: one for n, one in sorted(deployed.items()) if GENERATE in one.handles}
    return [_offer(one, models) for one in models.values()]


def _offer(deployment: Deployment, models: Mapping[str, Deployment]) -> Offer:
    options = deployment.options
    public = options.get("id") or options.get("model") or deployment.name
    after = (name for name in _texts(options.get("fallbacks")) if name in models)
    return Offer(
        id=str(public),
        actors=tuple(dict.fromkeys((deployment.name, *after))),
        provider=str(options.get("provider") or ""),
        owned_by=str(options.get("owned_by") or "callboard"),
        aliases=tuple(_texts(options.get("aliases"))),
    )


def _texts(value: Any) -> Iterable[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else ()


def _match(name: str, offers: list[Offer]) -> Offer | None:
    """What is meant exactly comes before what a pattern matches; of patterns the longest."""
    for offer in offers:
        if offer.id == name:
            return offer
    for offer in offers:
        if offer.actors[0] == name or name in offer.aliases:
            return offer
    matching = [(len(a), o) for o in offers for a in o.aliases if fnmatchcase(name, a)]
    return max(matching, key=lambda pair: pair[0])[1] if matching else None


def _expected(offers: list[Offer]) -> str:
    ids = sorted({offer.id for offer in offers})
    if not ids:
        return "no model is deployed"
    more = f" and {len(ids) - MOST_SHOWN} more" if len(ids) > MOST_SHOWN else ""
    return f"expected one of {', '.join(ids[:MOST_SHOWN])}{more}"
