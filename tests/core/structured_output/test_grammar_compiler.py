"""Shapes of answers as grammars: what they allow, for every kind of tokenizer, and what is refused and why."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace

import jsonschema
import pytest
import tiny_tokenizers
from grammar_walk import allowed, spelled, walk

from axpress.core.errors import RequestError
from axpress.core.model_files.hollow_tokenizer import write_tokenizer
from axpress.core.structured_output import grammar_compiler as grammar_module
from axpress.core.structured_output.grammar_compiler import (
    GrammarCompiler,
    JsonObject,
    JsonSchema,
    Lark,
    OneOf,
    OutputSpec,
    Regex,
    Thinking,
    ToolFormat,
    ToolRule,
)
from axpress.core.tokenizer.tokenizer import Tokenizer

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
QWEN = ToolFormat('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>")
ONE = {"type": "object", "properties": {"x": {"enum": [1]}}, "required": ["x"], "additionalProperties": False}
TOOLS = (ToolRule("person", PERSON), ToolRule("per", ONE))
MAKERS = {
    "hollow": lambda folder: (write_tokenizer(folder, 500), folder)[1],
    "qwen": tiny_tokenizers.qwen,
    "llama3": tiny_tokenizers.llama3,
    "metaspace": tiny_tokenizers.metaspace,
    "metaspace-first": lambda folder: tiny_tokenizers.metaspace(folder, "first"),
    "sentencepiece": tiny_tokenizers.sentence_piece,
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> dict[str, Tokenizer]:
    return {name: Tokenizer.open(make(tmp_path_factory.mktemp(name))) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def text(texts) -> Tokenizer:
    return texts["hollow"]


@pytest.fixture(scope="module")
def grammars(text) -> GrammarCompiler:
    return GrammarCompiler(text, text.vocab_size)


def follow(grammars: GrammarCompiler, shape: OutputSpec, **options):
    make = grammars.compile(shape, **options)
    assert make is not None
    return make()


# ---- every tokenizer ----


@pytest.mark.parametrize("name", MAKERS)
def test_any_path_through_the_masks_is_what_was_asked_for(texts, name) -> None:
    text = texts[name]
    grammars = GrammarCompiler(text, text.vocab_size)
    for seed in range(6):
        answer, complete = walk(follow(grammars, OutputSpec(JsonSchema(PERSON))), text, seed)
        assert complete
        jsonschema.validate(json.loads(answer), PERSON)
        answer, complete = walk(follow(grammars, OutputSpec(Regex(" ?[a-c]{2,4} /\\d"))), text, seed)
        assert complete and re.fullmatch(" ?[a-c]{2,4} /\\d", answer)
        answer, complete = walk(
            follow(grammars, OutputSpec(tools=TOOLS, tool_format=QWEN, tool_choice="required", parallel=False)),
            text,
            seed,
        )
        assert complete and answer.startswith(QWEN.begin + "per") and answer.endswith(QWEN.end)


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_certain_is_written_as_the_model_would(texts, name) -> None:
    text = texts[name]
    constraint = follow(
        GrammarCompiler(text, text.vocab_size), OutputSpec(Regex('(the quick brown fox: "x"|the quick brown fox: "y")'))
    )
    forced = constraint.forced()
    assert 5 < len(forced) < len("the quick brown fox")
    assert text.encode('the quick brown fox: "x"')[: len(forced)] == forced


def test_control_tokens_and_what_lies_beyond_the_vocabulary_are_never_allowed(texts) -> None:
    text = texts["qwen"]
    width = text.vocab_size + 77
    constraint = follow(GrammarCompiler(text, width), OutputSpec(Regex("(.|\n)*x")))
    tokens = allowed(constraint)
    assert len(constraint.mask()) == (width + 31) // 32
    assert len(tokens) > 300 and max(tokens) < text.vocab_size
    assert not text.special_ids & set(tokens)
    assert set(text.added_tokens.values()) <= set(tokens)


def test_all_end_tokens_are_allowed_where_the_text_may_end_and_only_there(text) -> None:
    assert len(text.eos_ids) == 2
    constraint = follow(GrammarCompiler(text, text.vocab_size), OutputSpec(Regex("a(b|cc)*")))
    for token, may_end in (("a", True), ("b", True), ("c", False), ("c", True)):
        constraint.accept(*text.encode(token))
        assert (set(allowed(constraint)) & text.eos_ids) == (text.eos_ids if may_end else set())
        assert not constraint.done


# ---- shapes ----


def test_json_is_laid_out_in_one_way_and_whole_when_it_closes(text, grammars) -> None:
    answer, complete = walk(follow(grammars, OutputSpec(JsonSchema(PERSON))), text, begin='{"name": "Ada", "age": 9')
    value = json.loads(answer)
    assert complete and value["name"] == "Ada" and answer == json.dumps(value)
    answer, complete = walk(follow(grammars, OutputSpec(JsonObject())), text, begin='{"a": [1, {"b": null}]}')
    assert complete and answer == '{"a": [1, {"b": null}]}'


def test_one_of_two_kinds_told_apart_by_a_constant(text, grammars) -> None:
    """As Pydantic writes a union with a discriminator."""

    def kind(name: str, other: str) -> dict:
        properties = {"kind": {"const": name}, other: {"type": "boolean"}}
        return {"type": "object", "properties": properties, "required": ["kind", other], "additionalProperties": False}

    schema = {
        "type": "object", "properties": {"pet": {"oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}},
        "required": ["pet"],
        "additionalProperties": False,
        "$defs": {"Cat": kind("cat", "purrs"), "Dog": kind("dog", "barks")},
    }  # fmt: skip
    seen = set()
    for seed in range(12):
        answer, complete = walk(follow(grammars, OutputSpec(JsonSchema(schema))), text, seed)
        jsonschema.validate(json.loads(answer), schema)
        seen.add(json.loads(answer)["pet"]["kind"])
        assert complete
    assert seen == {"cat", "dog"}


def test_a_choice_is_one_of_its_strings(text, grammars) -> None:
    strings = ("yes", "no", "yes, sir", 'quo"te\n', "é")
    assert {walk(follow(grammars, OutputSpec(OneOf(strings))), text, seed)[0] for seed in range(60)} == set(strings)


def test_a_grammar_of_the_clients_own(text, grammars) -> None:
    lark = 'start: sum\nsum: NUMBER ("+" NUMBER)+\nNUMBER: /[0-9]{1,2}/'
    for seed in range(10):
        answer, _ = walk(follow(grammars, OutputSpec(Lark(lark))), text, seed, limit=12)
        assert re.fullmatch(r"[0-9]{1,2}(\+[0-9]{0,2})*", answer)


def test_a_grammar_without_an_end_goes_on_and_does_not_hang(text, grammars) -> None:
    answer, complete = walk(follow(grammars, OutputSpec(Lark("start: x x\nx: /a+/"))), text, limit=30)
    assert set(answer) == {"a"} and not complete


def test_free_text_becomes_a_call_where_one_begins(text, grammars) -> None:
    shape = OutputSpec(tools=TOOLS, tool_format=QWEN)
    answer, _ = walk(follow(grammars, shape), text, begin="Let me see.<tool_call>", limit=60)
    assert re.match(r'Let me see\.<tool_call>\n\{"name": "per(son)?", "arguments": \{"', answer)
    constraint = follow(grammars, shape)
    assert constraint.forced() == [] and text.eos_ids <= set(allowed(constraint))
    call = '<tool_call>\n{"name": "per", "arguments": {"x": 1}}\n</tool_call>'
    answer, complete = walk(follow(grammars, shape), text, begin=f"{call}\n{call}", limit=400)
    assert (
        complete
        and re.fullmatch(r"(<tool_call>\n.*\n</tool_call>\n?)+", answer)
        and answer.startswith(f"{call}\n{call}")
    )
    constraint = follow(grammars, replace(shape, parallel=False))
    assert walk(constraint, text, begin=call) == (call, True) and constraint.done  # no second one, no text behind it


def test_required_calls_are_calls_only(text, grammars) -> None:
    shape = OutputSpec(tools=TOOLS[1:], tool_format=QWEN, tool_choice="required")
    constraint = follow(grammars, shape)
    begin = constraint.forced()
    assert text.added_tokens["<tool_call>"] == begin[0] and text.decode(begin).startswith(
        '<tool_call>\n{"name": "per", "arguments": '
    )
    call = '<tool_call>\n{"name": "per", "arguments": {"x": 1}}\n</tool_call>'
    assert {walk(follow(grammars, shape), text, seed)[0] for seed in range(8)} <= {
        "\n".join([call] * n) for n in range(1, 30)
    }


def test_either_calls_or_the_body(text, grammars) -> None:
    shape = OutputSpec(JsonSchema(PERSON), tools=TOOLS, tool_format=QWEN, parallel=False)
    answer, _ = walk(follow(grammars, shape), text, begin="<tool_call>")
    assert answer.startswith('<tool_call>\n{"name": "per') and answer.endswith("</tool_call>")
    answer, _ = walk(follow(grammars, shape), text, begin='{"')
    jsonschema.validate(json.loads(answer), PERSON)


def test_a_format_without_tokens_of_its_own(text, grammars) -> None:
    plain = ToolFormat('{"name": "', '", "parameters": ', "}", "; ")
    answer, complete = walk(
        follow(grammars, OutputSpec(tools=TOOLS[1:], tool_format=plain)), text, begin='So: {"name": "per'
    )
    assert complete and answer.startswith('So: {"name": "per", "parameters": {"x": 1}}')


def test_thinking_comes_first_and_may_mention_anything(text, grammars) -> None:
    shape = OutputSpec(JsonSchema(PERSON), thinking=Thinking())
    thought = '<think>\nA <tool_call> or {"name"?</think>'
    answer, _ = walk(follow(grammars, shape), text, begin=thought)
    _, body = answer.split("</think>\n\n")
    jsonschema.validate(json.loads(body), PERSON)
    answer, _ = walk(follow(grammars, shape), text, begin="{")
    jsonschema.validate(json.loads(answer), PERSON)
    answer, _ = walk(follow(grammars, replace(shape, thinking=Thinking(open=True))), text, begin="Hm.</think>")
    assert answer.startswith('Hm.</think>\n\n{"name": "')
    calls = OutputSpec(tools=TOOLS, tool_format=QWEN, thinking=Thinking())
    answer, _ = walk(follow(grammars, calls), text, begin=thought + "\n\nSo: <tool_call>", limit=200)
    assert answer.startswith(thought + '\n\nSo: <tool_call>\n{"name": "per')


@pytest.mark.parametrize("body", [None, JsonSchema(PERSON)])
@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("budget", [0, 1, 7])
def test_a_budget_ends_thinking(text, grammars, body, is_open, budget) -> None:
    shape = OutputSpec(body, thinking=Thinking(open=is_open))
    constraint = follow(grammars, shape, thinking_budget=budget)
    begin = ("" if is_open else "<think>") + "\n one two three four five six seven eight nine ten"
    tokens = spelled(text, begin)
    taken: list[int] = []
    while not (forced := constraint.forced()):
        constraint.accept(tokens[len(taken)])
        taken.append(tokens[len(taken)])
    assert len(taken) == budget + (not is_open)
    for token in forced:
        constraint.accept(token)
    assert text.decode(forced) == "\n</think>\n\n" and text.added_tokens["</think>"] in forced
    rest = constraint.forced()
    assert text.decode(rest).startswith('{"name') if body else rest == [] and constraint.mask() is None


def test_a_budget_waits_for_a_whole_character_and_for_nothing_that_is_over(text, grammars) -> None:
    constraint = follow(grammars, OutputSpec(JsonObject(), thinking=Thinking(open=True)), thinking_budget=1)
    first, *rest = text.encode("日")
    assert rest
    constraint.accept(first)
    assert constraint.forced() == []
    for token in rest:
        constraint.accept(token)
    assert text.decode(constraint.forced()).startswith("\n</think>")
    constraint = follow(grammars, OutputSpec(thinking=Thinking()), thinking_budget=1)
    for token in spelled(text, "<think>Hm</think>\n\nAnd now"):
        constraint.accept(token)
    assert constraint.forced() == []
    constraint = follow(grammars, OutputSpec(thinking=Thinking()), thinking_budget=0)
    for token in spelled(text, "No thinking here <think> now"):
        constraint.accept(token)
        assert constraint.forced() == []


def test_nothing_to_obey_is_no_constraint(grammars) -> None:
    assert grammars.compile(OutputSpec()) is None
    assert grammars.compile(OutputSpec(thinking=Thinking())) is None
    assert grammars.compile(OutputSpec(thinking=Thinking()), thinking_budget=5) is not None


# ---- what is refused ----


def nested(levels: int) -> dict:
    schema: dict = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def chain(links: int) -> dict:
    definitions: dict = {
        f"d{i}": {"properties": {"x": {"$ref": f"#/$defs/d{i + 1}"}}, "type": "object"} for i in range(links)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{links}": {"type": "null"}}}


REFUSED_SCHEMAS = [
    (
        {"type": "object", "properties": {"a": {"items": {"not": {}}}}},
        "'not' is not supported .at #/properties/a/items/not",
    ),
    ({"properties": {"a/b": {"uniqueItems": True}}}, "'uniqueItems' .*#/properties/a~1b/uniqueItems"),
    ({"if": {}, "then": {}}, "'if' is not supported"),
    ({"dependentRequired": {"a": ["b"]}}, "'dependentRequired'"),
    ({"unevaluatedProperties": False}, "'unevaluatedProperties'"),
    ({"items": [{}]}, "'prefixItems'"),
    ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "'oneOf' .* cannot overlap"),
    ({"format": "iri"}, "format 'iri' is not supported; supported are date, "),
    ({"type": "string", "pattern": "(?=x)y"}, "look-around"),
    ({"type": "string", "pattern": "a("}, "unclosed group"),
    ({"type": "strin"}, "'type' must be one or more of array, "),
    ({"type": "string", "minLength": -1}, "'minLength' must be a whole number"),
    ({"properties": []}, "'properties' must be an object"),
    ({"enum": "abc"}, "'enum' must be a list"),
    ({"anyOf": []}, "not an empty one"),
    ({"anyOf": [3]}, "a schema is an object, true or false, not 3"),
    ({"const": 2**53 + 1}, "beyond 2.53"),
    ({"minimum": 2**63}, "beyond 2.53"),
    ({"$ref": "https://example.com/schema"}, "references go to places in the same schema"),
    ({"$ref": "#/$defs/nowhere"}, "'#/.defs/nowhere', which is not there"),
    ({"$ref": "#"}, "no JSON can satisfy it"),
    (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        "no JSON can satisfy it",
    ),
    ({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}, "no JSON can satisfy it"),
    (False, "no JSON can satisfy it"),
    ({"type": "string", "const": 5}, "incompatible types"),
    ({"type": "object", "minProperties": 2, "additionalProperties": {}}, "other names might repeat"),
    ({"minItems": 10**6}, "'minItems' is 1000000"),
    (nested(101), "100 levels"),
    (nested(400), "nested too deeply"),
    (chain(1700), "more than 4000 levels in all"),
    ({"enum": ["x" * 1000 + str(i) for i in range(1000)]}, "bytes; at most 131072"),
    ({"properties": {f"p{i}": {} for i in range(2000)}}, "may be left out; list them in 'required'"),
    (
        {"allOf": [{"anyOf": [{"properties": {f"a{i}{j}": {"type": "null"}}} for j in range(3)]} for i in range(20)]},
        "too large",
    ),
    ({"const": object()}, "not JSON"),
]


@pytest.mark.parametrize(("schema", "words"), REFUSED_SCHEMAS, ids=[words[:24] for _, words in REFUSED_SCHEMAS])
def test_a_schema_that_cannot_be_honoured_is_refused_by_name(grammars, schema, words) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        grammars.compile(OutputSpec(JsonSchema(schema, "response_format.json_schema.schema")))
    assert caught.value.param == "response_format.json_schema.schema"
    assert len(str(caught.value)) < 700


REFUSED_SHAPES = [
    (OutputSpec(Regex("a(")), "guided_regex", "unclosed group"),
    (OutputSpec(Regex("^$")), "guided_regex", "empty text"),
    (OutputSpec(Regex("(" * 5000 + "a" + ")" * 5000)), "guided_regex", "guaranteed"),
    (OutputSpec(Regex("a" * 300_000)), "guided_regex", "300000 characters"),
    (OutputSpec(OneOf(())), "guided_choice", "at least one string"),
    (OutputSpec(OneOf(("",))), "guided_choice", "not empty"),
    (OutputSpec(Lark("start: nowhere")), "guided_grammar", "nowhere"),
    (OutputSpec(Lark("start: a\na: a")), "guided_grammar", "or none at all"),
    (OutputSpec(Lark("start: f\nf[temperature=2]: /a/")), "guided_grammar", "temperature"),
    (OutputSpec(tools=(ToolRule("f", {"contains": {}}),), tool_format=QWEN), "tools", "schema of tool 'f'.*'contains'"),
    (OutputSpec(JsonObject(), (ToolRule("f", {"pattern": "a("}),), QWEN), "tools", "unclosed group"),
]


@pytest.mark.parametrize(
    ("shape", "param", "words"), REFUSED_SHAPES, ids=[f"{p}-{w[:12]}" for _, p, w in REFUSED_SHAPES]
)
def test_a_shape_that_cannot_be_guaranteed_names_its_field(grammars, shape, param, words) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        grammars.compile(shape)
    assert caught.value.param == param


ALLOWED_SCHEMAS = [
    (
        {
            "title": "T",
            "description": "d",
            "default": 1,
            "examples": [2],
            "$comment": "c",
            "$schema": "x",
            "type": "null",
        },
        None,
    ),
    ({"type": "string", "format": "password", "x-order": 3, "nullable": True, "const": "a"}, "a"),
    ({"type": "array", "uniqueItems": False, "maxItems": 0}, []),
    ({"$ref": "#/components/x/0", "components": {"x": [{"const": 7}]}}, 7),
    ({"type": "object", "properties": {"again": {"$ref": "#"}}, "additionalProperties": False}, {"again": {}}),
    (
        {
            "type": "object",
            "properties": {"a": {"const": 1}, "b": {"$ref": "#/$defs/no"}},
            "$defs": {"no": {"$ref": "#/$defs/no"}},
        },
        {"a": 1},
    ),
    (chain(500), {"x": {"x": {}}}),
    (nested(90), [[[]]]),
    ({"x-guidance": {"lenient": True}, "const": "x"}, "x"),
    ({"type": "string", "format": "date"}, "2024-02-29"),
    ({"type": "string", "pattern": "(x+x+)+y"}, "xxxy"),
    ({"type": "string", "pattern": "(a|b)*a(a|b){25}c"}, "a" * 26 + "c"),
    ({"type": "string", "maxLength": 10**9}, "é"),
    (
        {"type": "object", "properties": {f"p{i}": {"const": i} for i in range(900)}, "additionalProperties": False},
        {"p899": 899},
    ),
]


@pytest.mark.parametrize(("schema", "value"), ALLOWED_SCHEMAS)
def test_annotations_references_and_hard_patterns_are_fine(text, grammars, schema, value) -> None:
    constraint = follow(grammars, OutputSpec(JsonSchema(schema)))
    answer, complete = walk(constraint, text, begin=json.dumps(value, ensure_ascii=False), limit=3000)
    assert complete and json.loads(answer) == value


def test_a_day_that_does_not_exist_is_not_a_date(text, grammars) -> None:
    constraint = follow(grammars, OutputSpec(JsonSchema({"type": "string", "format": "date"})))
    with pytest.raises(AssertionError, match="not allowed after '\"2023-02-2"):
        walk(constraint, text, begin='"2023-02-29"')


# ---- bounds ----


def test_compiled_grammars_are_kept_within_a_bound_and_used_again(text, monkeypatch) -> None:
    grammars = GrammarCompiler(text, text.vocab_size)
    monkeypatch.setattr(grammar_module, "MAX_CACHED", 20)
    for i in range(100):
        grammars.compile(OutputSpec(OneOf((f"choice {i}",))))
    assert len(grammars._cache) == 20
    monkeypatch.setattr(grammar_module, "MAX_CACHED_TEXT", 3000)
    grammars.compile(OutputSpec(OneOf(("x" * 2900,))))
    assert sum(map(len, grammars._cache)) == grammars._cached_text <= 3000
    compiled = []
    monkeypatch.setattr(grammar_module._Tokens, "compile", lambda self, text: compiled.append(text))
    grammars.compile(OutputSpec(OneOf(("x" * 2900,))))
    assert not compiled


def test_many_threads_build_one_table_and_the_same_answers(text) -> None:
    grammars = GrammarCompiler(text, text.vocab_size)
    made, tables = [], set()

    def work(number: int) -> None:
        make = grammars.compile(OutputSpec(OneOf((f"the answer is {number % 3}",))))
        tables.add(id(grammars._tokens))
        made.append((number, make))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tables) == 1 and len(made) == 12
    assert all(walk(make(), text)[0] == f"the answer is {number % 3}" for number, make in made)


def test_a_tokenizer_that_is_not_made_of_bytes_is_refused(texts, monkeypatch) -> None:
    text = texts["qwen"]
    monkeypatch.setattr(text, "pieces", replace(text.pieces, join="".join))
    with pytest.raises(RequestError, match="not simply strings of bytes"):
        GrammarCompiler(text, text.vocab_size).compile(OutputSpec(JsonObject()))
