"""What failures are told as."""

from __future__ import annotations

import json

import pytest
from server_process import RunningServer, chat

from axpress.core.errors import EngineClosed, EngineFailed, FailureKind, QueueFull, RuntimeCallError
from axpress.core.request import Delta
from axpress.server.http.errors import failure_error, translate
from axpress.server.serving.delivery import failure


@pytest.mark.parametrize("kind", FailureKind)
def test_every_kind_of_failure_has_a_status_and_a_code(kind: FailureKind) -> None:
    error = failure_error(kind, "what was wrong")
    assert (str(error), error.code is not None) == ("what was wrong", True)
    assert error.status == {FailureKind.REQUEST: 400, FailureKind.CLOSED: 503}.get(kind, 500)
    assert str(failure_error(kind)).endswith(".")


def test_an_answer_that_fails_says_why_by_its_kind_not_by_its_words() -> None:
    def status_of(reason: str, **fields: object) -> tuple[int, str | None]:
        error = failure(Delta("", 0, reason, error="the card", **fields))  # type: ignore[arg-type]
        assert error is not None and str(error) == "the card"
        return error.status, error.code

    assert status_of("error", failure=FailureKind.CARD_HUNG) == (500, "card_hung")
    assert status_of("error", failure=FailureKind.REQUEST, error_code="invalid_grammar") == (400, "invalid_grammar")
    assert status_of("error", failure=FailureKind.OUT_OF_MEMORY) == (500, "out_of_memory")
    assert status_of("cancelled") == status_of("cancelled", failure=FailureKind.CLOSED) == (503, "unavailable")
    assert status_of("error") == (500, "internal_error")
    assert failure(Delta("", 1, "stop")) is failure(Delta("", 1)) is None


def test_exceptions_that_no_request_caused(caplog: pytest.LogCaptureFixture) -> None:
    closed = translate(EngineClosed("not now"))
    assert (closed.status, str(closed), list(closed.headers)) == (503, "not now", ["retry-after"])
    assert 3 <= int(closed.headers["retry-after"]) <= 8
    assert translate(EngineFailed("never")).headers == {"x-should-retry": "false"}
    assert not caplog.records
    waits = {translate(QueueFull("full", 10.0)).headers["retry-after"] for _ in range(200)}
    assert {int(wait) for wait in waits} <= set(range(10, 16)) and len(waits) > 1  # not all come back at once
    unknown = translate(RuntimeCallError("axclrtMalloc", 0x80300181, "no memory", "where it was"))
    assert unknown.status == 500 and "axclrtMalloc" not in str(unknown) and "where it was" in caplog.text


HEADERS = {"content-type": "application/json"}


def test_json_ends_with_its_line(server: RunningServer) -> None:
    paths = ("/v1/models", "/health", "/livez", "/live", "/openapi.json", "/api/tags", "/nowhere")
    said = [server.request("GET", path)[2] for path in paths]
    for body in (chat(max_tokens=2), chat(n=0), []):
        said.append(server.request("POST", "/v1/chat/completions", json.dumps(body).encode(), HEADERS)[2])
    assert all(raw.endswith(b"}\n") and raw.count(b"\n") == 1 for raw in said), said
