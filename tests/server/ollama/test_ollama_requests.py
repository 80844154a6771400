"""Ollama's requests: each field reaches the engine as it was asked for, or the error names it; and how answers are put
in lines."""

from __future__ import annotations

import json
from typing import Any

import ollama
import ollama._types as client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axpress.core.errors import RequestError
from axpress.core.request import Delta, GenerationRequest, SamplingParams, Spent
from axpress.core.structured_output.output_spec import JsonObject, JsonSchema, Thinking
from axpress.server.http.errors import HttpError, translate
from axpress.server.http.request_body import parse_json
from axpress.server.ollama.dialect import OllamaChat, OllamaGenerate
from axpress.server.ollama.errors import error_body
from axpress.server.ollama.requests import (
    OllamaChatRequest,
    OllamaGenerateRequest,
    OllamaMessage,
    OllamaShowRequest,
    Options,
)
from axpress.server.ollama.stream import Gathering, OllamaStream, Part, ReplyFormat, durations
from axpress.server.schema.reasoning import EFFORT_BUDGETS
from axpress.server.serving.chat_format import GENERIC
from axpress.server.serving.dialect import NothingToGenerate, Totals
from axpress.server.serving.generation_spec import Function, GenerationSpec
from axpress.server.serving.input_processor import generation_request
from axpress.server.serving.model_limits import ModelLimits
from axpress.server.serving.model_names import ModelNames
from axpress.server.serving.output_parser import OutputParser
from axpress.server.serving.prepared_request import PreparedRequest

NAMES = ModelNames("m")
LIMITS = ModelLimits(NAMES, 1000, 100, SamplingParams(temperature=0.7, top_k=20, penalty_window=30))
HI = [{"role": "user", "content": "hi"}]
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "description": "The time", "parameters": {"type": "object", "properties": {}}},
}


def chat(**fields: Any) -> GenerationSpec:
    return OllamaChat.read({"model": "m", "messages": HI, **fields}, NAMES).spec


def generate(**fields: Any) -> GenerationSpec:
    return OllamaGenerate.read({"model": "m", "prompt": "hi", **fields}, NAMES).spec


def made(prompt: int = 1, **options: Any) -> GenerationRequest:
    return generation_request(chat(options=options), LIMITS, [1] * prompt)


def outcome(kind: Any, document: Any) -> None:
    """Only the typed errors may come out, and they can be told."""
    try:
        spec = kind.read(document, NAMES).spec
        generation_request(spec, LIMITS, [1])
    except (RequestError, HttpError) as exc:
        error_body(translate(exc))
    except NothingToGenerate as exc:
        json.loads(exc.reply)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [*OllamaChatRequest.model_fields, *OllamaGenerateRequest.model_fields, *OllamaGenerateRequest.refused, "other"]
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(FIELDS, JSON, max_size=4))
def test_any_json_is_judged(fields: dict[str, Any]) -> None:
    outcome(OllamaChat, parse_json(json.dumps({"model": "m", "messages": HI, **fields}).encode()))
    outcome(OllamaGenerate, parse_json(json.dumps({"model": "m", "prompt": "hi", **fields}).encode()))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*Options.model_fields, "other"]), JSON, max_size=3), JSON)
def test_any_json_inside_is_judged(options: dict[str, Any], value: Any) -> None:
    outcome(OllamaChat, {"model": "m", "messages": HI, "options": options})
    outcome(OllamaChat, {"model": "m", "messages": [value]})
    outcome(OllamaChat, {"model": "m", "messages": [{"role": "assistant", "tool_calls": [value]}]})
    outcome(OllamaChat, {"model": "m", "messages": HI, "tools": [{"type": "function", "function": value}]})


def test_every_field_of_ollamas_own_client_is_obeyed_harmless_or_refused() -> None:
    for ours, theirs in (
        (OllamaChatRequest, client.ChatRequest),
        (OllamaGenerateRequest, client.GenerateRequest),
        (Options, client.Options),
        (OllamaShowRequest, client.ShowRequest),
    ):
        for name in theirs.model_fields:
            assert (name in ours.model_fields) != (name in ours.refused), (ours, name)
        assert set(ours.harmless) <= set(ours.model_fields)
    assert set(client.Message.model_fields) <= set(OllamaMessage.model_fields)


def test_all_options_reach_the_engine() -> None:
    request = made(
        temperature=0.3, top_k=7, top_p=0.8, min_p=0.1, repeat_penalty=1.2, repeat_last_n=33, presence_penalty=-1,
        frequency_penalty=2,
        seed=-5, num_predict=9, stop=["x", "y"], num_ctx=50,
    )  # fmt: skip
    assert request.params == SamplingParams(0.3, 0.8, 7, 0.1, 1.2, 33, -1, 2, {}, -5, None)
    assert (request.max_tokens, request.stop) == (9, ("x", "y"))
    logprobs = generation_request(chat(logprobs=True, top_logprobs=3), LIMITS, [1]).params.logprobs
    assert (logprobs, generation_request(chat(logprobs=True), LIMITS, [1]).params.logprobs) == (3, 0)


def test_the_models_defaults_count_where_an_option_is_absent_or_null() -> None:
    silent = generation_request(chat(), LIMITS, [1])
    assert silent.params == LIMITS.defaults and silent.max_tokens == 99 and silent.stop == ()
    assert made(**dict.fromkeys(Options.model_fields)) == silent == generation_request(chat(options=None), LIMITS, [1])


def test_penalty_windows_and_seeds_mean_what_ollama_means() -> None:
    defaults = ModelLimits(NAMES, 1000, 100, SamplingParams(repetition_penalty=1.3, penalty_window=30))

    def penalty(**options: Any) -> tuple[float, int]:
        params = generation_request(chat(options=options), defaults, [1]).params
        return params.repetition_penalty, params.penalty_window

    assert penalty() == (1.3, 30)
    assert penalty(repeat_last_n=-1, repeat_penalty=1.1) == (1.1, 0)  # all tokens
    assert penalty(repeat_last_n=64) == (1.3, 64)
    assert penalty(repeat_last_n=0)[0] == penalty(repeat_last_n=0, repeat_penalty=1.1)[0] == 1.0  # off
    assert [made(seed=seed).params.seed for seed in (-1, 0, 7, None)] == [None, 0, 7, None]
    assert [made(top_k=top_k).params.top_k for top_k in (-1, 0, 40)] == [0, 0, 40]


def test_limits_of_tokens() -> None:
    assert [made(num_predict=n).max_tokens for n in (-1, -2, 1, 99, 100, 2**31 - 1)] == [99, 99, 1, 99, 99, 99]
    assert [made(num_ctx=n).max_tokens for n in (2, 60, 100, 8192, 2**31 - 1)] == [1, 59, 99, 99, 99]
    assert made(num_ctx=60, num_predict=200).max_tokens == 59 and made(prompt=59, num_ctx=60).max_tokens == 1
    with pytest.raises(RequestError, match=r"'messages' take 60 tokens; 'options.num_ctx' is 60 tokens"):
        made(prompt=60, num_ctx=60)
    with pytest.raises(RequestError, match="this model's context is 100 tokens"):
        made(prompt=100, num_ctx=8192)
    with pytest.raises(RequestError, match="'prompt' take"):
        generation_request(generate(), LIMITS, [1] * 100)


def test_stop_is_a_list_or_a_string() -> None:
    assert (
        made(stop="a").stop == ("a",)
        and made(stop=[]).stop == ()
        and len(made(stop=[str(i) for i in range(16)]).stop) == 16
    )


def test_formats_and_thinking() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert [chat(format=one).body for one in (None, "", "json", schema)] == [
        None,
        None,
        JsonObject(),
        JsonSchema(schema, "format"),
    ]
    assert generate(format=schema).body == JsonSchema(schema, "format")
    asked = [
        (one.thinking, one.thinking_budget)
        for one in (chat(think=t) for t in (None, False, True, "low", "medium", "high"))
    ]
    assert asked == [(None, None), (False, None), (True, None), (True, 256), (True, 1024), (True, None)]
    assert EFFORT_BUDGETS["low"] == 256 and chat(think=True).names.thinking == "think"


def test_streams_unless_told_otherwise() -> None:
    assert [chat(stream=one).stream for one in (None, True, False)] == [True, True, False] and chat().stream


def test_messages_as_templates_know_them() -> None:
    call = {"function": {"name": "clock", "arguments": {"zone": "UTC"}}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "time?", "images": []},
        {
            "role": "assistant",
            "thinking": "hm",
            "tool_calls": [{**call, "id": "c1"}, {"function": {**call["function"], "index": 1}}],
        },
        {"role": "tool", "content": "noon", "tool_name": "clock", "tool_call_id": "c1"},
        {"role": "tool", "content": "noon"},
        {"role": "assistant", "content": "Noon.", "tool_calls": [], "thinking": ""},
    ]
    assert chat(messages=messages).messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "time?"},
        {
            "role": "assistant", "content": "", "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", "type": "function", **call}, {"type": "function", **call}],
        },
        {"role": "tool", "content": "noon", "name": "clock", "tool_call_id": "c1"},
        {"role": "tool", "content": "noon"},
        {"role": "assistant", "content": "Noon."},
    ]  # fmt: skip
    tools = chat(tools=[CLOCK]).tools
    assert tools is not None and tools.choice == "auto"
    assert tools.functions == (Function("clock", "The time", CLOCK["function"]["parameters"]),)  # type: ignore[index]
    assert chat(tools=[]).tools is None
    sparse = {"type": "object", "properties": {}}
    in_go = {
        **CLOCK,
        "function": {"name": "clock", "description": "", "parameters": {**sparse, "required": None, "items": None}},
    }
    tools = chat(tools=[in_go]).tools
    assert tools is not None and tools.functions[0].parameters == sparse


def test_prompts() -> None:
    assert generate(system="").messages == HI
    assert generate(system="Be brief.").messages == [{"role": "system", "content": "Be brief."}, *HI]
    raw = generate(raw=True)
    assert raw.messages is None and raw.prompts == ("hi",) and raw.control_tokens and not generate().control_tokens


@pytest.mark.parametrize("name", OllamaGenerateRequest.refused)
def test_refused_fields_are_named_and_empty_ones_are_absent(name: str) -> None:
    for empty in (None, "", [], {}, 0):
        assert generate(**{name: empty}) == generate()
    with pytest.raises(RequestError, match=f"'{name}' is not supported") as error:
        generate(**{name: [1]})
    assert error.value.code == "unsupported_parameter"


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"temperature": float("nan")}, "temperature"), ({"temperature": -0.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": 1e9}, "temperature"), ({"top_p": 1.5}, "top_p"), ({"min_p": -1}, "min_p"),
    ({"top_k": 1.5}, "top_k"),
    ({"top_k": float("inf")}, "top_k"), ({"top_k": -2}, "top_k"), ({"repeat_penalty": 0}, "repeat_penalty"),
    ({"repeat_last_n": -2}, "repeat_last_n"), ({"repeat_last_n": 10**30}, "repeat_last_n"),
    ({"num_predict": 0}, "num_predict"),
    ({"num_predict": -3}, "num_predict"), ({"num_predict": True}, "num_predict"), ({"num_ctx": 0}, "num_ctx"),
    ({"num_ctx": -1}, "num_ctx"), ({"num_ctx": 2**70}, "num_ctx"), ({"seed": 2**63}, "seed"), ({"seed": 0.5}, "seed"),
    ({"stop": [""]}, "stop"), ({"stop": ["a"] * 17}, "stop"), ({"stop": 5}, "stop"), ({"stop": "a" * 257}, "stop"),
    ({"presence_penalty": 3}, "presence_penalty"), ({"frequency_penalty": None, "foo": 1}, "foo"),
    ({"mirostat": 1}, "no mirostat"), ({"mirostat_tau": "x"}, "mirostat_tau"),
    ({"tfs_z": 0.5}, "no tail-free sampling"),
    ({"typical_p": 0.7}, "no typical sampling"), ({"penalize_newline": False}, "penalize_newline"),
    ({"vocab_only": True}, "vocab_only"),
    ({"embedding_only": True}, "embedding_only"), ({"num_gpu": "all"}, "num_gpu"), ({"use_mmap": 1}, "use_mmap"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "named"), WRONG_OPTIONS)
def test_wrong_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError, match=r"'options\.[a-z_]*.*': .*") as error:
        chat(options=options)
    assert named in str(error.value)


def test_options_that_change_nothing() -> None:
    harmless: dict[str, Any] = {
        "num_keep": 5, "num_batch": 512, "num_gpu": 99, "main_gpu": 0, "num_thread": 8, "numa": False,
        "low_vram": True, "f16_kv": True,
        "use_mmap": True, "use_mlock": False, "logits_all": True, "mirostat": 0, "mirostat_tau": 5.0,
        "mirostat_eta": 0.1, "tfs_z": 1,
        "typical_p": 1.0, "penalize_newline": True, "vocab_only": False, "embedding_only": False,
    }  # fmt: skip
    assert set(harmless) == set(Options.harmless)
    assert made(**harmless) == made()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": "hi"}, "messages"), ({"messages": [{}]}, "messages[0].role"),
    ({"messages": [{"role": "me"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
    ({"messages": [{"role": "system", "content": "x", "images": ["aGk="]}]}, "messages[0].images"),
    ({"messages": [{"role": "user", "thinking": "x"}]}, "messages[0].thinking"),
    ({"messages": [{"role": "user", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}]},
    "messages[0].tool_calls"),
    ({"messages": [{"role": "user", "tool_name": "f"}]}, "messages[0].tool_name"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
    "arguments"),
    ({"messages": [*HI] * 5000}, "messages"), ({"model": 5}, "model"), ({"model": None}, "model"),
    ({"options": []}, "options"),
    ({"stream": "false"}, "stream"), ({"format": "yaml"}, "format"), ({"format": True}, "format"),
    ({"think": "max"}, "think"),
    ({"think": 1}, "think"),
    ({"keep_alive": "soon"}, "keep_alive"), ({"keep_alive": "\u0663m"}, "keep_alive"),
    ({"keep_alive": float("inf")}, "keep_alive"),
    ({"keep_alive": True}, "keep_alive"), ({"keep_alive": "5" * 100}, "keep_alive"), ({"truncate": True}, "truncate"),
    ({"shift": True}, "shift"), ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"), ({"tools": [CLOCK, CLOCK]}, "tools"), ({"foo": 1}, "foo"),
    ({"tools": CLOCK}, "tools"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "named"), WRONG)
def test_wrong_fields_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError) as error:
        chat(**fields)
    assert named in str(error.value)


def test_a_raw_prompt_has_no_system_and_no_thinking() -> None:
    for field in ({"system": "x"}, {"think": True}, {"think": "low"}):
        with pytest.raises(RequestError, match="'raw'"):
            generate(raw=True, **field)
    assert generate(raw=True, think=False, system="").prompts == ("hi",)


def test_without_a_prompt_the_model_is_there() -> None:
    def reply(kind: Any, **fields: Any) -> dict[str, Any]:
        with pytest.raises(NothingToGenerate) as nothing:
            kind.read({"model": "m", **fields}, NAMES)
        return dict(json.loads(nothing.value.reply))

    loaded = reply(OllamaGenerate)
    assert (loaded["response"], loaded["done"], loaded["done_reason"]) == ("", True, "load")
    assert reply(OllamaChat, messages=[])["message"] == {"role": "assistant", "content": ""}
    for keep_alive in (0, "0", "0s", 0.0, "0h0m", -1, "5m", "1h30m", 300, None):
        reason = "unload" if keep_alive in (0, "0", "0s", "0h0m") else "load"
        assert reply(OllamaChat, keep_alive=keep_alive)["done_reason"] == reason
        assert reply(OllamaGenerate, prompt="", keep_alive=keep_alive)["done_reason"] == reason


def test_what_show_takes() -> None:
    assert OllamaShowRequest.read({"name": "m", "verbose": True, "system": ""}).name == "m"
    with pytest.raises(RequestError, match="'model'"):
        OllamaShowRequest.read({})


# ---- how answers are written ----


def prepared(parser: OutputParser | None = None) -> PreparedRequest:
    return PreparedRequest(
        GenerationSpec(), [GenerationRequest([1])], None, "m", "fp", [parser] if parser else [], nonce="n"
    )  # type: ignore[arg-type]


def deltas(*texts: str, reason: Any = "stop") -> list[Delta]:
    return [Delta(text, 1) for text in texts] + [Delta("", 0, reason, spent=SPENT)]


SPENT = Spent(5, 7, queue_s=0.25, first_token_s=0.75, total_s=1.5)
TOTALS = Totals(5, 0, 7, [SPENT])
CALLS = (
    '<think>\nhm</think>\n\nLet me see.\n<tool_call>\n{"name": "f", "arguments": {"a": "<b> \\" \u2028", "n":'
    ' 123456789012345678901234}}\n</tool_call>\n<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_calls_come_whole_and_in_order_however_the_text_is_cut(size: int) -> None:
    pieces = [CALLS[i : i + size] for i in range(0, len(CALLS), size)]
    stream = OllamaStream(ReplyFormat("m", chat=True), prepared(OutputParser(Thinking(), GENERIC)))
    raw = b"".join([stream.encode(0, [delta]) for delta in deltas(*pieces)]) + stream.end(TOTALS)
    assert len(raw.decode().splitlines()) == raw.count(b"\n")
    lines = [json.loads(line) for line in raw.decode().splitlines()]
    messages = [line["message"] for line in lines]
    assert (
        "".join(m.get("thinking", "") for m in messages) == "hm"
        and "".join(m["content"] for m in messages) == "Let me see."
    )
    calls = [call for m in messages for call in m.get("tool_calls", ())]
    assert [call["function"] for call in calls] == [
        {"index": 0, "name": "f", "arguments": {"a": '<b> " \u2028', "n": 123456789012345678901234}},
        {"index": 1, "name": "g", "arguments": {}},
    ]
    assert len({call["id"] for call in calls}) == 2
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    for line in lines:
        ollama.ChatResponse(**line)


def test_a_call_that_was_cut_off_is_not_told() -> None:
    for cut in range(CALLS.index("<tool_call>") + 11, CALLS.index("</tool_call>") - 2):
        parts = Gathering(prepared(OutputParser(Thinking(), GENERIC))).take(deltas(CALLS[:cut], reason="length"))
        assert [call for part in parts for call in part.calls] == [] and "".join(
            p.content for p in parts
        ) == "Let me see."


def test_durations_are_the_answers_own() -> None:
    assert durations("length", TOTALS) == {
        "done_reason": "length", "total_duration": 1_500_000_000, "load_duration": 0, "prompt_eval_count": 5,
        "prompt_eval_duration": 500_000_000, "eval_count": 7, "eval_duration": 750_000_000,
    }  # fmt: skip


def test_no_line_breaks_inside_a_line() -> None:
    text = "a\u0085b\u2028c\u2029d\x0b\x0c\x1c\x1d\x1e\r\n\ne\U0001f600"
    line = ReplyFormat("m", chat=False).write(Part(content=text, thinking=text)).decode()
    assert line.splitlines() == [line]
    assert json.loads(line)["response"] == json.loads(line)["thinking"] == text
    failed = OllamaStream(ReplyFormat("m", chat=True), prepared()).fail(HttpError(500, "it\u2028broke")).decode()
    assert failed.endswith("\n") and json.loads(failed) == {"error": "it\u2028broke"} and len(failed.splitlines()) == 1
