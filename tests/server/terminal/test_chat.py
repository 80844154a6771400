"""`axpress chat` against a server on the emulated card: questions, pipes, and a conversation on a real terminal."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import chat_templates
import pytest
from own_terminal import COMMAND, Terminal
from server_process import RunningServer, hollow_package

from axpress.server.cli import main
from axpress.server.terminal.connection import Connection, ServerError
from axpress.server.terminal.conversation import Conversation, ServedModels
from axpress.server.terminal.screens import PlainScreen, RawScreen
from axpress.server.terminal.text import visible

BARE = (
    sys.executable, "-c",
    "import sys; sys.modules |= dict.fromkeys(['rich', 'prompt_toolkit', 'markdown_it', 'shtab']);"
    "from axpress.server.cli import main; sys.exit(main())",
)  # fmt: skip
"""axpress without the extra `terminal`."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    package, profile = hollow_package(tmp_path_factory.mktemp("chat"))
    with RunningServer(package, "--emu-profile", profile, "--emu-speed", 0.2) as running:  # 25 ms a token
        yield running


def conversation(server: RunningServer, **settings: object) -> Conversation:
    return Conversation(ServedModels(Connection(server.url + "/v1")), settings=settings)


def test_what_is_piped_in_is_one_message(server: RunningServer) -> None:
    def said(piped: str, *arguments: str) -> str:
        command = [*COMMAND, "chat", "--url", server.url, "--max-tokens", "5", "--seed", "3", *arguments]
        done = subprocess.run(command, input=piped, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def answer(message: str) -> str:
        fields = {"messages": [{"role": "user", "content": message}], "max_tokens": 5, "seed": 3}
        return visible(server.post(fields)[2]["choices"][0]["message"]["content"]) + "\n"

    assert said("one\n/new\ntwo\n") == answer("one\n/new\ntwo") != answer("one")
    assert said("one\n", "Say", "it:") == answer("Say it:\n\none") and said("", "Say it:") == answer("Say it:")


def test_errors_of_questions(server: RunningServer) -> None:
    for piped, arguments, message in (
        ("hello\nhello\n", ["--temperature", "9"], "axpress: 'temperature'"),
        (" \n", [], "axpress: nothing was asked"),
        ("", ["--model", "nope", "hello"], "axpress: "),
    ):
        command = [*COMMAND, "chat", "--url", server.url, *arguments]
        done = subprocess.run(command, input=piped, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith(message)
        assert done.stderr.count("\n") == 1


def test_chat_without_a_server(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    for url, said in (
        ("http://127.0.0.1:1", "cannot reach 127.0.0.1:1: "),
        ("nowhere.invalid", "cannot reach nowhere.invalid:80: "),
        (
            f"https://127.0.0.1:{server.port}",
            f"127.0.0.1:{server.port} does not speak https; try --url http://127.0.0.1:{server.port}",
        ),
        *(
            (url, f"'{url}' is not the address of a server")
            for url in ("ftp://x", "http://x:99999", "http://", "http://[::1")
        ),
    ):
        began = time.monotonic()
        assert main(["chat", "--url", url, "hello"]) == 1
        assert said in capsys.readouterr().err and time.monotonic() - began < 8, url  # https: not after --read-timeout


class Screen(io.StringIO):
    """What a terminal shows."""

    def isatty(self) -> bool:
        return True


def test_what_a_model_thinks_is_shown_on_terminals_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = chat_templates.random_package(tmp_path, chat_templates.ALWAYS)
    monkeypatch.setenv("COLUMNS", "1000000")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with RunningServer(package, "--emu-profile", "none") as running:
        talk = conversation(running, max_tokens=60, seed=5, temperature=2, think=10)
        pieces = list(talk.ask("hi"))

    def shown(kind: type[PlainScreen] | type[RawScreen]) -> str:
        out = Screen()
        screen = kind(out)
        for what, piece in pieces:
            (screen.text if what == "text" else screen.thought)(piece)
        screen.end()
        return out.getvalue()

    dimmed, piped = shown(PlainScreen), shown(RawScreen)
    monkeypatch.setenv("NO_COLOR", "1")
    marked = shown(PlainScreen)
    assert piped.strip() and visible(talk.messages[-1]["content"]) + "\n" == piped
    assert dimmed.startswith("\x1b[2m") and len(dimmed) > len(piped) + 12
    assert marked.startswith("(thinking) ") and "\x1b" not in marked
    for text, mark in ((dimmed, "\x1b[22m\n\n"), (marked, "\n\n")):
        assert text.endswith(mark + piped.replace("\t", "    "))


def test_a_conversation_stops_an_answer(server: RunningServer) -> None:
    talk = conversation(server, max_tokens=900, ignore_eos=True)
    talk.system = "Be brief."
    with server.cut_short(450):
        answer = talk.ask("hello")
        kind, first = next(answer)
        answer.close()
    assert kind == "text" and talk.messages[-1] == {"role": "assistant", "content": first}
    assert talk.everything()[0] == {"role": "system", "content": "Be brief."}
    talk.models.model = "nope"
    with pytest.raises(ServerError, match="model"):
        list(talk.ask("x"))
    assert len(talk.messages) == 2, "what was refused is forgotten"


@pytest.mark.parametrize("editor", ["prompt_toolkit", "readline"])
def test_in_a_terminal(server: RunningServer, tmp_path: Path, editor: str) -> None:
    command = COMMAND if editor == "prompt_toolkit" else BARE
    state, saved = {"XDG_STATE_HOME": str(tmp_path)}, tmp_path / "chat.json"
    arguments = ("chat", "--url", server.url, "--max-tokens", "900", "--temperature", "1")
    with Terminal(*arguments, environment=state, command=command) as terminal:
        terminal.until("emulated: no card.*leaves")
        terminal.type("/hepl\n")
        terminal.until("did you mean /help")
        terminal.type("/set max_tokens 5\n")
        terminal.until("max_tokens 5\r\n")
        terminal.type("\x1b[200~pasted\nlines\x1b[201~")
        terminal.until("lines")
        terminal.type("\n")
        terminal.type('"""block\nof lines"""\n')
        terminal.type("/set max_tokens default\n")  # while it answers
        terminal.until("max_tokens default\r\n")
        terminal.type("hello there\n")
        with server.cut_short(450):
            server.wait(lambda: server.health()[1]["num_running"] == 1, 30, "answering")
            terminal.until("(?s).{600}" if editor == "prompt_toolkit" else "(?s).{150}")
            terminal.type("\x03")  # Ctrl-C stops the answer
            terminal.until(r"\(stopped\)")
        terminal.type(f"/save {saved}\n")
        terminal.until("6 messages are in")
        terminal.type("\x04")  # Ctrl-D leaves
        assert terminal.ends() == 0
    said = [message["content"] for message in json.loads(saved.read_text())["messages"]]
    assert (said[0], said[2], said[4]) == ("pasted\nlines", "block\nof lines", "hello there")
    file = tmp_path / "axpress" / "chat_history"
    typed = [json.loads(line) for line in file.read_text().splitlines()]
    assert typed[2:4] == ["pasted\nlines", '"""block\nof lines"""'] and stat.S_IMODE(file.stat().st_mode) == 0o600


def test_on_a_dumb_terminal_nothing_drives_it(server: RunningServer, tmp_path: Path) -> None:
    dumb = {"XDG_STATE_HOME": str(tmp_path), "TERM": "dumb"}
    with Terminal("chat", "--url", server.url, "--max-tokens", "9", environment=dumb) as terminal:
        terminal.until("> ")
        terminal.type("hello\n")
        terminal.until("hello\r\n(?s:.+)\n> ")
        terminal.type("/bye\n")
        assert terminal.ends() == 0 and "\x1b" not in terminal.text
    assert os.listdir(tmp_path / "axpress") == ["chat_history"]
