"""Shapes of answers as text of llguidance's grammar language: who may follow whom, and where free text ends.

Lexemes: names in capitals are regular expressions; a rule marked [lazy] ends as soon as it can, so what ends it cannot
occur within."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection
from typing import Any

import orjson

from ..errors import RequestError
from .json_schema import prepare, too_many_branches
from .output_spec import JsonObject, JsonSchema, Lark, OneOf, OutputSpec, Regex, Thinking, ToolFormat, ToolRule

# one way to write it: most of it is certain
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
AFTER_THINKING = "\n\n"
ANY_OBJECT: dict[str, Any] = {"type": "object"}
MAX_TEXT = 128 * 1024  # characters of a regular expression, a grammar, or of all choices
MAX_SCHEMAS = 512 * 1024  # characters of all JSON schemas of one request together
MAX_CHOICES = 20_000


def write(shape: OutputSpec, added_tokens: Collection[str], lead: str = "") -> str:
    """The grammar of a shape that has a body or tools. `added_tokens`: texts that are one token each; a call begins
    where its first one stands. `lead`: what the answer begins with because decoding drops it. Raises RequestError."""
    return _Grammar(shape, added_tokens, lead).text()


def parts(shape: OutputSpec) -> list[tuple[str, OutputSpec]]:
    """(field, shape) of each part that a client wrote: to find out which one is at fault."""
    out = [(_field(shape), OutputSpec(body=shape.body))] if shape.body is not None else []
    return out + [(tool.field, OutputSpec(body=_arguments(tool))) for tool in shape.tools]


def _field(shape: OutputSpec) -> str:
    return getattr(shape.body, "field", "response_format") if shape.body is not None else "tools"


def _arguments(tool: ToolRule) -> JsonSchema | JsonObject:
    return JsonObject() if tool.schema is None else JsonSchema(tool.schema, tool.field)


class _Grammar:
    def __init__(self, shape: OutputSpec, added_tokens: Collection[str], lead: str) -> None:
        self._shape, self._added, self._lead = shape, added_tokens, lead
        self._lines: list[str] = []
        self._schemas = 0  # characters of those written so far
        self._user: str | None = None

    def text(self) -> str:
        shape = self._shape
        begin = (_quoted(self._lead) + " " if self._lead else "") + (
            self._thinking(shape.thinking) if shape.thinking else ""
        )
        self._lines.append(f"start: {begin}answer")
        self._lines.append(f"answer: {self._answer()}")
        if self._user is None:
            return "\n".join(self._lines)
        # certain bytes of a client's own grammar may never end
        self._lines.insert(0, '%llguidance {"no_forcing": true}')
        grammars = [
            {"name": "answer", "lark_grammar": "\n".join(self._lines)},
            {"name": "user", "lark_grammar": self._user},
        ]
        return json.dumps({"grammars": grammars})

    def _rule(self, name: str, definition: str) -> str:
        self._lines.append(f"{name}: {definition}")
        return name.removesuffix("[lazy]")

    def _any(self) -> str:
        if "ANY: /(?s:.*)/" not in self._lines:
            self._rule("ANY", "/(?s:.*)/")
        return "ANY"

    # ---- parts ----

    def _thinking(self, thinking: Thinking) -> str:
        begin = "" if thinking.open else _quoted(thinking.begin) + " "
        self._rule("THOUGHT", f"{begin}{self._any()} {_quoted(thinking.end)}")
        self._rule("thought[lazy]", "THOUGHT")
        self._rule("thinking", f"thought {_quoted(AFTER_THINKING)}")
        return "thinking " if thinking.open else "thinking? "

    def _answer(self) -> str:
        shape = self._shape
        if not shape.tools:
            return self._body()
        if shape.tool_format is None:
            raise ValueError("tools need a tool_format")
        begin, rest = _split(shape.tool_format.begin, self._added)
        self._tail(shape.tools, shape.tool_format, rest)
        more = self._rule("more", f"{_quoted(shape.tool_format.between + begin)} tail") + "*" if shape.parallel else ""
        if shape.tool_choice == "required" or shape.body is not None:
            calls = f"{_quoted(begin)} tail {more}"
            return calls if shape.tool_choice == "required" else f"{self._body()} | {calls}"
        unlike = ""
        if shape.thinking is not None:  # what begins like thinking is thinking
            unlike = f" & ~{self._rule('THINKING', f'{_quoted(shape.thinking.begin)} {self._any()}')}"
        self._rule("TEXT", self._any() + unlike)
        self._rule("HEAD", f"({self._any()} {_quoted(begin)}){unlike}")
        self._rule("head[lazy]", "HEAD")
        return f"TEXT | head tail {more}"

    def _tail(self, tools: tuple[ToolRule, ...], layout: ToolFormat, rest: str) -> None:
        """What follows the beginning of a call."""
        choices = []
        for i, tool in enumerate(tools):
            arguments = self._json(f"arguments_{i}", tool.schema, tool.field, f"the schema of tool '{tool.name}'")
            choices.append(f"{_quoted(rest + tool.name + layout.before_arguments)} {arguments}")
        self._rule("tail", f"({' | '.join(choices)}) {_quoted(layout.end)}")

    def _json(self, name: str, schema: Any, field: str, what: str) -> str:
        prepared = ANY_OBJECT if schema is None else prepare(schema, field, what)
        text = orjson.dumps({"x-guidance": LAYOUT, **prepared}).decode()
        self._schemas += len(text)
        if self._schemas > MAX_SCHEMAS:
            text = f"the schemas of one request have more than {MAX_SCHEMAS} characters together, from {what} on."
            raise RequestError(text, field, "invalid_schema")
        return self._rule(name, f"%json {text}")

    def _body(self) -> str:
        body = self._shape.body
        if isinstance(body, JsonObject):
            return self._json("body", None, "response_format", "")
        if isinstance(body, JsonSchema):
            return self._json("body", body.schema, body.field, "the JSON schema")
        if isinstance(body, Regex):
            return self._rule("body", _pattern(body))
        if isinstance(body, OneOf):
            return self._rule("CHOICE", _choices(body))
        if isinstance(body, Lark):
            self._user = _checked_lark(body)
            return self._rule("body", "@user")
        raise ValueError("an answer without body and tools needs no grammar")


def _split(begin: str, added_tokens: Collection[str]) -> tuple[str, str]:
    """What shows that a call begins, and the rest of its beginning: the first token of its own or <tag>, else all of
    it."""
    token = max((t for t in added_tokens if begin.startswith(t)), key=len, default="")
    tag = re.match(r"<[^<>\s]+>", begin)
    mark = token or (tag.group() if tag else begin)
    return mark, begin[len(mark) :]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _check_size(text: str, what: str, field: str) -> None:
    if len(text) > MAX_TEXT:
        raise RequestError(
            f"{what} has {len(text)} characters; at most {MAX_TEXT} are compiled.", field, "invalid_grammar"
        )


def _pattern(body: Regex) -> str:
    """The pattern as a lexeme. It matches the whole answer, so anchors at its ends say nothing new."""
    _check_size(body.pattern, "the regular expression", body.field)
    pattern = body.pattern.removeprefix("^")
    if pattern.endswith("$") and (len(pattern) - len(pattern[:-1].rstrip("\\"))) % 2:
        pattern = pattern[:-1]
    if not pattern:
        raise RequestError("the regular expression matches nothing but the empty text.", body.field, "invalid_grammar")
    return "/" + re.sub(r"\\.|/|\n", _slash, pattern, flags=re.S) + "/"


def _slash(match: re.Match[str]) -> str:
    return {"/": "\\/", "\n": "\\n", "\\\n": "\\n"}.get(match.group(), match.group())


def _choices(body: OneOf) -> str:
    _check_size("".join(body.strings), "the list of choices", body.field)
    if not body.strings or not any(body.strings):
        raise RequestError(
            "there must be at least one string to choose, and one that is not empty.", body.field, "invalid_grammar"
        )
    if len(body.strings) > MAX_CHOICES:
        raise RequestError(
            f"there are {len(body.strings)} choices; at most {MAX_CHOICES} are compiled.", body.field, "invalid_grammar"
        )
    return " | ".join(map(_quoted, dict.fromkeys(body.strings)))


_ATTRIBUTES = re.compile(r"^[ \t]*[?!]?[\w.-]+(?:::\w+)?(?:\{[^}\n]*\})?[ \t]*\[([^][\n]*)", re.M)
_UNSUPPORTED = re.compile(r"\b(temperature|stop|suffix_capture)\b")
_DEFINITION = re.compile(r"^[ \t]*[?!]?([a-z_][\w-]*+)[^:\n|]*:", re.M)
_BEGINS = re.compile(r"[|(:]\s*([a-z_][\w-]*)?")


def _checked_lark(body: Lark) -> str:
    _check_size(body.text, "the grammar", body.field)
    for attributes in _ATTRIBUTES.finditer(body.text):
        found = _UNSUPPORTED.search(attributes.group(1))
        if found:
            raise RequestError(
                f"the grammar's attribute '{found.group(1)}' is not supported.", body.field, "invalid_grammar"
            )
    for embedded in re.finditer(r"%json\s*(?=\{)", body.text):
        try:
            schema, _ = json.JSONDecoder().raw_decode(body.text, embedded.end())
        except (ValueError, RecursionError):
            continue  # the compiler says why, unless it is within a string
        prepare(schema, body.field, "a JSON schema in the grammar")
    rules = list(_DEFINITION.finditer(body.text))
    ends = [*(one.start() for one in rules[1:]), len(body.text)]
    begun = {one[1]: _BEGINS.findall(body.text, one.end() - 1, end) for one, end in zip(rules, ends, strict=False)}
    if too_many_branches(Counter(re.findall(r"[a-z_][\w-]*", body.text)), begun):
        text = "the grammar has too many references to rules with many alternatives."
        raise RequestError(text, body.field, "invalid_grammar")
    return body.text
