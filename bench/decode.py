"""Host cost and paced speed of the decode loop on hollow models of full size: no card, everything here is emulated or
modelled.

    # profile none: host time per token, 28 layers, vocabulary 151,936, T 0.9, top_p 0.95
    python bench/decode.py host
    python bench/decode.py paced      # every profile: tokens/s and first token against what layers + head add up to
    python bench/decode.py all

Prints a table and writes bench/results/decode.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from results import write_results

from axpress.core.device.emulator import Emulator
from axpress.core.device.model_loader import Model, open_model
from axpress.core.device.step import Step
from axpress.core.engine.pass_costs import PassCosts
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.timing_profile import load_profile
from axpress.core.request import SamplingParams
from axpress.core.sampling.sampler import Sampler

PROFILES = ("qwen3-0.6b-w8a16-pi5", "qwen3-0.6b-int4-pi5", "qwen3-1.7b-w8a16-pi5", "qwen3-4b-w8a16-pi5")
PARAMS = SamplingParams(temperature=0.9, top_p=0.95, seed=1)


def prefill(model: Model, costs: PassCosts, step: Step, prompt: list[int]) -> int:
    """Runs the prompt; returns the number of cached tokens. The logits of the last one are in slot 0."""
    cached = 0
    while cached < len(prompt):
        slot = costs.chunk_slot(cached)
        slot = costs.decode_slot(cached) if slot is None else slot
        count = min(costs.groups[slot].width, len(prompt) - cached)
        step.reset(slot)
        step.add_chain(
            prompt[cached : cached + count], cached, cached, step.add_view(0, cached), cached + count == len(prompt)
        )
        model.program.run(step)
        cached += count
    return cached


def decode(model: Model, costs: PassCosts, step: Step, cached: int, num_tokens: int) -> list[float]:
    """Generates tokens; returns the seconds of each."""
    sampler = Sampler(model.info.vocab_size, PARAMS, [1])
    logits = model.program.logits(0)
    token, _ = sampler.sample(logits, 0)
    times = []
    for i in range(num_tokens):
        start = time.perf_counter()
        step.reset(costs.decode_slot(cached))
        step.add(token, cached, cached, -1, step.add_view(0, cached), True)
        model.program.run(step)
        token, _ = sampler.sample(logits, i + 1)
        sampler.accept(token)
        cached += 1
        times.append(time.perf_counter() - start)
    return times


def host(tokens: int) -> dict:
    """Median host microseconds a token on a card that takes no time, and what the runtime was asked for."""
    with tempfile.TemporaryDirectory() as folder:
        package = hollow(PROFILES[0], Path(folder) / "model")
        model = open_model(package, "emu", "none", banks=1)
        try:
            costs = PassCosts(model.program.groups, model.costs)
            step = Step(128)
            cached = prefill(model, costs, step, list(range(100)))
            decode(model, costs, step, cached, 50)
            emulator = Emulator()
            emulator.reset_counters()
            times = decode(model, costs, step, cached, tokens)
            report = emulator.report()
        finally:
            model.close()
    micros = sorted(t * 1e6 for t in times)
    row = {
        "tokens": tokens, "median_us": statistics.median(micros),
        "p10_us": micros[len(micros) // 10], "p90_us": micros[len(micros) * 9 // 10],
        "submissions_per_token": report["submissions"] / tokens, "waits_per_token": report["waits"] / tokens,
        "bytes_per_token": sum(report["bytes"].values()) / tokens,
    }  # fmt: skip
    print(f"host, profile none, 28 layers, vocabulary {model.info.vocab_size}, T 0.9, top_p 0.95, median of {tokens}:")
    print(
        f"  {row['median_us']:.0f} us a token (p10 {row['p10_us']:.0f}, p90 {row['p90_us']:.0f}; the vendor's C++ needs"
        " 130 for greedy)"
    )
    kilobytes = row["bytes_per_token"] / 1e3
    print(
        f"  {row['submissions_per_token']:.0f} submissions, {row['waits_per_token']:.0f} wait, {kilobytes:.0f} kB a"
        " token"
    )
    return row


def paced(tokens: int) -> list[dict]:
    """Each profile in real time: tokens/s against 1 / (layers + head), first token of 100 against chunk + head."""
    rows = []
    for name in PROFILES:
        profile = load_profile(name)
        with tempfile.TemporaryDirectory() as folder:
            model = open_model(hollow(name, Path(folder) / "model"), "emu", name, {"load_time": "0"}, banks=1)
            try:
                costs = PassCosts(model.program.groups, model.costs)
                step = Step(128)
                start = time.perf_counter()
                cached = prefill(model, costs, step, list(range(100)))
                Sampler(model.info.vocab_size, PARAMS, [1]).sample(model.program.logits(0), 0)
                first = time.perf_counter() - start
                times = decode(model, costs, step, cached, tokens)
            finally:
                model.close()
        layers, cost = profile.model.layers, profile.cost
        ideal = (layers * cost.decode_us(profile.model.rows) + cost.head_ms * 1e3) / 1e6
        widths = -(-100 // profile.model.chunk)
        ideal_first = (
            sum(layers * cost.chunk_us(profile.model.chunk * i) for i in range(widths)) + cost.head_ms * 1e3
        ) / 1e6
        # the mean holds what other programs took from this machine
        mean, median = statistics.fmean(times), statistics.median(times)
        row = {
            "profile": name, "tokens_per_s": 1 / mean, "layers_plus_head_tokens_per_s": 1 / ideal,
            "ratio": ideal / mean,
            "median_tokens_per_s": 1 / median, "median_ratio": ideal / median,
            "first_token_s": first, "chunks_plus_head_s": ideal_first, "first_ratio": first / ideal_first,
        }  # fmt: skip
        rows.append(row)
        print(f"{name} (modelled): {row['tokens_per_s']:.2f} tokens/s of {row['layers_plus_head_tokens_per_s']:.2f} "
              f"({row['ratio']:.1%}; "
              f"median token {row['median_ratio']:.1%}); "
              f"first token of 100: {first * 1e3:.0f} ms, chunks + head {ideal_first * 1e3:.0f} ms "
              f"({row['first_ratio']:.2f})")  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("host", "paced", "all"))
    parser.add_argument("--tokens", type=int, default=1000, help="tokens timed for `host` (default 1000)")
    parser.add_argument("--paced-tokens", type=int, default=60, help="tokens timed for each profile (default 60)")
    args = parser.parse_args()
    results: dict = {}
    if args.what in ("host", "all"):
        results["host"] = host(args.tokens)
    if args.what in ("paced", "all"):
        results["paced"] = paced(args.paced_tokens)
    write_results("decode", results)


if __name__ == "__main__":
    main()
