"""The document made from a table of operations, in OpenAPI 3.1 and in 3.0."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from edge.openapi import Document, describe, publish
from edge.openapi30 import in_openapi30, lower
from edge.operation import JSON, Operation, Parameter
from tests.unit.letters import (
    COUNT,
    ERASE,
    EXPORT,
    FOLLOW,
    LIST,
    POST,
    READ,
    TABLE,
    Letter,
    Posted,
    Receipt,
    client_of,
    follow,
    post,
)

ROOT = Path(__file__).parents[2]


def described(operation: Operation) -> Document:
    document: Document = describe(TABLE, "Letters", "1.2.3")
    path = re.sub(r":\w+}", "}", operation.path)
    found: Document = document["paths"][path][operation.method.lower()]
    return found


def parameters(operation: Operation) -> dict[str, Document]:
    return {each["name"]: each for each in described(operation).get("parameters", [])}


def test_the_document_is_valid_openapi_31() -> None:
    document = describe(TABLE, "Letters", "1.2.3", "All about letters.")

    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"
    assert document["info"] == {
        "title": "Letters",
        "version": "1.2.3",
        "description": "All about letters.",
    }


def test_every_operation_has_an_id_a_summary_and_answers() -> None:
    document = describe(TABLE, "Letters", "1.2.3")

    found = [each for path in document["paths"].values() for each in path.values()]
    assert len(found) == len(TABLE)
    assert len({each["operationId"] for each in found}) == len(TABLE)
    assert all(each["summary"] and len(each["responses"]) > 1 for each in found)


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = describe(TABLE, "Letters", "1.2.3")

    names = re.findall(rb'"#/components/schemas/([^"]+)"', msgspec.json.encode(document))
    assert {name.decode() for name in names} <= set(document["components"]["schemas"])
    assert names


def test_a_docstring_becomes_the_description_of_its_schema() -> None:
    schemas = describe(TABLE, "Letters", "1.2.3")["components"]["schemas"]

    assert schemas["Letter"]["description"] == "What is sent, and to whom."
    assert schemas["Posted"]["properties"]["type"] == {"enum": ["letter.posted"]}


def test_a_body_is_required_and_refers_to_its_schema() -> None:
    schema = {"$ref": "#/components/schemas/Letter"}

    body = described(POST)["requestBody"]

    assert body == {"required": True, "content": {JSON: {"schema": schema}}}


def test_a_scope_asks_for_either_credential_and_announces_the_refusals() -> None:
    guarded, free = described(POST), described(LIST)

    assert guarded["security"] == [
        {"relayKey": ["letters.write"]},
        {"bearer": ["letters.write"]},
    ]
    assert {"401", "403"} <= set(guarded["responses"])
    assert "security" not in free
    assert not {"401", "403"} & set(free["responses"])


def test_the_relay_key_and_the_bearer_token_travel_in_headers() -> None:
    schemes = describe(TABLE, "Letters", "1.2.3")["components"]["securitySchemes"]

    assert (schemes["relayKey"]["in"], schemes["relayKey"]["name"]) == ("header", "X-Relay-API-Key")
    assert schemes["bearer"] == {"type": "http", "scheme": "bearer"}


@pytest.mark.parametrize("operation", [POST, ERASE], ids=str)
def test_a_write_takes_an_idempotency_key(operation: Operation) -> None:
    assert parameters(operation)["Idempotency-Key"]["in"] == "header"
    assert "422" in described(operation)["responses"]


@pytest.mark.parametrize("operation", [LIST, FOLLOW], ids=str)
def test_a_read_takes_no_idempotency_key(operation: Operation) -> None:
    assert "Idempotency-Key" not in parameters(operation)


def test_a_write_that_is_not_repeatable_takes_no_idempotency_key() -> None:
    once = Operation("POST", "/in", post, "Log in", answers={200: Receipt}, repeatable=False)

    found = describe([once], "Letters", "1.2.3")["paths"]["/in"]["post"]

    assert "parameters" not in found
    assert "422" not in found["responses"]


def test_a_stream_is_an_event_stream_with_the_schema_of_one_event() -> None:
    content = described(FOLLOW)["responses"]["200"]["content"]

    assert list(content) == ["text/event-stream"]
    assert content["text/event-stream"]["schema"] == {"type": "string"}
    text = msgspec.json.encode(content["text/event-stream"]["x-event-schema"]).decode()
    assert "#/components/schemas/Posted" in text
    assert "#/components/schemas/Delivered" in text


def test_a_stream_takes_its_cursor_from_a_header_or_the_query() -> None:
    found = parameters(FOLLOW)

    assert found["Last-Event-ID"]["in"] == "header"
    assert found["after"]["in"] == "query"


def test_a_table_may_describe_a_cursor_itself() -> None:
    after = Parameter("after", int, "A sequence.")
    stream = Operation(
        "GET",
        "/feed",
        follow,
        "Follow",
        answers={200: "Events"},
        stream_event=Posted,
        query=(after,),
    )

    found = describe([stream], "Letters", "1.2.3")["paths"]["/feed"]["get"]["parameters"]

    assert [(each["name"], each["schema"]) for each in found] == [
        ("after", {"type": "integer"}),
        ("Last-Event-ID", {"type": "string"}),
    ]


def test_an_operation_may_answer_whole_or_as_a_stream() -> None:
    complete = Operation(
        "POST",
        "/complete",
        post,
        "Complete",
        answers={200: Receipt},
        body=Letter,
        stream_event=Posted,
    )

    found = describe([complete], "Letters", "1.2.3")["paths"]["/complete"]["post"]

    assert list(found["responses"]["200"]["content"]) == [JSON, "text/event-stream"]
    assert [each["name"] for each in found["parameters"]] == ["Idempotency-Key"]


def test_lines_are_described_by_the_schema_of_one_line() -> None:
    content = described(EXPORT)["responses"]["200"]["content"]

    assert content == {
        "application/jsonl": {
            "schema": {"type": "string"},
            "x-item-schema": {"$ref": "#/components/schemas/Letter"},
        }
    }


def test_errors_are_problems_unless_the_operation_has_its_own() -> None:
    usual, own = described(COUNT)["responses"], described(POST)["responses"]

    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    refusal = {"schema": {"$ref": "#/components/schemas/Refusal"}}
    assert usual["default"]["content"] == {"application/problem+json": problem}
    assert usual["404"] == {
        "description": "No letters",
        "content": {"application/problem+json": problem},
    }
    assert all(own[status]["content"] == {JSON: refusal} for status in ("400", "401", "default"))


def test_a_form_beside_json_has_problems_beside_the_operations_own_errors() -> None:
    both = replace(POST, form=Letter, bodiless=True)

    found = describe([both], "Letters", "1.2.3")["paths"]["/letters"]["post"]

    assert found["requestBody"]["required"] is False
    assert list(found["requestBody"]["content"]) == [JSON, "multipart/form-data"]
    assert list(found["responses"]["default"]["content"]) == [JSON, "application/problem+json"]


def test_an_answer_without_content_is_only_a_sentence() -> None:
    assert described(ERASE)["responses"]["204"] == {"description": "It is gone"}


def test_a_query_parameter_shows_its_bounds_and_default() -> None:
    assert parameters(LIST)["limit"] == {
        "name": "limit",
        "in": "query",
        "description": "How many.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    }


def test_a_variable_of_the_path_has_the_type_that_the_route_insists_on() -> None:
    assert parameters(READ)["number"] == {
        "name": "number",
        "in": "path",
        "description": "Its number.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    }


def test_the_document_is_the_same_whatever_the_hash_seed() -> None:
    code = (
        "import sys, msgspec; from edge.openapi import describe;"
        "from tests.unit.letters import TABLE;"
        "sys.stdout.buffer.write(msgspec.json.encode(describe(TABLE, 'Letters', '1.2.3')))"
    )

    def bytes_with(seed: str) -> bytes:
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=30
        )
        return done.stdout

    first, second = bytes_with("1"), bytes_with("2")

    assert first == second
    assert first == msgspec.json.encode(describe(TABLE, "Letters", "1.2.3"))


async def test_the_document_is_served_as_json() -> None:
    document = describe(TABLE, "Letters", "1.2.3")

    async with client_of([publish(document)]) as client:
        answer = await client.get("/openapi.json")

    assert answer.headers["content-type"] == JSON
    assert answer.json() == document


def test_the_older_document_leaves_the_newer_as_it_was() -> None:
    document = describe(TABLE, "Letters", "1.2.3")

    in_openapi30(document)

    assert document == describe(TABLE, "Letters", "1.2.3")


def test_the_older_document_shows_one_event_of_a_stream() -> None:
    older = in_openapi30(describe(TABLE, "Letters", "1.2.3"))

    answer = older["paths"]["/letters/{number}/events"]["get"]["responses"]["200"]
    schema = answer["content"]["text/event-stream"]["schema"]
    assert schema["nullable"] is True
    assert {"$ref": "#/components/schemas/Posted"} in schema["anyOf"]


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        (
            {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            {"type": "string", "nullable": True, "default": None},
        ),
        (
            {"anyOf": [{"$ref": "#/a"}, {"type": "null"}]},
            {"anyOf": [{"$ref": "#/a"}], "nullable": True},
        ),
        ({"type": "null"}, {"type": "string", "nullable": True, "enum": [None]}),
        ({"$ref": "#/a", "description": "A."}, {"allOf": [{"$ref": "#/a"}], "description": "A."}),
        ({"$ref": "#/a"}, {"$ref": "#/a"}),
        (
            {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
            {"type": "array", "items": {}},
        ),
        ({"type": "array"}, {"type": "array", "items": {}}),
        (
            {"type": "integer", "exclusiveMinimum": 1},
            {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
        ),
        (
            {"type": "string", "contentEncoding": "base64", "examples": ["YQ=="]},
            {"type": "string", "format": "byte", "example": "YQ=="},
        ),
        (
            {"type": "object", "propertyNames": {"minLength": 1}, "additionalProperties": False},
            {"type": "object", "additionalProperties": False},
        ),
        (
            {"type": "object", "properties": {"examples": {"type": "string"}}},
            {"type": "object", "properties": {"examples": {"type": "string"}}},
        ),
    ],
)
def test_a_schema_says_the_same_in_the_older_dialect(newer: Document, older: Document) -> None:
    assert lower(newer) == older
