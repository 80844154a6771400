"""Takes an answer's text apart: reasoning, content, calls of functions with their arguments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from axpress.core.request import Delta
from axpress.core.structured_output.output_spec import Thinking, ToolFormat

_MARKS = re.compile(r'["\\{}\[\]]')


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer. `kind` "call" begins call number `call` of the function named `text`; "arguments" goes on
    with its JSON."""

    kind: Literal["content", "reasoning", "call", "arguments"]
    text: str
    call: int = 0


class OutputParser:
    """Reads one answer as it comes. What might still turn out to be a tag is held back until it is known.

    The tags, newlines beside those of reasoning and blanks beside those of calls are not part of any piece. An answer
    that is cut off in the middle of a call gives the arguments so far (`call_open`); one that is cut off before the
    function's name is complete gives nothing of that call; nor of its tag, where `only_calls` come. `reasoning_tokens`
    counts the tags too; where several tokens came as one piece of text, it is by their share of the characters."""

    def __init__(self, thinking: Thinking | None, tools: ToolFormat | None, only_calls: bool = False) -> None:
        self.reasoning_tokens = 0
        self.num_calls = 0
        self._thinking, self._tools = thinking or Thinking(), tools
        self._only_calls = only_calls
        self._rest = ""
        self._state: Literal["start", "reasoning", "content", "name", "arguments", "end"] = "content"
        if thinking is not None:
            self._state = "reasoning" if thinking.open else "start"
        self._trim = "\n" if self._state == "reasoning" else ""
        self._json = _Json()

    @property
    def call_open(self) -> bool:
        """Whether a call has begun and not ended."""
        return self._state in ("name", "arguments", "end")

    def read(self, deltas: Sequence[Delta]) -> list[Piece]:
        """The pieces that these deltas bring; the last delta of the answer (with `finish_reason`) brings all that was
        held back."""
        out: list[Piece] = []
        for delta in deltas:
            reasoned = self._state in ("start", "reasoning")
            self._rest += delta.text
            out += self._feed(delta.finish_reason is not None)
            if reasoned:
                self._count(delta)
        return out

    def _count(self, delta: Delta) -> None:
        """Count the tokens of a delta that began before the end of the reasoning."""
        if self._state in ("start", "reasoning"):
            self.reasoning_tokens += delta.num_tokens
        elif self._after_reasoning is None:  # there was none
            self.reasoning_tokens = 0
        else:
            share = 1 - min(self._after_reasoning, len(delta.text)) / max(1, len(delta.text))
            self.reasoning_tokens += min(delta.num_tokens, max(1, round(share * delta.num_tokens)))

    _after_reasoning: int | None = None
    """Characters that were there beyond the end of the reasoning when it was found."""

    def _feed(self, over: bool) -> list[Piece]:
        """Take from the unread text what can be told by now: all of it when the answer is `over`."""
        out: list[Piece] = []
        step = {
            "start": self._start, "reasoning": self._reasoning, "content": self._content,
            "name": self._name, "arguments": self._arguments, "end": self._end,
        }  # fmt: skip
        while step[self._state](out, over):
            pass
        return out

    # Each of these takes from `_rest`, adds to `out`, and returns whether another one goes on from there.

    def _start(self, out: list[Piece], over: bool) -> bool:
        """Before the first letter: is this reasoning?"""
        beginning, tag = self._rest.lstrip(), self._thinking.begin
        if beginning.startswith(tag):
            self._state, self._rest, self._trim = "reasoning", beginning[len(tag) :], "\n"
            return True
        if tag.startswith(beginning) and not over:
            return False
        self._state = "content"
        return True

    def _reasoning(self, out: list[Piece], over: bool) -> bool:
        tag = self._thinking.end
        at = self._rest.find(tag)
        if at >= 0:
            self._say(out, "reasoning", self._rest[:at].rstrip("\n"))
            self._state, self._rest, self._trim = "content", self._rest[at + len(tag) :], "\n"
            self._after_reasoning = len(self._rest)
            return True
        self._say_known(out, "reasoning", tag, "\n", over)
        return False

    def _content(self, out: list[Piece], over: bool) -> bool:
        if self._tools is None:
            self._say(out, "content", self._rest)
            self._rest = ""
            return False
        tag = self._tools.begin
        at = self._rest.find(tag)
        if at >= 0:
            self._say(out, "content", self._rest[:at].rstrip())
            self._state, self._rest = "name", self._rest[at + len(tag) :]
            return True
        held = _overlap(self._rest, tag)
        if over and held and (self._only_calls or ">" in tag[:held]):  # a call that was cut off, not text
            self._say(out, "content", self._rest[:-held].rstrip())
            self._state, self._rest = "name", ""
            return False
        self._say_known(out, "content", tag, " \n\r\t", over)
        return False

    def _name(self, out: list[Piece], over: bool) -> bool:
        assert self._tools is not None
        name, mark, rest = self._rest.partition(self._tools.before_arguments)
        if not mark:
            return False
        out.append(Piece("call", name, self.num_calls))
        self.num_calls += 1
        self._state, self._rest, self._json = "arguments", rest, _Json()
        return True

    def _arguments(self, out: list[Piece], over: bool) -> bool:
        length = self._json.scan(self._rest)
        if length:
            out.append(Piece("arguments", self._rest[:length], self.num_calls - 1))
        self._rest = self._rest[length:]
        if not self._json.complete:
            return False
        self._state = "end"
        return True

    def _end(self, out: list[Piece], over: bool) -> bool:
        assert self._tools is not None
        tag = self._tools.end
        if not self._rest.startswith(tag) and (tag.startswith(self._rest) or over):
            return False
        self._state, self._rest, self._trim = "content", self._rest.removeprefix(tag), " \n\r\t"
        return True

    def _say_known(
        self, out: list[Piece], kind: Literal["content", "reasoning"], tag: str, blanks: str, over: bool
    ) -> None:
        """The unread text but for an end that may be the beginning of `tag`, or blanks before it."""
        end = len(self._rest) - _overlap(self._rest, tag)
        known = len(self._rest) if over else len(self._rest[:end].rstrip(blanks))
        self._say(out, kind, self._rest[:known])
        self._rest = self._rest[known:]

    def _say(self, out: list[Piece], kind: Literal["content", "reasoning"], text: str) -> None:
        if self._trim:
            text = text.lstrip(self._trim)
        if text:
            self._trim = ""
            out.append(Piece(kind, text))


def pieces(parser: OutputParser | None, deltas: Sequence[Delta]) -> list[Piece]:
    """The pieces that these deltas bring; without a parser, an answer is content and nothing else."""
    if parser is not None:
        return parser.read(deltas)
    text = "".join([delta.text for delta in deltas])
    return [Piece("content", text)] if text else []


def _overlap(text: str, tag: str) -> int:
    """How many of the last characters of `text` are the first ones of `tag`, which is not in it."""
    at = text.find(tag[0], max(0, len(text) - len(tag) + 1))
    while at >= 0 and not tag.startswith(text[at:]):
        at = text.find(tag[0], at + 1)
    return 0 if at < 0 else len(text) - at


class _Json:
    """Follows a JSON object to its end."""

    def __init__(self) -> None:
        self.complete = False
        self._depth = 0
        self._string = self._escape = False

    def scan(self, text: str) -> int:
        """How many characters of `text` belong to the object; where it ends, `complete`."""
        at = 0
        while at < len(text):
            if self._escape:  # the character after a backslash
                self._escape = False
                at += 1
                continue
            mark = _MARKS.search(text, at)
            if mark is None:
                break
            at = mark.end()
            if self._mark(mark[0]):
                return at
        return len(text)

    def _mark(self, mark: str) -> bool:
        """Take note of one mark; whether it was the last."""
        if self._string:
            self._string, self._escape = mark != '"', mark == "\\"
        elif mark == '"':
            self._string = True
        elif mark in "{[":
            self._depth += 1
        elif mark in "}]":
            self._depth -= 1
            self.complete = self._depth == 0
        return self.complete
