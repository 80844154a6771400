"""What long contexts cost the host, and what memory: planning passes, placing and moving rows, finding and inserting
prompts, masks, the live view (emulated card).

    python bench/long_contexts.py [--rows 32767] [--ladder 12288] [--sequences 12]

A hollow model with chunks of 256, history by 256, and decode groups that double up to `--rows`; 2 banks. The planner
believes times of the 1.7B, carried on in a line (4 KB a row and layer at 25 GB/s for decode, twice the published slope
for a chunk of 256): assumed, nobody published such figures. The card itself takes no time here; what is measured is the
host's. Seconds of this machine's CPU, of the thread that does the work, so that others on it count little. `pass`: all
that Python and C do for one, the emulated card's share included. Writes bench/results/long_contexts.json."""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from array import array
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson
from results import write_results

from axpress.core.device.backend import Costs
from axpress.core.device.emulator import Emulator
from axpress.core.device.step import Step
from axpress.core.engine.bank_selection import choose_bank
from axpress.core.engine.draft_proposer import SuffixIndex
from axpress.core.engine.engine import Engine
from axpress.core.kv_cache.radix_cache import RadixCache
from axpress.core.kv_cache.row_pool import RowPool
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.timing_profile import PROFILE_DIR, load_profile
from axpress.core.request import GenerationRequest, SamplingParams
from axpress.server.monitor.live import MAX_RUNS, describe_bank

CHUNK, LAYERS, REAL_LAYERS = 256, 4, 28
SHORT_TURN = 300  # tokens of a system prompt that all share


def long_profile(folder: Path, rows: int, ladder: int) -> str:
    """The 1.7B profile with a long context, and few layers: the host does the same for any number of them."""
    values = {
        "layers": LAYERS, "kv_heads": 2, "rows": rows, "chunk": CHUNK,
        "history": list(range(0, ladder + 1, CHUNK)), "decode_rows": [2047, rows],
        "decode_layer_ms": [3.2, 3.2 + (rows - 2047) * 4096 / 25e6], "chunk_history": [0, ladder],
        "chunk_layer_ms": [11.6, 11.6 + 0.0058 * ladder],
    }  # fmt: skip
    lines = []
    for line in (PROFILE_DIR / "qwen3-1.7b-w8a16-pi5.toml").read_text().splitlines():
        key = line.split(" = ")[0]
        lines.append(f"{key} = {values[key]}" if key in values else line)
        if key == "rows":
            lines.append(f"smaller_rows = {[(rows + 1) // part - 1 for part in (16, 8, 4, 2)]}")
    path = folder / "long.toml"
    path.write_text("\n".join(lines))
    return str(path)


def numbers(seed: int, count: int) -> list[int]:
    """Random token ids."""
    return np.random.default_rng(seed).integers(100, 100_000, count).tolist()


def cpu_ms(work: Callable[[], object], repeat: int = 9) -> float:
    """Milliseconds of this thread, the median of `repeat` calls."""
    times = []
    for _ in range(repeat):
        start = time.thread_time()
        work()
        times.append((time.thread_time() - start) * 1e3)
    return median(times)


class Passes:
    """Runs an engine and keeps what each pass cost its thread, and the planning of it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._planned = 0.0
        scheduler, plan = engine.scheduler, engine.scheduler._plan

        def timed(bank: Any) -> Any:
            start = time.thread_time()
            planned = plan(bank)
            self._planned += time.thread_time() - start
            return planned

        scheduler._plan = timed  # type: ignore[method-assign]

    def run(self, what: str, most: int) -> dict[str, float]:
        """Milliseconds of planning, moved rows included, and of whole passes."""
        plans, whole = [], []
        moved = sum(bank.moved_rows for bank in self.engine.scheduler.banks)
        for _ in range(most):
            self._planned, start = 0.0, time.thread_time()
            if not self.engine.step():
                break
            whole.append((time.thread_time() - start) * 1e3)
            plans.append(self._planned * 1e3)
        moved = sum(bank.moved_rows for bank in self.engine.scheduler.banks) - moved
        row = {"plan_ms": median(plans), "plan_p90_ms": sorted(plans)[len(plans) * 9 // 10], "pass_ms": median(whole)}
        print(f"  {what:46} {row['plan_ms']:7.3f} ms planning (p90 {row['plan_p90_ms']:.2f}), {row['pass_ms']:.2f} ms a"
              f" pass; {len(plans)} passes, {moved} rows moved", flush=True)  # fmt: skip
        return {**row, "passes": len(plans), "moved_rows": moved}


def engine_figures(package: Path, profile: str, args: argparse.Namespace) -> dict[str, Any]:
    """Admission, planning and the picture, on an engine that is stepped by hand."""
    cost = load_profile(profile).cost
    count = args.sequences
    engine = Engine.open(package, "emu", "none", banks=2, max_running=count + 4, max_queue=99, threaded=False)
    try:
        costs = engine.scheduler.costs
        costs.observe = lambda *measured: None  # type: ignore[method-assign]
        micros = [cost.decode_us(g.history) if g.width == 1 else cost.chunk_us(g.history) for g in costs.groups]
        costs.set(Costs(tuple(REAL_LAYERS * us / 1e6 for us in micros), cost.head_ms / 1e3, 7e-4))
        passes = Passes(engine)

        def submit(prompt: list[int], tokens: int) -> None:
            params = SamplingParams(temperature=0.9, top_p=0.95, seed=1)
            engine.submit(GenerationRequest(prompt, params, tokens, ignore_eos=True), lambda delta: None)

        long = args.rows * 11 // 12
        rows: dict[str, Any] = {"longest_prompt": long}
        prompt = numbers(1, long)
        rows["submit_ms"] = cpu_ms(lambda: submit(prompt, 200), repeat=1)
        print(f"  a prompt of {long} tokens: submitting takes {rows['submit_ms']:.1f} ms of the caller's thread")
        rows["prefill"] = passes.run(f"its chunks, up to {args.ladder} rows of history", args.ladder // CHUNK)
        rows["beyond"] = passes.run("its further tokens, one by one", 300)
        for sequence in list(engine.scheduler.banks[0].sequences + engine.scheduler.banks[1].sequences):
            sequence.generation.cancel()
        engine.step()
        each = args.rows * 2 * 3 // 4 // count
        for i in range(count):
            submit(numbers(7, SHORT_TURN) + numbers(100 + i, each - SHORT_TURN), 400)
        rows["crowd_prefill"] = passes.run(f"prompts of {count} with {each} tokens each", 2 * args.rows // CHUNK)
        rows["crowd_decode"] = passes.run("their next tokens", 300)
        scheduler = engine.scheduler
        submit(numbers(2, long), 200)
        (waiting,) = scheduler.waiting
        rows["choose_bank_ms"] = cpu_ms(lambda: choose_bank(scheduler.banks, waiting, costs))
        print(f"  whether and where {long} tokens fit beside them: {rows['choose_bank_ms']:.2f} ms")
        rows["picture_ms"] = cpu_ms(engine.live.take)
        picture = engine.live.take()
        banks = orjson.dumps([describe_bank(owners) for owners in picture.banks])
        rows["describe_ms"] = cpu_ms(lambda: [describe_bank(owners) for owners in picture.banks])
        rows["picture_bytes"] = len(banks)
        turns = -(-args.rows // MAX_RUNS)  # rows in turns, just so many that all are told
        worst = 1_000_000 + np.arange(args.rows, dtype=np.int32) // turns % 2
        rows["worst_bank_bytes"], rows["worst_describe_ms"] = (
            len(orjson.dumps(describe_bank(worst))), cpu_ms(lambda: describe_bank(worst))
        )  # fmt: skip
        print(f"  the live view: {rows['picture_ms']:.2f} ms of the engine's thread, {rows['describe_ms']:.2f} ms of"
              f" the event loop, {len(banks)} bytes; rows in turns: {rows['worst_describe_ms']:.2f} ms and"
              f" {rows['worst_bank_bytes']} bytes a bank at most")  # fmt: skip
        return {**rows, **memory_figures(engine, args)}
    finally:
        engine.close()


def memory_figures(engine: Engine, args: argparse.Namespace) -> dict[str, Any]:
    """Masks: what a pass fills and uploads, and what is held for it."""
    groups = engine.scheduler.costs.groups
    rows: dict[str, Any] = {"mask_bytes": max(group.mask_bytes for group in groups)}
    report = Emulator().report()["memory"]
    rows |= {"pinned_bytes": report["pinned_used"], "mask_ms": {}}
    step = Step(CHUNK)
    for group in groups:
        if (group.width, group.history) not in ((1, args.rows), (CHUNK, 0), (CHUNK, args.ladder)):
            continue
        step.reset(0)
        view = step.add_view(0, group.history)
        step.add_chain([5] * group.width, group.history, -1, view)
        rows["mask_ms"][f"{group.width}x{group.history}"] = cpu_ms(lambda g=group: step.mask(g.width, g.history))  # type: ignore[misc]
    said = ", ".join(f"{name} {ms:.2f} ms" for name, ms in rows["mask_ms"].items())
    print(f"  masks: {rows['mask_bytes'] / 2**20:.1f} MiB of pinned memory and as much of the card's, for all groups"
          f" together; filled in {said}")  # fmt: skip
    return rows


def cache_figures(rows: int) -> dict[str, float]:
    """The radix cache and the row pool by themselves: a tree of as many rows as a bank has."""
    pool = RowPool(rows)
    tree = RadixCache(pool)
    prompt = np.array(numbers(3, rows * 11 // 12), np.int32)
    cursor = tree.cursor()
    start = time.thread_time()
    for at in range(0, len(prompt), CHUNK):
        tokens = prompt[at : at + CHUNK]
        given = pool.allocate_run(len(tokens))
        assert given is not None
        cursor.extend(tokens, given)
        pool.release(given)
    inserted = (time.thread_time() - start) * 1e3
    cursor.close()
    known = array("i", prompt.tobytes())
    where = np.random.default_rng(1).permutation(rows).astype(np.int32)
    figures = {
        f"insert {len(prompt)} tokens, chunk by chunk": inserted,
        "match them": cpu_ms(lambda: tree.match(known, touch=False)),
        "open and close a cursor behind them": cpu_ms(lambda: tree.cursor(tokens=known).close()),
        f"evict {rows // 8} rows": cpu_ms(lambda: tree.evict(rows // 8), repeat=1),
        "tell the tree that all rows moved": cpu_ms(lambda: tree.relocate(where), repeat=1),
    }
    tracemalloc.start()
    index = SuffixIndex(known)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    figures["index them for guesses"] = cpu_ms(lambda: SuffixIndex(known))
    for name, ms in figures.items():
        print(f"  {name:46} {ms:7.3f} ms")
    print(f"  {'... which takes':46} {taken / 1024:7.0f} KiB a prompt")
    assert len(index.tokens) == len(prompt)
    return {**figures, "index_bytes": taken}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32767)
    parser.add_argument("--ladder", type=int, default=12288)
    parser.add_argument("--sequences", type=int, default=12)
    args = parser.parse_args()
    print(f"{args.rows} rows in each of 2 banks, chunks of {CHUNK} over up to {args.ladder} rows: host work, measured")
    with tempfile.TemporaryDirectory() as folder:
        profile = long_profile(Path(folder), args.rows, args.ladder)
        package = hollow(profile, Path(folder) / "model")
        figures = engine_figures(package, profile, args)
    figures["cache"] = cache_figures(args.rows)
    write_results("long_contexts", {"rows": args.rows, "ladder": args.ladder, **figures})


if __name__ == "__main__":
    main()
