"""Any bytes at all become a checked request or a RequestError; what is accepted reaches the engine as it was asked
for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axpress.core.errors import RequestError
from axpress.core.model_files.model_package import SamplingDefaults
from axpress.core.request import GenerationRequest, SamplingParams, choice_seed
from axpress.core.structured_output.output_spec import JsonObject, JsonSchema, Lark, OneOf, Regex
from axpress.server.http.errors import HttpError, error_body, translate
from axpress.server.http.request_body import parse_json
from axpress.server.openai.chat import spec
from axpress.server.openai.chat_request import ChatRequest
from axpress.server.serving.generation_spec import Function, GenerationSpec, Tools
from axpress.server.serving.input_processor import choices, generation_request
from axpress.server.serving.model_limits import ModelLimits, sampling_defaults
from axpress.server.serving.model_names import ModelNames

NAMES = ModelNames("m")
LIMITS = ModelLimits(NAMES, 1000, 100, SamplingParams())
HI = [{"role": "user", "content": "hi"}]
OPENAI_FIELDS = """messages model audio frequency_penalty function_call functions logit_bias logprobs
max_completion_tokens max_tokens metadata modalities n parallel_tool_calls prediction
presence_penalty prompt_cache_key prompt_cache_retention reasoning_effort response_format
safety_identifier seed service_tier stop store stream stream_options temperature tool_choice tools
top_logprobs top_p user verbosity web_search_options"""


def parse(document: Any) -> GenerationSpec:
    return spec(ChatRequest.read(document))


def outcome(body: bytes) -> None:
    """Run the whole way; only the two typed errors may come out, and their body must be serialisable."""
    try:
        asked = parse(parse_json(body))
        NAMES.check(asked.model)
        choices(asked, LIMITS, generation_request(asked, LIMITS, [1]))
    except (RequestError, HttpError) as exc:
        error_body(translate(exc))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELD = st.sampled_from([*ChatRequest.model_fields, *ChatRequest.refused, "other"])
FUNCTION: dict[str, Any] = {"name": "f", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": FUNCTION}]


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(FIELD, JSON, max_size=4), st.booleans())
def test_any_json_is_judged(fields: dict[str, Any], with_messages: bool) -> None:
    outcome(json.dumps({"messages": HI, **fields} if with_messages else fields).encode())


@settings(max_examples=200, deadline=None)
@given(JSON, st.sampled_from(["messages", "content", "part", "bias", "stop", "tool", "schema", "call", "choice"]))
def test_any_json_inside_is_judged(value: Any, where: str) -> None:
    document: dict[str, Any] = {
        "messages": {"messages": [value]},
        "content": {"messages": [{"role": "user", "content": value}]},
        "part": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, value]}]},
        "bias": {"messages": HI, "logit_bias": {"1": value}},
        "stop": {"messages": HI, "stop": ["a", value]},
        "tool": {"messages": HI, "tools": [{"type": "function", "function": value}]},
        "schema": {
            "messages": HI,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}},
        },
        "call": {"messages": [{"role": "assistant", "content": value, "tool_calls": [value]}]},
        "choice": {"messages": HI, "tools": TOOLS, "tool_choice": value},
    }[where]
    outcome(json.dumps(document).encode())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 80), st.integers(0, 80))
def test_any_bytes_are_judged(noise: bytes, start: int, end: int) -> None:
    good = json.dumps({"messages": HI, "temperature": 0.5, "stop": ["a"], "seed": 12}).encode()
    outcome(noise)
    outcome(good[:start] + noise + good[end:])


def test_every_openai_field_is_either_obeyed_harmless_or_refused() -> None:
    for name in OPENAI_FIELDS.split():
        assert (name in ChatRequest.model_fields) != (name in ChatRequest.refused), name


@pytest.mark.parametrize("name", [*ChatRequest.refused])
def test_refused_fields_are_named_and_null_is_absent(name: str) -> None:
    with pytest.raises(RequestError) as error:
        parse({"messages": HI, name: 1})
    assert error.value.param == name and error.value.code == "unsupported_parameter"
    assert parse({"messages": HI, name: None}) == parse({"messages": HI})


def test_everything_asked_for_reaches_the_engine() -> None:
    request = parse({
        "messages": HI, "temperature": 0.3, "top_p": 0.8, "top_k": 7, "min_p": 0.1, "repetition_penalty": 1.2,
        "presence_penalty": -1,
        "frequency_penalty": 2, "logit_bias": {"5": -100, "999": 3.5}, "seed": -5, "logprobs": True, "top_logprobs": 4,
        "max_tokens": 9,
        "stop": ["x", "y"], "ignore_eos": True, "prompt_cache_key": "k", "service_tier": "flex",
    })  # fmt: skip
    made = generation_request(request, LIMITS, [1, 2, 3], (4, 5), b"salt")
    assert made.params == SamplingParams(0.3, 0.8, 7, 0.1, 1.2, 0, -1, 2, {5: -100.0, 999: 3.5}, -5, 4)
    assert (made.prompt_ids, made.max_tokens, made.stop, made.ignore_eos) == ([1, 2, 3], 9, ("x", "y"), True)
    assert made.prediction == (4, 5) and made.low_priority
    assert made.cache_salt == b"salt" and request.prompt_cache_key == "k"


def test_tools_forms_and_reasoning_reach_the_ask() -> None:
    f = Function("f", None, {"type": "object"})
    named = {"type": "function", "function": {"name": "f"}}
    assert parse({"messages": HI, "tools": TOOLS}).tools == Tools((f,))
    assert parse({"messages": HI, "tools": TOOLS, "tool_choice": "none"}).tools == Tools((f,), "none")
    assert parse({"messages": HI, "tools": TOOLS, "parallel_tool_calls": False}).tools == Tools((f,), parallel=False)
    assert parse({"messages": HI, "tools": TOOLS, "tool_choice": named}).tools == Tools((f,), "required", ("f",), False)
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [named]}}
    assert parse({"messages": HI, "tools": TOOLS, "tool_choice": allowed}).tools == Tools((f,), "auto", ("f",))
    assert parse({"messages": HI, "functions": [FUNCTION], "function_call": {"name": "f"}}).tools == Tools(
        (f,), "required", ("f",), False
    )
    assert parse({"messages": HI, "functions": [FUNCTION]}).tools == Tools((f,), parallel=False)
    for none in ({}, {"tools": []}, {"tool_choice": "auto"}, {"function_call": "none"}):
        assert parse({"messages": HI, **none}).tools is None
    schema = {"name": "x", "schema": {"type": "object"}, "strict": False}
    forms: list[tuple[dict[str, Any], Any]] = [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, JsonObject()),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, JsonObject()),
        (
            {"response_format": {"type": "json_schema", "json_schema": schema}},
            JsonSchema({"type": "object"}, "response_format.json_schema.schema"),
        ),
        ({"guided_json": {"type": "null"}}, JsonSchema({"type": "null"}, "guided_json")),
        ({"guided_json": '{"type": "null"}'}, JsonSchema({"type": "null"}, "guided_json")),
        ({"guided_regex": "a+"}, Regex("a+")),
        ({"guided_choice": ["a", "b"]}, OneOf(("a", "b"))),
        ({"guided_grammar": "start: /a/"}, Lark("start: /a/")),
        ({"structured_outputs": {"regex": "a"}}, Regex("a", "structured_outputs.regex")),
        ({"structured_outputs": {"json_object": True}}, JsonObject()),
    ]
    for fields, body in forms:
        assert parse({"messages": HI, **fields}).body == body, fields
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    for fields, asked in [
        ({}, (None, None)), ({"reasoning_effort": "none"}, (False, None)), ({"reasoning_effort": "low"}, (True, 256)),
        ({"reasoning_effort": "high"}, (True, None)), ({"reasoning_effort": "high", "thinking_budget": 9}, (True, 9)),
        ({"thinking_budget": 9}, (True, 9)), ({"thinking_budget": 0}, (False, None)), (off, (False, None)),
        ({**off, "reasoning_effort": "none"}, (False, None)),
        ({"chat_template_kwargs": {"enable_thinking": True}}, (True, None)),
        ({"chat_template_kwargs": {}}, (None, None)),
    ]:  # fmt: skip
        made = parse({"messages": HI, **fields})
        assert (made.thinking, made.thinking_budget) == asked, fields


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}, "reasoning_effort"),
        ({"reasoning_effort": "none", "thinking_budget": 5}, "reasoning_effort"),
        (
            {"thinking_budget": 5, "chat_template_kwargs": {"enable_thinking": False}},
            "chat_template_kwargs.enable_thinking",
        ),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
        ({"guided_choice": ["a"], "structured_outputs": {"choice": ["a"]}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": ["a"], "regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"json_object": False}}, "structured_outputs"),
    ],
)
def test_fields_that_contradict_each_other(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as error:
        parse({"messages": HI, **fields})
    assert error.value.param == param and error.value.code == "invalid_value"


def test_choices_differ_in_their_seeds_only() -> None:
    def made(**fields: Any) -> list[GenerationRequest]:
        request = parse({"messages": HI, **fields})
        return choices(request, LIMITS, generation_request(request, LIMITS, [1]))

    alone = generation_request(parse({"messages": HI, "seed": -3}), LIMITS, [1])
    assert made(seed=-3) == made(seed=-3, n=1) == [alone]
    eight = made(seed=-3, n=8)
    assert [one.params.seed for one in eight] == [choice_seed(-3, i) for i in range(8)]
    assert {replace(one, params=alone.params).max_tokens for one in eight} == {alone.max_tokens}
    assert all(replace(one, params=alone.params) == alone for one in eight)
    assert made()[0].params.seed is None
    first, second = ([one.params.seed for one in made(n=3)] for _ in range(2))
    assert len({*first, *second}) == 6
    few = replace(LIMITS, max_choices=2)
    with pytest.raises(RequestError, match="at most 2") as error:
        choices(parse({"messages": HI, "n": 3}), few, alone)
    assert error.value.param == "n"


def test_the_packages_defaults_count_where_the_request_is_silent() -> None:
    defaults = sampling_defaults(SamplingDefaults(temperature=0.7, top_k=20, penalty_window=30))
    assert defaults == SamplingParams(temperature=0.7, top_k=20, penalty_window=30)
    limits = ModelLimits(NAMES, 1000, 100, defaults)
    made = generation_request(parse({"messages": HI, "temperature": 0, "top_k": -1}), limits, [1])
    assert made.params == SamplingParams(temperature=0, top_k=0, penalty_window=30)
    assert made.max_tokens == 99 and made.stop == () and not made.ignore_eos
    assert sampling_defaults(None) == SamplingParams()


def test_logprobs_false_and_zero() -> None:
    assert generation_request(parse({"messages": HI}), LIMITS, [1]).params.logprobs is None
    assert generation_request(parse({"messages": HI, "logprobs": False}), LIMITS, [1]).params.logprobs is None
    assert generation_request(parse({"messages": HI, "logprobs": True}), LIMITS, [1]).params.logprobs == 0


def test_the_last_free_token() -> None:
    assert generation_request(parse({"messages": HI, "max_tokens": 1}), LIMITS, [1] * 99).max_tokens == 1
    for count, field in ((99, "max_tokens"), (100, "messages"), (5000, "messages")):
        with pytest.raises(RequestError) as error:
            generation_request(parse({"messages": HI, "max_tokens": 2}), LIMITS, [1] * count)
        assert error.value.code == "context_length_exceeded" and error.value.param == field


def test_lengths_are_told_in_plain_words() -> None:
    for fields in ({"stop": ["a"] * 5}, {"metadata": {str(i): "x" for i in range(17)}}, {"tools": TOOLS * 129}):
        with pytest.raises(RequestError, match="at most") as error:
            parse({"messages": HI, **fields})
        assert "validation" not in str(error.value)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_minus_one_is_all_that_the_context_holds(name: str) -> None:
    assert generation_request(parse({"messages": HI, name: -1}), LIMITS, [1] * 30).max_tokens == 70
