"""Schemas, regular expressions and grammars that must do no harm: refused in words, or obeyed, in bounded time and
memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from documented_client import WITH_BODY, Client, looks_during, served, short
from fuzz_api import ask_schemas, resident

from axpress.server.docs.openapi import operation_id
from axpress.server.docs.routes import Route

BY_PATH = {route.path: route for route in WITH_BODY}
CHAT = BY_PATH["/v1/chat/completions"]
Schema = Any


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with served(max_growth=800 << 20) as client:  # a compiler that is handed a megabyte takes a few hundred, once
        yield client


def _function(schema: Schema) -> dict[str, Any]:
    return {"name": "f", "parameters": schema}


PLACES: dict[str, tuple[str, Callable[[Schema], dict[str, Any]]]] = {
    "response_format": (
        "/v1/chat/completions", lambda s: {"response_format": {"type": "json_schema",
        "json_schema": {"name": "x", "schema": s}}},
    ),
    "guided_json": ("/v1/chat/completions", lambda s: {"guided_json": s}),
    "structured_outputs": ("/v1/chat/completions", lambda s: {"structured_outputs": {"json": s}}),
    "tools": (
        "/v1/chat/completions", lambda s: {"tools": [{"type": "function", "function": _function(s)}],
        "tool_choice": "required"},
    ),
    "functions": ("/v1/chat/completions", lambda s: {"functions": [_function(s)], "function_call": {"name": "f"}}),
    "responses.text": ("/v1/responses", lambda s: {"text": {"format": {"type": "json_schema", "name": "x",
    "schema": s}}}),
    "responses.tools": ("/v1/responses", lambda s: {"tools": [{"type": "function", **_function(s)}],
    "tool_choice": "required"}),
    "messages.output_config": (
        "/v1/messages", lambda s: {"output_config": {"format": {"type": "json_schema", "schema": s}}}
    ),
    "messages.tools": (
        "/v1/messages", lambda s: {"tools": [{"name": "f", "input_schema": s}], "tool_choice": {"type": "any"}}
    ),
    "ollama.format": ("/api/chat", lambda s: {"format": s}),
    "ollama.tools": ("/api/chat", lambda s: {"tools": [{"type": "function", "function": _function(s)}]}),
    "ollama.generate": ("/api/generate", lambda s: {"format": s}),
}  # fmt: skip


def chain(kind: str, length: int) -> Schema:
    """Each definition names the next one twice: 2 to the power of `length`, written out."""
    defs: dict[str, Any] = {f"d{i}": {kind: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(length)}
    defs[f"d{length}"] = {"type": "object", "properties": {"a": {"type": "integer"}}}
    return {"$ref": "#/$defs/d0", "$defs": defs}


def nested(depth: int) -> Schema:
    """An object in an object in an object."""
    schema: Schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def twice(length: int) -> Schema:
    """Properties that hold the next level twice: as deep as `length`, and 2 to the power of it wide."""
    defs: dict[str, Any] = {
        f"d{i}": {
            "type": "object",
            "properties": {name: {"$ref": f"#/$defs/d{i + 1}"} for name in "ab"},
            "required": ["a", "b"],
        }
        for i in range(length)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{length}": {"type": "null"}}}


def properties(count: int, size: int = 8) -> Schema:
    """Many properties, all needed."""
    names = [f"{i:x}".zfill(size) for i in range(count)]
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}


def arrays(items: Schema) -> Schema:
    """Not a few of these."""
    return {"type": "array", "minItems": 500, "items": items}


OBJECT = {"type": "object"}
BOMBS: dict[str, Schema] = {
    "itself": {"$ref": "#"},
    "each other": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "all of itself": {"allOf": [{"$ref": "#"}]},
    "any of itself": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    "never ends": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "a tree": {"type": "object", "properties": {"a": {"type": "array", "items": {"$ref": "#"}}}},
    "ref to nothing": {"$ref": "#/$defs/nothing"},
    "ref out of here": {"$ref": "../../etc/passwd"},
    "ref by number": {"$ref": 5},
    "strange ref": {"$ref": "#/%00/~2/../x"},
    "recursive anchors": {"$anchor": "a", "$dynamicRef": "#a"},
    "anyOf of anyOf": chain("anyOf", 40),
    "allOf of allOf": chain("allOf", 40),
    "oneOf of oneOf": chain("oneOf", 40),
    "twice": twice(22),
    "deep": nested(40),
    "much too deep": nested(300),
    "many properties": properties(800),
    "a megabyte": properties(1500, 700),
    "a megabyte of enum": {"enum": ["x" * 1000 + str(i) for i in range(1000)]},
    "a megabyte of pattern": {"type": "string", "pattern": "a" * 1_000_000},
    "long enum": {"enum": list(range(20_000))},
    "long constant": {"const": "x" * 200_000},
    "huge arrays": {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
    "huge array bounds": {"type": "array", "items": {"type": "integer"}, "minItems": 10**5, "maxItems": 2 * 10**5},
    "nested arrays": arrays(arrays(arrays({"type": "null"}))),
    "huge strings": {"type": "string", "minLength": 10**9},
    "long strings": {"type": "string", "minLength": 10**4, "maxLength": 10**5},
    "negative counts": {"type": "string", "minLength": -1, "maxLength": -5},
    "huge numbers": {"type": "integer", "minimum": 10**30, "maximum": 10**300},
    "tiny steps": {"type": "number", "multipleOf": 1e-300},
    "no step": {"type": "integer", "multipleOf": 0},
    "bounds that cross": {"type": "integer", "minimum": 5, "maximum": 1},
    "not anything": {"not": {}},
    "no value": {"enum": []},
    "not a type": {"type": "wizard"},
    "types of types": {"type": [[]]},
    "properties as a list": {"type": "object", "properties": []},
    "required as text": {"type": "object", "required": "a"},
    "required and absent": {"type": "object", "required": ["a"], "properties": {}, "additionalProperties": False},
    "items as a number": {"type": "array", "items": 7},
    "unbalanced pattern": {"type": "string", "pattern": "("},
    "nested stars": {"type": "string", "pattern": "^(((a+)+)+)+$"},
    "alternated stars": {"type": "string", "pattern": "^(a|a|aa)*b$"},
    "stars before stars": {"type": "string", "pattern": ".*.*.*.*.*.*.*.*.*.*x"},
    "a distant letter": {"type": "string", "pattern": "(.*a.{12}){3}"},
    "counted counts": {"type": "string", "pattern": "((a{1,1000}){1,1000}){1,1000}"},
    "lookbehind": {"type": "string", "pattern": "(?<=a)b(?!c)\\1"},
    "strange format": {"type": "string", "format": "{{ 7*7 }}"},
    "pattern properties": {"type": "object", "patternProperties": {"(a+)+$": {"type": "integer"}, "(": {}}},
    "dependent": {"type": "object", "dependentSchemas": {"a": {"$ref": "#"}}, "if": {"$ref": "#"}, "then": False},
    "unevaluated": {"type": "object", "unevaluatedProperties": {"$ref": "#"}},
    "control characters": {
        "type": "object",
        "properties": {"\x00\x1b\u202e": {"const": "\x00\n"}},
        "required": ["\x00\x1b\u202e"],
    },
    "control tokens": {
        "type": "object",
        "properties": {"<|im_end|>": {"const": "<|im_start|>system"}},
        "required": ["<|im_end|>"],
    },
    "dunder": {"type": "object", "properties": {"__class__": {"const": "{{ 7*7 }}"}}, "required": ["__class__"]},
}


@pytest.mark.parametrize("name", BOMBS)
def test_schemas(client: Client, name: str) -> None:
    for place, (path, fields) in PLACES.items():
        status, _ = client.post(BY_PATH[path], short(BY_PATH[path], **fields(BOMBS[name])))
        assert status in (200, 400), place
    assert client.post(CHAT, short(CHAT))[0] == 200


REGEXES = [
    "(", ")", "[", "*a", "a{2,1}", "\\", "(?P<", "\\p{Nope}", "(?i)a", "(?<=a)b", "a(?!b)", "(a)\\1", "^$", "$a^",
    "\\b", "a*?", "",
    "(a+)+$", "(((a+)+)+)+b", "(a|a)*b", "(a|aa)+c", "(.*)*x", ".*" * 40 + "x", "(.*a.{14}){2}", "a{1000000000}",
    "(a{1,1000}){1,1000}",
    "((a{1,500}){1,500}){1,500}", "(x?){2000}x{2000}", "\\u{110000}", "\\x00", "[^\\x00-\\x7f]+", "\\d" * 4000,
    "(" * 4000 + ")" * 4000,
    "a" * 8192, "|".join(f"w{i}" for i in range(1500)), ".{1,5000}",
]  # fmt: skip


@pytest.mark.parametrize("pattern", REGEXES, ids=lambda one: one[:20])
def test_regular_expressions(client: Client, pattern: str) -> None:
    for fields in ({"guided_regex": pattern}, {"structured_outputs": {"regex": pattern}}):
        assert client.post(CHAT, short(CHAT, **fields))[0] in (200, 400)
    assert client.post(CHAT, short(CHAT))[0] == 200


GRAMMARS = [
    "start: start", "start: a\na: b\nb: a", "start: x", "", "start:", 'start: "a" start | start start', "start: /(/",
    'start: "a"{1000000000}', 'start: ((("a"*)*)*)*', "%import common.WORD\nstart: WORD", 'start: %json {"$ref": "#"}',
    "start: %regex {",
    "\x00", 'start: "<|im_end|>"', "start: <|im_end|>", "start: <[0]>", "start: <[4294967295]>",
    "start: " + "(" * 3000 + '"a"' + ")" * 3000, "start: " + " | ".join(f'"w{i}"' for i in range(5000)),
    "start: a0\n" + "\n".join(f"a{i}: a{i + 1} a{i + 1}" for i in range(60)) + '\na60: "x"',
    'start: "a"\nstart: "b"', 'Start: "a"', '%llguidance {"no_forcing": 5}\nstart: "a"',
]  # fmt: skip


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda one: one[:20])
def test_grammars(client: Client, grammar: str) -> None:
    assert client.post(CHAT, short(CHAT, guided_grammar=grammar))[0] in (200, 400)
    assert client.post(CHAT, short(CHAT))[0] == 200


def test_choices_that_are_none(client: Client) -> None:
    for choice in ([], [""], "x", [1], [None], {}, ["x"] * 2000, ["\ud800"], ["x" * 5000]):
        assert "guided_choice" in client.refused(CHAT, short(CHAT, guided_choice=choice))
    status, answer = client.post(CHAT, short(CHAT, guided_choice=["<|im_end|>", "<|im_end|>"], max_tokens=50))
    assert status == 200 and answer["choices"][0]["message"]["content"] == "<|im_end|>"


def test_two_forms_are_refused(client: Client) -> None:
    for fields in (
        {"guided_json": OBJECT, "guided_regex": "a"},
        {"guided_choice": ["a"], "response_format": {"type": "json_object"}},
    ):
        client.refused(CHAT, short(CHAT, **fields))


WITH_TOOLS = [BY_PATH[path] for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat")]


@pytest.mark.parametrize("route", WITH_TOOLS, ids=operation_id)
def test_names_of_functions(client: Client, route: Route) -> None:
    for name in ("", "a b", "a" * 65, "é", "a\n", "../x", "<|im_end|>", "{{ x }}", 5, None):
        one = {"name": name, "parameters": OBJECT}
        tools = {"/v1/responses": {"type": "function", **one}, "/v1/messages": {"name": name, "input_schema": OBJECT}}
        tool = tools.get(route.path, {"type": "function", "function": one})
        client.refused(route, short(route, tools=[tool]))


def test_what_is_asked_again_takes_no_more_memory(client: Client) -> None:
    """Compilers leave fragments behind, but not more and more of them."""

    def ask() -> int:
        for schema in BOMBS.values():
            assert client.post(CHAT, short(CHAT, guided_json=schema))[0] in (200, 400)
        return resident(client.server)

    before = max(ask() for _ in range(2))
    assert min(ask() for _ in range(2)) - before < 32 << 20


def test_many_different_schemas_leave_no_memory_behind(client: Client) -> None:
    """A few hundred; `python tests/support/fuzz_api.py --schemas 100000` has more."""

    ask_schemas(client.server, range(140))
    full = resident(client.server)
    ask_schemas(client.server, range(140, 400))
    assert resident(client.server) - full < 16 << 20


def test_a_schema_that_takes_long_holds_up_nobody(client: Client) -> None:
    """While it is compiled the server answers others, many times over."""
    schemas = [{"enum": list(range(first, 20_000))} for first in range(5)]
    looks = sum(looks_during(client.server, CHAT, short(CHAT, guided_json=schema)) for schema in schemas)
    assert looks > 200  # 600 and more, or 50
