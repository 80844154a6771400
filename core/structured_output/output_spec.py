"""What an answer must look like, in the words of an API: what `GrammarCompiler.compile` makes into a constraint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class JsonObject:
    """Any JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """JSON that validates against a JSON schema (draft 2020-12). `field` is the request's field, for errors."""

    schema: Mapping[str, Any] | bool
    field: str = "response_format"


@dataclass(frozen=True, slots=True)
class Regex:
    """Text that a regular expression matches as a whole: Rust's syntax, without lookaround and lazy quantifiers."""

    pattern: str
    field: str = "guided_regex"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of these strings."""

    strings: tuple[str, ...]
    field: str = "guided_choice"


@dataclass(frozen=True, slots=True)
class Lark:
    """Text of a context-free grammar in llguidance's variant of Lark."""

    text: str
    field: str = "guided_grammar"


Body = JsonObject | JsonSchema | Regex | OneOf | Lark


@dataclass(frozen=True, slots=True)
class ToolRule:
    """A function that may be called. `schema` is that of its arguments; None: any JSON object. `field` is the
    request's, for errors."""

    name: str
    schema: Mapping[str, Any] | None = None
    field: str = "tools"


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a call is written: `begin` name `before_arguments` arguments `end`, and `between` two calls.

    As Qwen3 does it: '<tool_call>\\n{"name": "', '", "arguments": ', '}\\n</tool_call>', '\\n'.
    """

    begin: str
    before_arguments: str
    end: str
    between: str = "\n"


@dataclass(frozen=True, slots=True)
class Thinking:
    """Reasoning that comes before the answer proper, between two marks. `open`: the prompt already ends inside it."""

    begin: str = "<think>"
    end: str = "</think>"
    open: bool = False


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What an answer consists of: perhaps thinking, then calls of tools or a body (None: free text).

    `tool_choice` "auto": free text, or the body, with calls where the model begins one; "required": calls only, at
    least one. `parallel` False: at most one call."""

    body: Body | None = None
    tools: tuple[ToolRule, ...] = ()
    tool_format: ToolFormat | None = None
    tool_choice: Literal["auto", "required"] = "auto"
    parallel: bool = True
    thinking: Thinking | None = None
