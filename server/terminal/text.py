"""Text for terminals: nothing in it that drives them, and lines that break between words."""

from __future__ import annotations

import re
import unicodedata

_DRIVES_TERMINALS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """`text` without control characters other than newline and tab, and without overrides of the writing direction."""
    return _DRIVES_TERMINALS.sub("", text)


def cells(character: str) -> int:
    """The columns it takes."""
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


class WordWrap:
    """Breaks text that comes in pieces into lines of at most `width` columns, between words where there are any."""

    def __init__(self, width: int) -> None:
        self._width = max(width, 1)
        self._column = 0
        self._gap = self._word = ""
        self._size = 0  # of the word, in columns

    def feed(self, piece: str) -> str:
        """What is to be written now; the word that is not over yet comes later."""
        out: list[str] = []
        for character in piece.replace("\t", "    "):
            if character in "\n ":
                out.append(self.rest())
                if character == " ":
                    self._gap += " "
                    continue
                out.append("\n")
                self._column, self._gap = 0, ""
                continue
            size = cells(character)
            if size == 2 or self._size + size > self._width:  # scripts without spaces; words longer than a line
                out.append(self.rest())
            self._word, self._size = self._word + character, self._size + size
        return "".join(out)

    def rest(self) -> str:
        """The word that was held back."""
        if not self._word:
            return ""
        gap, word, end = self._gap, self._word, self._column + len(self._gap) + self._size
        if end > self._width and self._column:
            gap, end = "\n", self._size
        self._column, self._gap, self._word, self._size = end, "", "", 0
        return gap + word
