"""Which deployments answer to which names of models."""

from typing import Any

import pytest

from edge.catalog import Catalog, Offer
from edge.problem import Refusal
from schemas.conversation import Wanted
from schemas.deployment import Deployment

MODEL = ("model.generate",)


class Deployed:
    """What is deployed, without a bus."""

    def __init__(self, **options: dict[str, Any]) -> None:
        self.found = {name: deployment(name, given) for name, given in options.items()}
        self.later: dict[str, Deployment] = {}

    async def all(self, *, missed: bool = False) -> dict[str, Deployment]:
        return self.found | (self.later if missed else {})


def deployment(name: str, options: dict[str, Any], handles: tuple[str, ...] = MODEL) -> Deployment:
    return Deployment(name=name, type="a:B", kind="worker", options=options, handles=handles)


def catalog(**options: dict[str, Any]) -> Catalog:
    return Catalog(Deployed(**options))  # type: ignore[arg-type]  # all it uses


async def test_a_model_is_called_by_its_id_its_deployment_and_its_aliases() -> None:
    models = catalog(
        r1={"model": "deepseek-r1:1.5b", "provider": "ollama", "aliases": ["deepseek", "ds-*"]},
        named={"model": "gpt-5", "id": "our/gpt"},
        plain={},
    )
    found = {
        name: (await models.find(name)).actors
        for name in ("deepseek-r1:1.5b", "r1", "deepseek", "ds-7", "our/gpt", "plain")
    }

    assert found == {
        "deepseek-r1:1.5b": ("r1",),
        "r1": ("r1",),
        "deepseek": ("r1",),
        "ds-7": ("r1",),
        "our/gpt": ("named",),
        "plain": ("plain",),
    }
    assert [offer.id for offer in await models.offers()] == ["deepseek-r1:1.5b", "our/gpt", "plain"]


async def test_what_is_meant_exactly_comes_before_what_a_pattern_matches() -> None:
    models = catalog(
        any={"model": "any", "aliases": ["*"]},
        most={"model": "most", "aliases": ["gpt-*"]},
        exact={"model": "gpt-5"},
    )

    assert (await models.find("gpt-5")).actors == ("exact",)
    assert (await models.find("gpt-4")).actors == ("most",)
    assert (await models.find("else")).actors == ("any",)


async def test_a_model_is_followed_by_the_fallbacks_that_are_deployed() -> None:
    models = catalog(a={"model": "m", "fallbacks": ["gone", "b", "a"]}, b={"model": "n"})

    wanted = (await models.find("m")).wanted("m*", slot=1)

    assert wanted == Wanted(actors=("a", "b"), model="m*", slot=1)


async def test_two_deployments_of_one_model_are_one_offer() -> None:
    models = catalog(b={"model": "m"}, a={"model": "m", "provider": "openai", "owned_by": "us"})

    assert await models.offers() == [Offer("m", ("a",), "openai", "us")]
    assert (await models.find("b")).actors == ("b",)


async def test_what_does_not_generate_is_no_model() -> None:
    deployed = Deployed()
    deployed.found["child"] = deployment("child", {}, ("relay.execute",))
    with pytest.raises(Refusal) as refused:
        await Catalog(deployed).find("child")  # type: ignore[arg-type]  # all it uses

    assert refused.value.status == 404
    assert refused.value.code == "model_not_found"
    assert refused.value.detail == "The model 'child' does not exist; no model is deployed"


async def test_an_unknown_model_is_refused_with_those_there_are() -> None:
    with pytest.raises(Refusal) as refused:
        await catalog(a={"model": "m"}, b={}).find("x" * 200)

    assert refused.value.members == {"param": "model"}
    assert refused.value.detail.endswith("does not exist; expected one of b, m")
    assert len(refused.value.detail) < 200


async def test_a_model_that_was_deployed_just_now_is_found() -> None:
    deployed = Deployed(a={"model": "m"})
    deployed.later["b"] = deployment("b", {"model": "new"})

    assert (await Catalog(deployed).find("new")).actors == ("b",)  # type: ignore[arg-type]  # all it uses
