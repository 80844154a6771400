"""Grammars that would keep a parser, or what reads them before it, busy for minutes: refused, or ended, and everybody
else goes on."""

from __future__ import annotations

import time

import pytest
from grammar_walk import walk

from axpress.core.errors import RequestError
from axpress.core.model_files.hollow_tokenizer import write_tokenizer
from axpress.core.structured_output import grammar_compiler as grammar_module
from axpress.core.structured_output.grammar_compiler import (
    GrammarCompiler,
    GrammarError,
    JsonSchema,
    Lark,
    OutputSpec,
    Regex,
    ToolFormat,
    ToolRule,
)
from axpress.core.tokenizer.tokenizer import Tokenizer

CALLS = ToolFormat('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bounds")
    write_tokenizer(folder, 4096)
    return Tokenizer.open(folder)


@pytest.fixture(scope="module")
def grammars(text) -> GrammarCompiler:
    return GrammarCompiler(text, text.vocab_size)


def lists(count: int, items: str = "#/$defs/x") -> list:
    """Lists of one thing, each a little different, in which a parser looks for all of them again."""
    return [{"type": "array", "items": {"$ref": items}, "minItems": i % 7} for i in range(count)]


ENTANGLED = {
    "itself": {"$ref": "#/$defs/x", "$defs": {"x": {"anyOf": [*lists(1000), {"type": "null"}]}}},
    "the top": {"anyOf": [*lists(1000, "#"), {"type": "null"}]},
    "by another name": {
        "$ref": "#/$defs/y",
        "$defs": {"y": {"$ref": "#/$defs/x"}, "x": {"anyOf": lists(1000, "#/$defs/y")}},
    },
    "by a list of one": {
        "$ref": "#/$defs/y",
        "$defs": {"y": {"allOf": [{"$ref": "#/$defs/x"}]}, "x": {"oneOf": lists(1000, "#/$defs/y")}},
    },
    "in a circle": {
        "$ref": "#/$defs/x0",
        "$defs": {
            f"x{k}": {"anyOf": [*lists(100, f"#/$defs/x{(k + 1) % 10}"), {"$ref": f"#/$defs/x{(k + 1) % 10}"}]}
            for k in range(10)
        },
    },
    "a long chain": {
        "$ref": "#/$defs/0",
        "$defs": {**{f"{i}": {"$ref": f"#/$defs/{i + 1}"} for i in range(3000)}, "3000": {"const": 1}},
    },
}


@pytest.mark.parametrize("name", ENTANGLED)
def test_references_to_many_alternatives_are_refused(grammars, name) -> None:
    with pytest.raises(RequestError, match="too many references to definitions with many alternatives") as error:
        grammars.compile(OutputSpec(JsonSchema(ENTANGLED[name], "format")))
    assert error.value.param == "format"


def test_what_people_write_is_not(text, grammars) -> None:
    syntax = [
        {
            "type": "object",
            "properties": {"kind": {"const": f"k{i}"}, "left": {"$ref": "#"}, "right": {"$ref": "#"}},
            "required": ["kind"],
        }
        for i in range(60)
    ]
    (answer, complete) = walk(
        grammars.compile(OutputSpec(JsonSchema({"anyOf": [*syntax, {"type": "null"}]})))(), text, begin='{"kind": "k7"}'
    )
    assert complete and answer == '{"kind": "k7"}'
    chain = {**{f"{i}": {"$ref": f"#/$defs/{i + 1}"} for i in range(200)}, "200": {"const": 1}}
    assert walk(grammars.compile(OutputSpec(JsonSchema({"$ref": "#/$defs/0", "$defs": chain})))(), text) == ("1", True)


LARKS = {
    "alternatives": "start: x\nx: " + " | ".join(f'"[" x "{i}"' for i in range(1000)) + ' | "n"',
    "by another name": "start: y\ny: x\nx: " + " | ".join(f'"[" y "{i}"' for i in range(1000)) + ' | "n"',
    "on lines of their own": "start: x\nx: \n" + "\n".join(f'  | "[" x "{i}"' for i in range(1000)),
}


@pytest.mark.parametrize("name", LARKS)
def test_rules_with_many_alternatives_are_refused(grammars, name) -> None:
    with pytest.raises(RequestError, match="too many references to rules with many alternatives"):
        grammars.compile(OutputSpec(Lark(LARKS[name])))


def test_a_schema_in_a_grammar_has_the_rules_of_any_other(grammars, text) -> None:
    with pytest.raises(RequestError, match="'uniqueItems' is not supported") as error:
        grammars.compile(OutputSpec(Lark('start: "a" x\nx: %json {"type": "array", "uniqueItems": true}')))
    assert error.value.param == "guided_grammar"
    constraint = grammars.compile(OutputSpec(Lark('start: "a" x\nx: %json {"const": 5}')))()
    assert walk(constraint, text) == ("a5", True)


@pytest.mark.parametrize("junk", ["[", "a[ ", "a", " ", "|(", "a: ", "%json ", "%json {", "f{", '"', "/"])
def test_reading_a_grammar_takes_no_longer_than_it_is_long(grammars, junk) -> None:
    began = time.process_time()
    with pytest.raises(RequestError) as error:
        grammars.compile(OutputSpec(Lark(junk * (130_000 // len(junk)))))
    assert error.value.param == "guided_grammar"
    assert time.process_time() - began < 10  # for each character all the others: minutes


@pytest.mark.parametrize(
    "lark", ['f[temperature=1]: "a"', 'f [ stop="x"]: "a"', '?f[max_tokens=3, suffix_capture="x"]: "a"']
)
def test_attributes_that_would_do_nothing_are_refused(grammars, lark) -> None:
    with pytest.raises(
        RequestError, match=r"the grammar's attribute '(temperature|stop|suffix_capture)' is not supported"
    ):
        grammars.compile(OutputSpec(Lark(f"start: f\n{lark}")))


def test_a_text_that_can_be_read_in_many_ways_ends_in_an_error(text, grammars) -> None:
    constraint = grammars.compile(OutputSpec(Lark("start: a\na: a a a | b\nb: b b | X | a\nX: /[a-z ]/")))()
    with pytest.raises(GrammarError, match="items"):
        walk(constraint, text, limit=200)


def test_an_answer_that_keeps_all_others_waiting_is_ended(text, grammars, monkeypatch) -> None:
    make = grammars.compile(OutputSpec(Regex("[a-z ]+")))
    assert walk(make(), text, limit=20)[0]
    monkeypatch.setattr(grammar_module, "MAX_SECONDS", 0.0)
    monkeypatch.setattr(grammar_module, "MAX_SECONDS_PER_TOKEN", 0.0)
    with pytest.raises(GrammarError, match="takes too long"):
        walk(make(), text, limit=20)


def test_the_schemas_of_all_tools_together_have_a_bound(grammars) -> None:
    schema = {"type": "object", "properties": {f"property number {i}": {"type": "string"} for i in range(900)}}
    tools = tuple(ToolRule(f"f{i}", schema, f"tools[{i}]") for i in range(128))
    with pytest.raises(
        RequestError, match=r"more than 524288 characters together, from the schema of tool 'f\d+' on"
    ) as error:
        grammars.compile(OutputSpec(tools=tools, tool_format=CALLS))
    assert (error.value.param or "").startswith("tools[")
