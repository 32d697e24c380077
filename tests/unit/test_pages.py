"""The chat page: what it is made of is ours, and it runs under a strict policy."""

from collections.abc import AsyncIterator
from urllib.parse import urljoin

import httpx
import pytest
from starlette.applications import Starlette

from edge.pages import FILES, pages
from tests.unit.test_docs import Page


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=Starlette(routes=pages()))
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        yield client


@pytest.mark.promise("AC-20", "AC-47")
async def test_the_page_stands_at_the_root_and_loads_nothing_but_our_own(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.get("/")
    page = Page(answer.text)
    loaded = [one for one in page.addresses if one != "data:,"]

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert {urljoin("/", one) for one in loaded} < set(FILES)
    assert page.inline == []


@pytest.mark.parametrize("path", FILES)
async def test_all_of_it_comes_with_a_strict_policy(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    policy = answer.headers["content-security-policy"]

    assert answer.status_code == 200
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", [path for path in FILES if path.endswith(".js")])
async def test_no_module_makes_markup_of_text(client: httpx.AsyncClient, path: str) -> None:
    source = (await client.get(path)).text

    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in source
