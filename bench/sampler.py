"""Microseconds per token of the sampler at a vocabulary of 151,936, beside a NumPy float64 implementation of the same
steps.

Pins itself to one core. `python bench/sampler.py [--rounds N]`; numbers are medians over fresh draws from eight vectors
of each kind."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np

from axpress.core.request import SamplingParams
from axpress.core.sampling.sampler import Sampler, Scratch

VOCAB = 151_936
NUM_VECTORS = 8
PROMPT_TOKENS = 2000
MODES = {
    "greedy": SamplingParams(temperature=0.0),
    "temperature 0.9, top_p 0.95": SamplingParams(temperature=0.9, top_p=0.95),
    "  and top_k 20": SamplingParams(temperature=0.9, top_p=0.95, top_k=20),
    "  and penalties, 2000-token prompt": SamplingParams(
        temperature=0.9, top_p=0.95, repetition_penalty=1.1, presence_penalty=0.5
    ),
    "  and logprobs 5": SamplingParams(temperature=0.9, top_p=0.95, logprobs=5),
}


def bf16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def language_like(rng: np.random.Generator) -> np.ndarray:
    """A bulk around -1 and some hundred candidates above it, as a language model's logits are."""
    values = rng.normal(-1, 2.2, VOCAB)
    values[rng.integers(0, VOCAB, 400)] += rng.exponential(4, 400) + 6
    return bf16(values)


def flat(rng: np.random.Generator) -> np.ndarray:
    """Normal noise: every token matters to the normaliser, so all are counted. The worst case."""
    return bf16(rng.normal(0, 3, VOCAB))


def numpy_sample(bits: np.ndarray, p: SamplingParams, seen: np.ndarray, rng: np.random.Generator) -> int:
    """The same steps in NumPy float64 (no ties by id, no window)."""
    values = (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if p.logprobs is not None:
        shifted = values - values.max()
        logprobs = shifted - np.log(np.exp(shifted).sum())
        np.argpartition(-logprobs, p.logprobs)
    if p.repetition_penalty != 1:
        values[seen] = np.where(
            values[seen] > 0, values[seen] / p.repetition_penalty, values[seen] * p.repetition_penalty
        )
    if p.temperature == 0:
        return int(values.argmax())
    order = np.argsort(-values, kind="stable")
    if p.top_k:
        order = order[: p.top_k]
    weights = np.exp((values[order] - values[order[0]]) / p.temperature)
    cumulative = weights.cumsum()
    kept = int(np.searchsorted(cumulative, p.top_p * cumulative[-1])) + 1
    return int(
        order[min(int(np.searchsorted(cumulative, rng.random() * cumulative[kept - 1], side="right")), kept - 1)]
    )


def median_us(call: Callable[[int], object], rounds: int) -> float:
    times = []
    for i in range(rounds):
        start = time.perf_counter_ns()
        call(i)
        times.append(time.perf_counter_ns() - start)
    return float(np.median(times)) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000, help="draws per mode (NumPy: a fiftieth)")
    rounds = parser.parse_args().rounds
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rng = np.random.default_rng(1)
    prompt = rng.integers(0, VOCAB, PROMPT_TOKENS)
    scratch = Scratch(VOCAB)
    print(f"us per token, vocabulary {VOCAB:,}, bf16, Python call included{'':17}axpress     numpy")
    for kind in (language_like, flat):
        vectors = [kind(rng) for _ in range(NUM_VECTORS)]
        for mode, params in MODES.items():
            sampler = Sampler(VOCAB, params, prompt.tolist(), seed=1, scratch=scratch)
            ours = median_us(lambda i, s=sampler, v=vectors: s.sample(v[i % NUM_VECTORS], i), rounds)  # type: ignore[misc]
            theirs = median_us(
                lambda i, p=params, v=vectors: numpy_sample(v[i % NUM_VECTORS], p, prompt, rng),  # type: ignore[misc]
                max(rounds // 50, 5),
            )
            print(f"  {kind.__name__:14} {mode:54} {ours:9.1f} {theirs:9.0f}")


if __name__ == "__main__":
    main()
