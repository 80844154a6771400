"""Token ids back to text while they arrive: whole characters only, and never a part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import RequestError

REPLACEMENT = "\ufffd"


@dataclass(frozen=True, slots=True)
class Pieces:
    """What each token id stands for. Index = token id.

    `data`: its bytes within a text (an empty string for ids that no token has); `special`: ids left out of decoded
    text; `strip`: how many leading spaces a decoded text loses; `strip_first`: it loses all spaces of its first token
    instead (the Metaspace rule). `join` is set where tokens are not simply strings of bytes: it decodes a list of
    `tokens`."""

    data: list[bytes]
    special: frozenset[int]
    strip: int = 0
    strip_first: bool = False
    join: Callable[[list[str]], str] | None = None
    tokens: list[str] = field(default_factory=list)


class HasPieces(Protocol):
    """A `Tokenizer`, for one."""

    @property
    def pieces(self) -> Pieces: ...


class Detokenizer:
    """Text of one answer. What `push` and `flush` return, joined, is `Tokenizer.decode` of all ids.

    A character whose bytes come in several tokens appears with its last one. Bytes that cannot become UTF-8 appear as
    U+FFFD as soon as that is certain (so a valid character beside them survives; the `tokenizers` library's
    byte-fallback decoder would replace the whole run)."""

    def __init__(self, text: HasPieces, skip_special_tokens: bool = True) -> None:
        self._pieces = pieces = text.pieces
        self._data = pieces.data
        self._skip: frozenset[int] = pieces.special if skip_special_tokens else frozenset()
        self._strip = pieces.strip
        self._first = pieces.strip_first
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._window: list[str] = []
        self._shown = 0

    def push(self, token_id: int) -> str:
        """The text that this token completes; often one word, sometimes empty."""
        if token_id in self._skip or not 0 <= token_id < len(self._data):
            return ""
        if self._pieces.join is not None:
            return self._push_joined(self._pieces.tokens[token_id])
        data = self._data[token_id]
        if self._strip or self._first:
            data = self._lead(data)
        return self._decode(data)

    def flush(self) -> str:
        """The rest: U+FFFD for a character that was never completed."""
        if self._pieces.join is not None:
            return self._grown(final=True)
        return self._decode(b"", True)

    def _lead(self, data: bytes) -> bytes:
        """Applies the leading-space rule to the first token(s)."""
        if self._first:
            self._first = False
            return data.replace(b" ", b"")
        while self._strip and data.startswith(b" "):
            data, self._strip = data[1:], self._strip - 1
        if data:
            self._strip = 0
        return data

    def _push_joined(self, token: str) -> str:
        if not token:
            return ""
        self._window.append(token)
        return self._grown(final=False)

    def _grown(self, final: bool) -> str:
        """For decoders with rules of their own: decodes a short window twice and returns by how much the text grew."""
        join = self._pieces.join
        assert join is not None
        before = join(self._window[: self._shown]) if self._shown else ""
        after = join(self._window) if self._window else ""
        if not final and after.endswith(REPLACEMENT) and len(self._window) < self._shown + 4:
            return ""
        self._window = self._window[self._shown :] if self._shown < len(self._window) else self._window
        self._shown = len(self._window)
        return after[len(before) :]


def check_stop(stop: Sequence[str]) -> tuple[str, ...]:
    """`stop` as a tuple without repeats; RequestError for an empty string, which would stop everything."""
    if not all(stop):
        raise RequestError("a stop string must not be empty", "stop")
    return tuple(dict.fromkeys(stop))


class StopChecker:
    """Passes text on, except what is, or may still become, a stop string.

    The answer ends where the first stop string is complete (the longest, if several end there); it and all after it is
    dropped. What comes up to the end of the first `after` is not looked at, unless the answer does not begin (blanks
    aside) with `begin`. The result does not depend on how the text is cut into pushes. Cost per character is constant,
    whatever the length of the stop strings. Raises RequestError for an empty stop string."""

    def __init__(self, stop: Sequence[str], after: str = "", begin: str = "") -> None:
        self.matched: str | None = None
        self._after = after if stop else ""
        self._begin = begin if self._after else ""
        self._lead = ""  # what may be the beginning of `begin`
        self._tail = ""  # what may be the beginning of `after`
        self._stop = check_stop(stop)
        self._borders = [_borders(s) for s in self._stop]
        self._states = [0] * len(self._stop)
        self._firsts = frozenset(s[0] for s in self._stop)
        self._held = ""

    def push(self, text: str) -> str:
        """The text that can be shown now. Sets `matched` to the stop string once there is one; then nothing more
        comes."""
        if self.matched is not None:
            return ""
        if self._begin:
            return self._push_first(text)
        if self._after:
            return self._push_before(text)
        if not self._held and self._firsts.isdisjoint(text):
            return text
        ends = [(self._advance(index, text), stop) for index, stop in enumerate(self._stop)]
        matches = [(end, -len(stop), stop) for end, stop in ends if end is not None]
        whole = self._held + text
        if matches:
            end, _, self.matched = min(matches)
            self._held = ""
            return whole[: len(whole) - len(text) + end - len(self.matched)]
        shown = len(whole) - max(self._states)
        self._held = whole[shown:]
        return whole[:shown]

    def _push_first(self, text: str) -> str:
        """Holds text back until it is known whether it begins with `begin`."""
        text = self._lead + text
        begun = text.lstrip()
        if len(begun) < len(self._begin) and self._begin.startswith(begun):
            self._lead = text
            return ""
        self._after = self._after if begun.startswith(self._begin) else ""
        self._begin = self._lead = ""
        return self.push(text)

    def _push_before(self, text: str) -> str:
        """Passes text on up to the end of `after`; from there on stop strings count."""
        seen = self._tail + text
        at = seen.find(self._after)
        if at < 0:
            self._tail = seen[max(0, len(seen) - len(self._after) + 1) :]
            return text
        begin = at + len(self._after) - len(self._tail)
        self._after = self._tail = ""
        return text[:begin] + self.push(text[begin:])

    def flush(self) -> str:
        """The held-back text, when the answer ends for another reason."""
        lead, self._lead, self._begin = self._lead, "", ""
        if lead:
            self._after = ""
            lead = self.push(lead)
        held, self._held = self._held, ""
        self._states = [0] * len(self._stop)
        return lead + held

    def _advance(self, index: int, text: str) -> int | None:
        """Runs one stop string over `text`; the offset after its first complete occurrence, or None."""
        stop, borders, state = self._stop[index], self._borders[index], self._states[index]
        at = 0
        while at < len(text):
            if not state:
                at = text.find(stop[0], at)
                if at < 0:
                    break
            while state and text[at] != stop[state]:
                state = borders[state - 1]
            state += text[at] == stop[state]
            at += 1
            if state == len(stop):
                return at
        self._states[index] = state
        return None


def _borders(text: str) -> list[int]:
    """For each prefix of `text` the length of its longest proper prefix that is also its suffix
    (Knuth-Morris-Pratt)."""
    out = [0] * len(text)
    state = 0
    for at in range(1, len(text)):
        while state and text[at] != text[state]:
            state = out[state - 1]
        state += text[at] == text[state]
        out[at] = state
    return out
