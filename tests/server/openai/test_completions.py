"""Plain completions: a real OpenAI client against the demo model on the emulated card."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from server_process import RunningServer, events, hollow_package, post

STORY = "Once upon a time there was a"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with RunningServer("--emu-profile", "none", "--max-running", "4", "--max-queue", "6", "--banks", "1") as running:
        yield running
        running.wait(running.idle, 30, "idle")  # the last piece of an answer comes a moment before its end


def complete(server: RunningServer, **fields: Any) -> tuple[int, Any]:
    return post(server, "/v1/completions", **fields)


def tokens(server: RunningServer, text: str, control: bool = False) -> list[int]:
    status, answer = post(server, "/tokenize", prompt=text, parse_special=control)
    assert status == 200
    found: list[int] = answer["tokens"]
    return found


def test_a_prompt_is_gone_on_from(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="default", prompt=STORY)
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-") and answer.model == "axpress-toy"
    assert answer.system_fingerprint and answer.system_fingerprint.startswith("fp_")
    (choice,) = answer.choices
    assert choice.text and choice.index == 0 and choice.logprobs is None
    assert answer.usage is not None and answer.usage.completion_tokens == 16, "OpenAI's default"
    assert choice.finish_reason == "length"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 16


def test_texts_ids_and_lists_of_them_are_the_same_prompts(server: RunningServer, client: openai.OpenAI) -> None:
    texts = [STORY, "The capital of France is"]
    ids = [tokens(server, text) for text in texts]
    alone = [client.completions.create(model="default", prompt=text).choices[0].text for text in texts]
    assert alone[0] != alone[1]
    for prompt in (texts, ids):
        answer = client.completions.create(model="default", prompt=prompt)  # type: ignore[arg-type]
        assert [c.text for c in answer.choices] == alone and [c.index for c in answer.choices] == [0, 1]
        assert answer.usage is not None and answer.usage.prompt_tokens == sum(map(len, ids))
    assert client.completions.create(model="default", prompt=ids[1]).choices[0].text == alone[1]


def test_a_conversation_by_its_ids_is_the_chat(server: RunningServer, client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "Hello"}]
    status, answer = post(server, "/tokenize", messages=messages)
    assert status == 200
    chat = client.chat.completions.create(model="default", messages=messages, max_tokens=24)
    plain = client.completions.create(model="default", prompt=answer["tokens"], max_tokens=24)
    assert plain.choices[0].text == chat.choices[0].message.content
    assert chat.usage is not None and chat.usage.prompt_tokens == answer["count"]


def test_echo_puts_the_prompt_in_front(server: RunningServer, client: openai.OpenAI) -> None:
    plain = client.completions.create(model="default", prompt=STORY).choices[0].text
    for prompt in (STORY, tokens(server, STORY)):
        whole = client.completions.create(model="default", prompt=prompt, echo=True)
        assert whole.choices[0].text == STORY + plain
        parts = list(client.completions.create(model="default", prompt=prompt, echo=True, stream=True))
        assert parts[0].choices[0].text == STORY
        assert "".join(part.choices[0].text for part in parts) == STORY + plain
    both = client.completions.create(model="default", prompt=["a", "b"], n=2, echo=True, max_tokens=1)
    assert [c.text[0] for c in both.choices] == ["a", "a", "b", "b"]


def test_several_answers_to_several_prompts_are_streamed_apart(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {
        "model": "default",
        "prompt": [STORY, "I"],
        "n": 2,
        "seed": 3,
        "temperature": 1.5,
        "max_tokens": 12,
    }
    whole = client.completions.create(**fields)
    assert len({c.text for c in whole.choices}) > 1
    parts = ["", "", "", ""]
    reasons: dict[int, str] = {}
    chunks = list(client.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        parts[choice.index] += choice.text
        if choice.finish_reason:
            reasons[choice.index] = choice.finish_reason
    assert parts == [c.text for c in whole.choices] and reasons == {c.index: c.finish_reason for c in whole.choices}
    usage = chunks[-1].usage
    assert usage is not None and whole.usage is not None and usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens == whole.usage.prompt_tokens, "a prompt counts once, whatever n"


def test_cached_tokens_are_those_of_all_prompts(client: openai.OpenAI) -> None:
    first, second = (
        "A first prompt that is long enough to be found again. " * 4,
        "Quite another one, of about that length. " * 4,
    )
    cached = []
    for _ in range(2):
        usage = client.completions.create(model="default", prompt=[first, second], max_tokens=1, n=2).usage
        assert usage is not None and usage.prompt_tokens_details is not None
        cached.append(usage.prompt_tokens_details.cached_tokens or 0)
    assert cached[1] == usage.prompt_tokens - 2, "all but the last token of each, which has to be looked at again"


def test_legacy_logprobs(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "default", "prompt": STORY, "logprobs": 3, "max_tokens": 8}
    choice = client.completions.create(**fields).choices[0]
    logprobs = choice.logprobs
    assert (
        logprobs is not None
        and logprobs.tokens
        and logprobs.token_logprobs
        and logprobs.top_logprobs
        and logprobs.text_offset
    )
    assert "".join(logprobs.tokens) == choice.text and len(logprobs.tokens) == 8
    rows = zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, logprobs.text_offset, strict=True)
    for token, logprob, top, offset in rows:
        assert choice.text[offset:].startswith(token)
        assert top[token] == logprob == max(top.values()), "greedy"
        assert len(top) == 3
    chunks = [c.choices[0] for c in client.completions.create(**fields, stream=True)]
    streamed = [c.logprobs for c in chunks if c.logprobs is not None]
    assert [t for part in streamed for t in part.tokens or []] == logprobs.tokens
    assert [o for part in streamed for o in part.text_offset or []] == logprobs.text_offset
    zero = client.completions.create(**{**fields, "logprobs": 0, "temperature": 2, "seed": 1}).choices[0].logprobs
    assert zero is not None and zero.tokens and zero.top_logprobs
    assert [list(top) for top in zero.top_logprobs] == [[token] for token in zero.tokens]


def test_parts_of_characters_are_spelled_as_bytes(server: RunningServer) -> None:
    bias = {str(token): 100 for token in tokens(server, "\U00012345")[:1]}
    status, answer = complete(server, prompt="a", max_tokens=2, logprobs=0, logit_bias=bias)
    assert status == 200
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["bytes:\\xf0"] * 2 and set(logprobs["top_logprobs"][0]) == {"bytes:\\xf0"}


def test_stop_and_timings(client: openai.OpenAI) -> None:
    text = client.completions.create(model="default", prompt=STORY, max_tokens=24).choices[0].text
    word = text.split()[3]
    answer = client.completions.create(
        model="default", prompt=STORY, max_tokens=24, stop=[word], extra_body={"timings": True}
    )
    assert answer.choices[0].text == text[: text.index(word)] and answer.choices[0].finish_reason == "stop"
    timings = answer.timings  # type: ignore[attr-defined]
    assert answer.usage is not None and timings["predicted_n"] == answer.usage.completion_tokens
    assert timings["cache_n"] + timings["prompt_n"] == answer.usage.prompt_tokens and timings["emulated"] is True


def test_control_tokens_in_texts_are_text(server: RunningServer) -> None:
    as_text = tokens(server, "<|im_start|>user")
    (control, *_), (_, answer) = (
        post(server, "/tokenize", messages=[{"role": "user", "content": "x"}])[1]["tokens"],
        complete(server, prompt="<|im_start|>user", max_tokens=1, echo=True),
    )
    assert control not in as_text and answer["usage"]["prompt_tokens"] == len(as_text)
    assert complete(server, prompt=[control], max_tokens=1, echo=True)[1]["choices"][0]["text"].startswith(
        "<|im_start|>"
    )


@pytest.mark.parametrize(
    "fields, param",
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [[1], "a"]}, "prompt[1]"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": [1.0]}, "prompt[0]"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [0, 2**32]}, "prompt[1]"),
        ({"prompt": [[0], [0, 2**64]]}, "prompt[1][1]"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": ["a"] * 11}, "prompt"),
        ({"prompt": ["a"] * 6, "n": 2}, "prompt"),
        ({"prompt": "a", "n": 9}, "n"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
        ({"prompt": "a", "logprobs": 6}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 100_000}, "max_tokens"),
        ({"prompt": "a " * 9000}, "prompt"),
        ({"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt": "a", "messages": []}, "messages"),
        ({"prompt": "a", "min_tokens": 2}, "min_tokens"),
        ({"prompt": "a", "guided_regex": "("}, "guided_regex"),
        ({"prompt": "a", "guided_regex": "a", "guided_choice": ["b"]}, "guided_choice"),
        ({"prompt": "a", "guided_choice": ["b"], "ignore_eos": True}, "ignore_eos"),
        ({"prompt": "a", "logit_bias": {"100000": 1}}, "logit_bias"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(server: RunningServer, fields: dict[str, Any], param: str) -> None:
    status, answer = complete(server, **fields)
    assert status == 400, answer
    assert answer["error"]["param"] == param and answer["error"]["type"] == "invalid_request_error", answer
    assert param.split("[")[0] in answer["error"]["message"]


def test_forms_of_answers(server: RunningServer) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    forms: list[tuple[dict[str, Any], str]] = [
        ({"guided_regex": "[0-9]{3}-[a-f]"}, "[0-9]{3}-[a-f]"),
        ({"guided_choice": ["left", "right"]}, "left|right"),
        ({"guided_json": schema}, r'\{"n": [12]\}'),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}},
            r'\{"n": [12]\}',
        ),
    ]
    for form, pattern in forms:
        status, answer = complete(server, prompt=[STORY, "I"], max_tokens=40, temperature=1.5, seed=2, **form)
        assert status == 200, answer
        for choice in answer["choices"]:
            assert re.fullmatch(pattern, choice["text"]) and choice["finish_reason"] == "stop"


def test_another_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.completions.create(model="davinci-002", prompt="a")
    assert raised.value.code == "model_not_found"


def test_a_gap_is_filled_where_the_model_has_tokens_for_it(tmp_path: Path) -> None:
    """The hollow model's tokenizer is laid out as Qwen's; its text is noise, and the same for the same prompt."""
    package, _ = hollow_package(tmp_path)
    with RunningServer(package, "--emu-profile", "none") as server:
        fields: dict[str, Any] = {"max_tokens": 6, "temperature": 0, "ignore_eos": True}
        before, suffix, middle = "<|fim_prefix|>def f(<|fim_suffix|>", "): return <|fim_middle|>", "<|fim_middle|>"
        laid_out = [*tokens(server, before, True), *tokens(server, suffix), *tokens(server, middle, True)]
        filled = complete(server, prompt="def f(", suffix=suffix, **fields)[1]
        plain = complete(server, prompt=laid_out, **fields)[1]
        assert filled["choices"] == plain["choices"] and filled["usage"]["prompt_tokens"] == len(laid_out)
        by_ids = complete(server, prompt=tokens(server, "def f("), suffix=suffix, **fields)[1]
        assert by_ids["choices"] == plain["choices"]
        unfilled = complete(server, prompt="def f(", suffix="", **fields)[1]
        assert unfilled["choices"] == complete(server, prompt="def f(", **fields)[1]["choices"] != plain["choices"]
        status, refusal = complete(server, prompt="a", suffix="b " * 3000)
        assert status == 400 and refusal["error"]["code"] == "context_length_exceeded"


def test_harmless_fields_change_nothing(client: openai.OpenAI) -> None:
    plain = client.completions.create(model="default", prompt=STORY)
    with_labels = client.completions.create(
        model="default", prompt=STORY, user="u", best_of=1, extra_body={"store": False}
    )
    assert with_labels.choices == plain.choices


def test_the_default_length_is_what_fits(server: RunningServer, client: openai.OpenAI) -> None:
    context = post(server, "/tokenize", prompt="a")[1]["max_model_len"]
    token = tokens(server, "a")[0]
    answer = client.completions.create(model="default", prompt=[token] * (context - 5), extra_body={"ignore_eos": True})
    assert answer.usage is not None and answer.usage.completion_tokens == 5


def test_a_client_that_leaves_frees_the_card(server: RunningServer, client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"prompt": [STORY, "I"], "max_tokens": 1500, "extra_body": {"ignore_eos": True}}
    with server.cut_short(1500), client.completions.create(model="default", stream=True, **fields) as stream:
        next(iter(stream))


def test_a_stream_says_where_it_ends(server: RunningServer) -> None:
    body = json.dumps({"prompt": "a", "stream": True, "max_tokens": 2, "ignore_eos": True, "timings": True}).encode()
    status, head, raw = server.request("POST", "/v1/completions", body, {"content-type": "application/json"})
    assert status == 200 and head["content-type"].startswith("text/event-stream")
    chunks = list(events(raw))
    assert {c["object"] for c in chunks} == {"text_completion"} and chunks[-2]["choices"][0][
        "finish_reason"
    ] == "length"
    assert chunks[-1]["choices"] == [] and chunks[-1]["timings"]["predicted_n"] == 2
