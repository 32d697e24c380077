"""How the edge describes itself: an OpenAPI 3.1 document made from the table of operations.

3.1 cannot describe one event of a stream, so `x-event-schema` does, beside the media type.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import msgspec
from starlette.convertors import FloatConvertor, IntegerConvertor, UUIDConvertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, compile_path

from edge.operation import JSON, Operation, Parameter, Problem, Shape, by_path

Document: TypeAlias = dict[str, Any]

PROBLEM_JSON = "application/problem+json"
EVENT_STREAM = "text/event-stream"
FORM = "multipart/form-data"

# Names of credentials are stable: a generated client has them in its own names.
SECURITY_SCHEMES: Document = {
    "relayKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Relay-API-Key",
        "description": "The key of the relay. It is not accepted in the query.",
    },
    "bearer": {"type": "http", "scheme": "bearer"},
}

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    Annotated[str, msgspec.Meta(min_length=1)],
    "Names this request, quoted or not. It is remembered for 24 hours, for this key of the edge, "
    "this route and this target (a task): repeating the request changes nothing and answers what "
    "the first one answered; with another body it is refused with 422.",
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    str,
    "The id of the last event received: the stream goes on after it. Browsers send it when "
    "they reconnect.",
)
AFTER = Parameter(
    "after", str, "A cursor like Last-Event-ID, for a first connection that cannot set headers."
)

SERVED_WITH: Mapping[str, str] = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}

BODILESS = frozenset({204, 205, 304})

_CONVERTED: dict[type, Shape] = {
    IntegerConvertor: Annotated[int, msgspec.Meta(ge=0)],
    FloatConvertor: Annotated[float, msgspec.Meta(ge=0)],
    UUIDConvertor: UUID,
}


def describe(
    operations: Iterable[Operation], title: str, version: str, description: str = ""
) -> Document:
    """Return the OpenAPI 3.1 document of a table.

    The same table always gives the same document, key by key. Raises ValueError where two
    operations are in each other's way, TypeError for a shape that has no JSON schema.
    """
    paths = by_path(operations)
    table = [operation for found in paths.values() for operation in found]
    schemas = Schemas(table)
    info = {"title": title, "version": version, "description": description}
    return {
        "openapi": "3.1.0",
        "info": {key: value for key, value in info.items() if value},
        "tags": [{"name": tag} for tag in dict.fromkeys(o.tag for o in table) if tag],
        "paths": {
            path: {each.method.lower(): _operation(each, schemas) for each in found}
            for path, found in paths.items()
        },
        "components": {"schemas": schemas.components, "securitySchemes": SECURITY_SCHEMES},
    }


def publish(
    document: Document, path: str = "/openapi.json", headers: Mapping[str, str] = SERVED_WITH
) -> Route:
    """Return the route that serves a document. Its bytes are made once, here."""
    content = msgspec.json.encode(document)

    async def openapi(request: Request) -> Response:
        return Response(content, media_type=JSON, headers=headers)

    return Route(path, openapi, methods=["GET"], name=path)


class Schemas:
    """The JSON schema of every shape in a table; Structs are shared under `components`."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        shapes = list(
            dict.fromkeys(one for each in operations for s in _shapes(each) for one in _each(s))
        )
        made = msgspec.json.schema_components(shapes, ref_template="#/components/schemas/{name}")
        # Defaults may be tuples, and whoever reads the document expects what JSON gives back.
        found, components = msgspec.json.decode(msgspec.json.encode(made))
        self._schemas = dict(zip(shapes, found, strict=True))
        self.components = dict(sorted(components.items()))

    def __getitem__(self, shape: Shape) -> Document:
        if isinstance(shape, tuple):
            return {"anyOf": [dict(self._schemas[one]) for one in shape]}
        return dict(self._schemas[shape])


def _each(shape: Shape) -> tuple[Shape, ...]:
    return shape if isinstance(shape, tuple) else (shape,)


def _shapes(operation: Operation) -> list[Shape]:
    shapes = [operation.error, operation.body, operation.form, operation.stream_event]
    shapes += [Problem] if operation.form is not None else []
    shapes += [shape for shape in operation.answers.values() if not isinstance(shape, str)]
    shapes += [parameter.shape for _, parameter in _parameters(operation)]
    return [shape for shape in shapes if shape is not None]


def _operation(operation: Operation, schemas: Schemas) -> Document:
    described: Document = {"operationId": operation.id, "summary": operation.summary}
    if operation.description:
        described["description"] = operation.description
    if operation.tag:
        described["tags"] = [operation.tag]
    parameters = [_parameter(p, place, schemas) for place, p in _parameters(operation)]
    if parameters:
        described["parameters"] = parameters
    taken = {JSON: operation.body, FORM: operation.form}
    content = {media: {"schema": schemas[s]} for media, s in taken.items() if s is not None}
    if content:
        described["requestBody"] = {"required": not operation.bodiless, "content": content}
    described["responses"] = _answers(operation, schemas)
    if operation.scope is not None:
        scopes = (operation.scope, *operation.also)
        described["security"] = [{name: [one]} for one in scopes for name in SECURITY_SCHEMES]
    return described


def _parameters(operation: Operation) -> list[tuple[str, Parameter]]:
    """Return every parameter and its place: those of the table, then those that follow from it."""
    declared = [("path", each) for each in _variables(operation)]
    declared += [("query", each) for each in operation.query]
    declared += [("header", each) for each in operation.headers]
    # A table may say more about its cursor than we can here.
    said = {(place, parameter.name.lower()) for place, parameter in declared}
    implied = [(p, each) for p, each in _implied(operation) if (p, each.name.lower()) not in said]
    return declared + implied


def _implied(operation: Operation) -> list[tuple[str, Parameter]]:
    if operation.takes_key:
        return [("header", IDEMPOTENCY_KEY)]
    # A stream that answers a POST is not one that a browser resumes.
    resumed = operation.stream_event is not None and operation.resumable
    if resumed and operation.method == "GET":
        return [("query", AFTER), ("header", LAST_EVENT_ID)]
    return []


def _variables(operation: Operation) -> list[Parameter]:
    described = {each.name: each for each in operation.variables}
    variables = []
    for name, convertor in compile_path(operation.path)[2].items():
        variable = described.get(name, Parameter(name))
        shape = _CONVERTED.get(type(convertor), variable.shape)
        variables.append(replace(variable, shape=shape, required=True))
    return variables


def _parameter(parameter: Parameter, place: str, schemas: Schemas) -> Document:
    schema = schemas[parameter.shape]
    if parameter.default is not None:
        schema["default"] = msgspec.json.decode(msgspec.json.encode(parameter.default))
    described: Document = {"name": parameter.name, "in": place}
    if parameter.description:
        described["description"] = parameter.description
    if parameter.required:
        described["required"] = True
    return described | {"schema": schema}


def _answers(operation: Operation, schemas: Schemas) -> Document:
    answers: dict[int, Shape] = {}
    if operation.scope is not None:
        answers[401] = "There are no credentials, or none that are accepted"
        scopes = " or ".join(f"`{one}`" for one in (operation.scope, *operation.also))
        answers[403] = f"The credentials do not have the scope {scopes}"
    if operation.takes_key:
        answers[422] = "The Idempotency-Key was used before, with another body for the same target"
    answers.update(operation.answers)
    described = {
        str(status): _answer(operation, status, answers[status], schemas)
        for status in sorted(answers)
    }
    described["default"] = _failure(
        operation, "Anything else that goes wrong", operation.error, schemas
    )
    return described


def _answer(operation: Operation, status: int, shape: Shape, schemas: Schemas) -> Document:
    spoken = isinstance(shape, str)
    sentence = shape if spoken else HTTPStatus(status).phrase
    if status >= 400:
        return _failure(operation, sentence, operation.error if spoken else shape, schemas)
    content: Document = {}
    if not (spoken and operation.media == JSON):
        content[operation.media] = _body(operation.media, shape, schemas)
    if status == 200 and operation.stream_event is not None:
        content[EVENT_STREAM] = _text("x-event-schema", operation.stream_event, schemas)
    if status in BODILESS or not content:
        return {"description": sentence}
    return {"description": sentence, "content": content}


def _body(media: str, shape: Shape, schemas: Schemas) -> Document:
    if isinstance(shape, str):
        return {"schema": {"type": "string"}}
    if media == JSON or media.endswith("+json"):
        return {"schema": schemas[shape]}
    return _text("x-item-schema", shape, schemas)


def _text(part: str, shape: Shape, schemas: Schemas) -> Document:
    return {"schema": {"type": "string"}, part: schemas[shape]}


def _failure(operation: Operation, sentence: str, shape: Shape, schemas: Schemas) -> Document:
    media = PROBLEM_JSON if shape is Problem else JSON
    content = {media: {"schema": schemas[shape]}}
    if operation.form is not None:
        # Whoever sends a form speaks our own protocol, whatever the path speaks else.
        content[PROBLEM_JSON] = {"schema": schemas[Problem]}
    return {"description": sentence, "content": content}
