"""Keeps what a client wrote apart from what the chat template wrote, through any string operation of the template.

A control token (`<|im_end|>`, `<think>`, ...) counts only where the template itself wrote it. Before rendering, every
character of a client string that could begin a control token is followed by a mark, one Unicode noncharacter that no
client string of this request contains; no control token can then be found there, however the template cuts, joins or
replaces. Strings without such a character are not touched at all, so harmless text is rendered exactly as anywhere
else. Marked strings are `GuardedStr`, whose methods do not see the marks: `'</think>' in content` answers as for plain
text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

NONCHARACTERS = tuple(chr(c) for c in range(0xFDD0, 0xFDF0))
ANY_NONCHARACTER = re.compile("[\ufdd0-\ufdef]")


@dataclass(frozen=True, slots=True)
class ControlToken:
    """A token that only the template may write. `special` ones are also left out of decoded text."""

    text: str
    id: int
    special: bool
    single_word: bool = False
    normalized: bool = False


class GuardedStr(str):
    """Text with marks in it. Methods that templates use act on the text without marks, and keep marks in their results.

    Subclasses made by `Guard` set `_mark` and `_lead` (its `protect_start`). The names begin with an underscore because
    the sandbox hides such attributes from templates."""

    _mark: ClassVar[str] = NONCHARACTERS[0]
    _lead: ClassVar[bool] = False

    @property
    def _plain(self) -> str:
        """The text without marks."""
        return str.replace(self, self._mark, "")

    @classmethod
    def _keep(cls, text: str) -> str:
        """`text` as a GuardedStr if it has marks, else as it is."""
        return cls(text) if cls._mark in text else str.__str__(text)

    @classmethod
    def _wrap(cls, text: str) -> str:
        """Like `_keep`, for the beginning of a client string: adds the mark at its start where one is needed."""
        if cls._lead and text and not text.startswith(cls._mark):
            text = cls._mark + text
        return cls._keep(text)

    def _cutter(self) -> Callable[[int, int], str]:
        """A function that gives the part of this text between two offsets into the plain text, marks included."""
        marks = [m.start() - i for i, m in enumerate(re.finditer(self._mark, self))]
        value = str.__str__(self)

        def cut(start: int, stop: int) -> str:
            if stop <= start:
                return ""
            first = start + bisect_right(marks, start) if start else 0
            return self._wrap(value[first : stop + bisect_right(marks, stop)])

        return cut

    def _pieces(self, parts: Iterable[str], sep: str | None) -> list[str]:
        """The marked form of `parts`, which lie in this order in the plain text, `sep` (None: anything) between
        them."""
        cut, plain, at, out = self._cutter(), self._plain, 0, []
        for part in parts:
            if sep is None:
                at = plain.index(part, at)
            out.append(cut(at, at + len(part)))
            at += len(part) + len(sep or "")
        return out

    def split(self, sep: Any = None, maxsplit: Any = -1) -> list[str]:
        return self._pieces(self._plain.split(_unmarked(sep), maxsplit), _unmarked(sep))

    def rsplit(self, sep: Any = None, maxsplit: Any = -1) -> list[str]:
        return self._pieces(self._plain.rsplit(_unmarked(sep), maxsplit), _unmarked(sep))

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self._pieces(self._plain.splitlines(keepends), None)

    def partition(self, sep: str) -> tuple[str, str, str]:
        head, middle, tail = self._pieces(self._plain.partition(_unmarked(sep)), "")
        return head, middle, tail

    def rpartition(self, sep: str) -> tuple[str, str, str]:
        head, middle, tail = self._pieces(self._plain.rpartition(_unmarked(sep)), "")
        return head, middle, tail

    def strip(self, chars: str | None = None) -> str:
        return self._pieces([self._plain.strip(_unmarked(chars))], None)[0]

    def lstrip(self, chars: str | None = None) -> str:
        return self._pieces([self._plain.lstrip(_unmarked(chars))], None)[0]

    def rstrip(self, chars: str | None = None) -> str:
        return self._pieces([self._plain.rstrip(_unmarked(chars))], "")[0]

    def removeprefix(self, prefix: str) -> str:
        plain = self._plain
        return self._cutter()(len(plain) - len(plain.removeprefix(_unmarked(prefix))), len(plain))

    def removesuffix(self, suffix: str) -> str:
        return self._cutter()(0, len(self._plain.removesuffix(_unmarked(suffix))))

    def replace(self, old: str, new: str, count: Any = -1) -> str:
        if not old:
            return self._keep(str.replace(self, old, new, count))
        return self._keep(new.join(self.split(old, count)))

    def __getitem__(self, key: Any) -> str:
        cut, span = self._cutter(), range(len(self))[key]
        if isinstance(span, int):
            return cut(span, span + 1)
        if span.step == 1:
            return cut(span.start, span.stop)
        return self._wrap("".join(cut(i, i + 1) for i in span))

    def __iter__(self) -> Iterator[str]:
        cut = self._cutter()
        return (cut(i, i + 1) for i in range(len(self)))

    def __add__(self, other: str) -> str:
        return self._keep(str.__add__(self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> str:
        return self._keep(str.__add__(other, self)) if isinstance(other, str) else NotImplemented

    def join(self, parts: Iterable[str]) -> str:
        return self._keep(str.join(self, parts))

    def __str__(self) -> str:
        return self

    def __hash__(self) -> int:
        return hash(self._plain)


def _unmarked(value: Any) -> Any:
    """Arguments of string methods without marks (tuples, as of startswith, too)."""
    if isinstance(value, tuple):
        return tuple(map(_unmarked, value))
    return value._plain if isinstance(value, GuardedStr) else value


def _blind(name: str) -> Callable[..., Any]:
    """The method of str called `name`, asked of the text without marks."""
    method = getattr(str, name)

    def call(self: GuardedStr, *args: Any) -> Any:
        return method(self._plain, *map(_unmarked, args))

    call.__name__ = name
    return call


def _through(name: str) -> Callable[..., Any]:
    """The method of str called `name`, applied to text and marks alike (it moves no characters)."""
    method = getattr(str, name)

    def call(self: GuardedStr) -> str:
        return self._wrap(method(self))

    call.__name__ = name
    return call


_BLIND = (
    *(
        "__contains__",
        "__eq__",
        "__ne__",
        "__lt__",
        "__le__",
        "__gt__",
        "__ge__",
        "__len__",
        "find",
        "rfind",
        "index",
        "rindex",
    ),
    *(
        "count",
        "startswith",
        "endswith",
        "isspace",
        "isdigit",
        "isalpha",
        "isalnum",
        "isnumeric",
        "isdecimal",
        "isupper",
        "islower",
    ),
)
for _name in _BLIND:
    setattr(GuardedStr, _name, _blind(_name))
for _name in ("upper", "lower", "title", "capitalize", "swapcase", "casefold"):
    setattr(GuardedStr, _name, _through(_name))


class Guard:
    """Marks client strings for one choice of `mark`, and finds the control tokens that the template wrote.

    `protect_start`: the template has a literal that ends in the beginning of a control token (`'<|' + role + '|>'`), so
    what follows it must not complete the token: every client string then also starts with a mark.
    """

    def __init__(self, control: Sequence[ControlToken], mark: str, protect_start: bool) -> None:
        self.mark = mark
        self.string_type: type[GuardedStr] = type("GuardedStr", (GuardedStr,), {"_mark": mark, "_lead": protect_start})
        self._by_text = {token.text: token for token in control}
        firsts = {c for token in control for c in _cases(token.text[0])}
        self._first = re.compile(f"[{re.escape(''.join(sorted(firsts)))}]") if firsts else None
        groups = [[t.text for t in control if t.normalized is flag] for flag in (False, True)]
        self._matchers = [_matcher(texts, mark) for texts in groups if texts]

    def protect(self, text: str) -> str:
        """A client string as the template may see it."""
        if self._first is not None and self._first.search(text):
            text = self._first.sub(lambda m: m[0] + self.mark, text)
        return self.string_type._wrap(text)

    def join(self, parts: Iterable[str]) -> str:
        """`''.join`, for Jinja: keeps the type, so that the result of a macro still hides its marks."""
        return self.string_type._keep("".join(parts))

    def parse(self, rendered: str) -> list[str | ControlToken]:
        """Cuts rendered text at the control tokens that the template wrote; the other parts come without marks."""
        parts: list[str | ControlToken] = [str.__str__(rendered)]
        for matcher in self._matchers:
            parts = [
                new
                for part in parts
                for new in ([part] if isinstance(part, ControlToken) else self._cut(matcher, part))
            ]
        plain = (p if isinstance(p, ControlToken) else p.replace(self.mark, "") for p in parts)
        return [p for p in plain if p]

    def _cut(self, matcher: re.Pattern[str], text: str) -> Iterator[str | ControlToken]:
        at = 0
        for match in matcher.finditer(text):
            token = self._by_text[match[0]]
            if token.single_word and self._inside_word(text, match.start(), match.end()):
                continue
            yield text[at : match.start()]
            yield token
            at = match.end()
        yield text[at:]

    def _inside_word(self, text: str, start: int, stop: int) -> bool:
        before = text[:start].rstrip(self.mark)[-1:]
        after = text[stop:].lstrip(self.mark)[:1]
        return any(re.match(r"\w", c) for c in (before, after))


def _cases(char: str) -> set[str]:
    """`char` and the single characters that a template's upper or lower could turn into it."""
    return {char} | {c for c in (char.lower(), char.upper()) if len(c) == 1}


def _matcher(texts: list[str], mark: str) -> re.Pattern[str]:
    """Matches the longest of `texts`, in time that does not grow with their number."""
    trie: dict[str, Any] = {}
    for text in texts:
        node = trie
        for char in text:
            node = node.setdefault(char, {})
        node[""] = {}
    single = [t for t in texts if len(t) == 1]
    pattern = _trie_pattern(trie)
    # A one-character token has no inside for a mark to stand in: the mark after it must do.
    return re.compile(f"(?!(?:{'|'.join(map(re.escape, single))}){mark}){pattern}" if single else pattern)


def _trie_pattern(node: dict[str, Any]) -> str:
    prefix = ""
    while len(node) == 1 and "" not in node:
        char, node = next(iter(node.items()))
        prefix += re.escape(char)
    branches = [re.escape(char) + _trie_pattern(child) for char, child in node.items() if char]
    if not branches:
        return prefix
    return f"{prefix}(?:{'|'.join(branches)}){'?' if '' in node else ''}"


def ends_open(literals: Iterable[str], control: Sequence[ControlToken]) -> bool:
    """True if a literal ends in the beginning of a control token, so that the text after it could complete one."""
    prefixes = {t.text[:n] for t in control for n in range(1, len(t.text))}
    longest = max(map(len, prefixes), default=0)
    return any(text[-n:] in prefixes for text in literals for n in range(1, min(longest, len(text)) + 1))
