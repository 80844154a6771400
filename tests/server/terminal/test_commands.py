"""What begins with a slash; settings, files of conversations, and what was typed in earlier chats."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from axpress.core.errors import AxpressError
from axpress.server.terminal.commands import Commands, Leave
from axpress.server.terminal.connection import Connection
from axpress.server.terminal.conversation import Conversation
from axpress.server.terminal.history import KEPT, History
from axpress.server.terminal.line_editor import is_open, message_of
from axpress.server.terminal.settings import request_fields


class TwoModels:
    """Models of nobody."""

    connection: Connection = Connection("http://127.0.0.1:1")
    model = "first"

    def names(self) -> list[str]:
        return ["first", "second"]

    def switch(self, name: str, tell: Callable[[str], object]) -> None:
        if name not in self.names():
            raise AxpressError(f"there is no {name}")
        self.model = name


class Typed:
    """A conversation and what was said of it."""

    def __init__(self) -> None:
        self.conversation = Conversation(TwoModels())
        self.said: list[str] = []
        self.commands = Commands(self.conversation, self.said.append)

    def __call__(self, text: str) -> str:
        self.said.clear()
        assert self.commands.obey(text)
        return "\n".join(self.said)


@pytest.fixture
def typed() -> Typed:
    return Typed()


def test_what_is_no_command_is_a_message(typed: Typed) -> None:
    for text in ("hello", " /help", "/etc/fstab is empty", "/help\nme", "/", "/1"):
        assert not typed.commands.obey(text)
    assert typed.said == []


def test_an_unknown_command_is_a_hint(typed: Typed) -> None:
    assert typed("/hepl").startswith("/hepl is no command; did you mean /help?")
    assert typed("/xyzzy now").startswith("/xyzzy is no command: /help lists them")


def test_help_names_all_there_is(typed: Typed) -> None:
    assert (text := typed("/help")) == typed("/?")
    for name in (*typed.commands._known, "temperature X", "think HOW", "max_tokens N"):
        assert name in text


def test_set(typed: Typed) -> None:
    settings = typed.conversation.settings
    assert typed("/set temperature 0.5") == "temperature 0.5" and typed("/SET top_k 7") == "top_k 7"
    assert settings == {"temperature": 0.5, "top_k": 7}
    shown = typed("/set")
    assert "temperature         0.5\n" in shown and "min_p               default\n" in shown and "system: none" in shown
    assert typed("/set temperature") == "temperature 0.5" and typed("/set temperature default") == "temperature default"
    assert typed("/set temprature 1") == "! there is no temprature to set; did you mean temperature?"
    assert typed("/set top_k many") == "! top_k: use a whole number, or default"
    assert typed("/set think loud").startswith("! think: use on, off, minimal, low,")
    assert settings == {"top_k": 7}
    assert typed("/set system Be brief.") == "system: Be brief." and typed.conversation.system == "Be brief."


@pytest.mark.parametrize(
    ("think", "fields"),
    [
        ("off", {"reasoning_effort": "none"}),
        ("on", {"reasoning_effort": "high"}),
        ("low", {"reasoning_effort": "low"}),
        ("99", {"thinking_budget": 99}),
    ],
)
def test_thinking_as_requests_have_it(typed: Typed, think: str, fields: dict[str, Any]) -> None:
    typed(f"/set think {think}")
    assert request_fields({**typed.conversation.settings, "seed": 1}) == {"seed": 1, **fields}


def test_system_clear_and_leaving(typed: Typed) -> None:
    typed("/system Speak German.")
    typed.conversation.messages += [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert [m["role"] for m in typed.conversation.everything()] == ["system", "user", "assistant"]
    for clear in ("/clear", "/new"):
        typed(clear)
        assert typed.conversation.everything() == [{"role": "system", "content": "Speak German."}]
    assert typed("/system none") == "system: none" and typed.conversation.everything() == []
    for leave in ("/bye", "/quit", "/exit"):
        with pytest.raises(Leave):
            typed(leave)


def test_model(typed: Typed) -> None:
    assert typed("/model") == "* first\n  second"
    assert typed("/model third") == "! there is no third"
    assert typed("/model second") == "* second\n  first"
    assert typed.conversation.models.model == "second"


def test_conversations_as_files(typed: Typed, tmp_path: Path) -> None:
    said = [{"role": "user", "content": "ä\n"}, {"role": "assistant", "content": "b"}]
    typed.conversation.messages += said
    typed("/system S")
    typed("/set seed 3")
    file = tmp_path / "chat.json"
    assert typed(f"/save {file}") == f"2 messages are in {file}" == typed(f"/save {file}")
    other = Typed()
    assert "is there already: choose another name" in other(f"/save {file}"), "not its own"
    assert other(f"/load {file}") == f"2 messages of {file}\n> ä\n\nb"
    assert other.conversation.messages == said and other.conversation.system == "S"
    assert other.conversation.settings == {"seed": 3}
    assert other("/save") == "! say which file" and other(f"/load {tmp_path}").startswith("! ")


def test_files_of_the_page_and_wrong_ones(typed: Typed, tmp_path: Path) -> None:
    nodes = {
        "a": {"id": "a", "parent": None, "role": "user", "content": "one"},
        "x": {"id": "x", "parent": "a", "role": "assistant", "content": "left"},
        "b": {"id": "b", "parent": "a", "role": "assistant", "content": "two", "state": "done"},
    }
    chat = {"id": "c", "nodes": nodes, "leaf": "b", "settings": {"system": "S"}}
    file = tmp_path / "page.json"
    file.write_text(json.dumps({"format": "axpress-chats", "version": 1, "chats": [chat]}))
    typed(f"/load {file}")
    assert [m["content"] for m in typed.conversation.everything()] == ["S", "one", "two"]
    for wrong in ("{", "[]x", "3", '{"messages": [{"role": "tool", "content": ""}]}', '[{"role": "user"}]',
                  '{"messages": [], "settings": {"colour": 1}}', '{"messages": [], "settings": {"seed": "x"}}',
                  '{"format": "axpress-chats", "chats": []}'):  # fmt: skip
        file.write_text(wrong)
        assert typed(f"/load {file}") == f"! {file} holds no conversation that /save or the page wrote", wrong
    assert [m["content"] for m in typed.conversation.everything()] == ["S", "one", "two"]


def test_completion(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "some.json").touch()
    (tmp_path / "sub").mkdir()
    for text, found in (
        ("/s", ["/set", "/system", "/save"]),
        ("/set te", ["temperature"]),
        ("/model s", ["second"]),
        (f"/load {tmp_path}/s", [f"{tmp_path}/some.json", f"{tmp_path}/sub/"]),
        ("hello", []),
        ("say /s", []),
    ):
        assert typed.commands.complete(text) == (text.split(" ")[-1], found)


def test_blocks_of_several_lines() -> None:
    assert [is_open(text) for text in ('"""', '"""a\nb', '"""a"""', 'a """', '""')] == [True, True, False, False, False]
    assert message_of('"""a\nb"""') == "a\nb" and message_of('"""\n  a\n"""') == "  a"
    assert message_of(' "quoted" ') == ' "quoted" ' and message_of('"""') == '"""'


def test_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    file = tmp_path / "axpress" / "chat_history"
    history = History()
    for text in ("one", "two\nlines", "two\nlines", '"quoted"'):
        history.add(text)
    assert History().lines == ["one", "two\nlines", '"quoted"'] and stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("bare line\n" * 3)  # of an earlier version
    assert History().lines == ["bare line"] * 3
    file.write_text("".join(f'"{number}"\n' for number in range(2 * KEPT + 1)))
    assert History().lines[-1] == str(2 * KEPT) and len(file.read_text().splitlines()) == KEPT
    monkeypatch.setenv("XDG_STATE_HOME", str(file))  # no directory
    History().add("lost")
