"""The OpenAPI document as a judge of what goes over the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.jsonschema import DRAFT202012

EVENTS, LINES, JSON = "text/event-stream", "application/x-ndjson", "application/json"


class ApiDocument:
    """An OpenAPI document; the methods raise AssertionError where something is not as it says."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._registry: Registry[Any] = Registry().with_resource("urn:api", DRAFT202012.create_resource(document))

    def operation(self, method: str, path: str) -> dict[str, Any]:
        """The operation that is asked by this path, which is written as the document has it."""
        found: dict[str, Any] = self.document["paths"][path][method.lower()]
        return found

    def judge(self, schema: dict[str, Any], value: Any) -> str | None:
        """What is wrong with a value, or None."""
        where = json.loads(json.dumps(schema).replace('"#/components/', '"urn:api#/components/'))
        error = best_match(Draft202012Validator(where, registry=self._registry).iter_errors(value))
        return None if error is None else f"{error.json_path}: {error.message}"[:2000]

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """What a schema that may be a reference means."""
        return self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    def request_schema(self, method: str, path: str) -> dict[str, Any]:
        """The schema of an operation's body."""
        found: dict[str, Any] = self.operation(method, path)["requestBody"]["content"][JSON]["schema"]
        return found

    def matches(self, name: str, value: Any) -> None:
        """A value is what the component of this name says."""
        wrong = self.judge({"$ref": f"#/components/schemas/{name}"}, value)
        assert wrong is None, f"{json.dumps(value)[:1000]} is no {name}: {wrong}"

    def accepts(self, method: str, path: str, body: Any) -> str | None:
        """What the document has against a request's body, or None."""
        return self.judge(self.request_schema(method, path), body)

    def check(self, method: str, path: str, status: int, headers: dict[str, str], body: bytes) -> None:
        """An answer is one that the document knows. Header names in lower case."""
        described = self.operation(method, path)["responses"].get(str(status))
        assert described is not None, f"{method} {path} answered {status}, which is not in the document: {body[:500]!r}"
        for name in ("x-request-id",):
            assert name in headers, (method, path, status, headers)
        if method == "HEAD" or "content" not in described:
            assert body == b"", body[:200]
            return
        kind = headers["content-type"].partition(";")[0]
        assert kind in described["content"], f"{method} {path} answered {status} as {kind}"
        media = described["content"][kind]
        for value in values(kind, body):
            wrong = self.judge(media.get("x-item-schema") or media["schema"], value)
            assert wrong is None, f"{method} {path} answered {status} with {json.dumps(value)[:1000]}: {wrong}"


def values(kind: str, body: bytes) -> Iterator[Any]:
    """The JSON values in an answer: one, or one for each event or line; of other kinds the text itself."""
    if kind == JSON:
        yield json.loads(body)
    elif kind == LINES:
        assert body.endswith(b"\n"), body[-200:]
        yield from map(json.loads, body.splitlines())
    elif kind == EVENTS:
        yield from _events(body.decode())
    else:
        yield body.decode()


def _events(text: str) -> Iterator[Any]:
    assert text.endswith("\n\n"), text[-200:]
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = None, []
        for line in block.split("\n"):
            field, _, value = line.partition(": ")
            assert field in ("event", "data", ""), block
            name = value if field == "event" else name
            data += [value] if field == "data" else []
        joined = "\n".join(data)
        if joined and joined != "[DONE]":
            event = json.loads(joined)
            assert name is None or event.get("type") == name, block
            yield event
