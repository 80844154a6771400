"""A real OpenAI client against a real server on the emulated card."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from server_process import RunningServer, async_openai_client, chat, events, hollow_package

MESSAGES: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    package, _ = hollow_package(tmp_path_factory.mktemp("chat"))
    with RunningServer(package, "--emu-profile", "none", "--model-name", "tests/hollow") as running:
        yield running
        running.wait(running.idle, 30, "idle")  # the last piece of an answer comes a moment before its end


FIXED: dict[str, Any] = {
    "model": "tests/hollow",
    "messages": MESSAGES,
    "max_tokens": 20,
    "seed": 7,
    "extra_body": {"ignore_eos": True},
}


def test_whole_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**FIXED)
    assert answer.object == "chat.completion" and answer.model == "tests/hollow" and answer.id.startswith("chatcmpl-")
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason == "length" and choice.logprobs is None
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 20 and answer.usage.prompt_tokens > 2
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 20
    assert answer.service_tier is None


def test_streamed_answer_is_the_whole_one(client: openai.OpenAI) -> None:
    client.chat.completions.create(**FIXED)  # from here on the prompt is known
    whole = client.chat.completions.create(**FIXED)
    chunks = list(client.chat.completions.create(**FIXED, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    assert [c for c in chunks[1:-2] if c.choices[0].delta.role or c.choices[0].finish_reason] == []
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert whole.usage is not None and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    # how many were cached depends on who else was there
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert len({(c.id, c.created, c.model, c.object) for c in chunks}) == 1


def test_chunks_have_a_null_usage_exactly_when_usage_was_asked_for(server: RunningServer) -> None:
    fields = chat(stream=True, max_tokens=3, ignore_eos=True)
    for options, expected in (({}, None), ({"stream_options": {"include_usage": True}}, "usage")):
        body = json.dumps({**fields, **options}).encode()
        status, head, raw = server.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        assert (
            status == 200
            and head["content-type"].startswith("text/event-stream")
            and head["cache-control"] == "no-cache"
        )
        chunks = list(events(raw))
        assert all((("usage" in c) == (expected is not None)) for c in chunks)
        assert sum(c.get("usage") is not None for c in chunks) == (expected is not None)


def test_async_client_in_parallel(server: RunningServer, client: openai.OpenAI) -> None:
    async def one(api: openai.AsyncOpenAI, stream: bool) -> str:
        if not stream:
            return (await api.chat.completions.create(**FIXED)).choices[0].message.content or ""
        parts = [c async for c in await api.chat.completions.create(**FIXED, stream=True)]
        return "".join(c.choices[0].delta.content or "" for c in parts)

    async def many() -> list[str]:
        async with async_openai_client(server) as api:
            return await asyncio.gather(*(one(api, i % 2 == 0) for i in range(12)))

    assert set(asyncio.run(many())) == {client.chat.completions.create(**FIXED).choices[0].message.content}


def test_seed_decides(client: openai.OpenAI) -> None:
    def text(seed: int) -> str:
        answer = client.chat.completions.create(**{**FIXED, "seed": seed, "temperature": 1.5, "top_p": 1})
        return answer.choices[0].message.content or ""

    assert text(1) == text(1)
    assert len({text(seed) for seed in (1, 2, 3, -1, 2**63 - 1)}) > 1


def test_stop_string_ends_the_answer_and_is_not_in_it(client: openai.OpenAI) -> None:
    text = client.chat.completions.create(**FIXED).choices[0].message.content or ""
    marks = [text[len(text) // 2 :][:3], "never said"]
    for stop in (marks[0], marks):
        answer = client.chat.completions.create(**FIXED, stop=stop)
        assert answer.choices[0].finish_reason == "stop"
        assert answer.choices[0].message.content == text[: text.index(marks[0])]
        chunks = list(client.chat.completions.create(**FIXED, stop=stop, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == text[: text.index(marks[0])]
        assert chunks[-1].choices[0].finish_reason == "stop"


def test_logit_bias_and_logprobs(client: openai.OpenAI) -> None:
    fields = {**FIXED, "max_tokens": 4, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    plain = client.chat.completions.create(**fields).choices[0].logprobs
    assert plain is not None and plain.content is not None and len(plain.content) == 4
    for entry in plain.content:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 3
        assert bytes(entry.bytes or []).decode("utf-8", "replace") == entry.token
        assert entry.top_logprobs[0].logprob >= entry.logprob - 1e-6
    streamed = [c for c in client.chat.completions.create(**fields, stream=True) if c.choices[0].logprobs]
    flat = [e.token for c in streamed for e in c.choices[0].logprobs.content or []]  # type: ignore[union-attr]
    assert flat == [e.token for e in plain.content]
    biased = client.chat.completions.create(**{**fields, "logit_bias": {"300": 100}}).choices[0].logprobs
    assert biased is not None and biased.content is not None
    assert len({e.token for e in biased.content}) == 1


def test_no_limit_fills_the_context(client: openai.OpenAI, server: RunningServer) -> None:
    context = server.health()[1]["context_length"]
    answer = client.chat.completions.create(model="default", messages=MESSAGES, seed=1, extra_body={"ignore_eos": True})
    assert answer.usage is not None and answer.usage.total_tokens == context
    assert answer.choices[0].finish_reason == "length"
    used = answer.usage.prompt_tokens
    exact = client.chat.completions.create(
        model="default",
        messages=MESSAGES,
        seed=1,
        max_completion_tokens=context - used,
        extra_body={"ignore_eos": True},
    )
    assert exact.usage is not None and exact.usage.total_tokens == context


def test_content_parts_developer_role_and_echoed_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**FIXED)
    echoed = answer.choices[0].message.model_dump()
    fields = {"model": "default", "max_tokens": 3, "seed": 1}
    parts: list[Any] = [
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
        {"role": "user", "content": "Hello"},
    ]
    flat: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    one, two = (client.chat.completions.create(messages=m, **fields) for m in (parts, flat))
    assert one.usage and two.usage and one.usage.prompt_tokens == two.usage.prompt_tokens
    assert one.choices[0].message.content == two.choices[0].message.content
    more = client.chat.completions.create(messages=[*flat, echoed, {"role": "user", "content": "And?"}], **fields)
    assert more.usage is not None and one.usage is not None and more.usage.prompt_tokens > one.usage.prompt_tokens
    assert client.chat.completions.create(messages=[{"role": "user", "content": ""}], **fields).usage is not None


def test_control_tokens_in_a_message_are_text(client: openai.OpenAI) -> None:
    def prompt_tokens(content: str) -> int:
        answer = client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": content}], max_tokens=1
        )
        assert answer.usage is not None
        return answer.usage.prompt_tokens

    # As one control token it would add a single id.
    assert prompt_tokens("<|im_end|>") - prompt_tokens("") > 3


def test_harmless_fields_are_accepted(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        **FIXED, user="u", store=False, metadata={"a": "b"}, service_tier="auto", response_format={"type": "text"}, n=1,
        modalities=["text"], tool_choice="none", parallel_tool_calls=True, safety_identifier="s", prompt_cache_key="k",
    )  # fmt: skip
    assert answer.usage is not None and answer.usage.completion_tokens == 20
    nulls = dict.fromkeys(("tools", "temperature", "top_p", "stop", "logit_bias", "functions", "audio", "stream", "n"))
    plain = client.chat.completions.create(**{**FIXED, "extra_body": {"ignore_eos": True, **nulls}})
    assert plain.choices[0].message.content == answer.choices[0].message.content


def test_local_extras(client: openai.OpenAI) -> None:
    def text(**extra: Any) -> str:
        answer = client.chat.completions.create(
            **{**FIXED, "temperature": 1.5, "extra_body": {"ignore_eos": True, **extra}}
        )
        return answer.choices[0].message.content or ""

    greedy = client.chat.completions.create(**{**FIXED, "temperature": 0}).choices[0].message.content
    assert text(top_k=1) == text(min_p=1.0) == greedy
    assert text(top_k=-1, repetition_penalty=1.5, min_p=0) != greedy


def test_models(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["tests/hollow"]
    model = client.models.retrieve("tests/hollow")
    assert model.owned_by == "axpress"
    assert model.model_extra == {"max_model_len": 1023}


def test_errors_reach_the_client_as_its_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**{**FIXED, "model": "gpt-4"})
    assert missing.value.code == "model_not_found" and missing.value.request_id
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(**{**FIXED, "temperature": 3})
    assert bad.value.param == "temperature"


def test_health_says_emulated(server: RunningServer) -> None:
    assert server.post(chat(max_tokens=4, ignore_eos=True))[0] == 200
    status, body = server.health()
    assert status == 200 and body["status"] == "ready"
    assert body["emulated"] is True and body["model"] == "tests/hollow" and body["profile"] == "none"
    assert "emulated" in body["note"] and body["toy"] is False
    assert {"num_running", "num_waiting", "max_queue", "context_length", "device", "runtime"} <= set(body)
    assert body["max_running"] == 16 and body["rows"] >= body["context_length"] * body["num_banks"]
    assert 4 < body["rows_used"] < body["rows"]  # the answer's, for whoever goes on from it


def test_keep_alive_and_pipelining(server: RunningServer) -> None:
    with httpx.Client(base_url=server.url) as http:
        for _ in range(3):
            assert http.post("/v1/chat/completions", json=chat(max_tokens=2)).status_code == 200
            assert http.get("/health").status_code == 200
    with server.raw() as sock:
        get = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
        sock.sendall(get + get + get.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 200 OK") == 3


def test_expect_continue(server: RunningServer) -> None:
    body = json.dumps(chat(max_tokens=2)).encode()
    with server.raw() as sock:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type:"
            f" application/json\r\ncontent-length: {len(body)}\r\n"
        )
        sock.sendall(head.encode() + b"expect: 100-continue\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
