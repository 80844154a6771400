"""Any bytes at all become a checked request or a RequestError; what is accepted reaches the engine as it was asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axpress.core.errors import RequestError
from axpress.core.package import SamplingDefaults
from axpress.core.request import GenerationRequest, SamplingParams, choice_seed
from axpress.server.ask import Ask
from axpress.server.body import parse_json
from axpress.server.chat_api import ask
from axpress.server.errors import HttpError, error_body
from axpress.server.params import ModelLimits, check_model, choices, generation_request, sampling_defaults
from axpress.server.schema.chat import ChatRequest

LIMITS = ModelLimits(frozenset({"m"}), 1000, 100, SamplingParams())
HI = [{"role": "user", "content": "hi"}]
OPENAI_FIELDS = """messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens
metadata modalities n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_retention reasoning_effort
response_format safety_identifier seed service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p
user verbosity web_search_options"""


def parse(document: Any) -> Ask:
    return ask(ChatRequest.read(document))


def outcome(body: bytes) -> None:
    """Run the whole way; only the two typed errors may come out, and their body must be serialisable."""
    try:
        asked = parse(parse_json(body))
        check_model(asked.model, LIMITS)
        choices(asked, LIMITS, generation_request(asked, LIMITS, [1]))
    except RequestError as exc:
        error_body(400, str(exc), exc.param, exc.code)
    except HttpError as exc:
        error_body(exc.status, str(exc), exc.param, exc.code)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELD = st.sampled_from([*ChatRequest.model_fields, *ChatRequest.refused, "other"])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(FIELD, JSON, max_size=4), st.booleans())
def test_any_json_is_judged(fields: dict[str, Any], with_messages: bool) -> None:
    outcome(json.dumps({"messages": HI, **fields} if with_messages else fields).encode())


@settings(max_examples=200, deadline=None)
@given(JSON, st.sampled_from(["messages", "content", "part", "bias", "stop"]))
def test_any_json_inside_is_judged(value: Any, where: str) -> None:
    document: dict[str, Any] = {
        "messages": {"messages": [value]},
        "content": {"messages": [{"role": "user", "content": value}]},
        "part": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, value]}]},
        "bias": {"messages": HI, "logit_bias": {"1": value}},
        "stop": {"messages": HI, "stop": ["a", value]},
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
        "messages": HI, "temperature": 0.3, "top_p": 0.8, "top_k": 7, "min_p": 0.1, "repetition_penalty": 1.2, "presence_penalty": -1,
        "frequency_penalty": 2, "logit_bias": {"5": -100, "999": 3.5}, "seed": -5, "logprobs": True, "top_logprobs": 4, "max_tokens": 9,
        "stop": ["x", "y"], "ignore_eos": True, "prompt_cache_key": "k", "service_tier": "flex",
    })  # fmt: skip
    made = generation_request(request, LIMITS, [1, 2, 3], (4, 5), b"salt")
    assert made.params == SamplingParams(0.3, 0.8, 7, 0.1, 1.2, 0, -1, 2, {5: -100.0, 999: 3.5}, -5, 4)
    assert (made.prompt_ids, made.max_tokens, made.stop, made.ignore_eos) == ([1, 2, 3], 9, ("x", "y"), True)
    assert made.prediction == (4, 5) and made.background
    assert made.salt == b"salt" and request.prompt_cache_key == "k"


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
    limits = ModelLimits(frozenset({"m"}), 1000, 100, defaults)
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
