"""A client that asks a server's documented routes and takes no answer that is not documented."""

from __future__ import annotations

import copy
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from api_document import ApiDocument
from fuzz_api import resident
from server_process import RunningServer

from axpress.server.docs.openapi import document
from axpress.server.docs.routes import ROUTES, Route

API = ApiDocument(document(ROUTES))
WITH_BODY = list({route.request: route for route in reversed(ROUTES) if route.request is not None}.values())[::-1]
"""One route for each kind of request."""
LIMITS = {
    "/v1/responses": "max_output_tokens",
    "/v1/completions": "max_tokens",
    "/tokenize": None,
    "/detokenize": None,
    "/api/show": None,
    "/v1/messages/count_tokens": None,
    "/v1/embeddings": None,
    "/api/embed": None,
    "/api/embeddings": None,
    "/v1/rerank": None,
}


def usual(route: Route) -> int:
    """The status of what the demo model answers to a good request; it generates text."""
    return 400 if route.embeds or route.reranks or route.changes else route.refuses or 200


class Client:
    """Asks a server's documented routes over one connection, and checks that each answer is a documented one."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        self.close = self._connection.close

    def post(self, route: Route, body: Any) -> tuple[int, Any]:
        """Status and parsed body (the text of a stream)."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            self._connection.request(
                route.method, route.path.replace("{name}", "default"), raw, {"content-type": "application/json"}
            )
            response = self._connection.getresponse()
        except (http.client.HTTPException, OSError):
            self._connection.close()
            raise
        answer = response.read()
        assert response.status < 500, (route.path, raw[:500], answer[:500])
        headers = {name.lower(): value for name, value in response.getheaders()}
        API.check(route.method, route.path, response.status, headers, answer)
        kind = headers["content-type"].partition(";")[0]
        return response.status, json.loads(answer) if kind == "application/json" else answer.decode()

    def refused(self, route: Route, body: Any, want: int = 400) -> str:
        """The message of an error."""
        status, answer = self.post(route, body)
        assert status == want, (route.path, str(body)[:500], str(answer)[:500])
        error = answer["error"]
        message: str = error if isinstance(error, str) else error["message"]
        assert len(message) < 1000 and "Traceback" not in message
        return message


def looks_during(server: RunningServer, route: Route, document: dict[str, Any]) -> int:
    """How often the server says that it is well while this request, which takes it long, is answered."""
    raw, statuses, looks = json.dumps(document).encode(), list[int](), 0
    headers = {"content-type": "application/json"}
    thread = threading.Thread(target=lambda: statuses.append(server.request(route.method, route.path, raw, headers)[0]))
    thread.start()
    while thread.is_alive():
        looks += server.health()[0] == 200
    assert statuses == [200]
    return looks


@contextmanager
def served(max_growth: int = 64 << 20) -> Iterator[Client]:
    """A server with the demo model, which answers in the end as in the beginning, and has taken at most `max_growth`
    bytes more."""
    with RunningServer() as server, closing(Client(server)) as client:
        for route in WITH_BODY:
            assert client.post(route, short(route))[0] == usual(route)
        before = resident(server)
        yield client
        for route in WITH_BODY:
            assert client.post(route, short(route))[0] == usual(route)
        server.wait(server.idle, 30, "idle")
        grown = resident(server) - before
        assert grown < max_growth, f"{grown / 1e6:.0f} MB more than before"


def short(route: Route, **fields: Any) -> dict[str, Any]:
    """The route's example, with an answer of few tokens, not streamed."""
    body = {**copy.deepcopy(route.example), **fields}
    if route.path in ("/api/chat", "/api/generate"):
        body["options"] = {"num_predict": 3, **(body.get("options") or {})}
        body.setdefault("stream", False)
    elif limit := LIMITS.get(route.path, "max_tokens"):
        body.setdefault(limit, 3)
    return body
