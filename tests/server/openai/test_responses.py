"""Responses: OpenAI's client, its strict types and its helpers, against the demo model on the emulated card."""

from __future__ import annotations

import asyncio
import json
import warnings
from pathlib import Path
from typing import Any, Literal

import chat_templates
import jsonschema
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter
from server_process import RunningServer, async_openai_client, hollow_package, openai_client, post

from axpress.server.openai import responses_replies
from axpress.server.openai.response_items import neutral_items
from axpress.server.openai.responses_request import ResponsesRequest

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
TIME: Any = {
    "type": "function",
    "name": "get_time",
    "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
OURS: TypeAdapter[Any] = TypeAdapter(responses_replies.ResponsesEvent)
WHOLE: TypeAdapter[Any] = TypeAdapter(responses_replies.Response)


def respond(server: RunningServer, **fields: Any) -> tuple[int, Any]:
    status, answer = post(server, "/v1/responses", **fields)
    if status == 200:
        WHOLE.validate_python(answer, strict=True)
        Response.model_validate(answer, strict=True)
    return status, answer


def stream(server: RunningServer, **fields: Any) -> list[dict[str, Any]]:
    """All events of a streamed answer, each checked against openai-python's own types and ours, in order."""
    body = json.dumps({**fields, "stream": True}).encode()
    status, head, raw = server.request("POST", "/v1/responses", body, {"content-type": "application/json"})
    assert status == 200 and head["content-type"].startswith("text/event-stream")
    events = []
    for block in raw.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}" and event["sequence_number"] == len(events)
        EVENT.validate_python(event)
        OURS.validate_python(event, strict=True)
        events.append(event)
    return events


def without_ids(value: Any) -> Any:
    """The same JSON without what differs from one answer to the next."""
    if isinstance(value, list):
        return [without_ids(one) for one in value]
    if isinstance(value, dict):
        return {
            k: without_ids(v)
            for k, v in value.items()
            if k not in ("id", "call_id", "created_at", "completed_at", "usage")
        }
    return value


def test_a_whole_answer_is_a_strict_response(server: RunningServer, client: openai.OpenAI) -> None:
    status, raw = respond(server, input="Hello", metadata={"a": "b"}, user="u", instructions="Be brief.")
    assert status == 200
    answer = Response.model_validate(raw, strict=True)
    assert (
        answer.status == "completed" and answer.output_text and answer.id.startswith("resp_") and answer.error is None
    )
    assert answer.incomplete_details is None and answer.metadata == {"a": "b"} and answer.instructions == "Be brief."
    assert (
        raw["store"] is False
        and answer.truncation == "disabled"
        and answer.temperature == 0
        and answer.model == "axpress-toy"
    )
    usage = answer.usage
    assert (
        usage is not None and usage.input_tokens > 5 and usage.total_tokens == usage.input_tokens + usage.output_tokens
    )
    assert (
        usage.input_tokens_details.cached_tokens + usage.input_tokens_details.cache_write_tokens == usage.input_tokens
    )
    assert (
        client.responses.create(model="default", input="Hello", instructions="Be brief.").output_text
        == answer.output_text
    )


def test_it_says_what_the_chat_says(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(
        model="default", messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    )
    ways: list[Any] = [
        {"input": "Hello", "instructions": "Be brief."},
        {
            "input": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
            ]
        },
    ]
    for way in ways:
        answer = client.responses.create(model="default", **way)
        assert answer.output_text == chat.choices[0].message.content
        assert (
            answer.usage is not None
            and chat.usage is not None
            and answer.usage.input_tokens == chat.usage.prompt_tokens
        )


def test_the_events_of_a_text(server: RunningServer) -> None:
    fields = {"input": "Hello", "max_output_tokens": 30}
    events = stream(server, **fields)
    deltas = [e for e in events if e["type"] == "response.output_text.delta"]
    assert [e["type"] for e in events] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        *[e["type"] for e in deltas], "response.output_text.done", "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]  # fmt: skip
    whole = respond(server, **fields)[1]
    last = events[-1]["response"]
    assert (
        "".join(e["delta"] for e in deltas)
        == last["output"][0]["content"][0]["text"]
        == whole["output"][0]["content"][0]["text"]
    )
    assert without_ids(last) == without_ids(whole)
    assert last["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    assert events[-2]["item"] == last["output"][0] and {e["item_id"] for e in deltas} == {last["output"][0]["id"]}
    assert events[0]["response"]["status"] == "in_progress" and events[0]["response"]["output"] == []


def test_an_answer_that_was_cut_says_so(server: RunningServer, client: openai.OpenAI) -> None:
    whole = client.responses.create(model="default", input="Hello", max_output_tokens=2)
    assert whole.status == "incomplete" and whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens" and whole.output[0].status == "incomplete"  # type: ignore[union-attr]
    last = stream(server, input="Hello", max_output_tokens=2)[-1]
    assert last["type"] == "response.incomplete" and last["response"]["output"][0]["status"] == "incomplete"
    assert last["response"]["completed_at"] is None


def test_stream_helper_and_async_client(server: RunningServer, client: openai.OpenAI) -> None:
    with client.responses.stream(model="default", input="Hello") as events:
        text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        final = events.get_final_response()
    assert final.output_text == text

    async def both() -> tuple[str, str]:
        async with async_openai_client(server) as api:
            whole = await api.responses.create(model="default", input="Hello")
            parts = [e async for e in await api.responses.create(model="default", input="Hello", stream=True)]
            return whole.output_text, "".join(e.delta for e in parts if e.type == "response.output_text.delta")

    assert asyncio.run(both()) == (text, text)


class Weather(BaseModel):
    """What `parse` makes of an answer."""

    city: Literal["Paris", "Oslo", "Lagos"]
    degrees: Literal[-3, 14, 31]
    sunny: bool


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_structured_output_parses(client: openai.OpenAI, temperature: float) -> None:
    fields: Any = {"model": "default", "input": "Weather?", "text_format": Weather, "temperature": temperature}
    assert isinstance(client.responses.parse(**fields).output_parsed, Weather)
    with client.responses.stream(**fields) as events:
        assert isinstance(events.get_final_response().output_parsed, Weather)


def test_json_objects_and_schemas(server: RunningServer) -> None:
    any_object = {"text": {"format": {"type": "json_object"}}, "temperature": 1.5, "seed": 2}
    status, answer = respond(server, input="JSON?", **any_object, max_output_tokens=200)
    assert status == 200 and answer["text"]["format"] == {"type": "json_object"}
    assert answer["status"] == "completed", "take another seed"
    assert isinstance(json.loads(answer["output"][0]["content"][0]["text"]), dict)
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    status, answer = respond(server, input="n?", text={"format": form, "verbosity": "medium"})
    assert status == 200 and answer["status"] == "completed" and answer["text"]["format"] == form
    jsonschema.validate(json.loads(answer["output"][0]["content"][0]["text"]), schema)
    Response.model_validate(answer, strict=True)


def test_a_required_call_and_its_result(server: RunningServer, client: openai.OpenAI) -> None:
    conversation: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
    fields: Any = {"model": "default", "tools": [WEATHER, TIME], "parallel_tool_calls": False}
    answer = client.responses.create(**fields, input=conversation, tool_choice="required")
    (call,) = answer.output
    assert call.type == "function_call" and call.status == "completed" and call.call_id.startswith("call_")
    assert call.name in ("get_weather", "get_time")
    named = client.responses.create(
        **fields, input=conversation, tool_choice={"type": "function", "name": "get_weather"}
    )
    (call,) = named.output
    assert call.type == "function_call" and call.name == "get_weather"
    jsonschema.validate(json.loads(call.arguments), WEATHER["parameters"])
    conversation += named.output
    conversation.append({"type": "function_call_output", "call_id": call.call_id, "output": "3 degrees, snow"})
    final = client.responses.create(**fields, input=conversation, tool_choice="none", max_output_tokens=30)
    assert [item.type for item in final.output] == ["message"]
    allowed: Any = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_time"}]}
    (call,) = client.responses.create(**fields, input="now?", tool_choice=allowed).output
    assert call.type == "function_call" and call.name == "get_time"


def test_the_events_of_a_call(server: RunningServer, client: openai.OpenAI) -> None:
    fields: Any = {"input": "Weather?", "tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}}
    events = stream(server, **fields)
    kinds = [e["type"].removeprefix("response.") for e in events]
    deltas = [e for e in events if e["type"] == "response.function_call_arguments.delta"]
    assert kinds == [
        "created", "in_progress", "output_item.added", *["function_call_arguments.delta"] * len(deltas),
        "function_call_arguments.done", "output_item.done", "completed",
    ]  # fmt: skip
    added, done, last = events[2]["item"], events[-3], events[-1]["response"]
    assert (
        added["name"] == "get_weather"
        and added["arguments"] == ""
        and added["status"] == "in_progress"
        and added["call_id"]
    )
    assert "".join(e["delta"] for e in deltas) == done["arguments"] == last["output"][0]["arguments"]
    assert last["output"][0]["call_id"] == added["call_id"] and last["tool_choice"] == fields["tool_choice"]
    with client.responses.stream(model="default", **fields) as helper:
        (call,) = helper.get_final_response().output
    assert call.type == "function_call" and call.arguments == done["arguments"]


def test_log_probabilities_are_of_the_text(server: RunningServer, client: openai.OpenAI) -> None:
    fields: Any = {"model": "default", "input": "Hello", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    part = client.responses.create(**fields).output[0].content[0]  # type: ignore[union-attr]
    assert part.type == "output_text" and part.logprobs
    assert "".join(p.token for p in part.logprobs) == part.text and all(len(p.top_logprobs) == 2 for p in part.logprobs)
    events = stream(server, **fields)
    streamed = [p for e in events if e["type"] == "response.output_text.delta" for p in e["logprobs"]]
    assert [p["token"] for p in streamed] == [p.token for p in part.logprobs]
    assert client.responses.create(model="default", input="Hello").output[0].content[0].logprobs == []  # type: ignore[union-attr]


def test_an_answer_can_be_sent_back_as_it_came(server: RunningServer, client: openai.OpenAI) -> None:
    first = client.responses.create(model="default", input="Hello")
    second: list[Any] = [{"role": "user", "content": "Hello"}, *first.output, {"role": "user", "content": "And now?"}]
    dumped = [second[0], *[item.model_dump() for item in first.output], second[-1]]
    plain = [second[0], {"role": "assistant", "content": first.output_text}, second[-1]]
    answers = [
        client.responses.create(model="default", input=one, max_output_tokens=30) for one in (second, dumped, plain)
    ]
    assert len({answer.output_text for answer in answers}) == 1
    assert len({answer.usage.input_tokens for answer in answers if answer.usage is not None}) == 1


def test_what_was_asked_for_is_repeated_without_a_warning() -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    forms: list[dict[str, Any]] = [
        {"type": "json_schema", "name": "x", "schema": {"type": "object"}},
        {"type": "json_object"},
        {"type": "text"},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for form in forms:
            fields = {"text": {"format": form}, "tools": [tool], "tool_choice": choice}
            request = ResponsesRequest.read({"input": "hi", **fields})
            assert {name: request.echoed(name) for name in fields} == fields


def test_items_of_one_turn_are_one_message() -> None:
    def call(number: int) -> dict[str, Any]:
        return {
            "type": "function_call",
            "call_id": f"c{number}",
            "name": "f",
            "arguments": "{}",
            "id": "fc_1",
            "status": "completed",
        }

    items = [
        {"type": "message", "role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}],
        },
        call(1),
        call(2),
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
        {"type": "reasoning", "id": "rs_2", "summary": []},
        {"role": "assistant", "content": "Done.", "phase": "final_answer"},
        {"role": "assistant", "content": "Really."},
    ]
    request = ResponsesRequest.read({"input": items})
    made = [{"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in (1, 2)]
    assert neutral_items(request.input, "Answer.") == [
        {"role": "system", "content": "Answer.\n\nBe kind."},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "Let me see.", "reasoning_content": "hm", "tool_calls": made},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "assistant", "content": "Done."},
        {"role": "assistant", "content": "Really."},
    ]


USER = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    "fields, param",
    [
        ({}, "input"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": "\ud800"}, "input"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "tool", "content": "a"}]}, "input[0].role"),
        ({"input": [USER, {"type": "item_reference", "id": "msg_1"}]}, "input[1].type"),
        ({"input": [USER, {"type": "web_search_call", "id": "ws_1", "status": "completed"}]}, "input[1].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://127.0.0.1/"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [USER, {"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input[1].call_id"),
        (
            {"input": [USER, {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]}]},
            "input[1].summary",
        ),
        (
            {"input": [USER, {"type": "reasoning", "summary": [], "encrypted_content": "x"}]},
            "input[1].encrypted_content",
        ),
        ({"input": "a", "store": True}, "store"),
        ({"input": "a", "background": True}, "background"),
        ({"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "a", "conversation": "conv_1"}, "conversation"),
        ({"input": "a", "prompt": {"id": "p"}}, "prompt"),
        ({"input": "a", "truncation": "auto"}, "truncation"),
        ({"input": "a", "context_management": []}, "context_management"),
        ({"input": "a", "include": ["everything"]}, "include[0]"),
        ({"input": "a", "reasoning": {"effort": "low", "summary": "auto"}}, "reasoning.summary"),
        ({"input": "a", "reasoning": {"effort": "extreme"}}, "reasoning.effort"),
        ({"input": "a", "text": {"verbosity": "low"}}, "text.verbosity"),
        ({"input": "a", "text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"input": "a", "text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        (
            {"input": "a", "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "nothing"}}}},
            "text.format.schema",
        ),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "a", "tools": [TIME, TIME]}, "tools[1]"),
        (
            {"input": "a", "tools": [{**TIME, "parameters": {"type": "nothing"}}], "tool_choice": "required"},
            "tools[0].parameters",
        ),
        ({"input": "a", "tool_choice": "required"}, "tool_choice"),
        ({"input": "a", "tools": [TIME], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"input": "a", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "a", "max_output_tokens": 100_000}, "max_output_tokens"),
        ({"input": "a " * 9000}, "input"),
        ({"input": "a", "top_logprobs": 21}, "top_logprobs"),
        ({"input": "a", "stream_options": {"include_obfuscation": False}}, "stream_options"),
        (
            {"input": "a", "stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
        ({"input": "a", "metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"input": "a", "messages": []}, "messages"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(server: RunningServer, fields: dict[str, Any], param: str) -> None:
    status, answer = respond(server, **fields)
    assert status == 400, answer
    assert answer["error"]["param"] == param and answer["error"]["type"] == "invalid_request_error", answer


def test_what_changes_nothing_is_accepted(server: RunningServer) -> None:
    harmless = {
        "store": False, "background": False, "truncation": "disabled", "include": ["reasoning.encrypted_content"],
        "max_tool_calls": 3,
        "user": "u", "safety_identifier": "s", "service_tier": "auto", "tools": [], "tool_choice": "auto",
        "parallel_tool_calls": True,
        "previous_response_id": None, "reasoning": {"effort": None, "summary": None},
        "text": {"format": {"type": "text"}},
    }  # fmt: skip
    status, answer = respond(server, input="Hello", **harmless)
    assert status == 200
    Response.model_validate(answer, strict=True)
    assert answer["output"][0]["content"] == respond(server, input="Hello")[1]["output"][0]["content"]


def test_nothing_is_stored(client: openai.OpenAI) -> None:
    made = client.responses.create(model="default", input="Hello")
    for ask in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError, match="nothing is stored"):
            ask(made.id)


def test_reasoning_is_an_item_of_its_own(tmp_path: Path) -> None:
    package = chat_templates.random_package(tmp_path, chat_templates.XML)
    with RunningServer(package, "--emu-profile", "none") as server:
        fields = {"input": "hi", "temperature": 2, "seed": 5, "max_output_tokens": 100}
        events = stream(server, **fields, reasoning={"effort": "minimal"})
        last = events[-1]["response"]
        thought, message = last["output"]
        assert (
            thought["type"] == "reasoning" and message["type"] == "message" and last["reasoning"]["effort"] == "minimal"
        )
        assert thought["content"][0]["text"] and thought["status"] == "completed"
        parts = [e["delta"] for e in events if e["type"] == "response.reasoning_text.delta"]
        assert "".join(parts) == thought["content"][0]["text"]
        assert 0 < last["usage"]["output_tokens_details"]["reasoning_tokens"] <= 64 + 8
        whole = respond(server, **fields, reasoning={"effort": "minimal"}, top_logprobs=0)[1]
        assert [item["content"][0]["text"] for item in whole["output"]] == [
            item["content"][0]["text"] for item in last["output"]
        ]
        spelled = "".join(p["token"] for p in whole["output"][1]["content"][0]["logprobs"])
        assert spelled.strip("\n").startswith(whole["output"][1]["content"][0]["text"][:10])
        back = [{"role": "user", "content": "hi"}, *last["output"], {"role": "user", "content": "and?"}]
        assert respond(server, input=back, max_output_tokens=5)[0] == 200
        assert [item["type"] for item in respond(server, **fields, reasoning={"effort": "none"})[1]["output"]] == [
            "message"
        ]
        cut = respond(server, **{**fields, "max_output_tokens": 5}, reasoning={"effort": "high"})[1]
        assert [(item["type"], item["status"]) for item in cut["output"]] == [("reasoning", "incomplete")]


def test_what_the_template_refuses_is_told_of_the_input(tmp_path: Path) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "nonsense"}
    with RunningServer(
        chat_templates.random_package(tmp_path, chat_templates.DENSE), "--emu-profile", "none"
    ) as server:
        status, answer = respond(
            server, input=[USER, call, {"type": "function_call_output", "call_id": "c", "output": "x"}]
        )
    assert (
        status == 400 and answer["error"]["param"] == "input" and "'input': the arguments" in answer["error"]["message"]
    )


def test_a_client_that_leaves_frees_the_card(server: RunningServer, client: openai.OpenAI) -> None:
    bias: Any = {
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "string", "minLength": 3000}}}
    }
    with (
        server.cut_short(750),
        client.responses.create(model="default", input="a", stream=True, max_output_tokens=1500, **bias) as events,
    ):
        for event in events:
            if event.type == "response.output_text.delta":
                break


def test_a_stream_that_breaks_is_an_error_and_a_failed_response(tmp_path: Any) -> None:
    package, profile = hollow_package(tmp_path)
    with RunningServer(package, "--emu-profile", profile, "--request-timeout", "0.4") as server:
        body = json.dumps({"input": "Hello", "stream": True, "seed": 1}).encode()
        _, _, raw = server.request("POST", "/v1/responses", body, {"content-type": "application/json"})
        error, failed = [json.loads(block.split("data: ")[1]) for block in raw.decode().split("\n\n")[-3:-1]]
        for event in (error, failed):
            EVENT.validate_python(event)
            OURS.validate_python(event, strict=True)
        assert error["type"] == "error" and error["code"] == "request_timeout" and "0.4 seconds" in error["message"]
        assert failed["type"] == "response.failed" and failed["response"]["status"] == "failed"
        assert failed["response"]["error"]["code"] == "server_error"
        with openai_client(server) as client:
            with pytest.raises(openai.APIError, match=r"0\.4 seconds"):
                list(client.responses.create(model="default", input="Hello", stream=True))
            with pytest.raises(openai.InternalServerError, match=r"0\.4 seconds"):
                client.responses.create(model="default", input="Hello")
