"""24 simulated hours of random clients on one engine: rows, memory and every accepted request accounted for at the end.

    python bench/day.py                      # 24 hours at 300 times real time: about 5 minutes
    python bench/day.py --hours 2 --speed 500

Clients come at random times (a Poisson stream whose rate swings through the day), alone or several at once, with
prompts of 5 to 900 tokens that share one of four system prompts or earlier turns, or nothing. Some leave in the middle
of their answer, some wait in the queue and leave, some are background, have a salt or a prediction. Emulated card,
hollow model: everything is modelled, and at such a speed the host's work is most of the time, so that the queue fills
and rows run out. Exit status 1 says that something was lost. Writes bench/results/day.json."""

from __future__ import annotations

import argparse
import gc
import math
import random
import sys
import time
from typing import Any

from clients import announce, cpu_seconds, numbers, serving
from plots import Plot, plot_lines
from results import write_results

from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine, Generation
from axpress.core.errors import QueueFull
from axpress.core.request import Delta, GenerationRequest, SamplingParams

PROFILE = "qwen3-0.6b-w8a16-pi5"
GAP_S = 20.0  # one visitor on average
ALLOWED_GROWTH = 32 << 20  # bytes after the first tenth: tables that grow to their bounds, and arenas
DAY_S = 86400.0


class Visitor:
    """A sink that counts, and leaves at its n-th token."""

    def __init__(self, leaves_at: int) -> None:
        self.tokens = 0
        self.ends: list[str] = []
        self.error: str | None = None
        self.late = 0  # pieces after the end
        self._leaves_at = leaves_at
        self.generation: Generation | None = None

    def __call__(self, delta: Delta) -> None:
        self.late += bool(self.ends)
        self.tokens += delta.num_tokens
        if delta.finish_reason:
            self.ends.append(delta.finish_reason)
            self.error = delta.error
        elif self.tokens == self._leaves_at and self.generation is not None:
            self.generation.cancelled = True


class Crowd:
    """Makes random requests, and keeps some conversations to go on with."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._systems = [numbers(i, 60 + 80 * i) for i in range(4)]
        self._conversations: list[list[int]] = []

    def request(self) -> GenerationRequest:
        rng = self._rng
        prompt = self._prompt()
        self._conversations = [*self._conversations[-30:], prompt]
        prediction = tuple(prompt[-50:]) if rng.random() < 0.1 else ()
        temperature, penalty, seed = rng.choice((0.0, 0.7, 1.0)), rng.choice((0.0, 0.2)), rng.randrange(2**31)
        params = SamplingParams(temperature=temperature, top_p=0.95, seed=seed, frequency_penalty=penalty)
        cache_salt, low_priority = bytes([rng.randrange(2)]) if rng.random() < 0.1 else b"", rng.random() < 0.1
        tokens = rng.randint(1, 125)
        return GenerationRequest(
            prompt,
            params,
            tokens,
            ignore_eos=True,
            prediction=prediction,
            cache_salt=cache_salt,
            low_priority=low_priority,
        )

    def _prompt(self) -> list[int]:
        rng, kind = self._rng, self._rng.random()
        if kind < 0.4 and self._conversations:
            return [*rng.choice(self._conversations), *numbers(rng.randrange(2**31), rng.randint(10, 80))][:900]
        if kind < 0.8:
            return [*rng.choice(self._systems), *numbers(rng.randrange(2**31), rng.randint(5, 200))]
        return numbers(rng.randrange(2**31), rng.randint(5, 600))


def resident_bytes() -> int:
    """Memory of this process, without pages of mapped files (the embedding's come in as tokens are used)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon:"))


def run(engine: Engine, hours: float, speed: float, seed: int) -> dict[str, Any]:
    """Lets the day pass; returns counts and memory over time."""
    rng = random.Random(seed)
    crowd, open_visits = Crowd(rng), list[Visitor]()
    counts: dict[str, int] = dict.fromkeys(
        ("accepted", "refused", "stop", "length", "cancelled", "error", "wrong_ends", "tokens"), 0
    )
    memory: list[tuple[float, int]] = []
    start, now, end = time.perf_counter(), 0.0, 3600 * hours
    while now < end:
        now += rng.expovariate((1 + 0.8 * math.sin(2 * math.pi * now / DAY_S)) / GAP_S)
        while (delay := start + now / speed - time.perf_counter()) > 0:
            time.sleep(min(delay, 0.5))
        for _ in range(rng.choice((1, 1, 1, 1, 2, 5))):
            visitor = Visitor(rng.choice((0, 0, 0, 1, 10)))
            try:
                visitor.generation = engine.submit(crowd.request(), visitor)
            except QueueFull:
                counts["refused"] += 1
                continue
            counts["accepted"] += 1
            open_visits.append(visitor)
            if rng.random() < 0.05:
                visitor.generation.cancel()
        open_visits = settle(open_visits, counts)
        if not memory or now - memory[-1][0] > end / 100:
            memory.append((now, resident_bytes()))
    deadline = time.perf_counter() + 300
    while open_visits and time.perf_counter() < deadline:
        time.sleep(0.05)
        open_visits = settle(open_visits, counts)
    gc.collect()
    memory.append((now, resident_bytes()))
    return {"counts": counts, "not_ended": len(open_visits), "memory": memory, "wall_s": time.perf_counter() - start}


def settle(visits: list[Visitor], counts: dict[str, int]) -> list[Visitor]:
    """Counts those that are over; returns the others."""
    left = []
    for visitor in visits:
        if not visitor.ends:
            left.append(visitor)
            continue
        counts[visitor.ends[0]] += 1
        counts["wrong_ends"] += len(visitor.ends) != 1 or visitor.late > 0
        counts["tokens"] += visitor.tokens
        if visitor.error:
            print(f"  an answer ended in an error: {visitor.error}")
    return left


def judge(engine: Engine, result: dict[str, Any]) -> list[str]:
    """What is wrong at the end; empty: nothing. The engine is idle."""
    wrong = []
    for bank in engine.scheduler.banks:
        bank.check_integrity()
        bank.tree.evict(bank.pool.num_rows)
        if bank.pool.num_used or bank.sequences:
            wrong.append(
                f"bank {bank.index}: {bank.pool.num_used} rows stay held and {len(bank.sequences)} sequences are left"
            )
    counts, memory = result["counts"], result["memory"]
    ended = sum(counts[k] for k in ("stop", "length", "cancelled", "error"))
    if ended != counts["accepted"] or result["not_ended"] or counts["wrong_ends"] or counts["error"]:
        ends = f"{ended} ended, {counts['error']} in an error, {counts['wrong_ends']} more than once"
        wrong.append(f"of {counts['accepted']} accepted requests {ends}")
    base = max(m for at, m in memory if at <= memory[-1][0] / 10)
    result["growth_bytes"] = memory[-1][1] - base
    if result["growth_bytes"] > ALLOWED_GROWTH:
        wrong.append(f"memory grew by {result['growth_bytes'] / 1e6:.1f} MB after the first tenth")
    return wrong


def show(result: dict[str, Any], wrong: list[str]) -> None:
    counts, stats = result["counts"], result["stats"]
    answered, growth, wall = counts["length"] + counts["stop"], result["growth_bytes"] / 1e6, result["wall_s"]
    print(f"  {counts['accepted']} requests accepted, {counts['refused']} refused (queue full): {answered} answered, "
          f"{counts['cancelled']} left, {counts['error']} errors; {wall:.0f} s of real time, {result['cpu_s']:.0f} s "
          "of CPU")  # fmt: skip
    print(f"  {counts['tokens']} tokens in {stats['steps']} passes; {stats['cached_tokens']} prompt tokens cached, "
          f"{stats['evicted_rows']} rows evicted, {stats['preemptions']} preemptions")  # fmt: skip
    print(f"  memory of the process grew by {growth:.1f} MB after the first tenth (allowed {ALLOWED_GROWTH / 1e6:.0f})")
    good = "no row lost, integrity checked, every accepted request ended once, card memory free"
    print("\n".join(f"  WRONG: {line}" for line in wrong) or f"  {good}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--speed", type=float, default=300.0, help="how many times faster than the card (default 300)")
    parser.add_argument("--banks", type=int, default=2, help="few, so that rows run out (default 2)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", action=Plot, help="also bench/results/day.png")
    args = parser.parse_args()
    announce(f"{args.hours:g} simulated hours, {PROFILE}", args.speed)
    with serving(PROFILE, args.speed, banks=args.banks, max_running=16, draft_history=1 << 16) as engine:
        engine.max_queue = 32
        cpu = cpu_seconds()
        result = run(engine, args.hours, args.speed, args.seed)
        result["stats"], result["cpu_s"] = engine.stats(), cpu_seconds() - cpu
        wrong = judge(engine, result)
    left = Emulator().report()["memory"]
    if left["device_used"] or left["pinned_used"]:
        wrong.append(f"the card's memory is not free after closing: {left}")
    show(result, wrong)
    write_results("day", {"hours": args.hours, "speed": args.speed, "banks": args.banks, "wrong": wrong, **result})
    if args.plot:
        hours, megabytes = [at / 3600 for at, _ in result["memory"]], [m / 1e6 for _, m in result["memory"]]
        plot_lines(
            "day", "Memory of the process through a simulated day", "hour", "MB", {"resident": (hours, megabytes)}
        )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
