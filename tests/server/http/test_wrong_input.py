"""Wrong input: the status, an OpenAI error that names the field, and a server that still answers."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from broken_bodies import BROKEN_BODIES
from server_process import RunningServer, chat, hollow_package, send_hundred_megabytes

POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    package, _ = hollow_package(tmp_path_factory.mktemp("inputs"))
    with RunningServer(package, "--emu-profile", "none", "--read-timeout", "1.5", "--max-connections", "40") as running:
        yield running
        running.wait(running.idle, 30, "idle")  # the last piece of an answer comes a moment before its end
    assert "CANARY" not in running.log and "\x1b" not in running.log


def still_answers(server: RunningServer) -> None:
    status, _, body = server.post(chat(max_tokens=2))
    assert status == 200 and body["usage"]["completion_tokens"] >= 1


def check_error(status: int, body: Any, want: int, param: str | None, code: str | None = None) -> str:
    assert status == want, body
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == {429: "rate_limit_error"}.get(
        want, "server_error" if want >= 500 else "invalid_request_error"
    )
    assert error["param"] == param, error
    assert len(error["message"]) < 600 and "Traceback" not in error["message"]
    if param is not None:
        assert param in error["message"], error
    if code is not None:
        assert error["code"] == code, error
    return str(error["message"])


HI = [{"role": "user", "content": "hi"}]
FIELDS: list[tuple[str, Any, str]] = [
    # (field, value, what the error must name)
    *[("temperature", v, "temperature") for v in (-0.1, 2.1, "1", True, [], {}, 2**31, 10**400)],
    *[("top_p", v, "top_p") for v in (-1, 1.1, "x", False)],
    *[("min_p", v, "min_p") for v in (-1, 2)],
    *[("max_tokens", v, "max_tokens") for v in (0, -2, 1.5, "5", True, 2**31, 2**63, 2**64, 1e308)],
    *[("max_completion_tokens", v, "max_completion_tokens") for v in (0, -2, "5", 2**63)],
    *[("n", v, "n") for v in (0, 9, -1, True, "1", 1.5, 2**63)],
    *[("seed", v, "seed") for v in (1.5, "1", True, 2**63, -(2**63) - 1, 2**64)],
    *[("presence_penalty", v, "presence_penalty") for v in (-2.1, 2.1, "0")],
    *[("frequency_penalty", v, "frequency_penalty") for v in (-2.1, 2.1, [0])],
    *[("repetition_penalty", v, "repetition_penalty") for v in (0, -1, 1e308)],
    *[("top_k", v, "top_k") for v in (-2, 2**31, 2**63, 1.0, "5", True)],
    *[("top_logprobs", v, "top_logprobs") for v in (-1, 21, 2**31, 5)],
    ("logprobs", 1, "logprobs"),
    ("stream", "yes", "stream"),
    ("stream", 1, "stream"),
    ("stream_options", {"include_usage": True}, "stream_options"),
    ("stream_options", [], "stream_options"),
    ("ignore_eos", "no", "ignore_eos"),
    ("store", 1, "store"),
    ("store", 0, "store"),
    ("stop", 5, "stop"),
    ("stop", "", "stop"),
    ("stop", ["a", ""], "stop[1]"),
    ("stop", ["a", 1], "stop[1]"),
    ("stop", ["a", "b", "c", "d", "e"], "stop"),
    ("stop", "x" * 257, "stop"),
    ("logit_bias", [], "logit_bias"),
    ("logit_bias", {"5": 101}, "logit_bias.5"),
    ("logit_bias", {"5": "1"}, "logit_bias.5"),
    ("logit_bias", {"5": True}, "logit_bias.5"),
    *[
        ("logit_bias", {k: 1}, "logit_bias")
        for k in ("-1", "2048", "4294967296", "18446744073709551616", "x", "", "1.5", "٣")
    ],
    ("logit_bias", {str(i): 1 for i in range(1025)}, "logit_bias"),
    ("model", 5, "model"),
    ("messages", None, "messages"),
    ("messages", [], "messages"),
    ("messages", "hi", "messages"),
    ("messages", [[]], "messages[0]"),
    ("messages", [{"role": "user"}], "messages[0].content"),
    ("messages", [{"content": "x"}], "messages[0].role"),
    ("messages", [{"role": "user", "content": None}], "messages[0].content"),
    ("messages", [{"role": "user", "content": 5}], "messages[0].content"),
    ("messages", [{"role": "user", "content": []}], "messages[0].content"),
    ("messages", [{"role": "user", "content": [[]]}], "messages[0].content[0]"),
    ("messages", [*HI, {"role": "tool", "content": "x", "tool_call_id": "1"}], "messages[1].tool_call_id"),
    ("messages", [{"role": "wizard", "content": "x"}], "messages[0].role"),
    ("messages", [{"role": "user", "content": "x", "name": "bob"}], "messages[0].name"),
    ("messages", [{"role": "user", "content": "x", "__class__": "y"}], "messages[0].__class__"),
    ("messages", [{"role": "assistant", "content": "x", "tool_calls": [{}]}], "messages[0].tool_calls[0].id"),
    (
        "messages",
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/"}}]}],
        "messages[0].content[0].image_url",
    ),
    ("messages", [{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
    # Known and not supported, or asking for something that would change the answer.
    *[
        (name, value, name)
        for name, value in {
            "functions": [],
            "audio": {},
            "prediction": "x",
            "prompt_cache_key": 5,
            "reasoning_effort": "some",
            "verbosity": "low",
            "web_search_options": {},
            "prompt_cache_retention": "24h",
            "chat_template": "{{ x }}",
            "chat_template_kwargs": "enable_thinking",
            "guided_regex": "",
            "guided_whitespace_pattern": " ",
            "no_such_field": 1,
            "store": True,
            "service_tier": "priority",
            "tool_choice": "required",
            "modalities": ["text", "audio"],
            "user": 5,
        }.items()
    ],
    ("prediction", {"type": "content"}, "prediction.content"),
    ("prediction", {"content": "x"}, "prediction.type"),
    ("prediction", {"type": "text", "content": "x"}, "prediction.type"),
    ("prediction", {"type": "content", "content": []}, "prediction.content"),
    ("prediction", {"type": "content", "content": ["x"]}, "prediction.content[0]"),
    ("prediction", {"type": "content", "content": [{"type": "text"}]}, "prediction.content[0].text"),
    ("prediction", {"type": "content", "content": "x", "more": 1}, "prediction.more"),
    ("metadata", {"a": 1}, "metadata.a"),
    ("response_format", {"type": "yaml"}, "response_format.type"),
    ("response_format", {"type": "json_schema", "json_schema": {}}, "response_format.json_schema.name"),
]


@pytest.mark.parametrize(("field", "value", "param"), FIELDS, ids=[f"{i}-{f[0]}" for i, f in enumerate(FIELDS)])
def test_wrong_field_is_named(server: RunningServer, field: str, value: Any, param: str) -> None:
    status, head, body = server.post({**chat(max_tokens=2), field: value})
    check_error(status, body, 400, param)
    assert head["x-request-id"]
    assert "access-control-allow-origin" not in head


def test_prediction_is_of_one_answer_and_no_longer_than_one(server: RunningServer) -> None:
    prediction = {"type": "content", "content": "x"}
    status, _, body = server.post(chat(max_tokens=2, prediction=prediction, n=2))
    message = check_error(status, body, 400, "prediction", "unsupported_parameter")
    assert "'n'" in message
    assert server.post(chat(max_tokens=2, prediction=prediction, n=1))[0] == 200
    status, _, body = server.post(chat(prediction={"type": "content", "content": "word " * 5000}))
    message = check_error(status, body, 400, "prediction", "context_length_exceeded")
    assert str(server.health()[1]["context_length"]) in message


NON_FINITE = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5000]


@pytest.mark.parametrize("field", ["temperature", "top_p", "max_tokens", "seed", "presence_penalty", "top_k", "n"])
@pytest.mark.parametrize("number", NON_FINITE, ids=["nan", "inf", "-inf", "1e999", "-1e999", "5000-digits"])
def test_numbers_that_are_none(server: RunningServer, field: str, number: str) -> None:
    status, _, body = server.post(f'{{"messages": {json.dumps(HI)}, "{field}": {number}}}'.encode())
    check_error(status, body, 400, field)


@pytest.mark.parametrize("name", BROKEN_BODIES)
def test_broken_body(server: RunningServer, name: str) -> None:
    status, _, body = server.post(BROKEN_BODIES[name])
    check_error(status, body, 400, None)
    still_answers(server)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"messages": [{"role": "user", "content": "a"}], "seed": 1, "seed": 2}', "seed"),
        (b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}', "content"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "messages[0].content"),
        (
            b'{"messages": [{"role": "user", "content": [{"type": "text", "text": "\\udfff"}]}]}',
            "messages[0].content[0].text",
        ),
        (b'{"messages": [{"role": "user", "content": "a"}], "stop": "\\ud800"}', "stop"),
        (b'{"messages": [{"role": "user", "content": "a"}], "model": "\\ud800"}', "model"),
    ],
)
def test_duplicate_keys_and_lone_surrogates(server: RunningServer, body: bytes, param: str) -> None:
    status, _, answer = server.post(body)
    check_error(status, answer, 400, param)


def test_lone_surrogates_in_names(server: RunningServer) -> None:
    for body in (
        b'{"\\ud800": 1}',
        b'{"messages": [{"role": "user", "content": "a", "\\ud800": 1}]}',
        b'{"\\ud800": 1, "\\ud800": 1}',
    ):
        status, _, answer = server.post(body)
        assert status == 400 and answer["error"]["param"]
    still_answers(server)


@pytest.mark.parametrize("name", ["gpt-4", "../../etc/passwd", "%00", "a\nb", "x" * 5000, ""])
def test_unknown_model(server: RunningServer, name: str) -> None:
    status, _, body = server.post(chat(model=name))
    assert status == 404
    assert body["error"]["code"] == "model_not_found" and body["error"]["param"] == "model"


def test_context_overflow_tells_the_numbers(server: RunningServer) -> None:
    context = server.health()[1]["context_length"]
    status, _, body = server.post(chat("word " * 5000))
    message = check_error(status, body, 400, "messages", "context_length_exceeded")
    assert str(context) in message
    for field in ("max_tokens", "max_completion_tokens"):
        status, _, body = server.post(chat("hi", **{field: context}))
        message = check_error(status, body, 400, body["error"]["param"], "context_length_exceeded")
        assert body["error"]["param"] == field and str(context) in message


@pytest.mark.parametrize(
    ("method", "path", "want"),
    [
        ("GET", "/v1/nope", 404),
        ("GET", "/%00", 404),
        ("GET", "/v1/models/nope", 404),
        ("GET", "/v1/models/../../etc/passwd", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/chat/completions", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("POST", "/health", 405),
        ("PUT", "/v1/models", 405),
    ],
)
def test_wrong_path_or_method(server: RunningServer, method: str, path: str, want: int) -> None:
    status, head, raw = server.request(method, path)
    body = json.loads(raw)
    assert status == want
    assert body["error"]["type"] == "invalid_request_error" and body["error"]["message"]
    if want == 405:
        allowed = [method for method in head["allow"].split(", ") if method != "OPTIONS"]
        assert allowed and all(method in body["error"]["message"] for method in allowed)
    elif path.startswith("/v1/models/n"):
        assert "test-hollow-hollow" in body["error"]["message"] and "'default'" in body["error"]["message"]


def test_the_list_of_models_with_a_slash_too_many(server: RunningServer) -> None:
    status, _, raw = server.request("GET", "/v1/models/")
    assert status == 404 and "''" not in (message := json.loads(raw)["error"]["message"]) and "slash" in message


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"]
)
def test_wrong_content_type(server: RunningServer, kind: str) -> None:
    status, _, raw = server.request("POST", "/v1/chat/completions", json.dumps(chat()).encode(), {"content-type": kind})
    check_error(status, json.loads(raw), 415, None)


def test_no_content_type_is_json_unless_a_page_sends_it(server: RunningServer) -> None:
    body = json.dumps(chat(max_tokens=1)).encode()
    assert server.request("POST", "/v1/chat/completions", body, {})[0] == 200
    status, _, raw = server.request("POST", "/v1/chat/completions", body, {"origin": server.url})
    check_error(status, json.loads(raw), 415, None)


def test_compressed_body_is_refused(server: RunningServer) -> None:
    status, _, body = server.post(b"x", **{"content-encoding": "gzip"})
    check_error(status, body, 415, None)


def test_body_limit(server: RunningServer) -> None:
    big = json.dumps(chat("x" * (5 << 20))).encode()
    status, _, body = server.post(big)
    check_error(status, body, 413, None, "request_too_large")
    with server.raw() as sock:  # chunked: no length to look at
        sock.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        try:
            for _ in range(80):
                sock.sendall(chunk)
        except OSError:
            pass
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
    still_answers(server)


def test_hundred_megabytes(server: RunningServer) -> None:
    with server.raw() as sock:
        sock.sendall(POST + b"content-length: 104857600\r\n\r\n")
        sent = send_hundred_megabytes(sock)
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 "), sent
    still_answers(server)
    assert server.process_status("VmHWM") < 1_500_000


SMUGGLED = [
    b"Content-Length : 30",
    b"Content-Length: 4\r\nTransfer-Encoding: chunked",
    b"Content-Length: 4\r\nContent-Length: 5",
    b"Content-Length: +4",
    b"Content-Length: 0x4",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding : chunked",
    b"X-A: a\nX-B: b",
    b"X-A: a\x00b",
    b" folded: x",
    b"no colon",
]


@pytest.mark.parametrize("line", SMUGGLED)
def test_malformed_headers_are_refused(server: RunningServer, line: bytes) -> None:
    inner = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with server.raw() as sock:
        sock.sendall(POST + line + b"\r\n\r\n" + inner)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"invalid_request_error"' in answer
    still_answers(server)


def test_long_header(server: RunningServer) -> None:
    with server.raw() as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-a: " + b"a" * 20_000 + b"\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
    still_answers(server)


def dribble(sock: socket.socket, data: bytes) -> bytes:
    """Send a byte now and then until the server ends it; returns what it said."""
    sock.settimeout(0.1)
    answer = b""
    for i in range(100):
        try:
            sock.sendall(data[i : i + 1])
            got = sock.recv(65536)
            if not got:
                return answer
            answer += got
        except TimeoutError:
            continue
        except OSError:
            return answer
    raise AssertionError("the server let a slow sender go on for 10 seconds")


def test_slow_header_is_cut(server: RunningServer) -> None:
    with server.raw() as sock:
        answer = dribble(sock, b"GET /health HTTP/1.1\r\n" + b"x: " + b"a" * 500)
    assert b"408" in answer[:20]
    still_answers(server)


def test_slow_body_is_cut(server: RunningServer) -> None:
    with server.raw() as sock:
        sock.sendall(POST + b"content-length: 5000\r\n\r\n")
        answer = dribble(sock, b" " * 500)
    assert answer.startswith(b"HTTP/1.1 408 ")
    with server.raw() as sock:  # a route that wants no body
        sock.sendall(b"GET /nope HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000\r\n\r\n")
        dribble(sock, b" " * 500)
    still_answers(server)


def test_connection_cap(server: RunningServer) -> None:
    body = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n"
    held = [server.raw() for _ in range(40)]
    try:
        for sock in held:
            sock.sendall(body)  # an idle one would have to go
        for _ in range(20):
            with server.raw() as sock:
                sock.settimeout(0.2)
                answer = b""
                with contextlib.suppress(OSError):
                    answer = b"".join(iter(lambda: sock.recv(65536), b""))
            if answer:
                break
        assert answer.startswith(b"HTTP/1.1 503 ") and b"too_many_connections" in answer
    finally:
        for sock in held:
            sock.close()
    server.wait(lambda: server.request("GET", "/health")[0] == 200, 30, "answering again")
    still_answers(server)


def test_log_lines_cannot_be_forged_and_prompts_are_not_logged(server: RunningServer) -> None:
    server.post(chat("CANARY-PROMPT", user="CANARY-USER", metadata={"k": "CANARY-META"}, max_tokens=2))
    server.post(chat("CANARY-PROMPT", model="x\nCANARY-LINE"))
    server.request("GET", "/CANARY%0aFORGED")
    with server.raw() as sock:
        sock.sendall(b"GET /a\x1b[31mCANARY HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert "CANARY" not in server.log
    assert "\x1b" not in server.log


def test_request_id(server: RunningServer) -> None:
    assert server.request("GET", "/health", headers={"x-request-id": "abc-1"})[1]["x-request-id"] == "abc-1"
    assert server.request("GET", "/nope", headers={"x-request-id": "a" * 200})[1]["x-request-id"] != "a" * 200
