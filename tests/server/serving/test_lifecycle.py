"""Leaving clients, full queues, deadlines, slow readers, loading and stopping: the card is always free again."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from server_process import RunningServer, chat, events, hollow_package, http_post, note_exits, openai_client

from axpress.core.model_files.hollow import hollow

LONG: dict[str, Any] = {"ignore_eos": True, "max_tokens": 900}
"""About 5 seconds on the made-up card, when nothing can be guessed."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return hollow_package(tmp_path_factory.mktemp("lifecycle"))


@pytest.fixture(scope="module")
def server(package: tuple[Path, Path]) -> Iterator[RunningServer]:
    with RunningServer(package[0], "--emu-profile", package[1], "--max-running", "1", "--max-queue", "2") as running:
        yield running
        running.wait(running.idle, 30, "idle")  # the last piece of an answer comes a moment before its end


@pytest.fixture(autouse=True)
def idle_before_and_after(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test that uses the shared server leaves the card free."""
    running = request.getfixturevalue("server") if "server" in request.fixturenames else None
    if running is not None:
        running.wait(running.idle, 30, "idle")
    yield
    if running is not None:
        running.wait(running.idle, 30, "idle")


def begin(server: RunningServer, **fields: Any) -> socket.socket:
    """Send a chat request on a bare connection."""
    sock = server.raw()
    sock.sendall(http_post(chat(**{**LONG, **fields})))
    return sock


def whole_answer(sock: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    with sock:
        return b"".join(iter(lambda: sock.recv(65536), b""))


def running(server: RunningServer, count: int = 1) -> bool:
    return bool(server.stats()["num_running"] == count)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("padding", [0, 100_000])
def test_client_that_leaves_frees_the_card(server: RunningServer, stream: bool, reset: bool, padding: int) -> None:
    with server.cut_short(LONG["max_tokens"] // 2):
        sock = begin(server, stream=stream, user="x" * padding)  # a large body makes Sanic stop reading
        server.wait(lambda: running(server), 30, "running")
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        sock.close()


def test_client_that_leaves_while_waiting(server: RunningServer) -> None:
    first = begin(server, stream=True)
    server.wait(lambda: running(server), 30, "running")
    with begin(server), begin(server, stream=True):
        server.wait(lambda: server.health()[1]["num_waiting"] == 2, 30, "waiting")
    server.wait(lambda: server.health()[1]["num_waiting"] == 0, 30, "left")
    assert running(server)
    first.close()


def test_openai_stream_closed_early(server: RunningServer) -> None:
    said: Any = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 900, "extra_body": {"ignore_eos": True}}
    with server.cut_short(LONG["max_tokens"] // 2), openai_client(server) as client:
        stream = client.chat.completions.create(model="default", stream=True, **said)
        for i, _ in enumerate(stream):
            if i == 5:
                break
        assert not server.idle()
        stream.close()


def test_full_queue_is_told_at_once(server: RunningServer) -> None:
    held = [begin(server, stream=True)]
    server.wait(lambda: running(server), 30, "running")
    held += [begin(server, stream=True), begin(server)]
    server.wait(lambda: server.health()[1]["num_waiting"] == 2, 30, "waiting")
    for stream in (True, False):
        status, head, body = server.post(chat(stream=stream, max_tokens=2))
        assert status == 429 and int(head["retry-after"]) >= 1
        assert body["error"]["type"] == "rate_limit_error" and body["error"]["code"] == "rate_limit_exceeded"
    status, body = server.health()
    assert status == 200 and body["num_waiting"] == 2  # told before anybody's turn came
    for sock in held:
        sock.close()


@pytest.mark.parametrize("stream", [True, False])
def test_choices_are_admitted_all_or_none(server: RunningServer, stream: bool) -> None:
    status, _, body = server.post(chat(n=4, max_tokens=2))  # one runs, two wait
    assert status == 400 and body["error"]["param"] == "n" and "at most 3" in body["error"]["message"]
    status, _, body = server.post(chat(n=3, max_tokens=2))
    assert status == 200 and len(body["choices"]) == 3
    with begin(server, stream=True):
        server.wait(lambda: running(server), 30, "running")
        status, head, body = server.post(chat(n=3, stream=stream, max_tokens=2))
        assert status == 429 and int(head["retry-after"]) >= 1 and body["error"]["code"] == "rate_limit_exceeded"
        server.wait(lambda: server.health()[1]["num_waiting"] == 0, 30, "rid of what was admitted before the refusal")
        assert running(server) and server.health()[1]["num_answers"] == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("together", [1, 3])
def test_leaving_three_choices_frees_the_card(package: tuple[Path, Path], stream: bool, together: int) -> None:
    with (
        RunningServer(package[0], "--emu-profile", package[1], "--max-running", together) as server,
        server.cut_short(LONG["max_tokens"] // 2),
        begin(server, n=3, stream=stream),
    ):
        server.wait(lambda: running(server, together), 30, "running")
        assert server.health()[1]["num_waiting"] == 3 - together


def test_background_requests_come_after_all_others(server: RunningServer) -> None:
    ended: list[str] = []

    def ask(tier: str) -> None:
        status, _, body = server.post(chat(max_tokens=20, ignore_eos=True, service_tier=tier))
        assert status == 200 and body["service_tier"] == tier
        ended.append(tier)

    threads = [threading.Thread(target=ask, args=(tier,)) for tier in ("flex", "default")]
    with begin(server, stream=True):
        server.wait(lambda: running(server), 30, "running")
        for number, thread in enumerate(threads, start=1):
            thread.start()
            server.wait(lambda number=number: server.health()[1]["num_waiting"] == number, 30, "waiting")
    for thread in threads:
        thread.join()
    assert ended == ["default", "flex"]


def test_waiting_answers_are_complete(server: RunningServer) -> None:
    results: list[Any] = []

    def ask() -> None:
        results.append(server.post(chat(max_tokens=20, ignore_eos=True)))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for status, _, _ in results] == [200] * 2
    assert {body["usage"]["completion_tokens"] for _, _, body in results} == {20}


def test_client_with_an_answer_on_its_way_cannot_flood(server: RunningServer) -> None:
    with begin(server) as sock, contextlib.suppress(OSError):
        for _ in range(64):
            sock.sendall(b"x" * 65536)
    server.wait(server.idle, 30, "idle")


def test_request_deadline(package: tuple[Path, Path]) -> None:
    with RunningServer(package[0], "--emu-profile", package[1], "--request-timeout", "0.5") as server:
        status, head, body = server.post(chat(**LONG))
        assert status == 504 and body["error"]["code"] == "request_timeout" and head["x-should-retry"] == "false"
        server.wait(server.idle, 30, "idle")
        with openai_client(server) as client:
            stream = client.chat.completions.create(model="default", messages=[{"role": "user", "content": "hi"}],
                stream=True,
                                                    max_tokens=900, extra_body={"ignore_eos": True})  # fmt: skip
            with pytest.raises(openai.APIError, match=r"limit of 0\.5 seconds"):
                for _ in stream:
                    pass
        server.wait(server.idle, 30, "idle")
        assert server.post(chat(max_tokens=2))[0] == 200


def test_reader_that_stalls_is_cut_and_disturbs_nobody(package: tuple[Path, Path]) -> None:
    with RunningServer(package[0], "--emu-profile", "none", "--stall-timeout", "1") as server:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.port))
            # Log-probabilities make the answer larger than all buffers on the way.
            sock.sendall(http_post(chat(**{**LONG, "max_tokens": 900}, stream=True, logprobs=True, top_logprobs=20)))
            server.wait(lambda: server.health()[1]["num_answers"] == 1, 30, "answering")
            assert server.post(chat(max_tokens=20))[0] == 200
            server.wait(server.idle, 30, "cut")
        server.wait(lambda: "stalled" in server.log, 30, "told in the log")


def test_slow_reader_gets_everything(package: tuple[Path, Path]) -> None:
    with RunningServer(package[0], "--emu-profile", "none") as server, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(http_post(chat(**{**LONG, "max_tokens": 900}, stream=True, logprobs=True, top_logprobs=20)))
        time.sleep(0.7)
        raw = b""
        while not raw.endswith(b"0\r\n\r\n"):
            got = sock.recv(65536)
            assert got
            raw += got
    body, rest = b"", raw.split(b"\r\n\r\n", 1)[1]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    tokens = sum(len(c["choices"][0]["logprobs"]["content"]) for c in events(body) if c["choices"][0]["logprobs"])
    assert tokens == 900


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_finishes_running_answers(package: tuple[Path, Path], number: int) -> None:
    with RunningServer(package[0], "--emu-profile", package[1]) as server:
        results: list[Any] = []
        tokens = {"max_tokens": 120, "ignore_eos": True}
        whole = threading.Thread(target=lambda: results.append(server.post(chat(**tokens))))
        stream = begin(server, stream=True, **tokens)
        whole.start()
        server.wait(lambda: server.health()[1]["num_answers"] == 2, 30, "both accepted")
        server.process.send_signal(number)
        server.wait(lambda: server.health()[0] == 503, 30, "draining")
        status, body = server.health()
        assert body["status"] == "draining"
        status, head, body = server.post(chat(max_tokens=2))
        assert status == 503 and head["retry-after"] and "draining" in body["error"]["message"]
        raw = whole_answer(stream)
        assert b"[DONE]" in raw and b'"finish_reason":"length"' in raw
        whole.join()
        assert results[0][0] == 200 and results[0][2]["usage"]["completion_tokens"] == 120
        assert server.process.wait(10) == 0


def test_stop_cuts_answers_that_take_too_long(package: tuple[Path, Path]) -> None:
    with RunningServer(package[0], "--emu-profile", package[1], "--drain-timeout", "0.3") as server:
        results: list[Any] = []
        whole = threading.Thread(target=lambda: results.append(server.post(chat(**LONG))))
        stream = begin(server, stream=True)
        server.wait(lambda: running(server), 30, "running")
        whole.start()
        server.wait(lambda: server.health()[1]["num_answers"] == 2, 30, "both accepted")
        assert server.stop() == 0
        raw = whole_answer(stream)
        assert b'"error"' in raw and b"[DONE]" in raw
        whole.join()
        assert results[0][0] == 503


def test_second_signal_hurries(package: tuple[Path, Path]) -> None:
    with RunningServer(package[0], "--emu-profile", package[1]) as server, begin(server, stream=True) as sock:
        server.wait(lambda: running(server), 30, "running")
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: server.health()[0] == 503, 30, "draining")
        assert server.stop() == 0
        raw = whole_answer(sock)
        assert b'"error"' in raw and b'"finish_reason":"length"' not in raw


@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_stop_while_loading(package: tuple[Path, Path], pause: float) -> None:
    with RunningServer(package[0], "--emu-profile", "none", ready=False) as server:
        time.sleep(pause)
        assert server.stop() == 0
        assert "closed after" in server.log


HANGS = {
    "a load": "axclrtEngineLoadFromFile@2=block",
    "a probe": "axclrtEngineExecute@3=block",
    "a wait of a probe": "axclrtSynchronizeStreamWithTimeout@2=block",
}


@pytest.mark.parametrize("what", HANGS)
def test_stop_while_a_call_to_the_card_does_not_return(package: tuple[Path, Path], what: str) -> None:
    environment = {"AXPRESS_EMU_FAULTS": HANGS[what], "AXPRESS_EMU_HANG_MS": "600000"}
    with RunningServer(
        package[0], "--emu-profile", "none", environment=environment, ready=False, check=False
    ) as server:
        files = 1 if what == "a load" else 3
        server.wait(lambda: server.health()[1].get("loading", {}).get("files_done") == files, 30, "at the call")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 1
        assert "the card has not answered within" in server.log and "cut its power" in server.log
        assert "Traceback" not in server.log


def test_stop_ends_a_load_before_the_next_file(tmp_path: Path) -> None:
    package = hollow("qwen3-4b-w8a16-pi5", tmp_path / "package")  # 133 s of loading, 3 s a layer
    with RunningServer(package, "--emu-speed", "4", ready=False) as server:
        server.wait(lambda: server.health()[1].get("loading", {}).get("files_done", 0) > 1, 60, "loading")
        assert server.stop() == 0
        assert "closed after" in server.log
        assert "cannot serve" not in server.log and "has not answered" not in server.log


def test_who_asks_while_there_is_no_model_is_told_to_come_back(package: tuple[Path, Path], tmp_path: Path) -> None:
    load = "axclrtEngineLoadFromFile"
    faults = {"AXPRESS_EMU_FAULTS": f"{load}@1=hang:1500; {load}@2+=fail:0x8030070c"}  # loading, and then failed
    note_exits(tmp_path, 3)  # so that this one stays
    options = ("--emu-profile", "none", "--state-dir", tmp_path)
    with RunningServer(package[0], *options, environment=faults, ready=False, check=False) as server:
        for state in ("loading", "failed"):
            server.wait(lambda state=state: server.health()[1]["status"] == state, 30, state)  # type: ignore[misc]
            for path in ("/v1/models", "/v1/models/default", "/v1/models/nope", "/openai/models", "/api/tags"):
                status, head, raw = server.request("GET", path)
                assert status == 503 and f"({state})" in raw.decode(), (path, raw)
                assert head["x-should-retry"] == "false" if state == "failed" else head["retry-after"]
                assert server.request("HEAD", path)[::2] == (503, b"")
            assert server.request("HEAD", "/health")[::2] == (503, b"")


def test_a_hangup_is_survived_where_there_are_no_keys_to_read(server: RunningServer) -> None:
    with begin(server, stream=True, max_tokens=100) as sock:
        server.wait(lambda: running(server), 30, "running")
        server.process.send_signal(signal.SIGHUP)
        raw = b""
        while b"[DONE]" not in raw:
            raw += sock.recv(65536)
    assert b'"error"' not in raw and server.health()[0] == 200


def test_wrong_directory_ends_with_a_sentence(tmp_path: Path) -> None:
    command = [*RunningServer.command, str(tmp_path), "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 78 and str(tmp_path) in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
    assert "listening" not in ended.stderr and "Traceback" not in ended.stderr


def test_two_hundred_short_answers_leave_nothing_behind(server: RunningServer) -> None:
    def resources() -> tuple[int, int]:
        files = list(Path(f"/proc/{server.process.pid}/fd").iterdir())
        return len(files), server.process_status("Threads")

    with httpx.Client(base_url=server.url) as http:
        http.post("/v1/chat/completions", json=chat(max_tokens=1))
        before = resources()
        for i in range(200):
            response = http.post("/v1/chat/completions", content=json.dumps(chat(max_tokens=1, stream=i % 2 == 0)),
                                 headers={"content-type": "application/json"})  # fmt: skip
            assert response.status_code == 200
        assert resources() == before


def test_a_load_tells_how_far_it_is_and_chat_waits_for_it(tmp_path: Path) -> None:
    """On a card that takes some seconds: modelled, as published for this model, ten times as fast."""
    package = hollow("qwen3-0.6b-w8a16-pi5", tmp_path / "package")
    pace = ("--emu-profile", "qwen3-0.6b-w8a16-pi5", "--emu-speed", "10")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    told: list[dict[str, Any]] = []
    live: set[str] = set()
    with RunningServer(package, *pace, ready=False) as server:

        def loaded() -> bool:
            status, body = server.health()
            if body["status"] == "loading":
                told.append(body)
                live.add(json.loads(server.request("GET", "/live")[2])["reason"])  # what the page shows
            time.sleep(0.03)
            return status == 200

        command = [*RunningServer.command[:-1], "chat", "--url", server.url, "--max-tokens", "3"]
        with subprocess.Popen(command, text=True, **pipes) as talk:  # type: ignore[call-overload]
            server.wait(loaded, 60, "ready")
            out, err = talk.communicate("hello\n", timeout=60)
        assert (talk.returncode, bool(out.strip())) == (0, True)
        assert re.search(r"^waiting: the model is being loaded: \d+ of 29 files, \d+ of 653 MiB", err, re.M), err
        assert "loading" not in server.health()[1]
    loading = [body["loading"] for body in told if "loading" in body]
    done = [facts["files_done"] for facts in loading]
    assert done == sorted(done) and len(set(done)) > 5
    half = next(facts for facts in loading if facts["files_done"] >= 14)
    assert half["files"] == 29 and half["mib"] == 653 and 330 < half["mib_done"] < 653 and half["seconds_left"] > 0
    assert f"{half['files_done']} of 29 files, {half['mib_done']} of 653 MiB, about" in str(told)
    assert sum(re.search(r": \d+ of 29 files, .* s left", reason) is not None for reason in live) > 5
