"""Answers as Markdown on a terminal: whatever the pieces and the height of the screen, all of it stands there once."""

from __future__ import annotations

import io
import random
import re

import pytest

from axpress.server.terminal.markdown_screen import MarkdownScreen, split_blocks

ANSWER = """# A title

Some *emphasis*, **bold**, `code`, <b>html</b>, a [link](http://x.example/page), ![picture](http://x.example/p.png) and
a reference of [1].

1. first
   - nested, and long enough to be wrapped where the screen is as narrow as the one of this test is
2. second

   with a paragraph
"""
LONG = "\n".join(f"line{number} = {number}  # counted" for number in range(60))
TABLE = "| name | count |\n|---|--:|\n" + "\n".join(f"| cell{number} | {number} |" for number in range(40))
WHOLE = f"{ANSWER}\n```python\n{LONG}\n```\n\n{TABLE}\n\n[1]: http://x.example/reference\n\n> quoted\n\nThe end."


class Emulated(io.StringIO):
    """A terminal that knows what a screen of ours uses: cursor up, erase below, styles."""

    columns, height = 60, 12

    def __init__(self) -> None:
        super().__init__()
        self.lines, self.row, self.column = [""], 0, 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for match in re.finditer(r"\x1b\[([?\d;]*)([a-zA-Z])|([^\x1b])", text):
            argument, control, character = match.groups()
            if control == "A":
                assert int(argument) < self.height, "above the screen nothing can be changed"
                self.row, self.column = self.row - int(argument), 0
            elif control == "J":
                del self.lines[self.row + 1 :]
                self.lines[self.row] = self.lines[self.row][: self.column]
            elif character == "\n":
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row == len(self.lines))
            elif character:
                line = self.lines[self.row]
                self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
                self.column += 1
                assert self.column <= self.columns
            else:
                assert control in "mhl", match[0]
        return len(text)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Emulated:
    for name, value in {"COLUMNS": "60", "LINES": "12", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Emulated()


@pytest.mark.parametrize("seed", range(4))
def test_every_word_is_shown_once_in_whatever_pieces_it_comes(terminal: Emulated, seed: int) -> None:
    rng, screen, rest = random.Random(seed), MarkdownScreen(terminal), WHOLE
    while rest:
        size = rng.choice((1, 3, 9, 80))
        screen.text(rest[:size])
        rest = rest[size:]
    screen.end()
    lines = [line.rstrip() for line in terminal.lines]
    text = "\n".join(lines)
    for word in ("title", "<b>html</b>", "(http://x.example/page)", "(http://x.example/p.png)", "nested", "paragraph",
                 "http://x.example/reference", "quoted", "end."):  # fmt: skip
        assert text.count(word) == 1, (word, text)
    for number in range(60):
        assert sum(line.strip() == f"line{number} = {number}  # counted" for line in lines) == 1
    assert [re.sub(r"\D+", " ", line).split() for line in lines if "cell" in line] == [[str(n)] * 2 for n in range(40)]
    assert "*" not in text and "```" not in text and "|" not in text


def test_what_is_open_is_on_the_screen_while_it_comes(terminal: Emulated) -> None:
    screen = MarkdownScreen(terminal)
    screen.text("```\n" + "".join(f"row{number}\n" for number in range(100)))
    assert any("row99" in line for line in terminal.lines) and len(terminal.lines) < terminal.height
    screen.note("the card is being brought back")
    assert "(the card is being brought back)" in terminal.lines[-2]
    screen._next = 0.0
    screen.text("row100\n```\n")
    screen.end("stopped")
    text = "\n".join(terminal.lines)
    assert all(f"row{number}" in text for number in range(101))
    assert "brought back" not in text and text.endswith("(stopped)\n")


def test_an_answer_cannot_drive_the_terminal(terminal: Emulated) -> None:
    screen = MarkdownScreen(terminal)
    screen.text("red \x1b[31mtext\x07\n\n`\x1b]0;title\x07`\n")
    screen.end()
    assert "red [31mtext" in terminal.lines[0]


def test_thoughts_are_dimmed_and_stand_before_the_answer(terminal: Emulated) -> None:
    written: list[str] = []
    terminal.write = lambda text: written.append(text) or len(text)
    screen = MarkdownScreen(terminal)
    screen.thought("hm ")
    screen.thought("well")
    screen.text("**Yes**")
    screen.end()
    assert "".join(written).startswith("\x1b[2mhm well\x1b[22m\n\n")


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("one\ntwo", 0),
        ("one\n\ntw", 0),  # the last line could become anything yet
        ("one\n\ntwo\n", 5),
        ("one\n---\n", 0),  # a heading
        ("- a\n\n- b\n", 0),
        ("```\na\n\nb\n\n", 0),
        ("# a\n```\nb\n```\n", 4),
    ],
)
def test_blocks_that_are_over(text: str, done: int) -> None:
    assert split_blocks(text) == done
