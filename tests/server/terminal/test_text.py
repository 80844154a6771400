"""Text for terminals: nothing in it drives them, and no word is cut at the margin."""

from __future__ import annotations

import random

import pytest

from axpress.server.terminal.text import WordWrap, cells, visible


def test_answers_cannot_drive_the_terminal() -> None:
    assert visible("eins\u00a0zwei \U0001f468\u200d\U0001f469\u202e") == "eins\u00a0zwei \U0001f468\u200d\U0001f469"
    assert visible("a\x1b[31mb\x07\r\nc\td\x9b") == "a[31mb\nc\td"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two three", ["one two", "three"]),
        ("    code x\ny", ["    code", "x", "y"]),
        ("a  b\n\n c", ["a  b", "", " c"]),
        ("abcdefghijklm no", ["abcdefgh", "ijklm no"]),
        ("日本語です。", ["日本語で", "す。"]),
        ("caf\u0065\u0301 caf\u0065\u0301", ["cafe\u0301", "cafe\u0301"]),
        ("12345678 9", ["12345678", "9"]),
    ],
)
def test_lines_break_between_words(text: str, lines: list[str]) -> None:
    rng = random.Random(1)
    for _ in range(20):
        wrap, said, rest = WordWrap(8), "", text
        while rest:
            size = rng.randint(1, 4)
            said, rest = said + wrap.feed(rest[:size]), rest[size:]
        said += wrap.rest()
        assert said.split("\n") == lines
    assert all(sum(map(cells, line)) <= 8 for line in lines)
