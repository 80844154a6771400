"""The OpenAPI document: valid, complete, and true of what goes over the wire."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from api_document import ApiDocument
from browser import browser_needed, launched_browser
from documented_client import usual
from fuzz_api import fuzz
from openapi_spec_validator import validate
from openapi_spec_validator.validation.validators import OpenAPIV31SpecValidator
from server_process import RunningServer, chat, post

from axpress.server.app import make_app
from axpress.server.docs.openapi import COMMON_FIELDS, document, operation_id
from axpress.server.docs.routes import ROUTES, Route
from axpress.server.schema.fields import RequestFields
from axpress.server.settings import Settings

API = ApiDocument(document(ROUTES))
WITH_BODY = [route for route in ROUTES if route.request is not None]
STREAMED = [one for one in WITH_BODY if one.stream is not None and one.reply is not None and not one.changes]
JSON_HEADERS = {"content-type": "application/json"}
ids = operation_id


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer("--store-responses", tmp_path_factory.mktemp("store") / "responses.db") as running:
        yield running


def test_the_document_is_openapi_3_1() -> None:
    validate(document(ROUTES), cls=OpenAPIV31SpecValidator)
    found = document(ROUTES)["paths"].values()
    names = [one["operationId"] for path in found for one in path.values()]
    assert len(names) == len(set(names)) == len(ROUTES)


def test_router_and_table_know_the_same_routes() -> None:
    from sanic import Sanic

    try:
        app = make_app(Settings())
        app.finalize()
        served = {
            (method, "/" + re.sub(r"<(\w+)(?::[^>]*)?>", r"{\1}", route.path))
            for route in app.router.routes
            for method in route.methods
            if method != "OPTIONS"
        }
    finally:
        Sanic.unregister_app(app)
    assert served == {(route.method, route.path) for route in ROUTES}


def every_object(schema: Any) -> Iterator[dict[str, Any]]:
    """All schemas of objects in a schema."""
    if isinstance(schema, dict):
        if "properties" in schema and isinstance(schema["properties"], dict):
            yield schema
        for one in schema.values():
            yield from every_object(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from every_object(one)


@pytest.mark.parametrize(
    "request_class", dict.fromkeys(route.request for route in WITH_BODY), ids=lambda one: one.__name__
)
def test_a_request_has_exactly_the_fields_of_its_class(request_class: type[RequestFields]) -> None:
    schema = document(ROUTES)["components"]["schemas"][request_class.__name__]
    assert set(schema["properties"]) == set(request_class.model_fields)
    assert not set(schema["properties"]) & set(request_class.refused)
    assert schema.get("x-refused", {}) == request_class.refused
    assert schema.get("x-accepted", {}) == request_class.harmless
    assert set(request_class.harmless) <= set(schema["properties"])
    assert all(
        "Accepted, changes nothing here" in schema["properties"][name]["description"] for name in request_class.harmless
    )


def test_every_object_is_closed_and_every_component_is_of_something() -> None:
    components = document(ROUTES)["components"]["schemas"]
    for name, component in components.items():
        assert not name.startswith("Other") and "__" not in name, name
        for schema in every_object(component):
            assert schema.get("additionalProperties") is False or name in ("Running", "CardState"), (name, schema)


@pytest.mark.parametrize("route", WITH_BODY, ids=ids)
def test_the_document_accepts_its_examples_and_no_unknown_field(route: Route) -> None:
    assert route.example is not None
    assert API.accepts(route.method, route.path, route.example) is None
    assert API.accepts(route.method, route.path, {**route.example, "no_such_field": 1}) is not None
    assert route.request is not None
    for name in route.request.refused:
        assert API.accepts(route.method, route.path, {**route.example, name: "x"}) is not None


def reach(server: RunningServer, path: str) -> str:
    """A path of the document as one that is there."""
    names = {"/v1/models/{name}": "default", "/page/{name}": "docs.js", "/page/vendor/{name}": "files.js"}
    if "responses/{name}" in path:
        names[path] = post(server, "/v1/responses", input="Hi", max_output_tokens=1)[1].get("id", "of-a-stranger")
    return re.sub(r"\{\w+\}", lambda _: names.get(path, "default"), path)


@pytest.mark.parametrize("route", [one for one in ROUTES if one.path != "/live/stream"], ids=ids)
def test_answers_are_as_documented(server: RunningServer, route: Route) -> None:
    body = None if route.request is None else json.dumps(route.example).encode()
    status, head, raw = server.request(route.method, reach(server, route.path), body, JSON_HEADERS if body else {})
    assert status == usual(route), raw
    API.check(route.method, route.path, status, head, raw)


@pytest.mark.parametrize("route", STREAMED, ids=ids)
@pytest.mark.parametrize("stream", [True, False])
def test_streamed_and_whole(server: RunningServer, route: Route, stream: bool) -> None:
    body = json.dumps({**route.example, "stream": stream}).encode()
    status, head, raw = server.request(route.method, reach(server, route.path), body, JSON_HEADERS)
    assert status == 200, raw
    assert route.stream is not None
    assert head["content-type"].startswith(route.stream.content_type if stream else "application/json")
    assert not stream or route.stream.done is None or raw.endswith(f"data: {route.stream.done}\n\n".encode())
    API.check(route.method, route.path, status, head, raw)


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b'{"no_such_field": 1}', b'{"a": 1, "a": 2}'])
@pytest.mark.parametrize("route", WITH_BODY, ids=ids)
def test_refusals_are_as_documented(server: RunningServer, route: Route, body: bytes) -> None:
    status, head, raw = server.request(route.method, reach(server, route.path), body, JSON_HEADERS)
    assert status == 400
    API.check(route.method, route.path, status, head, raw)
    status, head, raw = server.request(route.method, reach(server, route.path), body, {"content-type": "text/plain"})
    # Ollama's clients do not always say what they send
    assert status == (400 if route.path.startswith("/api/") else 415)
    API.check(route.method, route.path, status, head, raw)


def test_strangers_are_told_so_as_documented() -> None:
    with RunningServer(environment={"AXPRESS_API_KEYS": "a-key-of-some-length"}, ready=False) as server:
        for route in ROUTES:
            if route.path == "/live/stream":
                continue
            path, body = reach(server, route.path), None if route.request is None else b"{}"
            status, head, raw = server.request(route.method, path, body, JSON_HEADERS)
            assert (status == 401) != route.open, (route.path, status)
            API.check(route.method, route.path, status, head, raw)
            status, head, raw = server.request(route.method, path, body, {**JSON_HEADERS, "host": "evil.example"})
            assert status == 403
            API.check(route.method, route.path, status, head, raw)


def test_the_rare_fields_of_chat_are_documented_too(server: RunningServer) -> None:
    streamed = {"stream": True, "stream_options": {"include_usage": True}, "service_tier": "auto"}
    asked: list[tuple[int, dict[str, Any]]] = [
        (200, {"logprobs": True, "top_logprobs": 3, "n": 2, "timings": True, "service_tier": "flex"}),
        (200, {**streamed, "logprobs": True, "timings": True}),
        (404, {"model": "no such model"}),
        (400, {"max_tokens": 10**6}),
    ]
    for want, fields in asked:
        document = chat("What is 7 + 5?", **{"max_tokens": 8, **fields})
        assert API.accepts("POST", "/v1/chat/completions", document) is None
        status, head, raw = server.request("POST", "/v1/chat/completions", json.dumps(document).encode(), JSON_HEADERS)
        assert status == want, (fields, raw)
        API.check("POST", "/v1/chat/completions", status, head, raw)


def test_head_is_answered_as_get_without_the_body(server: RunningServer) -> None:
    for route in ROUTES:
        if route.method == "GET":
            path = reach(server, route.path)
            status, head, raw = server.request("HEAD", path)
            assert (status, raw) == (route.refuses or 200, b""), path
            if path != "/live/stream":
                told = server.request("GET", path)[1]
                assert set(head) == set(told) and head["content-type"] == told["content-type"], path
    with server.raw() as sock:  # and the connection goes on
        host = b" HTTP/1.1\r\nhost: localhost\r\n"
        sock.sendall(b"HEAD /live/stream" + host + b"\r\nHEAD /health" + host + b"connection: close\r\n\r\n")
        got = b""
        while data := sock.recv(65536):
            got += data
    first, second, rest = got.split(b"\r\n\r\n")
    assert b"text/event-stream" in first and second.startswith(b"HTTP/1.1 200 ") and not rest


def test_live_stream_events_are_documented(server: RunningServer) -> None:
    with server.raw() as sock:
        sock.sendall(b"GET /live/stream HTTP/1.1\r\nhost: localhost\r\n\r\n")
        got = b""
        while got.count(b"\n\n") < 1:
            got += sock.recv(65536)
    body = got.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2].partition(b"\n\n")[0] + b"\n\n"
    API.check("GET", "/live/stream", 200, {"content-type": "text/event-stream", "x-request-id": "1"}, body)


def test_what_the_openai_client_sends_is_documented(server: RunningServer) -> None:
    """The client's own requests, as they go out, against the document."""
    import httpx

    sent: list[httpx.Request] = []
    http_client = httpx.Client(event_hooks={"request": [sent.append]})
    question = {"role": "user", "content": [{"type": "text", "text": "What is 7 + 5?"}]}
    said: Any = {"model": "default", "messages": [{"role": "developer", "content": "Be brief."}, question]}
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", http_client=http_client) as client:
        ask = client.chat.completions.create
        ask(**said, max_completion_tokens=4, temperature=0.5, seed=1, stop=["x"], user="me")
        list(ask(**said, max_tokens=4, stream=True, stream_options={"include_usage": True}))
        extra = {"top_k": 5, "min_p": 0.1, "timings": True}
        prediction: Any = {"type": "content", "content": "12"}
        ask(
            **said,
            max_tokens=4,
            logit_bias={"5": -1},
            store=False,
            metadata={"a": "b"},
            prediction=prediction,
            extra_body=extra,
        )
        tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
        form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}}
        ask(**said, max_tokens=20, tools=[tool], tool_choice={"type": "function", "function": {"name": "f"}})
        ask(**said, max_tokens=4, response_format=form, reasoning_effort="none")
        client.completions.create(model="default", prompt=["a", "b"], max_tokens=2, n=2, logprobs=1)
        flat: Any = {"type": "function", **tool["function"], "strict": True}
        shown: Any = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}
        client.responses.create(model="default", input="What is 7 + 5?", max_output_tokens=4, tools=[flat], store=False)
        list(
            client.responses.create(
                model="default", input="hi", instructions="x", max_output_tokens=4, text=shown, stream=True
            )
        )
    for request in sent:
        assert API.accepts("POST", request.url.path, json.loads(request.content)) is None, request.content
    assert len(sent) == 8


@browser_needed
def test_the_docs_page_shows_every_operation_and_asks_nobody_else(server: RunningServer) -> None:
    with launched_browser() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 800})
        trouble: list[str] = []
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(server.url) else trouble.append(request.url))
        page.goto(server.url + "/docs#post_v1_chat_completions")
        page.wait_for_selector(".operation[open] .fields")
        shown = len(
            {(one.method, one.path) for one in ROUTES} - {("HEAD", one.path) for one in ROUTES if one.method == "GET"}
        )
        assert page.locator(".operation").count() == shown
        assert page.locator("#post_v1_chat_completions th code", has_text=re.compile("^temperature$")).count() == 1
        for summary in page.locator(".operation > summary").all()[1:]:
            summary.press("Enter")
        assert page.locator(".operation[open]").count() == shown
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than a phone"
        assert trouble == []


@pytest.mark.parametrize("route", WITH_BODY, ids=ids)
def test_common_fields_come_first(route: Route) -> None:
    schema = API.document["paths"][route.path][route.method.lower()]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    names = list(API.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"])
    common = [name for name in COMMON_FIELDS if name in names]
    assert names[: len(common)] == common


@browser_needed
def test_the_docs_page_finds_operations_and_sends_what_was_made_of_an_example(server: RunningServer) -> None:
    with launched_browser() as browser:
        page = browser.new_page()
        page.goto(server.url + "/docs")
        page.wait_for_selector(".operation")
        page.get_by_label("Search paths and fields").fill("v1/chat top_logprobs")
        found = [one.get_attribute("id") for one in page.locator(".operation").all() if one.is_visible()]
        assert "post_v1_chat_completions" in found and "get_health" not in found and len(found) < 5
        page.locator("#post_v1_chat_completions > summary").click()
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "stream": True}
        page.get_by_label("Body for /v1/chat/completions").fill(json.dumps(body))
        page.locator("#post_v1_chat_completions").get_by_role("button", name="Send").click()
        answer = page.get_by_label("Answer of /v1/chat/completions")
        answer.get_by_text("data: [DONE]").wait_for(timeout=30_000)
        assert answer.inner_text().startswith("200") and answer.inner_text().count("data: ") > 2
        page.get_by_label("Search paths and fields").fill("v1/models/{name}")
        page.locator("#get_v1_models_name > summary").click()
        page.locator("#get_v1_models_name").get_by_role("button", name="Send").click()
        page.get_by_label("Answer of /v1/models/default").get_by_text('"object":"model"').wait_for(timeout=30_000)


def test_requests_made_from_the_document(server: RunningServer) -> None:
    """A bounded run of tests/support/fuzz_api.py, which can go on for thousands."""
    counts, code, printed = fuzz(server, examples=12, seed=20261122)
    assert code == 0, printed
    aside = ("/live/stream", "/openapi.json")  # one never ends, the other is what all this is made from
    asked = {route for route, _ in counts if route.split()[1] not in aside}
    assert asked == {f"{one.method} {one.path}" for one in ROUTES if one.path not in aside}
    for route in WITH_BODY:
        statuses = {status for name, status in counts if name == f"{route.method} {route.path}"}
        assert statuses >= {usual(route), 400}, (route.path, statuses)
