"""The emulated card's arithmetic against transformers, for every family, many shapes, and long greedy answers.

Two references, both transformers models in float32 on the bf16-rounded weights: the plain one, and one that also rounds
to bf16 where the card does (keys, values, states and each layer's output). The plain one says what the rounding costs;
the rounded one leaves nothing but the order of float32 sums and shows any real mistake."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from card_rounding import rounded_like_the_card, states_rounded
from ctypes_runner import LIBRARY, Runner, open_runtime
from oracle_cases import CASES, HYBRIDS, Case, package_of
from tiny_models import save_checkpoint

from axpress.core.model_files.model_package import open_package
from axpress.core.model_files.safetensors import from_bf16, to_bf16

torch = pytest.importorskip("torch", reason="the reference needs torch and transformers")
transformers = pytest.importorskip("transformers", reason="the reference needs torch and transformers")
pytestmark = pytest.mark.skipif(not LIBRARY.is_file(), reason="the emulated runtime is not built")


@dataclass
class Pair:
    """A case's reference model and the same model on the emulated card."""

    case: Case
    model: Any
    runner: Runner


@pytest.fixture(scope="module", params=[*CASES, *HYBRIDS], ids=lambda case: case.label)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    case = request.param
    base = tmp_path_factory.mktemp("oracle")
    model = save_checkpoint(case.tiny, base / "hf")
    with open_runtime() as runtime:
        runner = Runner(runtime, open_package(package_of(case, base)))
        yield Pair(case, model, runner)
        runner.close()


def reference_logits(model: Any, ids: list[int]) -> np.ndarray:
    """The reference's logits for every position, float32 [len(ids), vocab]."""
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()


def rounded_reference_logits(case: Case, model: Any, ids: list[int]) -> np.ndarray:
    """As reference_logits, with the card's roundings; the logits themselves not rounded."""
    hybrid = states_rounded(case.states.get("state_dtype", "bf16")) if case in HYBRIDS else nullcontext()
    with rounded_like_the_card(model), hybrid, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer versions call it `cache`, for some families
        cache = transformers.cache_utils.DynamicCache(config=model.config)
        return model(torch.tensor([ids]), past_key_values=cache, use_cache=True).logits[0].numpy()


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


@dataclass
class References:
    """Logits of both references for the same tokens, and what bf16 costs: the error that rounding alone brings to each
    logit."""

    plain: np.ndarray
    rounded: np.ndarray

    @classmethod
    def of(cls, pair: Pair, ids: list[int]) -> References:
        """Runs both references on `ids`; the rounded logits are rounded to bf16 as the card's head does."""
        rounded = rounded_reference_logits(pair.case, pair.model, ids)
        return cls(reference_logits(pair.model, ids), from_bf16(to_bf16(rounded)))

    @property
    def cost(self) -> np.ndarray:
        """Error of bf16 per logit, in logits."""
        return self.rounded - self.plain


def prompt(pair: Pair, length: int) -> list[int]:
    """A random prompt of at most `length` tokens that leaves room for a few more."""
    length = min(length, pair.case.rows - 8)
    return np.random.default_rng(length).integers(0, pair.case.tiny.vocab, length).tolist()


def test_logits_are_those_of_transformers(pair: Pair) -> None:
    ids = prompt(pair, 500)
    pair.runner.reset()
    mine = pair.runner.feed(ids, pair.case.chunk or 1)
    reference = References.of(pair, ids)
    cost = rms(reference.cost)
    assert cost < 0.02 * rms(reference.plain), "bf16 costs so much that the test shows nothing"
    assert rms(mine - reference.plain) < 1.05 * cost, "further from transformers than bf16 explains"
    assert np.abs(mine - reference.plain).max() < 1.5 * np.abs(reference.cost).max()
    # With the same roundings only the order of float32 sums is left: now and then it turns a rounding the other way.
    assert rms(mine - reference.rounded) < 0.6 * cost
    assert (mine == reference.rounded).mean() > 0.4, "most logits should be the very same bf16 number"


def test_chunks_and_single_tokens_agree_bit_for_bit(pair: Pair) -> None:
    if not pair.case.chunk:
        pytest.skip("the case has no chunk groups")
    ids = prompt(pair, 330)
    results = []
    for width in (pair.case.chunk, 1):
        pair.runner.reset()
        logits = pair.runner.feed(ids, width)
        results.append((logits.tobytes(), pair.runner.cache_bytes()))
    assert results[0][0] == results[1][0], "logits differ between chunks and single tokens"
    assert results[0][1] == results[1][1], "cache rows differ between chunks and single tokens"


def test_200_greedy_tokens(pair: Pair) -> None:
    ids = prompt(pair, 20)
    pair.runner.reset()
    logits = pair.runner.feed(ids, pair.case.chunk or 1)[-1]
    answer: list[int] = []
    for _ in range(200):
        answer.append(int(logits.argmax()))
        logits = pair.runner.feed(answer[-1:], 1)[0]
    reference = References.of(pair, ids + answer)
    plain, cost = reference.plain[len(ids) - 1 : -1], reference.cost[len(ids) - 1 : -1]
    differing = [i for i, token in enumerate(answer) if token != plain[i].argmax()]
    for i in differing:
        margin = float(plain[i].max() - plain[i][answer[i]])
        # both logits may be off by the rounding, and roundings turn either way
        limit = 3 * float(np.abs(cost[i]).max())
        assert margin < limit, (
            f"token {i}: the reference prefers {plain[i].argmax()} by {margin:.4f}, rounding explains {limit:.4f}"
        )
    assert len(differing) <= 20, f"{len(differing)} of 200 tokens are near ties: the model is too flat to test anything"
    assert len(set(answer)) > 5, "the answer repeats itself: the model is too simple to test anything"
