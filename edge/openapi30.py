"""The published document in OpenAPI 3.0, for readers that know no 3.1, such as our Swagger UI.

Exact where 3.0 has words for it; what it cannot say (tuples, names of keys) is left out.
"""

from collections.abc import Callable
from typing import Any

from edge.openapi import Document

NULL = {"type": "null"}

# Where a schema holds others: by name, in a list, or one.
_NAMED = ("properties",)
_LISTED = ("anyOf", "oneOf", "allOf")
_SINGLE = ("items", "additionalProperties", "not")


def in_openapi30(document: Document) -> Document:
    """Return an OpenAPI 3.1 document of `edge.openapi.describe` as 3.0.3.

    What is sent piece by piece is shown as one piece, an event instead of a stream of them.
    """
    lowered: Document = _content(document) | {"openapi": "3.0.3"}
    components = document["components"]
    schemas = {name: lower(schema) for name, schema in components["schemas"].items()}
    lowered["components"] = components | {"schemas": schemas}
    return lowered


def lower(schema: Document | bool) -> Document | bool:
    """Return a JSON schema in the dialect of OpenAPI 3.0."""
    if isinstance(schema, bool):
        return schema
    lowered = _inside(schema)
    for rewrite in _REWRITES:
        lowered = rewrite(lowered)
    return lowered


def _content(node: Any) -> Any:
    """Rewrite what is around the schemas: in 3.0 only OAuth credentials have scopes."""
    if isinstance(node, list):
        return [_content(each) for each in node]
    if not isinstance(node, dict):
        return node
    walked: Document = {k: lower(v) if k == "schema" else _content(v) for k, v in node.items()}
    for piece in ("x-event-schema", "x-item-schema"):
        if piece in walked:
            walked["schema"] = lower(walked.pop(piece))
    if "security" in walked:
        walked["security"] = [{name: [] for name in each} for each in walked["security"]]
    return walked


def _inside(schema: Document) -> Document:
    walked = dict(schema)
    for key in _NAMED:
        if key in walked:
            walked[key] = {name: lower(each) for name, each in walked[key].items()}
    for key in _LISTED:
        if key in walked:
            walked[key] = [lower(each) if each != NULL else each for each in walked[key]]
    for key in _SINGLE:
        if key in walked:
            walked[key] = lower(walked[key])
    return walked


def _null(schema: Document) -> Document:
    if schema.get("type") == "null":
        return {**schema, "type": "string", "nullable": True, "enum": [None]}
    if NULL not in schema.get("anyOf", ()):
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"} | {"nullable": True}
    others: list[Document] = [each for each in schema["anyOf"] if each != NULL]
    if len(others) == 1 and "$ref" not in others[0]:
        return others[0] | rest
    return rest | {"anyOf": others}


def _reference(schema: Document) -> Document:
    # 3.0 ignores whatever is beside a reference.
    if "$ref" not in schema or len(schema) == 1:
        return schema
    rest = {key: value for key, value in schema.items() if key != "$ref"}
    return rest | {"allOf": [{"$ref": schema["$ref"]}]}


def _array(schema: Document) -> Document:
    if schema.get("type") != "array":
        return schema
    lowered = {key: value for key, value in schema.items() if key != "prefixItems"}
    if "prefixItems" in schema or not isinstance(lowered.get("items"), dict):
        lowered["items"] = {}
    return lowered


def _words(schema: Document) -> Document:
    lowered = {key: value for key, value in schema.items() if key != "propertyNames"}
    # 3.0 asks for one name at least.
    if lowered.get("required") == []:
        del lowered["required"]
    if "examples" in lowered:
        lowered["example"] = lowered.pop("examples")[0]
    if lowered.pop("contentEncoding", None) == "base64":
        lowered["format"] = "byte"
    for limit, bound in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if bound in lowered:
            lowered |= {limit: lowered[bound], bound: True}
    return lowered


_REWRITES: tuple[Callable[[Document], Document], ...] = (_null, _reference, _array, _words)
