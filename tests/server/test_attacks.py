"""What an attack of many kinds once did to the server: each of these stopped others, or shut them out."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from server_process import RunningServer, chat, hollow_package, http_post, post

from axpress.core.engine.engine import Engine
from axpress.core.errors import ContextOverflow, RequestError
from axpress.core.request import Delta, GenerationRequest
from axpress.server.http.request_body import MAX_VALUES, parse_json
from axpress.server.serving.delivery import HIGH_WATER, MAX_UNREAD, StreamedAnswer
from axpress.server.serving.generation_spec import GenerationSpec
from axpress.server.serving.prompts import SLICE, check_length
from axpress.server.serving.served_model import ServedModel
from axpress.server.settings import Settings


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return hollow_package(tmp_path_factory.mktemp("attacks"))


def test_a_body_of_millions_of_values_is_refused_before_it_is_read() -> None:
    many = b"[" + b"[]," * MAX_VALUES + b"[]]"
    with pytest.raises(RequestError, match=f"more than {MAX_VALUES} values"):
        parse_json(many)
    text = json.dumps({"prompt": ',[{\\"' * MAX_VALUES})  # marks within a string are text
    assert len(parse_json(text.encode())["prompt"]) == 5 * MAX_VALUES
    assert len(parse_json(json.dumps(list(range(200_000))).encode())) == 200_000


class Counting:
    """A tokenizer that has a token for every two characters, and counts what it is asked to read."""

    read = 0

    def encode(self, text: str) -> list[int]:
        self.read += len(text)
        return [1] * (len(text) // 2)


@pytest.mark.parametrize("text", ["\n" * 4_000_000, "word " * 800_000])
def test_a_prompt_that_cannot_fit_is_refused_when_the_context_is_full(text: str) -> None:
    tokenizer = Counting()
    spec = GenerationSpec(messages=[{"role": "user", "content": text}])
    with pytest.raises(ContextOverflow, match="messages"):
        check_length(spec, tokenizer, 4096)  # type: ignore[arg-type]
    assert tokenizer.read <= 2 * 4096 + SLICE
    spec = GenerationSpec(messages=[{"role": "user", "content": "x" * 8000}])
    check_length(spec, tokenizer, 4096)  # type: ignore[arg-type]


def test_a_body_of_newlines_is_told_to_be_too_long(server: RunningServer) -> None:
    status, _, body = server.post(chat("\n" * 2_000_000))
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")


def test_idle_connections_shut_nobody_out(package: tuple[Path, Path]) -> None:
    flags = ("--emu-profile", package[1], "--max-connections", "8")
    with RunningServer(package[0], *flags) as server, contextlib.ExitStack() as stack:
        answering = stack.enter_context(server.raw())
        answering.sendall(http_post(chat(stream=True, max_tokens=200, ignore_eos=True)))
        assert answering.recv(12) == b"HTTP/1.1 200"
        idle = [stack.enter_context(server.raw()) for _ in range(20)]
        assert server.request("GET", "/livez")[0] == 200
        assert server.post(chat(max_tokens=2))[0] == 200
        assert idle[0].recv(1) == b""  # the oldest had to go
        data = b""
        while b"[DONE]" not in data:
            data = data[-20:] + answering.recv(65536)  # and no answer


@pytest.mark.parametrize("size", [b"0x5", b" 5", b"5 ", b"+5", b"5;a\nb", b"5;\x01"])
def test_chunks_are_framed_to_the_letter(server: RunningServer, size: bytes) -> None:
    body = json.dumps(chat(max_tokens=1)).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n"
    rest = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - 5, body[5:])
    with server.raw() as sock:
        sock.sendall(head + b"5\r\n" + body[:5] + b"\r\n" + rest)
        assert sock.recv(12) == b"HTTP/1.1 200"
    with server.raw() as sock:
        sock.sendall(head + size + b"\r\n" + body[:5] + b"\r\n" + rest)
        assert sock.recv(12) == b"HTTP/1.1 400"


def test_a_client_that_asked_first_is_not_told_to_go_on_where_nobody_wants_it(server: RunningServer) -> None:
    with server.raw() as sock:
        sock.sendall(b"POST /nope HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.1 404"


def test_the_table_for_grammars_is_there_before_the_first_answer(package: tuple[Path, Path]) -> None:
    engine = Engine.open(package[0], "emu", "none", threaded=False)
    try:
        assert ServedModel.of(engine, Settings(model_dir=package[0])).grammars._tokens is not None
    finally:
        engine.close()


def test_the_model_is_told_of_when_its_files_are_gone(tmp_path: Path) -> None:
    directory, _ = hollow_package(tmp_path)
    with RunningServer(directory, "--emu-profile", "none", check=False) as server:
        shutil.rmtree(directory)
        assert server.request("GET", "/api/tags")[0] == 200
        assert post(server, "/api/show", model="default")[0] == 200


def test_the_next_place_is_for_the_client_that_has_fewest(package: tuple[Path, Path]) -> None:
    order: list[str] = []

    def asked(client: str, number: int) -> None:
        def sink(delta: object) -> None:
            if delta.finish_reason:
                order.append(client)

        request = GenerationRequest([1, 2, number], max_tokens=4, ignore_eos=True, client=client.encode())
        engine.submit(request, sink)

    engine = Engine.open(package[0], "emu", "none", max_running=2, threaded=False)
    try:
        for number in range(6):
            asked("many", number)
        asked("one", 9)
        asked("two", 10)
        while engine.step():
            pass
    finally:
        engine.close()
    assert [sorted(order[:2]), sorted(order[2:4])] == [["many", "one"], ["many", "two"]] and order[4:] == ["many"] * 4


def half_closed(server: RunningServer, raw: bytes) -> bytes:
    """What a client gets that sends `raw`, and says at once that it will send no more."""
    with server.raw() as sock:
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_client_that_closes_its_side_gets_an_answer(package: tuple[Path, Path]) -> None:
    with RunningServer(package[0], "--emu-profile", package[1]) as server:
        got = half_closed(server, b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 200 ") and b"alive" in got
        with server.cut_short(400):
            got = half_closed(server, http_post(chat(max_tokens=900, ignore_eos=True)))
            assert got.startswith(b"HTTP/1.1 400 ") and b"half_closed" in got and b"keep it open" in got


class Deaf:
    """A connection whose other end reads nothing."""

    closing = False

    def get_write_buffer_size(self) -> int:
        return HIGH_WATER + 1

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True


def test_what_is_kept_for_a_client_that_does_not_read_is_bounded() -> None:
    connection = Deaf()
    request = SimpleNamespace(transport=connection)
    prepared = SimpleNamespace(requests=[None])
    answer = StreamedAnswer(request, prepared, SimpleNamespace(), 30.0)
    for number in range(MAX_UNREAD + 1):
        assert not connection.closing, number
        answer.receive(0, [Delta("x", 1)])
    assert connection.closing
