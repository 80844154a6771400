"""Long contexts: several decode groups, chunks of 256 on a long ladder, prompts that no chunk reaches to the end.

At 4,095 rows, which takes seconds. `AXPRESS_CONTEXT=32767 pytest tests/core/engine/test_long_contexts.py` is the same
at full length, in minutes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from card_rounding import rounded_like_the_card
from collecting import GREEDY, Collector
from tiny_models import Tiny, convert_tiny, save_checkpoint

from axpress.core.device.backend import Costs
from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine
from axpress.core.model_files.convert import convert
from axpress.core.model_files.safetensors import from_bf16, to_bf16
from axpress.core.recovery.ladder import RecoveryPolicy
from axpress.core.request import GenerationRequest, SamplingParams
from axpress.core.structured_output.grammar_compiler import GrammarCompiler
from axpress.core.structured_output.output_spec import JsonSchema, OutputSpec

CONTEXT = int(os.environ.get("AXPRESS_CONTEXT", "4095"))
CHUNK = 256
LADDER = tuple(range(0, CONTEXT * 3 // 4, CHUNK))
DECODE = tuple((CONTEXT + 1) // part - 1 for part in (8, 4, 2, 1))
TINY = Tiny("qwen3", hidden=32, heads=2, kv_heads=1, ffn=48)

AT_ONCE = RecoveryPolicy(backoff=0.001, max_backoff=0.001, healthy_passes=0, max_reboots=10**6)


def numbers(seed: int, count: int) -> list[int]:
    """Random token ids of a prompt."""
    return np.random.default_rng(seed).integers(5, 250, count).tolist()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_tiny(tmp_path_factory.mktemp("long"), TINY, rows=DECODE, chunk=CHUNK, history=LADDER)


@contextmanager
def engine_of(package: Path, **options: Any) -> Iterator[Engine]:
    """Stepped by hand; what passes cost is told and not measured."""
    engine = Engine.open(package, "emu", "none", threaded=False, **{"banks": 1, **options})
    try:
        costs = engine.scheduler.costs
        seconds = [(30 + g.history / 100) * (1 if g.width == 1 else 2) / 1e3 for g in costs.groups]
        costs.set(Costs(tuple(seconds), 0.005, 1e-5))
        costs.observe = lambda *_: None  # type: ignore[method-assign]
        yield engine
    finally:
        engine.close()


def passes(engine: Engine) -> list[int]:
    """Fills with the group of each pass to come."""
    used: list[int] = []
    engine.scheduler.costs.observe = lambda slot, *_: used.append(slot)  # type: ignore[method-assign]
    return used


def run(engine: Engine, *requests: GenerationRequest, together: bool = True) -> list[Collector]:
    """Their answers: at once, or one after the other."""
    answers = []
    for request in requests:
        answers.append(Collector())
        engine.submit(request, answers[-1])
        while not together and engine.step():
            pass
    while engine.step():
        pass
    engine.scheduler.check_integrity()
    return answers


@pytest.fixture(scope="module")
def requests(package: Path) -> list[GenerationRequest]:
    """Of all lengths: beyond the reach of chunks, with half of that in common, short, with rules, repeating itself."""
    with engine_of(package) as engine:
        rules = GrammarCompiler(engine.text, engine.info.vocab_size).compile(
            OutputSpec(JsonSchema({"enum": ["yes", "no", "whatever was said before"]}))
        )
    long = numbers(1, CONTEXT * 7 // 8)
    sampled = SamplingParams(temperature=0.8, top_p=0.95, seed=5, logprobs=2)
    return [
        GenerationRequest(long, replace(GREEDY, logprobs=3), 24, ignore_eos=True),
        GenerationRequest(long[: CONTEXT // 2] + numbers(2, CONTEXT // 4), sampled, 24, ignore_eos=True),
        GenerationRequest(numbers(3, DECODE[0] - 20), sampled, 40, ignore_eos=True),
        GenerationRequest(numbers(4, CONTEXT // 3), GREEDY, 30, constraint=rules),
        GenerationRequest(numbers(5, 100) * (CONTEXT // 400), GREEDY, 40, ignore_eos=True),
    ]


@pytest.fixture(scope="module")
def alone(package: Path, requests: list[GenerationRequest]) -> list[tuple[Any, ...]]:
    """What each gets by itself."""
    with engine_of(package, drafts=False) as engine:
        salted = [replace(request, cache_salt=bytes([i])) for i, request in enumerate(requests)]
        answers = run(engine, *salted, together=False)
        assert engine.stats()["cached_tokens"] == engine.stats()["preemptions"] == 0
        assert [answer.reason for answer in answers] == ["length"] * 3 + ["stop", "length"]
        return [answer.outcome for answer in answers]


def test_token_by_token_it_is_the_same_as_in_chunks(package: Path, requests: Any, alone: Any) -> None:
    with engine_of(package, exact=True) as engine:
        assert run(engine, requests[0])[0].outcome == alone[0]
        assert engine.stats()["chunk_passes"] == 0


@pytest.mark.parametrize("banks", [1, 2])
def test_together_everybody_gets_what_he_gets_alone(package: Path, requests: Any, alone: Any, banks: int) -> None:
    """They share prompts, ride along, and push each other out: not all of them fit into one bank."""
    with engine_of(package, banks=banks) as engine:
        answers = run(engine, *requests)
        assert [answer.outcome for answer in answers] == alone
        stats = engine.stats()
        assert banks > 1 or stats["cached_tokens"] >= CONTEXT // 2, "what two prompts have in common is computed once"
        again = run(engine, *requests[banks - 1 :: 2], together=False)
        assert [answer.outcome for answer in again] == alone[banks - 1 :: 2], "from what is cached"


def test_who_is_pushed_out_goes_on_with_the_same_tokens(package: Path, alone: Any, requests: Any) -> None:
    wanted = 100 + CONTEXT // 128  # more than the first can have while the last one's prompt is read
    grows = [GenerationRequest(numbers(i, CONTEXT // 6 - 70), GREEDY, wanted, ignore_eos=True) for i in range(10, 16)]
    with engine_of(package, max_running=8) as engine:
        together = run(engine, *grows)
        assert engine.stats()["preemptions"] > 0
        engine.scheduler.set_bank_rows(1, CONTEXT)
        assert [a.outcome for a in run(engine, *grows, together=False)] == [a.outcome for a in together]
        assert run(engine, requests[2])[0].outcome == alone[2]


def test_after_the_card_failed_a_long_prompt_goes_on_with_the_same_tokens(
    package: Path, requests: Any, alone: Any
) -> None:
    with engine_of(package, recovery=AT_ONCE) as engine:
        try:
            answer = Collector()
            engine.submit(requests[1], answer)
            while not answer.num_tokens:
                engine.step()
            Emulator().set("faults", "axclrtEngineExecuteAsync@5=later:0x8030070c")
            while engine.step():
                pass
        finally:
            Emulator().set("faults", "")
        assert answer.outcome == alone[1] and sum(engine.ladder.rungs.values()) == 1


def test_guesses_that_come_true_change_nothing(package: Path, requests: Any, alone: Any) -> None:
    with engine_of(package) as engine:
        request = replace(requests[4], params=GREEDY)
        text = Collector()
        engine.submit(request, text)
        assert engine.step()
        (sequence,) = engine.scheduler.banks[0].sequences
        while engine.step():
            pass
        guessed = replace(request, prediction=tuple(sequence.tokens[len(request.prompt_ids) :]), cache_salt=b"again")
        assert [text.outcome, run(engine, guessed)[0].outcome] == [alone[4], alone[4]]
        assert engine.stats()["accepted_draft_tokens"] > 5


def test_each_token_is_decoded_in_the_smallest_group_that_reaches(package: Path) -> None:
    num_prompt, num_tokens = DECODE[0] - 20, 60
    with engine_of(package, drafts=False) as engine:
        groups = engine.scheduler.costs.groups
        assert [group.history for group in groups if group.width == 1] == list(DECODE)
        used = passes(engine)
        run(engine, GenerationRequest(numbers(6, num_prompt), GREEDY, num_tokens, ignore_eos=True))
        chunks = -(-num_prompt // CHUNK)
        seen = range(num_prompt, num_prompt + num_tokens - 1)  # rows that each further token sees
        assert [groups[slot].history for slot in used[:chunks]] == list(LADDER[:chunks])
        assert used[chunks:] == [0 if rows <= DECODE[0] else 1 for rows in seen]
        assert used.count(0) == DECODE[0] - num_prompt + 1
        used.clear()
        long = CONTEXT * 7 // 8
        run(engine, GenerationRequest(numbers(7, long), GREEDY, 5, ignore_eos=True))
        reached = LADDER[-1] + CHUNK
        by_chunks = [groups[slot].history for slot in used if groups[slot].width > 1]
        assert by_chunks == list(LADDER), "each chunk over no more history than there is"
        assert [slot for slot in used if groups[slot].width == 1] == [
            next(i for i, rows in enumerate(DECODE) if seen <= rows) for seen in range(reached, long + 4)
        ]


def test_a_token_stays_in_the_rows_that_its_group_reads(package: Path) -> None:
    """At the group's last row the next token goes below, where rows are free by now, and not beyond."""
    with engine_of(package, drafts=False) as engine:
        engine.scheduler.costs.copy = 1e3  # seconds: nothing is moved
        run(engine, GenerationRequest(numbers(8, 100), GREEDY, 10, ignore_eos=True, cache_salt=b"gone"))
        answer, bank = Collector(), engine.scheduler.banks[0]
        engine.submit(GenerationRequest(numbers(9, DECODE[0] - 140), GREEDY, 60, ignore_eos=True), answer)
        while not answer.deltas:
            engine.step()
        assert bank.sequences[0].high > DECODE[0] - 60, "above what is cached of the first"
        bank.make_free(bank.pool.num_rows, low_priority=False)
        used = passes(engine)
        while engine.step():
            pass
        assert answer.reason == "length" and set(used) == {0} and bank.moved_rows == 0


def test_memory_of_masks_is_that_of_the_largest_group(package: Path, tmp_path: Path) -> None:
    """On the card and in pinned memory: the ladder's depth counts, not its steps."""
    masks, used = {}, {}
    short = convert_tiny(tmp_path, TINY, rows=CONTEXT, chunk=CHUNK, history=[LADDER[-1]])
    for name, path in (("long ladder", package), ("one group", short)):
        with engine_of(path) as engine:
            memory = Emulator().report()["memory"]
            used[name] = memory["device_used"]
            masks[name] = memory["pinned_used"]
            hidden, slots = engine.model.program.shape.hidden, engine.model.program.logits_slots
    mask = 2 * CHUNK * (LADDER[-1] + CHUNK)
    assert masks["long ladder"] == masks["one group"] == mask + 4 * CHUNK + 2 * CHUNK * hidden + 2 * TINY.vocab * slots
    assert used["long ladder"] - used["one group"] < 1 << 16  # a decode's mask


PIECE = 1024  # tokens that the reference is given at a time: its scores of all pairs would not fit into memory


def reference(model: Any, ids: list[int], count: int) -> np.ndarray:
    """Logits of transformers' model for what follows the last `count` of the tokens, float32 [count, vocab]."""
    import torch
    import transformers

    cache, rows = transformers.cache_utils.DynamicCache(), []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer versions call it `cache`, for some families
        for start in range(0, len(ids), PIECE):
            part = torch.tensor([ids[start : start + PIECE]])
            rows.append(model(part, past_key_values=cache, use_cache=True).logits[0].numpy())
    return np.concatenate(rows)[-count:]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Of float32 [count, vocab]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def test_it_is_what_transformers_says(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the reference needs torch and transformers")
    pytest.importorskip("transformers", reason="the reference needs torch and transformers")
    model = save_checkpoint(replace(TINY, sharp=4.0), tmp_path / "hf")
    made = convert(tmp_path / "hf", tmp_path / "out", rows=DECODE, chunk=CHUNK, history=LADDER, progress=False)
    prompt, count = numbers(30, CONTEXT * 7 // 8), 24
    request = GenerationRequest(prompt, replace(GREEDY, logprobs=8), count, ignore_eos=True)
    with engine_of(made) as engine:
        (answer,) = run(engine, request)
    tokens = [chosen.token for chosen in answer.logprobs]
    assert len(tokens) == count and len(set(tokens)) > 5
    plain = reference(model, prompt + tokens[:-1], count)
    with rounded_like_the_card(model):
        rounded = from_bf16(to_bf16(reference(model, prompt + tokens[:-1], count)))
    limit = 2 * np.abs(rounded - plain).max()  # what bf16 costs
    assert limit < 0.2 * plain.std(), "bf16 costs so much that the test shows nothing"
    expected = log_softmax(rounded)
    for chosen, row in zip(answer.logprobs, expected, strict=True):
        assert row.max() - row[chosen.token] < limit, "another token than the reference would choose"
        assert all(abs(logprob - row[token]) < limit for token, logprob in chosen.top)
    assert sum(token == row.argmax() for token, row in zip(tokens, expected, strict=True)) > count * 3 // 4
