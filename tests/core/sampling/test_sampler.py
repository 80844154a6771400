"""The sampler against a naive float64 reference: sort everything, then do each step as its documentation says."""

from __future__ import annotations

import ctypes.util
import math
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import PATIENCE, ROOT

from axpress.core.errors import LogitsError, RequestError
from axpress.core.request import SamplingParams
from axpress.core.sampling.sampler import MAX_LOGPROBS, Sampler, Scratch

FULL = 151_936
SLACK = 1e-12
"""Where a sum is this close (relative) to a boundary, the order of additions decides: both neighbours are right."""


def bf16(values: object) -> np.ndarray:
    """Bit patterns of `values` cut off to bf16."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def to_float64(logits: np.ndarray) -> np.ndarray:
    if logits.dtype == np.uint16:
        with np.errstate(invalid="ignore"):  # signalling NaN patterns
            return (logits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return logits.astype(np.float64)


def philox(seed: int, index: int) -> float:
    """Philox4x32-10 after its paper, counter (index, 0), 53 bits of the first two words."""
    c, k = [index & 0xFFFFFFFF, index >> 32, 0, 0], [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return ((c[0] << 32 | c[1]) >> 11) / 2**53


@dataclass
class Kept:
    """What a token is drawn from: ids best first, and the running sums of their weights."""

    ids: np.ndarray
    cumulative: np.ndarray
    num: tuple[int, int]

    def candidates(self, u: float) -> np.ndarray:
        """The right token for the uniform number `u`; more than one only where a boundary is within SLACK."""
        low, high = (
            min(int(np.searchsorted(self.cumulative, u * self.cumulative[n - 1] * scale, side="right")), n - 1)
            for n, scale in zip(self.num, (1 - SLACK, 1 + SLACK), strict=True)
        )
        return self.ids[low : high + 1]


def changed_logits(logits: np.ndarray, p: SamplingParams, prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:
    values = to_float64(logits)
    for token, bias in p.logit_bias.items():
        values[token] += bias
    history = [*prompt, *answer]
    for token in set(history[-p.penalty_window :] if p.penalty_window else history):
        v = values[token]
        values[token] = v / p.repetition_penalty if v > 0 else v * p.repetition_penalty
    for token in set(answer):
        values[token] -= p.frequency_penalty * answer.count(token) + p.presence_penalty
    return values


def reference(
    logits: np.ndarray,
    p: SamplingParams,
    prompt: Sequence[int] = (),
    answer: Sequence[int] = (),
    allowed: np.ndarray | None = None,
) -> Kept:
    """Everything but the draw. `allowed` is a boolean per token."""
    values = changed_logits(logits, p, prompt, answer)
    if allowed is not None:
        values[~allowed] = -np.inf
    ids = np.argsort(-values, kind="stable")
    ids = ids[: np.count_nonzero(values > -np.inf)]
    values = values[ids]
    if p.temperature == 0:
        return Kept(ids, np.ones(1), (1, 1))
    with np.errstate(over="ignore", under="ignore"):
        weights = np.exp((values - values[0]) / p.temperature)
    if p.top_k:
        ids, weights = ids[: p.top_k], weights[: p.top_k]
    cumulative = np.cumsum(weights.astype(np.longdouble))
    num = []
    for slack in (-SLACK, SLACK):
        n = len(ids)
        if p.top_p < 1:
            n = min(n, int(np.searchsorted(cumulative, (p.top_p + slack) * cumulative[-1], side="left")) + 1)
        if p.min_p > 0:
            n = min(n, int(np.count_nonzero(weights >= p.min_p * (1 - slack))))
        num.append(max(n, 1))
    return Kept(ids, cumulative, (num[0], num[1]))


def check(
    logits: np.ndarray, p: SamplingParams, prompt: Sequence[int], answer: Sequence[int], scratch: Scratch, draws: int
) -> int:
    """Asserts `draws` tokens; returns how many were within SLACK of a boundary."""
    sampler = Sampler(len(logits), p, prompt, scratch=scratch)
    for token in answer:
        sampler.accept(token)
    kept = reference(logits, p, prompt, answer)
    close = 0
    for index in range(draws):
        right = kept.candidates(philox(sampler.seed, index))
        close += len(right) > 1
        assert sampler.sample(logits, index)[0] in right, (p, index)
    return close


# ---- any parameters, any logits, small vocabularies ----

SPECIAL = [0.0, -0.0, -np.inf, 1.0, -1.0, 3.3e38, -3.3e38, 1e-38, 1e-45, 0.5, 2.0, 4.0]


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, SamplingParams, list[int], list[int]]:
    vocab = draw(st.integers(1, 400))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["normal", "ties", "special", "peaked", "constant", "bits"]))
    values = {
        "normal": lambda: rng.normal(0, draw(st.sampled_from([0.01, 1, 5, 1e4])), vocab),
        "ties": lambda: rng.integers(-3, 4, vocab) / 2,
        "special": lambda: rng.choice(SPECIAL, vocab),
        "peaked": lambda: np.where(rng.random(vocab) < 0.05, 30, -20) + rng.normal(0, 3, vocab),
        "constant": lambda: np.full(vocab, rng.choice(SPECIAL)),
        "bits": lambda: to_float64(rng.integers(0, 2**16, vocab).astype(np.uint16)),
    }[kind]()
    values = np.nan_to_num(values, nan=1.5, posinf=7.0, neginf=-np.inf)
    values[rng.integers(vocab)] = rng.choice([0.25, -0.0, 2.0])  # at least one that is finite
    logits = values.astype(np.float32) if draw(st.booleans()) else bf16(values)
    token = st.integers(0, vocab - 1)
    bias = st.one_of(st.just(-np.inf), st.sampled_from([-100.0, 100.0, 0.0, 0.5]), st.floats(-1e3, 1e3))
    p = SamplingParams(
        temperature=draw(st.sampled_from([0, 1e-300, 1e-3, 0.1, 0.7, 0.9, 1.0, 2.0, 100.0, 1e300])),
        top_p=draw(st.one_of(st.just(1.0), st.floats(0, 1))),
        top_k=draw(st.one_of(st.just(0), st.integers(1, 450))),
        min_p=draw(st.one_of(st.just(0.0), st.floats(0, 1))),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 2.0, 1.1, 0.5])),
        presence_penalty=draw(st.sampled_from([0.0, 0.5, -1.0, 100.0])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.5, -0.3])),
        penalty_window=draw(st.sampled_from([0, 1, 5, 20])),
        logit_bias=draw(st.dictionaries(token, bias, max_size=5)),
        seed=draw(st.integers(-(2**63), 2**64 - 1)),
    )
    return logits, p, draw(st.lists(token, max_size=12)), draw(st.lists(token, max_size=12))


@settings(max_examples=1000, deadline=None)
@given(cases())
def test_tokens_equal_the_reference(case: tuple[np.ndarray, SamplingParams, list[int], list[int]]) -> None:
    logits, p, prompt, answer = case
    values = changed_logits(logits, p, prompt, answer)
    if np.all(values == -np.inf):
        with pytest.raises(LogitsError, match="no token"):
            Sampler(len(logits), p, prompt).sample(logits, 0)
        return
    check(logits, p, prompt, answer, Scratch(len(logits)), draws=4)


def test_thousands_of_random_vectors_are_never_close_to_a_boundary_by_habit() -> None:
    """Generic parameters: the slack that the reference grants must hardly ever be used."""
    rng = np.random.default_rng(5)
    scratch, close = Scratch(1000), 0
    for _ in range(1500):
        logits = bf16(rng.normal(0, rng.uniform(0.1, 6), 1000))
        p = SamplingParams(
            temperature=rng.uniform(0.05, 3), top_p=rng.uniform(0.1, 1), top_k=int(rng.integers(0, 300)),
            min_p=rng.uniform(0, 0.1),
            repetition_penalty=rng.uniform(0.8, 1.5), presence_penalty=rng.uniform(-1, 1),
            seed=int(rng.integers(2**63)),
        )  # fmt: skip
        ids = rng.integers(0, 1000, 60).tolist()
        close += check(logits, p, ids[:40], ids[40:], scratch, draws=3)
    assert close <= 2


# ---- a real vocabulary's size ----


def full_vector(kind: str, rng: np.random.Generator) -> np.ndarray:
    values = rng.normal(-1, 2.2, FULL)
    if kind == "peaked":
        values[rng.integers(0, FULL, 400)] += rng.exponential(4, 400) + 6
    elif kind == "flat":
        values = rng.normal(0, 3, FULL)
    elif kind == "two levels":
        values = np.where(rng.random(FULL) < 0.4, 1.5, -9.0)
    elif kind == "one block":
        values = np.full(FULL, -np.inf)
        values[70_000:70_040] = rng.normal(0, 1, 40)
    return values


@pytest.mark.parametrize("dtype", ["bf16", "float32"])
@pytest.mark.parametrize("kind", ["peaked", "flat", "two levels", "one block"])
def test_full_vocabulary(kind: str, dtype: str) -> None:
    rng = np.random.default_rng(11)
    values = full_vector(kind, rng)
    logits = bf16(values) if dtype == "bf16" else values.astype(np.float32)
    prompt, answer = rng.integers(0, FULL, 2000).tolist(), rng.integers(0, FULL, 100).tolist()
    scratch = Scratch(FULL)
    base = SamplingParams(temperature=0.9, seed=7)
    variants = [
        base,
        replace(base, top_p=0.9507),
        replace(base, top_p=0.9507, top_k=20, temperature=0.6),
        replace(base, min_p=0.05),
        replace(base, temperature=3.0, top_k=5000),
        replace(base, temperature=0),
        replace(
            base,
            top_p=0.9507,
            repetition_penalty=1.1,
            presence_penalty=0.5,
            frequency_penalty=0.2,
            logit_bias={5: 3.0, 9: -100.0},
        ),
    ]
    close = sum(check(logits, p, prompt, answer, scratch, draws=150 if dtype == "bf16" else 25) for p in variants)
    assert close <= 1


def test_the_draw_is_exact_where_the_uncounted_tail_decides() -> None:
    """Few strong tokens and a tail that weighs a thousandth: draws on both sides of every boundary that the tail
    moves."""
    values = np.full(FULL, 0.0)
    values[[10, 20, 30]] = 20.25, 20.0, 19.75  # the tail is just below the first cut and weighs 2e-4 of the best
    logits, scratch = bf16(values), Scratch(FULL)
    p = SamplingParams(temperature=1.0)
    kept = reference(logits, p)
    boundary = [float(c / kept.cumulative[-1]) for c in kept.cumulative[:3]]
    seeds = [s for s in range(60_000) if min(abs(philox(s, 0) - b) for b in boundary) < 3e-4]
    assert len(seeds) > 50
    tokens = {Sampler(FULL, p, (), seed=s, scratch=scratch).sample(logits, 0)[0]: s for s in seeds}
    assert len(tokens) > 4, "some of these draws must fall into the tail"
    for s in seeds:
        assert Sampler(FULL, p, (), seed=s, scratch=scratch).sample(logits, 0)[0] in kept.candidates(philox(s, 0))


# ---- single steps, by hand ----


def drawn(logits: np.ndarray, draws: int = 400, **fields: object) -> set[int]:
    """All tokens seen in `draws` draws."""
    sampler = Sampler(len(logits), SamplingParams(seed=3, **fields), ())  # type: ignore[arg-type]
    return {sampler.sample(logits, i)[0] for i in range(draws)}


def test_ties_go_to_the_lowest_ids() -> None:
    equal = bf16([1.0, 2.0, 2.0, -0.0, 2.0, 0.0, 2.0])
    assert drawn(equal, temperature=0.0) == {1}
    assert drawn(equal, top_k=2) == {1, 2}
    assert drawn(equal, top_k=3, temperature=50.0) == {1, 2, 4}
    assert drawn(bf16([-1.0, -0.0, 0.0, -0.0]), top_k=2) == {1, 2}
    assert drawn(bf16([-1.0, -0.0, 0.0]), temperature=0.0) == {1}
    assert drawn(np.array([-1.0, -0.0, 0.0], np.float32), temperature=0.0) == {1}


def test_top_p_takes_the_smallest_number_that_reaches_it() -> None:
    four = bf16([1.0] * 4)
    assert drawn(four, top_p=0.5) == {0, 1}
    assert drawn(four, top_p=0.5000001) == {0, 1, 2}
    assert drawn(four, top_p=0.0) == {0}
    assert drawn(four, top_p=0.5, top_k=2) == {0}, "top_p is of the top_k tokens' weight"


def test_min_p_is_relative_to_the_best() -> None:
    assert drawn(bf16([0.0, -1.0, -2.0, -1.0]), min_p=math.exp(-1.5)) == {0, 1, 3}
    assert drawn(bf16([0.0, 0.0, -1.0]), min_p=1.0) == {0, 1}


def test_penalties_follow_their_definitions() -> None:
    logits = bf16([4.0, 3.0, -1.0, -1.5])
    assert Sampler(4, SamplingParams(temperature=0, repetition_penalty=2.0), [0]).sample(logits, 0)[0] == 1
    windowed = Sampler(4, SamplingParams(temperature=0, repetition_penalty=2.0, penalty_window=2), [0, 2])
    assert windowed.sample(logits, 0)[0] == 1
    windowed.accept(3)
    assert windowed.sample(logits, 1)[0] == 0, "token 0 has left the window"
    counted = Sampler(4, SamplingParams(temperature=0, frequency_penalty=0.6), [0, 0, 0])
    assert counted.sample(logits, 0)[0] == 0, "prompt tokens are not counted"
    counted.accept(0)
    assert counted.sample(logits, 1)[0] == 0
    counted.accept(0)
    assert counted.sample(logits, 2)[0] == 1
    once = Sampler(4, SamplingParams(temperature=0, presence_penalty=0.9), [])
    for i in range(3):
        once.accept(0)
        assert once.sample(logits, i)[0] == 0, "presence counts once"


def test_bias_bans_and_promotes() -> None:
    logits = bf16([4.0, 3.0, 2.0])
    assert drawn(logits, logit_bias={0: -math.inf, 1: -math.inf}) == {2}
    assert drawn(logits, temperature=0.0, logit_bias={2: 2.0}) == {0}, "equal to the best: lowest id"
    assert drawn(logits, temperature=0.0, logit_bias={2: 2.5}) == {2}


def test_only_allowed_tokens() -> None:
    rng = np.random.default_rng(2)
    for vocab in (1, 31, 32, 33, 64, 1000, 5003):
        logits = bf16(rng.normal(0, 4, vocab))
        for share in (0.02, 0.5, 0.98, 1.0):
            allowed = rng.random(vocab) < share
            allowed[rng.integers(vocab)] = True
            words = np.packbits(np.pad(allowed, (0, -vocab % 32)), bitorder="little").view(np.uint32)
            p = SamplingParams(seed=4, top_p=0.9, logit_bias={0: 5.0}, logprobs=1)
            for vector in (logits, to_float64(logits).astype(np.float32)):
                sampler = Sampler(vocab, p, ())
                sampler.allow(words)
                kept = reference(vector, p, allowed=allowed)
                for i in range(5):
                    token, logprob = sampler.sample(vector, i)
                    assert allowed[token] and token in kept.candidates(philox(4, i))
                    assert logprob.logprob <= 0 and logprob.top[0][0] == int(np.argmax(to_float64(logits)))
                words[:] = 0
                with pytest.raises(LogitsError, match="not allowed"):
                    sampler.sample(vector, 0)
                sampler.allow(None)
                sampler.sample(vector, 0)
                words = np.packbits(np.pad(allowed, (0, -vocab % 32)), bitorder="little").view(np.uint32)


# ---- log-probabilities ----


@pytest.mark.parametrize("vocab", [1, 7, 300, FULL])
@pytest.mark.parametrize("dtype", ["bf16", "float32"])
def test_logprobs_are_the_models_own(vocab: int, dtype: str) -> None:
    rng = np.random.default_rng(vocab)
    values = rng.normal(0, 3, vocab)
    values[rng.random(vocab) < 0.2] = -np.inf
    values[0] = values[-1] = 2.5
    logits = bf16(values) if dtype == "bf16" else values.astype(np.float32)
    exact = to_float64(logits)
    logprob = exact - exact.max() - math.log(math.fsum(np.exp(exact - exact.max())))
    order = [int(i) for i in np.argsort(-exact, kind="stable") if exact[i] > -np.inf]
    p = SamplingParams(
        temperature=0.5, top_k=50, repetition_penalty=1.3, logit_bias={0: -3.0}, seed=1, logprobs=MAX_LOGPROBS
    )
    sampler = Sampler(vocab, p, [0, vocab - 1])
    for i in range(5):
        token, got = sampler.sample(logits, i)
        assert got.token == token
        assert got.logprob == pytest.approx(logprob[token], rel=1e-14, abs=1e-15)
        assert [t for t, _ in got.top] == order[:MAX_LOGPROBS]
        assert [v for _, v in got.top] == pytest.approx(logprob[order[:MAX_LOGPROBS]], rel=1e-14, abs=1e-15)
    assert Sampler(vocab, replace(p, logprobs=0), ()).sample(logits, 0)[1].top == ()
    assert Sampler(vocab, replace(p, logprobs=None), ()).sample(logits, 0)[1] is None


# ---- broken logits ----


@pytest.mark.parametrize("bits", [0x7F81, 0x7FC0, 0x7FFF, 0xFF81, 0xFFC0, 0xFFFF, 0x7F80])
@pytest.mark.parametrize("vocab", [1, 63, 64, 65, 1000])
def test_nan_and_infinity_are_reported_wherever_they_are(bits: int, vocab: int) -> None:
    rng = np.random.default_rng(bits)
    for temperature in (0.0, 1.0):
        sampler = Sampler(vocab, SamplingParams(temperature=temperature), ())
        for position in {0, vocab - 1, int(rng.integers(vocab))}:
            logits = bf16(rng.normal(0, 1, vocab))
            logits[position] = bits
            with pytest.raises(LogitsError, match=f"NaN or .*token {position},"):
                sampler.sample(logits, 0)
            with pytest.raises(LogitsError, match=f"NaN or .*token {position},"):
                sampler.sample((logits.astype(np.uint32) << 16).view(np.float32), 0)
            logits[position] = 0
            sampler.sample(logits, 0)


def test_no_token_left() -> None:
    with pytest.raises(LogitsError, match="no token can be chosen for token 5"):
        Sampler(100, SamplingParams(), ()).sample(bf16(np.full(100, -np.inf)), 5)
    with pytest.raises(LogitsError, match="banned"):
        Sampler(2, SamplingParams(logit_bias={0: -math.inf, 1: -math.inf}, logprobs=2), ()).sample(bf16([1, 2]), 0)


# ---- generator ----


def test_generator_is_philox() -> None:
    assert philox(0, 0) == (0x6627E8D5E169C58D >> 11) / 2**53  # the published known answer for counter 0, key 0
    equal = np.zeros(1 << 16, np.float32)
    for seed, index in [(1, 0), (2**64 - 1, 3), (0x0123456789ABCDEF, 2**40 + 17), (5, 2**64 - 1)]:
        token, _ = Sampler(1 << 16, SamplingParams(seed=seed), ()).sample(equal, index)
        assert token == int(philox(seed, index) * (1 << 16))


def test_same_seed_and_index_give_the_same_token_in_any_order() -> None:
    logits = bf16(np.random.default_rng(0).normal(0, 1, 5000))
    one, other = (Sampler(5000, SamplingParams(), (), seed=99) for _ in range(2))
    forward = [one.sample(logits, i)[0] for i in range(50)]
    backward = [other.sample(logits, i)[0] for i in reversed(range(50))]
    assert forward == backward[::-1]
    assert len(set(forward)) > 40
    assert forward != [Sampler(5000, SamplingParams(), (), seed=100).sample(logits, i)[0] for i in range(50)]


def test_seed_defaults() -> None:
    assert Sampler(4, SamplingParams(seed=5), ()).seed == 5
    assert Sampler(4, SamplingParams(seed=5), (), seed=6).seed == 6
    assert Sampler(4, SamplingParams(seed=-1), ()).seed == 2**64 - 1
    assert len({Sampler(4, SamplingParams(), ()).seed for _ in range(10)}) == 10


def test_frequencies_match_probabilities() -> None:
    """Chi-square over 40,000 draws with a fixed seed; 99.99 % quantile of 29 degrees of freedom."""
    values = np.random.default_rng(8).normal(0, 1, 30)
    logits, draws = bf16(values), 40_000
    sampler = Sampler(30, SamplingParams(temperature=0.8, seed=123), ())
    counts = np.bincount([sampler.sample(logits, i)[0] for i in range(draws)], minlength=30)
    weights = np.exp(to_float64(logits) / 0.8)
    expected = draws * weights / weights.sum()
    assert np.sum((counts - expected) ** 2 / expected) < 66.2


# ---- arguments ----


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": -1e-9}, "top_p"),
        ({"min_p": 2.0}, "min_p"),
        ({"top_k": -1}, "top_k"),
        ({"penalty_window": -1}, "penalty_window"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"presence_penalty": math.inf}, "presence_penalty"),
        ({"frequency_penalty": math.nan}, "frequency_penalty"),
        ({"logit_bias": {10: 1.0}}, "logit_bias"),
        ({"logit_bias": {-1: 1.0}}, "logit_bias"),
        ({"logit_bias": {0: math.nan}}, "logit_bias"),
        ({"logit_bias": {0: math.inf}}, "logit_bias"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"seed": 2**64}, "seed"),
    ],
)
def test_fields_out_of_range_are_named(fields: dict[str, object], param: str) -> None:
    with pytest.raises(RequestError, match=param) as refused:
        Sampler(10, SamplingParams(**fields), ())  # type: ignore[arg-type]
    assert refused.value.param == param


def test_wrong_buffers_are_refused() -> None:
    sampler = Sampler(10, SamplingParams(repetition_penalty=1.2), ())
    with pytest.raises(TypeError, match="uint16"):
        sampler.sample(np.zeros(10, np.float16), 0)
    with pytest.raises(TypeError, match="uint16"):
        sampler.sample(np.zeros(10, np.int32), 0)
    with pytest.raises(ValueError, match="9 logits"):
        sampler.sample(np.zeros(9, np.uint16), 0)
    with pytest.raises((ValueError, BufferError)):
        sampler.sample(np.zeros(20, np.uint16)[::2], 0)
    with pytest.raises(OverflowError):
        sampler.sample(np.zeros(10, np.uint16), -1)
    with pytest.raises(RequestError, match="prompt is 10"):
        Sampler(10, SamplingParams(), [10])
    with pytest.raises(RequestError, match="accepted token is -1"):
        sampler.accept(-1)
    with pytest.raises(ValueError, match="do not cover"):
        Sampler(33, SamplingParams(), ()).allow(np.zeros(1, np.uint32))
    with pytest.raises(ValueError, match="scratch is for 10"):
        Sampler(11, SamplingParams(), (), scratch=Scratch(10))
    assert sampler.sample(np.zeros((1, 1, 10), np.uint16), 0)[0] < 10


# ---- native ----


@pytest.mark.skipif(not ctypes.util.find_library("asan"), reason="gcc's address sanitizer is not installed")
def test_native_under_sanitizers(tmp_path: Path) -> None:
    """tests/native/test_sampler.c: exact-size buffers, any vocabulary, failing allocators; no error, no leak."""
    program = tmp_path / "test_sampler"
    names = ("sampler", "sampler_state", "logits", "logits_group")
    sources = [ROOT / "tests/native/test_sampler.c", *(ROOT / "csrc" / f"{name}.c" for name in names)]
    flags = [
        "-std=c11",
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Wshadow",
        "-Wmissing-prototypes",
        "-Werror",
        "-ffp-contract=off",
    ]
    flags += ["-fsanitize=address,undefined,float-divide-by-zero", "-fno-sanitize-recover=all", f"-I{ROOT / 'csrc'}"]
    flags += [f"-Wl,--wrap={name}" for name in ("malloc", "calloc", "realloc")]
    subprocess.run(["gcc", *flags, *map(str, sources), "-o", str(program), "-lm"], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=120 * PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
