"""How an answer is written while it comes: raw into pipes, wrapped, or as Markdown (markdown_screen.py)."""

from __future__ import annotations

import os
import shutil
from typing import Protocol, TextIO

from .text import WordWrap, visible


class Screen(Protocol):
    """Takes one answer: what the model thinks, then its text, both in pieces."""

    def thought(self, piece: str) -> None:
        """A piece of what the model thinks before it answers."""

    def text(self, piece: str) -> None:
        """A piece of the answer."""

    def note(self, text: str) -> None:
        """Why nothing comes; until something comes again."""

    def end(self, remark: str = "") -> None:
        """That was all; `remark`: why, where somebody has to know."""


class RawScreen:
    """For pipes and files: the answer's text as the model writes it, but for what drives terminals."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def thought(self, piece: str) -> None:
        return

    def text(self, piece: str) -> None:
        self._out.write(visible(piece))
        self._out.flush()

    def note(self, text: str) -> None:
        return

    def end(self, remark: str = "") -> None:
        self._out.write("\n")
        self._out.flush()


class PlainScreen:
    """For terminals: words are not cut at the margin, and what the model thinks is dimmed, or marked by words where
    nothing can be dimmed."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        self._begin, self._end = ("(thinking) ", "") if plain else ("\x1b[2m", "\x1b[22m")
        self._wrap = WordWrap(shutil.get_terminal_size().columns)
        self._thinks = False

    def thought(self, piece: str) -> None:
        if not self._thinks:
            self._thinks = True
            self._out.write(self._begin)
        self._write(self._wrap.feed(visible(piece)))

    def text(self, piece: str) -> None:
        self.end_of_thought()
        self._write(self._wrap.feed(visible(piece)))

    def end_of_thought(self) -> None:
        """What comes next is no thought."""
        if self._thinks:
            self._thinks = False
            self._write(self._wrap.rest() + self._end + "\n\n")
            self._wrap = WordWrap(shutil.get_terminal_size().columns)

    def note(self, text: str) -> None:
        self._write(f"{self._wrap.rest()}\n({text})\n")
        self._wrap = WordWrap(shutil.get_terminal_size().columns)

    def end(self, remark: str = "") -> None:
        self.end_of_thought()
        self._write(self._wrap.rest() + "\n" + (f"({remark})\n" if remark else ""))

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
