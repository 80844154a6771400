"""Functions through OpenAI's own client: a random model at temperature 2 calls them rightly, because it cannot do
otherwise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal

import chat_templates
import jsonschema
import openai
import pydantic
import pytest
from server_process import RunningServer, async_openai_client, chat, openai_client

from axpress.core.tokenizer.tokenizer import Tokenizer

HI: list[Any] = [{"role": "user", "content": "hi"}]
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", "Rome", "Bonn"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "note": {"type": "string", "maxLength": 6},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells the weather.", "parameters": PARAMETERS, "strict": True},
}
NOW: Any = {
    "type": "function",
    "function": {"name": "now", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}},
}
TOOLS = [WEATHER, NOW]
FIXED: dict[str, Any] = {
    "model": "default",
    "messages": HI,
    "tools": TOOLS,
    "temperature": 2,
    "max_tokens": 300,
    "seed": 3,
}
QUIET: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    package = chat_templates.random_package(tmp_path_factory.mktemp("tools"), chat_templates.QWEN)
    with RunningServer(package, "--emu-profile", "none") as running:
        yield running
        running.wait(running.idle, 30, "idle")  # the last piece of an answer comes a moment before its end


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return chat_templates.text_with(chat_templates.QWEN, tmp_path_factory.mktemp("text") / "tokenizer")


@pytest.fixture(scope="module")
def demo() -> Iterator[openai.OpenAI]:
    with RunningServer("--emu-profile", "none") as running, openai_client(running) as client:
        yield client
        running.wait(running.idle, 30, "idle")  # the last piece of an answer comes a moment before its end


def checked(calls: Any) -> list[tuple[str, Any]]:
    """Names and arguments, which match their schemas."""
    out = []
    for call in calls or ():
        schema = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}[call.function.name]
        arguments = json.loads(call.function.arguments)
        jsonschema.validate(arguments, schema)
        out.append((call.function.name, arguments))
    return out


def test_required_calls_are_calls_at_any_temperature(client: openai.OpenAI) -> None:
    names = []
    for seed in range(4):
        answer = client.chat.completions.create(**FIXED | {"seed": seed}, tool_choice="required", n=2, extra_body=QUIET)
        for choice in answer.choices:
            assert choice.finish_reason == "tool_calls" and choice.message.content is None
            assert choice.message.tool_calls
            names += [name for name, _ in checked(choice.message.tool_calls)]
        ids = [call.id for choice in answer.choices for call in choice.message.tool_calls or ()]
        assert len(set(ids)) == len(ids) and all(one.startswith("call_") for one in ids)
        assert answer.usage is not None and answer.usage.completion_tokens_details.reasoning_tokens == 0  # type: ignore[union-attr]
    assert set(names) == {"weather", "now"}


def test_a_stream_is_the_whole_answer_with_arguments_in_pieces(client: openai.OpenAI) -> None:
    fields = {
        **FIXED,
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "extra_body": QUIET,
        "n": 2,
    }
    whole = client.chat.completions.create(**fields)
    for choice in whole.choices:
        assert [name for name, _ in checked(choice.message.tool_calls)] == ["weather"]
    chunks = list(client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    for index, choice in enumerate(whole.choices):
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == index]
        deltas = [one.delta.tool_calls[0] for one in mine if one.delta.tool_calls]
        assert (
            deltas[0].id and deltas[0].type == "function" and deltas[0].function and deltas[0].function.arguments == ""
        )
        assert all(
            one.id is None and one.index == 0 and one.function and one.function.name is None for one in deltas[1:]
        )
        assert deltas[0].function.name == "weather" and len(deltas) > 3
        arguments = "".join(one.function.arguments or "" for one in deltas if one.function)
        assert arguments == choice.message.tool_calls[0].function.arguments  # type: ignore[index,union-attr]
        assert not any(one.delta.content for one in mine)
        assert mine[-1].finish_reason == "tool_calls" and all(one.finish_reason is None for one in mine[:-1])
    told, expected = chunks[-1].usage, whole.usage  # but how many were cached depends on who was there
    assert told and expected
    assert (told.prompt_tokens, told.completion_tokens) == (expected.prompt_tokens, expected.completion_tokens)


def test_openais_stream_helper_and_async_client(server: RunningServer, client: openai.OpenAI) -> None:
    fields = {**FIXED, "tool_choice": "required", "extra_body": QUIET}
    fields["tools"] = [openai.pydantic_function_tool(Weather), NOW]
    with client.chat.completions.stream(**fields) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion().choices[0]
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done", "chunk"} <= kinds
    assert final.finish_reason == "tool_calls" and final.message.tool_calls

    async def one() -> Any:
        async with async_openai_client(server) as api:
            return (await api.chat.completions.create(**fields)).choices[0].message.tool_calls

    again = asyncio.run(one())
    assert [call.function.arguments for call in again] == [call.function.arguments for call in final.message.tool_calls]


class Weather(pydantic.BaseModel):
    city: Literal["Oslo", "Rome"]
    days: int = pydantic.Field(ge=1, le=9)


def test_parse_gives_objects(client: openai.OpenAI) -> None:
    tools = [openai.pydantic_function_tool(Weather)]
    answer = client.chat.completions.parse(**{**FIXED, "tools": tools}, tool_choice="required", extra_body=QUIET)
    message = answer.choices[0].message
    assert message.tool_calls and isinstance(message.tool_calls[0].function.parsed_arguments, Weather)
    # The parsed message goes back as it is.
    results: list[Any] = [
        {"role": "tool", "tool_call_id": call.id, "content": "4 degrees"} for call in message.tool_calls
    ]
    more = client.chat.completions.create(
        **{**FIXED, "messages": [*HI, message, *results], "max_tokens": 5}, extra_body=QUIET
    )
    assert more.usage and answer.usage and more.usage.prompt_tokens > answer.usage.prompt_tokens + 10


def test_auto_is_held_to_the_schema_once_a_call_begins(client: openai.OpenAI, text: Tokenizer) -> None:
    mark = text.encode_control("<tool_call>")
    mark -= text.vocab_size - 384  # the served model's vocabulary is smaller; special tokens come last
    called = 0
    for seed in range(6):
        answer = client.chat.completions.create(**FIXED | {"seed": seed}, logit_bias={str(mark): 6}, extra_body=QUIET)
        choice = answer.choices[0]
        assert "<tool_call>" not in (choice.message.content or "")
        if choice.finish_reason == "tool_calls":
            called += len(checked(choice.message.tool_calls))
        else:
            assert choice.finish_reason in ("stop", "length")
    assert called
    one = client.chat.completions.create(
        **FIXED, parallel_tool_calls=False, logit_bias={str(mark): 100}, extra_body=QUIET
    )
    assert len(checked(one.choices[0].message.tool_calls)) == 1 and one.choices[0].finish_reason == "tool_calls"


def test_none_and_allowed_tools(client: openai.OpenAI) -> None:
    fields = {**FIXED, "max_tokens": 4, "temperature": 0, "extra_body": QUIET}
    without = client.chat.completions.create(**{**fields, "tools": openai.omit})
    none = client.chat.completions.create(**fields, tool_choice="none")
    assert (
        none.choices[0].message.tool_calls is None
        and none.choices[0].message.content == without.choices[0].message.content
    )
    assert none.usage and without.usage and none.usage.prompt_tokens == without.usage.prompt_tokens
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "now"}}]}
    some = client.chat.completions.create(
        **FIXED, tool_choice={"type": "allowed_tools", "allowed_tools": allowed}, extra_body=QUIET
    )
    assert {name for name, _ in checked(some.choices[0].message.tool_calls)} == {"now"}
    assert some.usage and some.usage.prompt_tokens > none.usage.prompt_tokens  # the model is told of all of them


def test_a_call_that_is_cut_off_says_length(client: openai.OpenAI) -> None:
    fields = {**FIXED, "tools": [WEATHER], "tool_choice": "required", "extra_body": QUIET}
    full = client.chat.completions.create(**fields)
    assert full.usage is not None
    whole = full.choices[0].message.tool_calls[0].function.arguments  # type: ignore[index,union-attr]
    seen = set()
    for limit in range(1, full.usage.completion_tokens, 3):
        cut = client.chat.completions.create(**fields | {"max_tokens": limit}).choices[0]
        calls = cut.message.tool_calls or []
        assert cut.finish_reason == "length" and cut.message.content == (None if calls else "")
        if calls:  # the last character may be cut as well
            assert whole.startswith(calls[0].function.arguments.removesuffix("\ufffd"))
        seen.add(bool(calls))
    assert seen == {True, False}


def test_a_stop_string_within_a_call_ends_the_answer(client: openai.OpenAI) -> None:
    """The answer did not come to the end of its call, and does not say so."""
    fields = {**FIXED, "tools": [WEATHER], "tool_choice": "required", "extra_body": QUIET, "stop": '"days"'}
    choice = client.chat.completions.create(**fields).choices[0]
    assert choice.finish_reason == "stop" and choice.message.tool_calls
    arguments = choice.message.tool_calls[0].function.arguments  # type: ignore[union-attr]
    assert arguments.startswith('{"city": "') and arguments.endswith(", ")
    chunks = list(client.chat.completions.create(**fields, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_old_form_is_obeyed(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {**FIXED, "functions": [WEATHER["function"], NOW["function"]], "extra_body": QUIET}
    del fields["tools"]
    answer = client.chat.completions.create(**fields, function_call={"name": "weather"})
    choice = answer.choices[0]
    assert choice.finish_reason == "function_call" and choice.message.tool_calls is None
    assert choice.message.function_call is not None and choice.message.function_call.name == "weather"
    jsonschema.validate(json.loads(choice.message.function_call.arguments), PARAMETERS)
    chunks = [
        c.choices[0] for c in client.chat.completions.create(**fields, function_call={"name": "weather"}, stream=True)
    ]
    told = [c.delta.function_call for c in chunks if c.delta.function_call]
    assert (
        told[0].name == "weather" and "".join(c.arguments or "" for c in told) == choice.message.function_call.arguments
    )
    assert chunks[-1].finish_reason == "function_call"
    results: list[Any] = [choice.message, {"role": "function", "name": "weather", "content": "rain"}]
    again = client.chat.completions.create(**fields | {"messages": [*HI, *results], "max_tokens": 3})
    assert again.choices[0].finish_reason in ("stop", "length")


def test_a_model_whose_template_knows_no_tools_calls_as_well(demo: openai.OpenAI) -> None:
    answer = demo.chat.completions.create(**FIXED, tool_choice="required")
    message = answer.choices[0].message
    assert checked(message.tool_calls) and answer.choices[0].finish_reason == "tool_calls"
    results: list[Any] = [
        {"role": "tool", "tool_call_id": call.id, "content": "4 degrees"} for call in message.tool_calls or ()
    ]
    with_results = demo.chat.completions.create(**{**FIXED, "messages": [*HI, message, *results], "max_tokens": 5})
    plain = demo.chat.completions.create(model="default", messages=HI, max_tokens=3)
    assert with_results.usage and answer.usage and plain.usage
    assert with_results.usage.prompt_tokens > answer.usage.prompt_tokens > plain.usage.prompt_tokens + 50


def test_logprobs_of_calls_are_those_of_all_tokens(client: openai.OpenAI) -> None:
    fields = {**FIXED, "tool_choice": "required", "logprobs": True, "top_logprobs": 2, "extra_body": QUIET}
    answer = client.chat.completions.create(**fields)
    assert answer.usage and answer.choices[0].logprobs and answer.choices[0].logprobs.content
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens
    written = b"".join(bytes(one.bytes or []) for one in tokens).decode()
    assert written.startswith('<tool_call>\n{"name": "')
    streamed = [
        c.choices[0].logprobs for c in client.chat.completions.create(**fields, stream=True) if c.choices[0].logprobs
    ]
    assert [(t.token, t.logprob) for one in streamed for t in one.content or ()] == [
        (t.token, t.logprob) for t in tokens
    ]


def call(key: str = "c1", **function: Any) -> dict[str, Any]:
    return {"id": key, "type": "function", "function": {"name": "weather", "arguments": "{}", **function}}


def talk(*calls: Any, **fields: Any) -> list[Any]:
    return [*HI, {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}]


def deep(levels: int) -> dict[str, Any]:
    return {"a": deep(levels - 1)} if levels else {}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tools": "x"}, "tools"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "a\n"}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "x" * 65}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "f", "more": 1}}]}, "tools[0].function.more"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}, "tools[0].function.parameters"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": deep(60)}}]},
    "tools[0].function.parameters"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": "x" * 300_000}}}]},
    "tools[0].function.parameters"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"minimum": float("inf")}}}]},
    "tools[0].function.parameters"),
    ({"tools": [NOW, {"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}]},
    "tools[1].function.parameters"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/a"}}}]},
    "tools[0].function.parameters"),
    ({"tools": [NOW, NOW]}, "tools[1]"),
    ({"tools": [NOW] * 129}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": "some"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.function"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}},
    "tool_choice.allowed_tools.tools"),
    ({"tools": TOOLS, "parallel_tool_calls": "yes"}, "parallel_tool_calls"),
    ({"tools": TOOLS, "functions": [NOW["function"]]}, "functions"),
    ({"functions": []}, "functions"),
    ({"function_call": {"name": "f"}}, "function_call"),
    ({"functions": [{"name": "f", "parameters": {"not": {}}}]}, "functions[0].parameters"),
    ({"tools": TOOLS, "prediction": {"type": "content", "content": "x"}}, "prediction"),
    ({"tools": TOOLS, "ignore_eos": True}, "ignore_eos"),
    ({"tools": TOOLS, "stop": "\n"}, "stop"),
    ({"tools": TOOLS, "stop": ["x", "name"]}, "stop"),
    ({"messages": [*HI, {"role": "tool", "tool_call_id": "c1", "content": "x"}]}, "messages[1].tool_call_id"),
    ({"messages": [*talk(call()), {"role": "tool", "tool_call_id": "c2", "content": "x"}]}, "messages[2].tool_call_id"),
    ({"messages": [*talk(call()), {"role": "tool", "content": "x"}]}, "messages[2].tool_call_id"),
    ({"messages": [*talk(call()), {"role": "tool", "tool_call_id": "c1"}]}, "messages[2].content"),
    ({"messages": [*talk(call()), {"role": "function", "name": "weather", "content": "x"}]}, "messages[2].name"),
    ({"messages": talk(call())}, "messages[1].tool_calls"),
    ({"messages": [*talk(call(), call("c2")), {"role": "tool", "tool_call_id": "c1", "content": "x"}]},
    "messages[1].tool_calls"),
    ({"messages": [*talk(call()), *HI, {"role": "tool", "tool_call_id": "c1", "content": "x"}]},
    "messages[1].tool_calls"),
    ({"messages": talk()}, "messages[1].content"),
    ({"messages": talk({})}, "messages[1].tool_calls[0].id"),
    ({"messages": talk(call(arguments={}))}, "messages[1].tool_calls[0].function.arguments"),
    ({"messages": talk(call(name="a b"))}, "messages[1].tool_calls[0].function.name"),
    ({"messages": talk(call(), function_call={"name": "f", "arguments": ""})}, "messages[1].function_call"),
    ({"messages": talk(call(), refusal="no")}, "messages[1].refusal"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages[0].tool_calls"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[f"{i}-{one[1]}" for i, one in enumerate(WRONG)])
def test_wrong_fields_are_named(server: RunningServer, fields: dict[str, Any], param: str) -> None:
    status, _, body = server.post({**chat(max_tokens=2), **QUIET, **fields})
    assert status == 400, body
    assert body["error"]["param"] == param and body["error"]["type"] == "invalid_request_error"
    assert len(body["error"]["message"]) < 600 and "Traceback" not in body["error"]["message"]


def test_what_clients_echo_is_accepted(server: RunningServer) -> None:
    echoed = {"refusal": None, "audio": None, "annotations": [], "function_call": None, "reasoning_content": None}
    messages = [
        *talk(call(), **echoed),
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "x"}], "name": "weather"},
    ]
    messages += [{"role": "assistant", "content": "It rains.", "tool_calls": [], **echoed, "reasoning_content": "hm"}]
    messages += [*talk({**call("c2"), "index": 0}), {"role": "tool", "tool_call_id": "c2", "content": "x"}]
    status, _, body = server.post({**chat(max_tokens=2), **QUIET, "messages": messages, "tools": []})
    assert status == 200, body
