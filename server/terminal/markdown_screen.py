"""An answer as Markdown, while it comes: blocks that are over are printed and stay; the open one is drawn again and
again below them, its end where it is higher than the screen, and printed whole in the end. Needs rich."""

from __future__ import annotations

import re
from time import perf_counter
from typing import TextIO

from markdown_it import MarkdownIt
from rich.console import Console
from rich.markdown import Markdown

from .screens import PlainScreen
from .text import visible

# html, reference, image: rich would leave out what they are made of, and here every word is to be seen.
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable(["reference", "image"])
_SYNC, _SYNC_END = "\x1b[?2026h", "\x1b[?2026l"  # terminals that know it show all between at once
_PADDING = re.compile(r" +((?:\x1b\[[\d;]*m)*)$")  # rich fills lines up; who copies them has no use for that
PATIENCE = 4
"""The open block is drawn when this many times longer has passed as drawing it took."""


def split_blocks(text: str) -> int:
    """How many characters of `text` are blocks that nothing that follows can change: all but the last one, looking at
    whole lines only."""
    whole = text[: text.rfind("\n") + 1]
    starts = [token.map[0] for token in _PARSER.parse(whole) if token.level == 0 and token.map and token.nesting >= 0]
    if len(starts) < 2:
        return 0
    return sum(map(len, whole.split("\n")[: starts[-1]])) + starts[-1]


class MarkdownScreen:
    """A screen of one answer on a terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._console = Console(file=out)
        self._before = PlainScreen(out)
        self._open = self._note = ""
        self._printed = False
        self._shown = (0, 0)  # lines drawn below what stays, and how wide the screen was then
        self._next = 0.0

    def thought(self, piece: str) -> None:
        self._before.thought(piece)

    def text(self, piece: str) -> None:
        self._before.end_of_thought()
        self._open, self._note = self._open + visible(piece).replace("\t", "    "), ""
        done = split_blocks(self._open) if "\n" in piece else 0
        if done:
            finished, self._open = self._open[:done], self._open[done:]
            self._draw(finished)
        elif perf_counter() >= self._next:
            self._draw("")

    def note(self, text: str) -> None:
        self._note = f"({text})"
        self._draw("")

    def end(self, remark: str = "") -> None:
        self._before.end_of_thought()
        finished, self._open, self._note = self._open, "", ""
        self._draw(finished)
        self._out.write(f"({remark})\n" if remark else "")
        self._out.flush()

    def _draw(self, finished: str) -> None:
        """Puts what is over in the place of what was drawn, and the open block below it, in one write."""
        began = perf_counter()
        width, height = self._console.size
        lines, old_width = self._shown
        up = f"\x1b[{lines}A" if lines and width == old_width else ""
        stays = self._rendered(finished)
        self._printed = self._printed or bool(stays)
        drawn = self._rendered(self._open) + ([self._note] if self._note else [])
        drawn = drawn[-max(height - 2, 1) :]
        self._shown = (len(drawn), width)
        everything = "".join(line + "\n" for line in (*stays, *drawn))
        self._out.write(f"{_SYNC}{up}\x1b[J{everything}{_SYNC_END}")
        self._out.flush()
        now = perf_counter()
        self._next = now + PATIENCE * (now - began)

    def _rendered(self, text: str) -> list[str]:
        """The lines of some blocks; an empty one before them where something stands above."""
        if not text.strip():
            return []
        markdown = Markdown("", hyperlinks=False, code_theme="ansi_dark")
        markdown.parsed = _PARSER.parse(text)
        with self._console.capture() as capture:
            self._console.print(markdown)
        lines = [_PADDING.sub(r"\1", line) for line in capture.get().rstrip("\n").split("\n")]
        return ["", *lines] if self._printed else lines
