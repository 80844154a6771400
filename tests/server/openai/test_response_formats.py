"""Formats through OpenAI's own client: what a random model writes at temperature 2 is what was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import chat_templates
import jsonschema
import openai
import pydantic
import pytest
from server_process import RunningServer, chat

HI: list[Any] = [{"role": "user", "content": "hi"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "size": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 99}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 3},
    },
    "required": ["name", "size", "tags"],
    "additionalProperties": False,
    "$defs": {"tag": {"enum": ["a", "b\n", "ü"]}},
}
WILD: dict[str, Any] = {
    "model": "default", "messages": HI, "temperature": 2, "max_tokens": 400, "seed": 5,
    "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    package = chat_templates.random_package(tmp_path_factory.mktemp("formats"), chat_templates.QWEN)
    with RunningServer(package, "--emu-profile", "none") as running:
        yield running
        running.wait(running.idle, 30, "idle")  # the last piece of an answer comes a moment before its end


def schema_format(schema: Any, **fields: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema, **fields}}


def extra(**fields: Any) -> dict[str, Any]:
    return {**WILD, "extra_body": {**WILD["extra_body"], **fields}}


@pytest.mark.parametrize("strict", [True, False, None])
def test_a_schema_holds_strict_or_not(client: openai.OpenAI, strict: bool | None) -> None:
    answer = client.chat.completions.create(**WILD, n=3, response_format=schema_format(SCHEMA, strict=strict))
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content or ""), SCHEMA)
    assert len({choice.message.content for choice in answer.choices}) == 3


def test_any_json_object(client: openai.OpenAI) -> None:
    ended = 0
    for form in ({"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "thing"}}):
        answer = client.chat.completions.create(**WILD, n=4, response_format=form)  # type: ignore[call-overload]
        for choice in answer.choices:
            content = choice.message.content
            assert content.startswith("{")
            if choice.finish_reason == "stop":
                ended += 1
                assert isinstance(json.loads(content), dict)
            else:
                assert choice.finish_reason == "length"
    assert ended


class Thing(pydantic.BaseModel):
    kind: Literal["box", "bag"]
    count: int = pydantic.Field(ge=0, le=9)
    parts: list[Literal["lid", "strap"]] = pydantic.Field(max_length=2)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the client's own, of the object that it parsed
def test_parse_and_stream_give_pydantic_objects(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(**WILD, response_format=Thing)
    assert isinstance(answer.choices[0].message.parsed, Thing)
    with client.chat.completions.stream(**WILD, response_format=Thing) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion().choices[0].message
    assert final.parsed == answer.choices[0].message.parsed and "".join(pieces) == final.content
    message: Any = answer.choices[0].message  # goes back as it is
    assert client.chat.completions.create(**{**WILD, "messages": [*HI, message, *HI], "max_tokens": 3}).choices


def test_an_answer_that_is_cut_off_says_length(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**WILD, response_format=schema_format(SCHEMA))
    assert whole.usage is not None
    for limit in (1, 7, whole.usage.completion_tokens - 1):
        cut = client.chat.completions.create(
            **WILD | {"max_tokens": limit}, response_format=schema_format(SCHEMA)
        ).choices[0]
        assert cut.finish_reason == "length"
        assert (whole.choices[0].message.content or "").startswith((cut.message.content or "").removesuffix("\ufffd"))
    assert whole.choices[0].finish_reason == "stop"


GUIDED: list[tuple[str, Any, str]] = [
    ("guided_regex", r"[0-9]{3}-[a-f]{2}(x|yy)", r"[0-9]{3}-[a-f]{2}(x|yy)"),
    ("guided_choice", ["yes", "no", "perhaps not"], "yes|no|perhaps not"),
    ("guided_grammar", 'start: "(" inner ")"\ninner: /[ab]{2,4}/', r"\([ab]{2,4}\)"),
    ("guided_json", {"type": "integer", "minimum": 10, "maximum": 42}, "[1-3][0-9]|4[0-2]"),
    ("guided_json", '{"enum": ["x", 1]}', '"x"|1'),
    ("structured_outputs", {"choice": ["left", "right"]}, "left|right"),
    ("structured_outputs", {"regex": "a{5,9}"}, "a{5,9}"),
]


@pytest.mark.parametrize(("field", "value", "pattern"), GUIDED, ids=[f"{i}-{one[0]}" for i, one in enumerate(GUIDED)])
def test_guided_answers(client: openai.OpenAI, field: str, value: Any, pattern: str) -> None:
    answer = client.chat.completions.create(**extra(**{field: value}), n=4)
    for choice in answer.choices:
        assert choice.finish_reason == "stop" and re.fullmatch(pattern, choice.message.content or ""), (
            choice.message.content
        )


def test_what_goes_beside_a_format(client: openai.OpenAI) -> None:
    """Log-probabilities, biases, stop strings and predictions mean with a format what they mean without."""
    form = schema_format(SCHEMA)
    answer = client.chat.completions.create(**WILD, response_format=form, logprobs=True, top_logprobs=1)
    logprobs = answer.choices[0].logprobs
    assert logprobs and logprobs.content and answer.usage
    raw = b"".join(bytes(one.bytes or []) for one in logprobs.content)
    assert raw.decode() == answer.choices[0].message.content
    assert any(one.logprob < -2 for one in logprobs.content)  # the model's own, not those under the grammar
    plain = client.chat.completions.create(**WILD, response_format=form)
    assert plain.choices[0].message.content == answer.choices[0].message.content
    guess = {"type": "content", "content": plain.choices[0].message.content}
    guessed = client.chat.completions.create(**WILD, response_format=form, prediction=guess)  # type: ignore[call-overload]
    assert guessed.choices[0].message.content == plain.choices[0].message.content
    cut = client.chat.completions.create(**WILD, response_format=form, stop='"size"').choices[0]
    assert (
        cut.finish_reason == "stop"
        and cut.message.content == (plain.choices[0].message.content or "").split('"size"')[0]
    )


def test_tools_may_be_called_or_the_format_kept(client: openai.OpenAI) -> None:
    tools: Any = [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "additionalProperties": False}}}
    ]
    answer = client.chat.completions.create(**WILD, n=8, tools=tools, response_format=schema_format(SCHEMA))
    assert {choice.finish_reason for choice in answer.choices} == {"tool_calls", "stop"}
    for choice in answer.choices:
        if choice.finish_reason == "tool_calls":
            assert choice.message.tool_calls and choice.message.content is None
            assert all(json.loads(call.function.arguments) == {} for call in choice.message.tool_calls)
        else:
            jsonschema.validate(json.loads(choice.message.content or ""), SCHEMA)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "json"}}, "response_format.type"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": "text", "json_schema": {}}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}}, "response_format.json_schema.name"),
    ({"response_format": schema_format([])}, "response_format.json_schema.schema"),
    ({"response_format": schema_format({"not": {}})}, "response_format.json_schema.schema"),
    ({"response_format": schema_format({"$ref": "http://127.0.0.1:9/x"})}, "response_format.json_schema.schema"),
    ({"response_format": schema_format({"type": "thing"})}, "response_format.json_schema.schema"),
    ({"response_format": schema_format({"type": "string", "pattern": "(?=a)"})}, "response_format.json_schema.schema"),
    ({"response_format": schema_format({"enum": []})}, "response_format.json_schema.schema"),
    ({"response_format": schema_format({"description": "\ud800"})}, "response_format.json_schema.schema"),
    ({"response_format": schema_format({}, strict="yes")}, "response_format.json_schema.strict"),
    ({"guided_json": "{"}, "guided_json"),
    ({"guided_json": "[]"}, "guided_json"),
    ({"guided_json": {"minLength": -1}}, "guided_json"),
    ({"guided_regex": "("}, "guided_regex"),
    ({"guided_regex": "(?=a)b"}, "guided_regex"),
    ({"guided_regex": 5}, "guided_regex"),
    ({"guided_choice": []}, "guided_choice"),
    ({"guided_choice": [""]}, "guided_choice[0]"),
    ({"guided_choice": "yes"}, "guided_choice"),
    ({"guided_grammar": "start: other"}, "guided_grammar"),
    ({"guided_grammar": ""}, "guided_grammar"),
    ({"structured_outputs": {}}, "structured_outputs"),
    ({"structured_outputs": {"xml": "x"}}, "structured_outputs.xml"),
    ({"structured_outputs": {"regex": "["}}, "structured_outputs.regex"),
    ({"response_format": {"type": "json_object"}, "guided_choice": ["a"]}, "guided_choice"),
    ({"response_format": {"type": "json_object"}, "ignore_eos": True}, "ignore_eos"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[f"{i}-{one[1]}" for i, one in enumerate(WRONG)])
def test_what_cannot_be_honoured_is_a_400_that_says_why(
    server: RunningServer, fields: dict[str, Any], param: str
) -> None:
    status, _, body = server.post(chat(max_tokens=2, **fields))
    assert status == 400, body
    assert body["error"]["param"] == param and body["error"]["type"] == "invalid_request_error"
    assert 10 < len(body["error"]["message"]) < 600 and "Traceback" not in body["error"]["message"]
