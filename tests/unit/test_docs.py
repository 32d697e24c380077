"""The page that shows the HTTP interface."""

import re
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator

from edge.docs import FILES, documentation
from edge.openapi import describe, publish
from edge.operation import routes
from tests.unit.letters import TABLE, client_of


class Page(HTMLParser):
    """What a page loads or links to, and what a strict policy would forbid in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self._script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [given[name] or "" for name in ("src", "href") if name in given]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        self.inline += [tag] if tag == "style" else []
        self._script = tag == "script"

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._script = False


def docs_client(docs: bool = True) -> httpx.AsyncClient:
    document = describe(TABLE, "Letters", "1.2.3")
    return client_of([*routes(TABLE), publish(document), *documentation(docs, document)])


async def test_the_page_loads_only_what_its_own_origin_serves() -> None:
    async with docs_client() as client:
        page = await client.get("/docs")
        addresses = [urljoin(str(page.url), each) for each in Page(page.text).addresses]
        answers = [await client.get(each) for each in addresses]

    assert {urlsplit(each).netloc for each in addresses} == {"board.test"}
    assert [each.status_code for each in answers] == [200] * len(addresses)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert {urlsplit(each).path for each in addresses} >= set(FILES) - {"/docs"}


async def test_the_page_has_no_script_and_no_style_written_into_it() -> None:
    async with docs_client() as client:
        page = await client.get("/docs")

    assert Page(page.text).inline == []


async def test_what_the_page_loads_names_no_address_elsewhere() -> None:
    async with docs_client() as client:
        script = (await client.get("/docs/init.js")).text
        style = (await client.get("/docs/swagger-ui.css")).text

    assert "//" not in re.sub(r"^\s*//.*$", "", script, flags=re.MULTILINE)
    assert "validatorUrl: null" in script
    assert re.findall(r"@import", style) == []
    assert {each[:5] for each in re.findall(r"url\([\"']?([^)\"']*)", style)} == {"data:"}


@pytest.mark.parametrize("path", [*FILES, "/docs/openapi.json"])
async def test_everything_under_docs_is_served_with_a_strict_policy(path: str) -> None:
    async with docs_client() as client:
        answer = await client.get(path)

    policy = answer.headers["content-security-policy"].split("; ")
    sources = {source for rule in policy for source in rule.split()[1:]}
    assert answer.status_code == 200
    assert "default-src 'none'" in policy
    assert sources == {"'none'", "'self'", "data:"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", [*FILES, "/docs/openapi.json"])
async def test_without_docs_nothing_of_them_is_found(path: str) -> None:
    async with docs_client(docs=False) as client:
        page, document = await client.get(path), await client.get("/openapi.json")

    assert page.status_code == 404
    assert document.status_code == 200


async def test_the_page_and_the_document_are_only_read() -> None:
    async with docs_client() as client:
        posted = await client.post("/docs")
        head = await client.head("/docs")

    assert posted.status_code == 405
    assert "GET" in posted.headers["allow"]
    assert (head.status_code, head.content) == (200, b"")


async def test_the_page_reads_a_valid_openapi_30_document_with_every_operation() -> None:
    async with docs_client() as client:
        newer = (await client.get("/openapi.json")).json()
        older = (await client.get("/docs/openapi.json")).json()

    OpenAPIV30SpecValidator(older).validate()
    assert older["openapi"] == "3.0.3"
    assert {(path, m) for path, found in older["paths"].items() for m in found} == {
        (path, m) for path, found in newer["paths"].items() for m in found
    }
