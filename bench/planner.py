"""What deciding a pass costs the host: microseconds of planning, placing rows and filling the step at N running
sequences (emulated card).

    python bench/planner.py [--sequences 16] [--passes 80]

Costs of the 1.7B profile are given to the planner, so that it decides as it would on that card; the card itself takes
no time here."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from results import write_results

from axpress.core.device.backend import Costs
from axpress.core.engine.engine import Engine
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.timing_profile import load_profile
from axpress.core.request import GenerationRequest, SamplingParams

PROFILE = "qwen3-1.7b-w8a16-pi5"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--passes", type=int, default=80)
    args = parser.parse_args()
    cost = load_profile(PROFILE).cost
    with tempfile.TemporaryDirectory() as folder:
        package = hollow(PROFILE, Path(folder) / "model")
        engine = Engine.open(package, "emu", "none", banks=1, max_running=args.sequences, threaded=False)
        scheduler = engine.scheduler
        costs = scheduler.costs
        costs.observe = lambda *measured: None  # type: ignore[method-assign]
        micros = [cost.decode_us(g.history) if g.width == 1 else cost.chunk_us(g.history) for g in costs.groups]
        costs.set(Costs(tuple(28e-6 * us for us in micros), cost.head_ms / 1e3, costs.copy))
        system = list(range(100, 200))
        for i in range(args.sequences):
            prompt = system + [300 + i] * 5
            params = SamplingParams(temperature=0.9, top_p=0.95, seed=i)
            engine.submit(GenerationRequest(prompt, params, args.passes + 25, ignore_eos=True), lambda delta: None)
        for _ in range(20):
            engine.step()
        times, whole = [], []
        for _ in range(args.passes):
            before, start = scheduler.counters.seconds["plan"], time.perf_counter()
            if not engine.step():
                break
            times.append((scheduler.counters.seconds["plan"] - before) * 1e6)
            whole.append((time.perf_counter() - start) * 1e6)
        stats = engine.stats()
        engine.close()
    row = {
        "sequences": args.sequences,
        "median_us": statistics.median(times),
        "p90_us": sorted(times)[len(times) * 9 // 10],
    }
    print(f"{args.sequences} sequences, {stats['rows_used']} rows: {row['median_us']:.0f} us a pass for planning, "
          "rows and step "
          f"(p90 {row['p90_us']:.0f}); whole pass without card time {statistics.median(whole):.0f} us")  # fmt: skip
    write_results("planner", row)


if __name__ == "__main__":
    main()
