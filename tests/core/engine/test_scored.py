"""Logits of a few tokens after a prompt, with nothing generated: the same bits in whatever company, and through
failures."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from collecting import Collector
from reranker_models import TINY, reranker_package, tokens_of, trim

from axpress.core.device.backend import Costs
from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine
from axpress.core.errors import ContextOverflow, RequestError
from axpress.core.recovery.ladder import RecoveryPolicy
from axpress.core.request import GenerationRequest, SamplingParams

ROWS, CHUNK, HISTORY = 335, 32, [0, 32, 64, 96, 128, 192, 256]
SCORED = (7, 300, 5)


def make_prompts() -> list[list[int]]:
    """Documents of many lengths behind the same query, one of them twice."""
    rnd = random.Random(7)
    common = [rnd.randrange(5, 250) for _ in range(37)]
    prompts = [common + [rnd.randrange(5, 250) for _ in range(rnd.choice((1, 5, 15, 16, 40)))] for _ in range(12)]
    return [*prompts, prompts[0]]


def open_engine(package: Path, **options: object) -> Engine:
    fields = {"banks": 1, "max_running": 8, "threaded": False, **options}
    return Engine.open(package, "emu", "none", **fields)


def score(engine: Engine, prompts: list[list[int]], scored: tuple[int, ...] = SCORED, **fields: object) -> np.ndarray:
    """All at once; the logits in order."""
    answers = [Collector() for _ in prompts]
    engine.submit_all([GenerationRequest(prompt, scored=scored, **fields) for prompt in prompts], answers)
    while engine.step():
        engine.scheduler.check_integrity()
    for answer in answers:
        assert (answer.reason, answer.text, answer.num_tokens) == ("stop", "", 0), answer.error
    logits = np.array([answer.deltas[-1].logits for answer in answers])
    assert logits.dtype == np.float32 and logits.shape == (len(prompts), len(scored))
    return logits


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reranker_package(tmp_path_factory.mktemp("scored"), rows=ROWS, chunk=CHUNK, history=HISTORY)


@pytest.fixture(scope="module")
def alone(package: Path) -> np.ndarray:
    """What each prompt gives token by token, with nothing shared and nobody else there."""
    engine = open_engine(package, max_running=1, exact=True)
    logits = [score(engine, [prompt], cache_salt=bytes([i]))[0] for i, prompt in enumerate(make_prompts())]
    engine.close()
    return np.array(logits)


@pytest.fixture
def engine(package: Path, alone: np.ndarray) -> Iterator[Engine]:
    """What rides together hangs on what passes cost, so that is not measured here."""
    engine = open_engine(package, max_running=16)
    costs = engine.scheduler.costs
    costs.observe = lambda *measured: None
    costs.set(Costs(tuple(1.0 if group.width == 1 else 1.5 for group in costs.groups), 0.1))
    yield engine
    engine.close()


def test_they_are_those_that_tokens_are_chosen_by(engine: Engine) -> None:
    """tests/server/test_rerank.py compares with transformers."""
    prompt, answer = make_prompts()[0], Collector()
    engine.submit(GenerationRequest(prompt, SamplingParams(temperature=0.0, logprobs=20), max_tokens=1), answer)
    while engine.step():
        pass
    (best,) = [logprob for delta in answer.deltas for logprob in delta.logprobs]
    tokens, logprobs = zip(*best.top, strict=True)
    (logits,) = score(engine, [prompt], tokens)
    assert np.allclose(logits - logits[0], np.array(logprobs) - logprobs[0], atol=1e-4) and np.ptp(logits) > 0.1


def test_company_changes_no_bit_and_the_common_part_is_computed_once(engine: Engine, alone: np.ndarray) -> None:
    prompts = make_prompts()
    assert np.array_equal(score(engine, prompts), alone)
    stats = engine.stats()
    different = {tuple(prompt[:end]) for prompt in prompts for end in range(1, len(prompt) + 1)}
    computed = stats["chunk_queries"] + stats["decode_passes"]
    assert computed == len(different) + 1, "one more: the last token of the prompt that came twice"
    assert stats["chunk_passes"] < len(prompts), "several ride in a pass"
    assert stats["generated_tokens"] == 0 and stats["finished"] == len(prompts)
    shuffled = random.Random(1).sample(range(len(prompts)), len(prompts))
    assert np.array_equal(score(engine, [prompts[i] for i in shuffled]), alone[shuffled])
    text = Collector()  # the same model generates, in between
    engine.submit(GenerationRequest(prompts[3], max_tokens=2), text)
    assert np.array_equal(score(engine, prompts), alone) and text.num_tokens == 2


@pytest.mark.parametrize("fault", ["nan@head:2", "device=offline@40"])
def test_a_card_that_fails(package: Path, alone: np.ndarray, fault: str) -> None:
    engine = open_engine(package, recovery=RecoveryPolicy(backoff=0.0))
    Emulator().set("faults", fault)
    try:
        assert np.array_equal(score(engine, make_prompts()), alone)
    finally:
        Emulator().set("faults", "")
    assert engine.stats()["repeated_passes"] + sum(engine.ladder.rungs.values()) > 0, "nothing failed"
    engine.close()


def test_preempted(package: Path, alone: np.ndarray) -> None:
    engine, prompts = open_engine(package), make_prompts()
    answers, bank, preempted = [Collector() for _ in prompts], engine.scheduler.banks[0], 0
    engine.submit_all([GenerationRequest(prompt, scored=SCORED) for prompt in prompts], answers)
    while engine.step():
        if len(bank.sequences) > 2 and preempted < 5:
            engine.scheduler._preempt(bank)  # as where the rows run out
            preempted += 1
            engine.scheduler._room_changed = True
    assert preempted == 5
    assert np.array_equal([answer.deltas[-1].logits for answer in answers], alone)
    engine.close()


def test_a_trimmed_head(tmp_path: Path, alone: np.ndarray) -> None:
    made = reranker_package(tmp_path, rows=ROWS, chunk=CHUNK, history=HISTORY)
    engine = open_engine(trim(made, [300, *range(100), *tokens_of(made / "tokenizer")]))
    assert np.array_equal(score(engine, make_prompts()[:3]), alone[:3])
    answer = Collector()
    engine.submit(GenerationRequest([1, 2], scored=(5, 200)), answer)
    while engine.step():
        pass
    assert answer.reason == "error" and "no logit of token 200" in (answer.error or "")
    engine.close()


def test_what_is_refused_and_what_is_not(engine: Engine) -> None:
    whole = [5 + i % 200 for i in range(ROWS)]
    assert score(engine, [whole]).shape == (1, 3)  # no room for an answer is needed
    with pytest.raises(ContextOverflow, match=f"{ROWS + 1} tokens"):
        score(engine, [[*whole, 1]])
    for tokens in ((5, TINY.vocab), (-1,)):
        with pytest.raises(RequestError, match=f"from 0 to {TINY.vocab - 1}"):
            score(engine, [[1, 2]], tokens)
    with pytest.raises(RequestError, match="not for both"):
        engine.submit(GenerationRequest([1], scored=(1,), dimensions=2), Collector())


def test_many_documents_wait_as_one(package: Path) -> None:
    engine = open_engine(package, max_running=2, max_queue=2)
    many = [Collector() for _ in range(50)]
    engine.submit_all([GenerationRequest([9, 8, 7, i], scored=(1, 2)) for i in range(50)], many)
    one = Collector()
    engine.submit(GenerationRequest([1, 2, 3], max_tokens=1), one)
    while one.reason is None:
        assert engine.step()
    assert sum(answer.reason is not None for answer in many) < 10
    while engine.step():
        pass
    assert all(answer.reason == "stop" for answer in many)
    engine.close()
