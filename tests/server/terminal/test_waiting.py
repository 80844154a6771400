"""A server that loads, loses its card or is busy is waited for, in words: seen with a server that only pretends."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from own_terminal import COMMAND, Terminal


class Pretended(BaseHTTPRequestHandler):
    """Tells one state after the other, then the last one again and again; so it answers, too."""

    states: ClassVar[list[dict[str, Any]]] = []
    answers: ClassVar[list[tuple[int, str]]] = []
    asked: ClassVar[list[dict[str, Any]]] = []
    keys: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.keys.append(self.headers.get("Authorization"))
        self._send(200, json.dumps(self.states.pop(0) if len(self.states) > 1 else self.states[0]))

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._send(*(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]))

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        return


READY = {"status": "ready", "model": "pretended"}
LOADING = {"status": "loading", "reason": "the model is being loaded: 1 of 2 files"}
RECOVERING = {"status": "recovering", "reason": "the card is being brought back: it hung"}


def stream(*deltas: dict[str, str] | None) -> str:
    """An answer as events; None: a comment."""
    parts = [": alive" if d is None else f"data: {json.dumps({'choices': [{'delta': d}]})}" for d in deltas]
    return "\n\n".join([*parts, "data: [DONE]", ""])


@contextmanager
def pretending(states: list[dict[str, Any]], answers: list[tuple[int, str]]) -> Iterator[str]:
    """The address of a server that does."""
    Pretended.states, Pretended.answers, Pretended.asked, Pretended.keys = [*states], [*answers], [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Pretended) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def ask(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "chat", "--url", url, "hello", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


def test_a_server_that_loads_is_waited_for() -> None:
    with pretending([LOADING, RECOVERING, READY], [(200, stream({"content": "Hi"}))]) as url:
        done = ask(url, "--think", "low", "--seed", "3", "--system", "S", "--api-key", "k")
    assert (done.returncode, done.stdout) == (0, "Hi\n")
    assert done.stderr == "".join(f"waiting: {state['reason']}\n" for state in (LOADING, RECOVERING))
    assert set(Pretended.keys) == {"Bearer k"}
    (asked,) = Pretended.asked
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "hello"}]
    fields = {"model": "default", "stream": True, "seed": 3, "reasoning_effort": "low"}
    assert asked == {**fields, "messages": messages}


def test_a_question_that_is_refused_for_a_moment_is_asked_again() -> None:
    refused = (503, json.dumps({"error": {"message": "No answers right now (recovering)."}}))
    with pretending([READY, RECOVERING, READY], [refused, (200, stream({"content": "Hi"}))]) as url:
        done = ask(url)
        assert (done.returncode, done.stdout, len(Pretended.asked)) == (0, "Hi\n", 2)
    with pretending([READY], [refused]) as url:
        done = ask(url)
        assert (done.returncode, done.stdout) == (1, "") and "axpress: No answers right now" in done.stderr


@pytest.mark.parametrize("plain", [True, False])
def test_a_pause_within_an_answer_is_explained(plain: bool) -> None:
    answer = stream({"content": "**One**"}, None, {"content": " two"})
    with pretending([READY, READY, RECOVERING], [(200, answer)]) as url:
        options = ["--plain"] if plain else []
        with Terminal("chat", "--url", url, "hello", *options, environment={"NO_COLOR": "1"}) as terminal:
            assert terminal.ends() == 0
    assert "(the card is being brought back: it hung)" in terminal.text
    assert ("**One**" in terminal.text) == plain and "two" in terminal.text


def test_an_answer_that_breaks_off_is_an_error_and_stays() -> None:
    broken = stream({"content": "One"}).replace("data: [DONE]", 'data: {"error": {"message": "the card is lost"}}')
    with pretending([READY], [(200, broken)]) as url:
        done = ask(url)
    assert (done.returncode, done.stdout, done.stderr) == (1, "One\n", "axpress: the card is lost\n")


def test_markdown_is_for_terminals(tmp_path: Path) -> None:
    with pretending([READY], [(200, stream({"content": "# Title\n\n- **bold**\n"}))]) as url:
        assert ask(url).stdout == "# Title\n\n- **bold**\n\n"
        with Terminal("chat", "--url", url, environment={"XDG_STATE_HOME": os.fspath(tmp_path)}) as terminal:
            terminal.until("leaves")
            terminal.type("hello\n")
            terminal.until(r" \S*•\S* *\S*bold")
            terminal.type("/quit\n")
            assert terminal.ends() == 0 and "**" not in terminal.text
