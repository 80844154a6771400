"""Inputs that must do no harm, in every dialect: an error in its shape that says what is wrong, or an answer; and the
server goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from broken_bodies import BROKEN_BODIES
from documented_client import API, WITH_BODY, Client, served, short

from axpress.server.docs.openapi import operation_id
from axpress.server.docs.routes import Route


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with served() as client:
        yield client


# ---- counts ----


def numbers(schema: dict[str, Any], depth: int = 2) -> Iterator[tuple[str, ...]]:
    """Where in an object there may be numbers: paths of names."""
    schema = API.resolved(schema)
    for name, field in schema.get("properties", {}).items():
        kinds = [API.resolved(one) for one in field.get("anyOf", [field])]
        if any(kind.get("type") in ("integer", "number") for kind in kinds):
            yield (name,)
        for kind in kinds:
            if depth and "properties" in kind and not kind.get("required"):
                yield from ((name, *more) for more in numbers(kind, depth - 1))


def fields_with_numbers() -> list[tuple[Route, tuple[str, ...]]]:
    """All of them, of all requests."""
    return [(route, path) for route in WITH_BODY for path in numbers(API.request_schema(route.method, route.path))]


ABSURD: list[Any] = [2**31, 2**63, 2**64, 1e308, True, "5", -1, -(2**63) - 1, 0.5, [], {}]
NO_JSON = [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" * 5000]
PLACE = "PLACE-FOR-A-NUMBER"


def with_field(route: Route, path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A short request with this value at this place."""
    body = holder = short(route)
    for name in path[:-1]:
        holder = holder.setdefault(name, {})
    holder[path[-1]] = value
    return body


COUNTS = fields_with_numbers()


def test_there_are_counts_to_try() -> None:
    assert len(COUNTS) > 30
    assert {("max_tokens",), ("n",), ("top_k",), ("seed",), ("temperature",), ("options", "num_predict")} <= {
        path for _, path in COUNTS
    }


@pytest.mark.parametrize(("route", "path"), COUNTS, ids=[f"{operation_id(r)}-{'.'.join(p)}" for r, p in COUNTS])
def test_absurd_counts(client: Client, route: Route, path: tuple[str, ...]) -> None:
    """What the document forbids is refused by the field's name; what it allows is answered, or refused for what it
    comes to."""
    for value in ABSURD:
        body = with_field(route, path, value)
        if API.accepts(route.method, route.path, body) is None:
            status, answer = client.post(route, body)
            assert status in (200, 400), (path, value, answer)
        else:
            assert path[-1] in client.refused(route, body), (path, value)
    template = json.dumps(with_field(route, path, PLACE)).encode()
    for number in NO_JSON:
        assert path[-1] in client.refused(route, template.replace(f'"{PLACE}"'.encode(), number)), (path, number)


# ---- bodies ----


@pytest.mark.parametrize("name", BROKEN_BODIES)
def test_broken_bodies(client: Client, name: str) -> None:
    for route in WITH_BODY:
        client.refused(route, BROKEN_BODIES[name])


OF_MODELS = [one for one in WITH_BODY if "{name}" not in one.path and not one.changes]


@pytest.mark.parametrize("route", OF_MODELS, ids=operation_id)
def test_unknown_models(client: Client, route: Route) -> None:
    for name in ("../../etc/passwd", "%00", "a\nb", "x" * 5000, "__class__"):
        message = client.refused(route, short(route, model=name), 404)
        assert "\n" not in message.replace(name, "")


def test_names_in_paths(client: Client) -> None:
    for path in ("..%2f..%2fetc%2fpasswd", "%00", "%2e%2e/%2e%2e/etc/passwd", "a%0ab", "..\\..\\x", "%ff", "{{7*7}}"):
        for start in ("/v1/models/", "/page/", "/openai/deployments/"):
            status, headers, raw = client.server.request("GET", start + path)
            assert status in (404, 405), (start + path, status)
            assert headers["content-type"] == "application/json" and json.loads(raw)["error"]["message"]
            assert b"root:" not in raw


def test_paths_that_are_not_there_answer_in_the_shape_of_their_neighbours(client: Client) -> None:
    for method, path, want in (
        ("GET", "/api/nope", 404), ("POST", "/api/nope", 404), ("GET", "/api/chat", 405), ("PUT", "/api/tags", 405),
        ("GET", "/api/", 404),
        ("GET", "/v1/nope", 404), ("POST", "/v1/models", 405), ("GET", "/v1/completions", 405),
        ("GET", "/tokenize", 405),
    ):  # fmt: skip
        status, headers, raw = client.server.request(method, path)
        assert status == want and ("allow" in headers) == (want == 405), (method, path, status)
        API.matches("OllamaError" if path.startswith("/api/") else "Error", json.loads(raw))
