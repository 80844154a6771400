"""Anthropic's Messages API, asked by Anthropic's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from server_process import RunningServer, post

HI: Any = [{"role": "user", "content": "What is 7 + 5?"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


def request(fields: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the client, which has no words for what samples."""
    asked = {"model": "default", "messages": HI, "max_tokens": 20, "temperature": 0, **fields}
    sampling = {name: asked.pop(name) for name in ("temperature", "top_k", "top_p") if name in asked}
    return {**asked, "extra_body": sampling}


def ask(client: anthropic.Anthropic, **fields: Any) -> anthropic.types.Message:
    return client.messages.create(**request(fields))


def streamed(client: anthropic.Anthropic, **fields: Any) -> anthropic.types.Message:
    """The same, put together from a stream by the client."""
    with client.messages.stream(**request(fields)) as stream:
        return stream.get_final_message()


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def facts(message: anthropic.types.Message) -> tuple:
    """What does not depend on when it was asked, but for ids."""
    blocks = [block.model_dump(exclude={"id"}) for block in message.content]
    return blocks, message.stop_reason, message.stop_sequence, message.usage.output_tokens


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"system": "Be brief."},
        {"system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        {"max_tokens": 1},
        {"stop_sequences": ["1", "2"]},
        {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "get_weather"}, "max_tokens": 60},
        {"tools": [WEATHER], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}, "max_tokens": 60},
        {"tools": [WEATHER], "tool_choice": {"type": "none"}},
        {"metadata": {"user_id": "x"}, "service_tier": "auto", "top_k": 5, "top_p": 0.9, "temperature": 0},
    ],
    ids=str,
)
def test_a_stream_is_the_whole_answer(client: anthropic.Anthropic, fields: dict[str, Any]) -> None:
    whole, stream = ask(client, **fields), streamed(client, **fields)
    assert facts(whole) == facts(stream)
    for usage in (whole.usage, stream.usage):
        assert usage.cache_read_input_tokens is not None
        prompt = client.messages.count_tokens(
            model="default",
            messages=HI,
            **{name: fields[name] for name in ("system", "tools", "tool_choice") if name in fields},
        )
        assert usage.input_tokens + usage.cache_read_input_tokens == prompt.input_tokens


def test_why_it_ended(client: anthropic.Anthropic) -> None:
    whole = ask(client)
    assert (whole.stop_reason, whole.stop_sequence, "12" in text_of(whole)) == ("end_turn", None, True)
    assert ask(client, max_tokens=1).stop_reason == "max_tokens"
    form = {"type": "json_schema", "schema": {"type": "array", "items": {"const": 7}, "minItems": 500}}
    full = ask(client, system="word " * 950, max_tokens=10_000, output_config={"format": form})
    assert full.stop_reason == "model_context_window_exceeded" and full.usage.output_tokens > 10
    cut = ask(client, stop_sequences=["zzz", "2"])
    assert (cut.stop_reason, cut.stop_sequence, "2" in text_of(cut)) == ("stop_sequence", "2", False)


def test_a_tool_is_called_and_its_result_read(client: anthropic.Anthropic) -> None:
    fields: dict[str, Any] = {"tools": [WEATHER], "max_tokens": 60}
    call = ask(client, **fields, tool_choice={"type": "tool", "name": "get_weather"})
    (block,) = call.content
    assert block.type == "tool_use" and call.stop_reason == "tool_use"
    assert block.input in ({"city": "Paris"}, {"city": "Oslo"})
    result: Any = {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "3 degrees"}]}
    answer: Any = {"role": "assistant", "content": call.content}
    plain = [*HI, answer, {"role": "user", "content": [result]}]
    failed = [*HI, answer, {"role": "user", "content": [{**result, "is_error": True}, {"type": "text", "text": "Hm"}]}]
    sizes = [
        client.messages.count_tokens(model="default", messages=messages, tools=[WEATHER]).input_tokens
        for messages in (plain, failed)
    ]
    assert sizes[0] < sizes[1]
    assert ask(client, **fields, messages=plain).role == "assistant"


def test_a_form_of_the_answer_is_guaranteed(client: anthropic.Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"sum": {"const": 12}},
        "required": ["sum"],
        "additionalProperties": False,
    }
    answer = ask(client, output_config={"format": {"type": "json_schema", "schema": schema}}, temperature=1)
    assert text_of(answer).replace(" ", "").replace("\n", "") == '{"sum":12}'


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*HI, {"role": "assistant", "content": "The"}]}, "last one must be the user's"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]}, "no call 't'"),
        ({"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "t"}]}]}, "of the assistant"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool"}, "tools": [WEATHER]}, "tool_choice.name"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
        ({"thinking": {"type": "enabled"}}, "budget_tokens"),
        ({"mcp_servers": []}, "MCP"),
        ({"no_such_field": 1}, "no_such_field"),
    ],
)
def test_what_is_wrong_is_named(server: RunningServer, fields: dict[str, Any], named: str) -> None:
    status, answer = post(server, "/v1/messages", **{"model": "default", "messages": HI, "max_tokens": 5, **fields})
    assert (status, answer["type"], answer["error"]["type"]) == (400, "error", "invalid_request_error")
    assert named in answer["error"]["message"]


def test_a_call_comes_back_however_long_its_numbers_are(server: RunningServer) -> None:
    call = {"type": "tool_use", "id": "a", "name": "look", "input": {"number": 10**20}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": "nothing"}
    said = [*HI, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    status, answer = post(server, "/v1/messages", model="default", messages=said, max_tokens=5)
    assert status == 200, answer


def test_errors_are_those_that_the_client_knows(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="--alias"):
        ask(client, model="claude")
    with pytest.raises(anthropic.BadRequestError, match="context"):
        ask(client, messages=[{"role": "user", "content": "word " * 3000}])
