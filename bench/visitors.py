"""What a visitor feels: Poisson arrivals on the emulated card, first-token times. Hollow model of full size, everything
is modelled.

    python bench/visitors.py --visitors 400 --speed 10     # all four loads, as long as the goals' arithmetic took them
    python bench/visitors.py --visitors 60 --speed 20 --load shared:15

Answers of 40 to 125 tokens. `shared`: prompts of 220 to 350 tokens, 150 of them a system prompt common to all;
`private`: 100 to 600 tokens with nothing in common. `shared:15` is one visitor per 15 s on average. Visitors arrive as
in the arithmetic of the goals (the same random numbers). Writes bench/results/visitors.json."""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

from clients import Client, announce, cpu_seconds, numbers, quantile, serving, submit, verdict
from plots import Plot, plot_shares
from results import write_results

from axpress.core.engine.engine import Engine

PROFILE = "qwen3-1.7b-w8a16-pi5"
KINDS = {"shared": (220, 350, 150), "private": (100, 600, 0)}  # shortest and longest prompt, tokens in common
GOALS = {"shared:15": 0.9, "shared:8": 1.7, "private:30": 1.7, "private:15": 2.7}  # p95 of the first token, seconds


def arrivals(kind: str, gap: float, count: int) -> list[tuple[float, int, int]]:
    """(seconds, prompt tokens, answer tokens) of each visitor."""
    low, high, _ = KINDS[kind]
    rng, at, out = random.Random(1), 0.0, []
    for _ in range(count):
        at += rng.expovariate(1 / (gap * 1000))
        out.append((at / 1000, rng.randint(low, high), rng.randint(40, 125)))
    return out


def visit(engine: Engine, kind: str, gap: float, count: int, speed: float) -> list[Client]:
    """Lets them all come at their time; returns when the last has its answer."""
    shared = KINDS[kind][2]
    system, clients = numbers(1, shared), []
    start = time.perf_counter()
    for i, (at, prompt, answer) in enumerate(arrivals(kind, gap, count)):
        delay = start + at / speed - time.perf_counter()
        if delay > 0:
            time.sleep(delay)
        clients.append(submit(engine, system + numbers(10 + i, prompt - shared), answer, seed=i))
    return [client.wait() for client in clients]


def load(name: str, profile: str, count: int, speed: float) -> dict[str, Any]:
    kind, gap = name.split(":")
    with serving(profile, speed, max_running=32) as engine:
        start, cpu = time.perf_counter(), cpu_seconds()
        clients = visit(engine, kind, float(gap), count, speed)
        wall, cpu = time.perf_counter() - start, cpu_seconds() - cpu
        stats, banks = engine.stats(), engine.info.num_banks
    firsts = [c.first_token * speed for c in clients]
    rates = [(len(c.tokens) - 1) / (c.tokens[-1] - c.tokens[0]) / speed for c in clients]
    row = {
        "load": name, "visitors": count, "p50_s": quantile(firsts, 0.5), "p95_s": quantile(firsts, 0.95),
        "worst_s": max(firsts),
        "goal_p95_s": GOALS.get(name), "tokens_per_s_p50": quantile(rates, 0.5),
        "tokens_per_s_worst_5": quantile(rates, 0.05),
        "banks": banks, "busy": (stats["seconds"]["decode"] + stats["seconds"]["chunk"]) / wall,
        "host_cpu_share": cpu / wall,
        "first_token_s": firsts, "stats": stats,
    }  # fmt: skip
    goal = (
        f", goal {row['goal_p95_s']} {verdict(row['p95_s'], row['goal_p95_s'], most=True)}" if row["goal_p95_s"] else ""
    )
    print(f"  {kind}, one per {gap} s, {count} visitors: first token p50 {row['p50_s']:.2f} s, p95 "
          f"{row['p95_s']:.2f} s{goal}, worst "
          f"{row['worst_s']:.2f} s; then {row['tokens_per_s_p50']:.1f} tokens/s (p5 "
          f"{row['tokens_per_s_worst_5']:.1f}); passes "
          f"{row['busy']:.0%} of the time, host CPU {row['host_cpu_share']:.0%}", flush=True)  # fmt: skip
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", action="append", metavar="KIND:SECONDS", help=f"default: {', '.join(GOALS)}")
    parser.add_argument("--profile", default=PROFILE)
    parser.add_argument("--visitors", type=int, default=100, help="of each load (default 100)")
    parser.add_argument("--speed", type=float, default=10.0, help="how many times faster than the card (default 10)")
    parser.add_argument("--plot", action=Plot, help="also bench/results/visitors.png")
    args = parser.parse_args()
    announce(f"Visitors, {args.profile}, answers of 40 to 125 tokens", args.speed)
    rows = [load(name, args.profile, args.visitors, args.speed) for name in args.load or GOALS]
    write_results("visitors", {"speed": args.speed, "profile": args.profile, "rows": rows})
    if args.plot:
        plot_shares(
            "visitors",
            f"Time to first token, {args.profile}",
            "seconds",
            {r["load"] + " s": r["first_token_s"] for r in rows},
        )


if __name__ == "__main__":
    main()
