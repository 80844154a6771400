"""Reasoning through OpenAI's own client: told apart from the answer, counted, bounded, and off by request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chat_templates
import openai
import pytest
from server_process import RunningServer, chat, events, openai_client

HI: list[Any] = [{"role": "user", "content": "hi"}]
WILD: dict[str, Any] = {"model": "default", "messages": HI, "temperature": 2, "max_tokens": 60, "seed": 5}
DIGITS = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "d", "schema": {"type": "integer", "minimum": 10, "maximum": 99}},
    }
}
CITY_SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Oslo", "Rome"]}},
    "required": ["name"],
    "additionalProperties": False,
}
CITY: Any = {"type": "function", "function": {"name": "city", "parameters": CITY_SCHEMA}}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("reasoning")
    made = {"told": chat_templates.random_package(root / "told", chat_templates.XML)}
    made["itself"] = chat_templates.random_package(root / "itself", chat_templates.QWEN)
    return made


@pytest.fixture(scope="module")
def server(packages: dict[str, Path]) -> Iterator[RunningServer]:
    """A model that reasons when it is told to: the prompt opens the block."""
    with RunningServer(packages["told"], "--emu-profile", "none") as running:
        yield running
        running.wait(running.idle, 30, "idle")  # the last piece of an answer comes a moment before its end


@pytest.fixture(scope="module")
def itself(packages: dict[str, Path]) -> Iterator[openai.OpenAI]:
    """A model that begins to reason by itself, or does not."""
    with RunningServer(packages["itself"], "--emu-profile", "none") as running, openai_client(running) as client:
        yield client
        running.wait(running.idle, 30, "idle")  # the last piece of an answer comes a moment before its end


@pytest.fixture(scope="module")
def wild(packages: dict[str, Path]) -> dict[str, Any]:
    """A request whose answer does not end its reasoning by itself."""
    from axpress.core.tokenizer.tokenizer import Tokenizer

    return {
        **WILD,
        "logit_bias": {str(Tokenizer.open(packages["told"] / "tokenizer").encode_control("</think>")): -100},
    }


def reasoning_of(message: Any) -> str | None:
    return (message.model_extra or {}).get("reasoning_content")


def reasoning_tokens(answer: Any) -> int:
    return int(answer.usage.completion_tokens_details.reasoning_tokens)


def test_off_by_default_here_and_by_request(client: openai.OpenAI) -> None:
    for fields in ({}, {"reasoning_effort": "none"},
        {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
                   {"extra_body": {"thinking_budget": 0}}):  # fmt: skip
        answer = client.chat.completions.create(**WILD, **fields)
        assert answer.choices[0].message.content and reasoning_of(answer.choices[0].message) is None
        assert reasoning_tokens(answer) == 0


def test_a_budget_ends_the_reasoning_and_the_answer_follows(client: openai.OpenAI, wild: dict[str, Any]) -> None:
    for fields, budget in (({"reasoning_effort": "minimal"}, 64), ({"extra_body": {"thinking_budget": 20}}, 20),
                           ({"reasoning_effort": "high", "extra_body": {"thinking_budget": 7}}, 7)):  # fmt: skip
        answer = client.chat.completions.create(**wild | {"max_tokens": 100}, n=2, **fields)
        for choice in answer.choices:
            thought = reasoning_of(choice.message)
            assert thought and "</think>" not in thought + (choice.message.content or "")
            assert choice.message.content and not choice.message.content.startswith("\n")
        # The closing tag and its newlines, and what completes a character, come on top.
        assert 2 * budget <= reasoning_tokens(answer) <= 2 * (budget + 8)


def test_without_a_bound_the_answer_may_be_reasoning_only(client: openai.OpenAI, wild: dict[str, Any]) -> None:
    for fields in ({"reasoning_effort": "high"}, {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}):
        answer = client.chat.completions.create(**wild, **fields)
        choice = answer.choices[0]
        assert reasoning_of(choice.message) and choice.message.content == "" and choice.finish_reason == "length"
        assert reasoning_tokens(answer) == answer.usage.completion_tokens == 60  # type: ignore[union-attr]


def test_a_stream_is_the_whole_answer(client: openai.OpenAI, wild: dict[str, Any]) -> None:
    fields: dict[str, Any] = {**wild, "extra_body": {"thinking_budget": 20}, "logprobs": True}
    whole = client.chat.completions.create(**fields)
    chunks = list(client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    message = whole.choices[0].message
    assert "".join(reasoning_of(one.delta) or "" for one in choices) == reasoning_of(message)
    assert "".join(one.delta.content or "" for one in choices) == message.content
    order = ["r" if reasoning_of(one.delta) else "c" for one in choices if reasoning_of(one.delta) or one.delta.content]
    assert order == sorted(order, reverse=True) and {"r", "c"} == set(order)
    assert reasoning_tokens(chunks[-1]) == reasoning_tokens(whole)
    tokens = [t for one in choices if one.logprobs for t in one.logprobs.content or ()]
    assert whole.choices[0].logprobs and [t.token for t in tokens] == [
        t.token for t in whole.choices[0].logprobs.content or ()
    ]
    assert len(tokens) == whole.usage.completion_tokens  # type: ignore[union-attr]


def test_formats_and_calls_come_after_the_reasoning(client: openai.OpenAI, wild: dict[str, Any]) -> None:
    thinking = {"extra_body": {"thinking_budget": 10}}
    answer = client.chat.completions.create(**wild, **thinking, **DIGITS, n=3)
    for choice in answer.choices:
        assert reasoning_of(choice.message) and 10 <= json.loads(choice.message.content or "") <= 99
        assert choice.finish_reason == "stop"
    answer = client.chat.completions.create(
        **wild | {"max_tokens": 200}, **thinking, tools=[CITY], tool_choice="required", n=3
    )
    for choice in answer.choices:
        assert reasoning_of(choice.message) and choice.finish_reason == "tool_calls" and choice.message.content is None
        names = [json.loads(call.function.arguments)["name"] for call in choice.message.tool_calls or ()]  # type: ignore[union-attr]
        assert names and set(names) <= {"Oslo", "Rome"}


def test_stop_strings_count_after_the_reasoning(client: openai.OpenAI, wild: dict[str, Any]) -> None:
    fields: dict[str, Any] = {**wild, "extra_body": {"thinking_budget": 20}}
    message = client.chat.completions.create(**fields).choices[0].message
    thought, content = reasoning_of(message) or "", message.content or ""
    shared = next(c for c in content[1:] if c in thought)
    stopped = client.chat.completions.create(**fields, stop=shared).choices[0]
    assert reasoning_of(stopped.message) == thought
    assert stopped.message.content == content.split(shared)[0] and stopped.finish_reason == "stop"


def test_a_model_that_begins_by_itself(itself: openai.OpenAI, packages: dict[str, Path]) -> None:
    from axpress.core.tokenizer.tokenizer import Tokenizer

    tag = str(Tokenizer.open(packages["itself"] / "tokenizer").encode_control("<think>"))
    plain = itself.chat.completions.create(**WILD)
    assert reasoning_of(plain.choices[0].message) is None and plain.choices[0].message.content
    letter = (plain.choices[0].message.content or "")[3]
    stopped = itself.chat.completions.create(**WILD, stop=letter)  # it did not reason: counts at once
    assert stopped.choices[0].message.content == (plain.choices[0].message.content or "").split(letter)[0]
    answer = itself.chat.completions.create(**WILD, logit_bias={tag: 100}, extra_body={"thinking_budget": 5})
    message = answer.choices[0].message
    assert reasoning_of(message) == "<think>" * 5 and reasoning_tokens(answer) >= 7
    off = itself.chat.completions.create(**WILD, logit_bias={tag: 100}, reasoning_effort="none")
    assert reasoning_of(off.choices[0].message) is None and off.choices[0].message.content == "<think>" * 60


def test_reasoning_is_echoed(server: RunningServer) -> None:
    """An answer goes back as it came; whether the model sees its reasoning again is the template's affair."""
    answer = server.post(chat(thinking_budget=9, max_tokens=40, seed=1))[2]["choices"][0]["message"]
    assert answer["reasoning_content"]
    used = {}
    for thought in (answer["reasoning_content"], None):
        messages = [*HI, {**answer, "reasoning_content": thought}]
        status, _, body = server.post({"messages": messages, "max_tokens": 2})
        assert status == 200, body
        used[thought] = body["usage"]["prompt_tokens"]
    assert used[answer["reasoning_content"]] > used[None]  # this template shows that of the last message


def test_streams_without_reasoning_have_no_such_field(server: RunningServer) -> None:
    body = json.dumps(chat(max_tokens=5, stream=True)).encode()
    raw = server.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})[2]
    deltas = [choice["delta"] for event in events(raw) for choice in event["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas)
    assert not any("reasoning_content" in delta for delta in deltas)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"reasoning_effort": "extreme"}, "reasoning_effort"),
    ({"reasoning_effort": 5}, "reasoning_effort"),
    ({"thinking_budget": -1}, "thinking_budget"),
    ({"thinking_budget": 2**31}, "thinking_budget"),
    ({"thinking_budget": "5"}, "thinking_budget"),
    ({"chat_template_kwargs": {"enable_thinking": "yes"}}, "chat_template_kwargs.enable_thinking"),
    ({"chat_template_kwargs": {"enable_thinking": True, "tools": []}}, "chat_template_kwargs.tools"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
    ({"chat_template_kwargs": {"__class__": 1}}, "chat_template_kwargs.__class__"),
    ({"reasoning_effort": "none", "thinking_budget": 5}, "reasoning_effort"),
    ({"thinking_budget": 5, "ignore_eos": True}, "ignore_eos"),
    ({"messages": [{"role": "assistant", "content": "x", "reasoning_content": 5}]}, "messages[0].reasoning_content"),
    ({"messages": [{"role": "user", "content": "x", "reasoning_content": "x"}]}, "messages[0].reasoning_content"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[f"{i}-{one[1]}" for i, one in enumerate(WRONG)])
def test_wrong_fields_are_named(server: RunningServer, fields: dict[str, Any], param: str) -> None:
    status, _, body = server.post(chat(max_tokens=2, **fields))
    assert status == 400 and body["error"]["param"] == param, body


def test_a_model_that_does_not_reason_says_so() -> None:
    with RunningServer("--emu-profile", "none") as demo:
        for fields, param in (
            ({"reasoning_effort": "minimal"}, "reasoning_effort"),
            ({"thinking_budget": 5}, "thinking_budget"),
            ({"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs.enable_thinking"),
        ):
            status, _, body = demo.post(chat(max_tokens=2, **fields))
            assert (
                status == 400 and body["error"]["param"] == param and "does not reason" in body["error"]["message"]
            ), body
        for fields in (
            {"reasoning_effort": "none"},
            {"thinking_budget": 0},
            {"chat_template_kwargs": {"enable_thinking": False}},
        ):
            assert demo.post(chat(max_tokens=2, **fields))[0] == 200
