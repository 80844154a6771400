"""Several choices, predicted outputs, cached prompts and service tiers, as the OpenAI client sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion
from server_process import RunningServer, async_openai_client, openai_client, tiny_package

from axpress.core.model_files.model_package import open_package
from axpress.core.request import choice_seed
from axpress.core.tokenizer.tokenizer import Tokenizer

LETTERS = "BDFGJKLMNQRVXZ"
"""No two of them make a token together, so that an answer of them, encoded again, is the tokens it was made of."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tiny_package(tmp_path_factory.mktemp("choices"))


@pytest.fixture(scope="module")
def server(package: tuple[Path, Path]) -> Iterator[RunningServer]:
    # of several banks the cheaper one is taken, by costs that are measured: what is found there depends on the machine
    with RunningServer(package[0], "--emu-profile", package[1], "--banks", "1") as running:
        yield running
        running.wait(running.idle, 30, "idle")  # the last piece of an answer comes a moment before its end


@pytest.fixture(scope="module")
def fixed(package: tuple[Path, Path]) -> dict[str, Any]:
    """A request whose answer is made of LETTERS and goes on to max_tokens."""
    opened = open_package(package[0])
    text = Tokenizer.open(opened.tokenizer_path, eos_override=opened.eos, bos_override=opened.bos)
    bias = {str(text.encode(letter)[0]): 100 for letter in LETTERS}
    return {"model": "default", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 24, "seed": 11,
        "temperature": 1.5,
            "logit_bias": bias, "extra_body": {"ignore_eos": True}}  # fmt: skip


def signed(seed: int) -> int:
    """A 64-bit seed as the API takes it."""
    return seed - 2**64 if seed >= 2**63 else seed


def texts(answer: ChatCompletion) -> list[str]:
    return [choice.message.content or "" for choice in answer.choices]


def usage(answer: ChatCompletion) -> Any:
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert (
        answer.usage.completion_tokens_details is not None
        and answer.usage.completion_tokens_details.reasoning_tokens == 0
    )
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    return answer.usage


@pytest.mark.parametrize("logprobs", [False, True])
def test_choices_are_the_answers_of_their_seeds_alone(
    client: openai.OpenAI, fixed: dict[str, Any], logprobs: bool
) -> None:
    fields = {**fixed, "logprobs": True, "top_logprobs": 3} if logprobs else fixed
    answer = client.chat.completions.create(**fields, n=4)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    alone = [client.chat.completions.create(**{**fields, "seed": signed(choice_seed(11, i))}) for i in range(4)]
    assert texts(answer) == [texts(one)[0] for one in alone]
    assert len(set(texts(answer))) == 4 and all(set(text) <= set(LETTERS) for text in texts(answer))
    assert [choice.logprobs for choice in answer.choices] == [one.choices[0].logprobs for one in alone]
    assert (answer.choices[0].logprobs is not None) == logprobs
    assert texts(client.chat.completions.create(**fields))[0] == texts(answer)[0]


def test_choices_without_a_seed_differ(client: openai.OpenAI, fixed: dict[str, Any]) -> None:
    both = [client.chat.completions.create(**{**fixed, "seed": None}, n=3) for _ in range(2)]
    assert len({text for answer in both for text in texts(answer)}) == 6


def test_usage_counts_the_prompt_once_and_the_ends_are_each_choices_own(
    client: openai.OpenAI, fixed: dict[str, Any]
) -> None:
    whole = client.chat.completions.create(**fixed, n=3)
    assert usage(whole).completion_tokens == 72
    stop = texts(whole)[1][9:12]
    answer = client.chat.completions.create(**fixed, n=3, stop=stop)
    ends = [(text.index(stop), "stop") if stop in text else (24, "length") for text in texts(whole)]
    assert [
        (len(text), choice.finish_reason) for text, choice in zip(texts(answer), answer.choices, strict=True)
    ] == ends
    assert len(set(ends)) > 1
    assert (
        usage(answer).prompt_tokens
        == usage(whole).prompt_tokens
        == usage(client.chat.completions.create(**fixed)).prompt_tokens
    )
    assert usage(answer).completion_tokens == sum(count + 3 if reason == "stop" else count for count, reason in ends)


@pytest.mark.parametrize("logprobs", [False, True])
def test_streamed_choices(client: openai.OpenAI, fixed: dict[str, Any], logprobs: bool) -> None:
    fields = {**fixed, "logprobs": True, "top_logprobs": 2} if logprobs else fixed
    client.chat.completions.create(**fields, n=3)
    whole = client.chat.completions.create(**fields, n=3)
    chunks = list(client.chat.completions.create(**fields, n=3, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1 and all(len(c.choices) == 1 for c in chunks[:-1])
    for index, choice in enumerate(whole.choices):
        mine = [c.choices[0] for c in chunks[:-1] if c.choices[0].index == index]
        assert mine[0].delta.role == "assistant" and mine[-1].finish_reason == "length"
        assert not any(c.delta.role for c in mine[1:]) and not any(c.finish_reason for c in mine[:-1])
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        streamed = [entry for c in mine if c.logprobs for entry in c.logprobs.content or []]
        assert streamed == ((choice.logprobs.content or []) if choice.logprobs else [])
    if not logprobs:  # they run together: none waits for the end of another
        order = [c.choices[0].index for c in chunks[3:-1]]
        assert order != sorted(order)


def test_a_known_prompt_is_cached_for_its_own_key_only(client: openai.OpenAI, fixed: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "Nobody has said this before: pineapple."}]

    def cached(**more: Any) -> int:
        used = usage(client.chat.completions.create(**{**fixed, "messages": messages, **more}))
        assert used.prompt_tokens > 20
        return int(used.prompt_tokens - used.prompt_tokens_details.cached_tokens)

    everything = cached(prompt_cache_key="one")
    assert everything > 20
    assert cached(prompt_cache_key="one") == 1  # the last token's logits are what the answer starts from
    assert cached(prompt_cache_key="one", n=3) == 1
    assert cached(prompt_cache_key="two") == everything
    assert cached() > everything - 10  # other tests have sent the template's beginning without a key
    assert cached() == 1
    messages[0]["content"] += " And this is new."
    assert 5 < cached() < everything
    *_, last = client.chat.completions.create(
        **{**fixed, "messages": messages}, stream=True, stream_options={"include_usage": True}
    )
    assert last.usage is not None and last.usage.prompt_tokens_details is not None
    assert last.usage.prompt_tokens_details.cached_tokens == last.usage.prompt_tokens - 1


def test_the_next_turn_reuses_the_conversation(client: openai.OpenAI, fixed: dict[str, Any]) -> None:
    messages: list[Any] = [{"role": "system", "content": "Spell."}, {"role": "user", "content": "First."}]
    first = client.chat.completions.create(**{**fixed, "messages": messages})
    messages += [first.choices[0].message.model_dump(), {"role": "user", "content": "Next."}]
    used = usage(client.chat.completions.create(**{**fixed, "messages": messages}))
    assert used.prompt_tokens_details.cached_tokens >= usage(first).prompt_tokens + 20


@pytest.mark.parametrize("parts", [False, True])
def test_prediction_that_comes_true(client: openai.OpenAI, fixed: dict[str, Any], parts: bool) -> None:
    fields = {**fixed, "max_tokens": 120}
    plain = client.chat.completions.create(**fields)
    details = usage(plain).completion_tokens_details
    assert (details.accepted_prediction_tokens, details.rejected_prediction_tokens) == (0, 0)
    text = texts(plain)[0]
    content: Any = [{"type": "text", "text": text[:50]}, {"type": "text", "text": text[50:]}] if parts else text
    answer = client.chat.completions.create(**fields, prediction={"type": "content", "content": content})
    assert texts(answer) == [text] and usage(answer).completion_tokens == 120
    details = usage(answer).completion_tokens_details
    assert details.accepted_prediction_tokens >= 60 and details.rejected_prediction_tokens == 0
    *_, last = client.chat.completions.create(
        **fields,
        prediction={"type": "content", "content": content},
        stream=True,
        stream_options={"include_usage": True},
    )
    assert last.usage is not None and last.usage.completion_tokens_details is not None
    assert (last.usage.completion_tokens_details.accepted_prediction_tokens or 0) >= 60


def test_prediction_that_does_not_come_true(client: openai.OpenAI, fixed: dict[str, Any]) -> None:
    fields = {**fixed, "max_tokens": 60}
    text = texts(client.chat.completions.create(**fields))[0]
    # right once: computing the prompt anew may cost no more than going on from it, and then its pass has no guesses
    content = text[0] + " never said at all," * 5
    answer = client.chat.completions.create(**fields, prediction={"type": "content", "content": content})
    assert texts(answer) == [text]
    details = usage(answer).completion_tokens_details
    assert details.accepted_prediction_tokens <= 1 and details.rejected_prediction_tokens >= 1
    empty = client.chat.completions.create(**fields, prediction={"type": "content", "content": ""})
    assert texts(empty) == [text]
    details = usage(empty).completion_tokens_details
    assert (details.accepted_prediction_tokens, details.rejected_prediction_tokens) == (0, 0)


@pytest.mark.parametrize(
    ("asked", "told"), [(None, None), ("auto", "default"), ("default", "default"), ("flex", "flex")]
)
def test_service_tier_is_echoed(client: openai.OpenAI, fixed: dict[str, Any], asked: Any, told: str | None) -> None:
    answer = client.chat.completions.create(**fixed, service_tier=asked)
    assert answer.service_tier == told
    chunks = list(client.chat.completions.create(**fixed, service_tier=asked, stream=True))
    assert {chunk.service_tier for chunk in chunks} == {told}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == texts(answer)[0]


def test_many_clients_get_what_they_would_get_alone(
    server: RunningServer, client: openai.OpenAI, fixed: dict[str, Any]
) -> None:
    wanted = [texts(client.chat.completions.create(**{**fixed, "seed": seed}, n=3)) for seed in range(4)]

    async def many() -> list[list[str]]:
        async with async_openai_client(server) as api:
            asked = (api.chat.completions.create(**{**fixed, "seed": seed % 4}, n=3) for seed in range(12))
            return [texts(answer) for answer in await asyncio.gather(*asked)]

    assert asyncio.run(many()) == wanted * 3


@pytest.mark.parametrize(
    "options", [["--exact"], ["--no-drafts"], ["--banks", "1", "--max-running", "2"]], ids=" ".join
)
def test_modes_give_the_same_answers(
    package: tuple[Path, Path], client: openai.OpenAI, fixed: dict[str, Any], options: list[str]
) -> None:
    fields = {**fixed, "max_tokens": 60}
    wanted = texts(client.chat.completions.create(**fields, n=3))
    with RunningServer(package[0], "--emu-profile", "none", *options) as other, openai_client(other) as api:
        assert texts(api.chat.completions.create(**fields, n=3)) == wanted
        predicted = api.chat.completions.create(**fields, prediction={"type": "content", "content": wanted[0]})
        assert texts(predicted) == wanted[:1]
        if options != ["--banks", "1", "--max-running", "2"]:
            assert usage(predicted).completion_tokens_details.accepted_prediction_tokens == 0
        assert other.health()[1]["exact"] is (options == ["--exact"])
