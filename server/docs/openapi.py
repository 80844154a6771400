"""The API's description in OpenAPI 3.1, made from the table of routes and the schemas.

Beyond OpenAPI 3.1, which has no words for streams: `x-item-schema` is the schema of one line of JSON, or of the JSON in
one event's data, and `x-stream` says how they come. `x-refused` of a request's schema names known fields that are not
supported, `x-accepted` those that change nothing here, each with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter

from .. import version
from ..http.routing import EVENTS, JSON, Route, Stream, operation_id

Schemas = dict[Any, Any]
"""JSON schemas, or references to them, by whatever they are of."""

DESCRIPTION = """Large language models on an AXERA AX650 card. Each field is obeyed, or accepted because it \
changes nothing here (its description says why), or refused by name. null means: not given. \
What is answered to GET is answered to HEAD, without the body."""
LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
REFUSALS = {
    400: "The request is wrong; the message says where.",
    401: "This server wants an API key.",
    403: "Asked under a name, or from a page, that is not allowed here.",
    404: "There is no such thing here.",
    408: "The request was not sent completely in time.",
    413: "The request is larger than this server accepts.",
    415: "The body is not plain JSON in UTF-8.",
    417: "Only Expect: 100-continue is supported.",
    429: "Too many requests wait already; retry-after says when to come back.",
    500: "The server or the card failed.",
    503: "No answers right now: loading, shutting down, or the card has failed; the message says which.",
    504: "The answer was not ready within this server's limit per request.",
}
OTHER = "Other"
"""Begins the names of classes that no value is of: they are there to tell what is wrong with it."""
COMMON_FIELDS = (
    *("model", "messages", "input", "prompt", "instructions", "system", "stream", "temperature", "top_p"),
    *("max_tokens", "max_completion_tokens", "max_output_tokens", "stop", "stop_sequences", "seed", "tools"),
    *("tool_choice", "response_format", "text", "format", "options"),
)
"""Fields of requests that most clients send: they come first wherever fields are listed."""
ANY_REQUEST = (400, 403, 408, 413, 417, 500, 503)
WITH_BODY = (415, 429, 504)
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
HEADERS = {
    "x-request-id": {
        "schema": {"type": "string"},
        "description": "The request's own x-request-id where it is harmless, else a new one.",
    },
    "retry-after": {"schema": {"type": "string", "pattern": "^[0-9]+$"}, "description": "Seconds."},
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI document of these routes."""
    schemas, components = _schemas(routes)
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "axpress", "version": version(), "description": DESCRIPTION, "license": LICENSE},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(route.group for route in routes)],
        "paths": paths,
        "components": {"schemas": dict(sorted(components.items())), "headers": HEADERS, "securitySchemes": SECURITY},
    }


def _operation(route: Route, schemas: Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": operation_id(route), "tags": [route.group], "summary": route.summary}
    if route.note:
        operation["description"] = route.note
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if route.request is not None:
        body = {"schema": schemas[route.request], **({} if route.example is None else {"example": route.example})}
        operation["requestBody"] = {"required": True, "content": {JSON: body}}
    success = {} if route.refuses else {"200": _success(route, schemas)}
    operation["responses"] = {**success, **_failures(route, schemas)}
    operation["security"] = [] if route.open else [{}, *({name: []} for name in SECURITY)]
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    names = [word[1:-1] for word in route.path.split("/") if word.startswith("{")]
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]
    return named + [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}} for name in route.query
    ]


def _success(route: Route, schemas: Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {kind: {"schema": {"type": "string"}} for kind in route.content}
    if route.reply is not None:
        content[JSON] = {"schema": schemas[route.reply]}
    if route.stream is not None:
        content[route.stream.content_type] = _stream(route, route.stream, schemas)
    described = {"description": "The answer.", "headers": _headers("x-request-id")}
    return described if route.method == "HEAD" else {**described, "content": content}


def _stream(route: Route, stream: Stream, schemas: Schemas) -> dict[str, Any]:
    kind = "Server-sent events" if stream.content_type == EVENTS else "JSON, an object in a line"
    end = f"; the last is `{stream.done}`" if stream.done else ""
    item = {"anyOf": [schemas[stream.event], schemas[route.error.reply]]}
    return {"x-stream": f"{kind}{end}.", "x-item-schema": item}


def _failures(route: Route, schemas: Schemas) -> dict[str, Any]:
    statuses = {*ANY_REQUEST, *(WITH_BODY if route.request is not None else ())}
    statuses |= {
        status for status, wanted in ((401, not route.open), (404, route.not_found), (429, route.busy)) if wanted
    }
    failures = {}
    for status in sorted(statuses):
        reply = dict(route.others).get(status, route.error.reply)
        text = route.not_found if status == 404 and route.not_found else REFUSALS[status]
        headers = _headers("x-request-id", *(["retry-after"] if status in (429, 503) else []))
        failures[str(status)] = {"description": text, "headers": headers}
        if route.method != "HEAD":
            failures[str(status)]["content"] = {JSON: {"schema": schemas[reply]}}
    return failures


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


# ---- schemas ----


def _schemas(routes: Sequence[Route]) -> tuple[Schemas, Schemas]:
    """The schema of each type that the routes name, by type; and the components that these refer to, by name."""
    wanted: dict[Any, TypeAdapter[Any]] = {}
    for route in routes:
        kinds = [
            route.request,
            route.reply,
            route.error.reply,
            route.stream and route.stream.event,
            *(kind for _, kind in route.others),
        ]
        wanted |= {kind: TypeAdapter(kind) for kind in kinds if kind is not None and kind not in wanted}
    schemas, definitions = TypeAdapter.json_schemas(
        [(kind, "validation", adapter) for kind, adapter in wanted.items()], ref_template="#/components/schemas/{model}"
    )
    components = definitions.get("$defs", {})
    names = {name: _short(name) for name in components}
    if len(set(names.values())) != len(names):
        raise AssertionError("two schemas of one name: rename a class")
    tidied = {names[name]: _tidy(schema, names) for name, schema in components.items() if not _is_nothing(name)}
    for route in routes:
        if route.request is not None:
            body = tidied[names[schemas[route.request, "validation"]["$ref"].rpartition("/")[2]]]
            body["properties"] = {name: body["properties"][name] for name in common_first(body["properties"])}
    return {kind: _tidy(schema, names) for (kind, _), schema in schemas.items()}, tidied


def common_first(names: Iterable[str]) -> list[str]:
    """The names of a request's fields, COMMON_FIELDS before all others."""
    places = {name: place for place, name in enumerate(COMMON_FIELDS)}
    return sorted(names, key=lambda name: places.get(name, len(places)))


def _is_nothing(name: str) -> bool:
    return name.rpartition("__")[2].startswith(OTHER)


def _short(name: str) -> str:
    """pydantic's name for one of several classes of the same name, axpress__server__schema__ollama__Message, as
    OllamaMessage."""
    *_, module, last = ["", *name.split("__")]
    return last if not module else "".join(word.capitalize() for word in module.split("_")) + last


def _tidy(schema: Any, names: dict[str, str]) -> Any:
    """Without titles that repeat names, and without the defaults of fields that are not given; with short names;
    alternatives plainly.

    pydantic chooses among alternatives before it looks at the value's parts, so it says oneOf; by their schemas alone
    some overlap."""
    if isinstance(schema, list):
        return [_tidy(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties", "$defs"):
            tidy[key] = {name: _tidy(inner, names) for name, inner in value.items()}
        elif key == "$ref":
            head, _, name = value.rpartition("/")
            tidy[key] = f"{head}/{names.get(name, name)}"
        elif key in ("oneOf", "anyOf"):
            some = [kind for kind in value if not _is_nothing(kind.get("$ref", "").rpartition("/")[2])]
            tidy["anyOf"] = [inner for kind in some for inner in _alternatives(_tidy(kind, names))]
        elif key in ("enum", "const", "examples"):
            tidy[key] = value
        elif key not in ("title", "discriminator") and not (key == "default" and value is None):
            tidy[key] = _tidy(value, names)
    return tidy


def _alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Alternatives among alternatives stand beside them."""
    return schema["anyOf"] if set(schema) == {"anyOf"} else [schema]
