"""Total tokens/s of many clients against one, on the emulated card, with hollow models of full size: everything is
modelled.

    # three profiles: shared and private contexts, 1 and 2 clients, several banks
    python bench/concurrency.py
    # 4 streams run and a prompt arrives: its first token, and their longest pause
    python bench/concurrency.py --arrival
    python bench/concurrency.py --profile qwen3-1.7b-w8a16-pi5 --speed 4 --plot

Shared: a system prompt of 150 tokens in common, 30 tokens of prompt and 70 of answer of their own. Private: 180 + 70
tokens. Several banks: 500 + 60 tokens. Counted from when all clients have their first token until the first is done.
Writes bench/results/concurrency.json (or arrival.json)."""

from __future__ import annotations

import argparse
import time
from typing import Any

from clients import PROFILES, Client, announce, cpu_seconds, numbers, serving, submit, verdict
from plots import Plot, plot_lines
from results import write_results

from axpress.core.capacity.report import plan
from axpress.core.engine.engine import Engine

SYSTEM, PROMPT, ANSWER = 150, 30, 70
CASES = {  # clients, shared, prompt, answer
    "shared": [(n, SYSTEM, PROMPT, ANSWER) for n in (1, 2, 4, 8, 16)],
    "private": [(8, 0, 180, ANSWER)],
    "several banks": [(8, 0, 500, 60)],
}
GOALS = {
    "qwen3-0.6b-w8a16-pi5": {("shared", 4): 1.2, ("shared", 8): 1.8, ("shared", 16): 2.2, ("private", 8): 1.35},
    "qwen3-1.7b-w8a16-pi5": {("shared", 4): 1.4, ("shared", 8): 2.1, ("shared", 16): 2.7, ("private", 8): 1.7},
    "qwen3-4b-w8a16-pi5": {("shared", 4): 1.5, ("shared", 8): 2.4, ("shared", 16): 3.2, ("private", 8): 1.9},
}


def crowd(engine: Engine, case: tuple[int, int, int, int], seed: int) -> list[Client]:
    """All clients of one case at once; what they share is in the cache before."""
    count, shared, own, answer = case
    system = numbers(seed, shared)
    if shared:
        submit(engine, [*system, 7], 1).wait()
    clients = [submit(engine, system + numbers(seed + 1 + i, own), answer, seed=i) for i in range(count)]
    return [client.wait() for client in clients]


def steady(clients: list[Client], speed: float) -> tuple[float, float, bool]:
    """Modelled tokens/s of all together while all decode, modelled seconds of that time, and True. Where no such time
    was, because some were done before others began: from the first token of all to the last, and False."""
    start, end = max(c.tokens[0] for c in clients), min(c.tokens[-1] for c in clients)
    together = end > start
    if not together:
        start, end = min(c.tokens[0] for c in clients), max(c.tokens[-1] for c in clients)
    counted = sum(start < t <= end for c in clients for t in c.tokens)
    return counted / (end - start) / speed, (end - start) * speed, together


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What the engine's counters say of the time between, as far as they are numbers or numbers by name."""
    out: dict[str, Any] = {}
    for key, value in after.items():
        if isinstance(value, dict):
            out[key] = difference(before.get(key, {}), value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            out[key] = value - before.get(key, 0)
    return out


def run_case(engine: Engine, kind: str, case: tuple[int, int, int, int], speed: float, alone: float) -> dict[str, Any]:
    """One case; `alone` is the rate of one client, 0 where this is it."""
    profile = str(engine.info.profile)
    before, cpu = engine.stats(), cpu_seconds()
    clients = crowd(engine, case, seed=1000 * case[0] + 7 * len(kind))
    rate, seconds, together = steady(clients, speed)
    gain = rate / (alone or rate)
    goal = GOALS[profile].get((kind, case[0]), 0.98 if kind == "shared" else None)
    rows, firsts = case[1] + case[0] * (case[2] + case[3]), [c.first_token * speed for c in clients]
    said = f", goal {goal:.2f} {verdict(gain, goal)}" if goal else ""
    note = "" if together else " (never all at once: over the whole time)"
    print(f"  {kind:13} {case[0]:2} clients, {rows:4} rows: {rate:6.2f} tokens/s{note}, {gain:.2f} times one{said}; "
          "first tokens "
          f"{min(firsts):.1f} to {max(firsts):.1f} s", flush=True)  # fmt: skip
    return {
        "profile": profile, "kind": kind, "clients": case[0], "rows_at_end": rows, "tokens_per_s": rate, "gain": gain,
        "goal": goal,
        "all_at_once": together, "modelled_s": seconds, "first_token_s": firsts, "cpu_s": cpu_seconds() - cpu,
        "stats": difference(before, engine.stats()),
    }  # fmt: skip


def profile_rows(profile: str, speed: float, only: str | None, fresh: bool) -> list[dict[str, Any]]:
    """All cases of one profile; the shared case of one client is what the others are compared with. One engine for all,
    so that what earlier cases left in the cache is in the way of later ones, as on a server; `fresh`: an engine for
    each case."""
    cases = [
        (kind, case)
        for kind, cases in CASES.items()
        for case in cases
        if only in (None, kind) or (kind, case[0]) == ("shared", 1)
    ]
    rows: list[dict[str, Any]] = []
    for group in [[case] for case in cases] if fresh else [cases]:
        with serving(profile, speed, max_running=16) as engine:
            paper = plan(engine.package.directory, profile, 1, SYSTEM + PROMPT, ANSWER, shared=SYSTEM).tokens_per_s
            for kind, case in group:
                rows.append(run_case(engine, kind, case, speed, rows[0]["tokens_per_s"] if rows else 0.0))
            banks = engine.info.num_banks
    alone = rows[0]["tokens_per_s"]
    print(f"  one client: {alone / paper:.3f} of single decode on paper ({paper:.2f} tokens/s); {banks} banks")
    return rows


def arrival(profile: str, speed: float, repeats: int = 5) -> dict[str, Any]:
    """4 streams run, a prompt of 100 tokens arrives: its first token in chunk passes, and the longest pause of a
    stream."""
    figures = []
    with serving(profile, speed, max_running=16) as engine:
        costs = plan(engine.package.directory, profile).costs
        for i in range(repeats):
            system = numbers(90 + i, SYSTEM)
            submit(engine, [*system, 7], 1).wait()
            streams = [submit(engine, system + numbers(500 + 10 * i + k, PROMPT), ANSWER, seed=k) for k in range(4)]
            for stream in streams:
                stream.began.wait(600)
            time.sleep((1.2 + 0.31 * i) / speed)
            start = time.perf_counter()
            new = submit(engine, numbers(700 + i, 100), 10)
            used = engine.stats()["rows_used"]
            new.began.wait(600)
            first = new.first_token
            for client in [new, *streams]:
                client.wait()
            end = start + 2 * first
            gaps = [
                b - a for s in streams for a, b in zip(s.tokens, s.tokens[1:], strict=False) if b >= start and a <= end
            ]
            one = costs.chunk_seconds(SYSTEM + 4 * (PROMPT + ANSWER) + 110, 5)
            assert one is not None
            row = {
                "first_token_s": first * speed,
                "longest_pause_s": max(gaps) * speed,
                "chunk_pass_s": one,
                "rows_used": used,
            }
            figures.append(row)
    worst_first = max(f["first_token_s"] / f["chunk_pass_s"] for f in figures)
    worst_pause = max(f["longest_pause_s"] / f["chunk_pass_s"] for f in figures)
    firsts = ", ".join(format(f["first_token_s"], ".2f") for f in figures)
    reached, paused = verdict(worst_first, 2.0, most=True), verdict(worst_pause, 1.05, most=True)
    print(f"  {profile}: a prompt of 100 while 4 streams run: first token after {firsts} s,")
    print(f"    at most {worst_first:.2f} chunk passes with 5 heads (goal 2 {reached}); longest pause of a stream "
          f"{worst_pause:.2f} such "
          f"passes (goal 1, and 5 % for the host {paused})", flush=True)  # fmt: skip
    return {"profile": profile, "runs": figures, "first_token_passes": worst_first, "pause_passes": worst_pause}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="append", choices=PROFILES, help="only this profile (may be given again)")
    parser.add_argument("--kind", choices=list(CASES), help="only these cases, and one client")
    parser.add_argument("--speed", type=float, default=2.0, help="how many times faster than the card (default 2)")
    parser.add_argument(
        "--fresh", action="store_true", help="a new engine for each case: nothing of earlier ones in the cache"
    )
    parser.add_argument("--arrival", action="store_true")
    parser.add_argument("--plot", action=Plot, help="also bench/results/concurrency.png")
    args = parser.parse_args()
    announce("Many clients against one" if not args.arrival else "A prompt arrives while 4 streams run", args.speed)
    profiles = args.profile or PROFILES
    if args.arrival:
        write_results("arrival", {"speed": args.speed, "profiles": [arrival(p, args.speed) for p in profiles]})
        return
    rows = []
    for profile in profiles:
        print(profile)
        rows += profile_rows(profile, args.speed, args.kind, args.fresh)
        write_results("concurrency", {"speed": args.speed, "fresh": args.fresh, "rows": rows})
    if args.plot:
        shared = {p: [r for r in rows if r["profile"] == p and r["kind"] == "shared"] for p in profiles}
        series = {p: ([r["clients"] for r in rs], [r["gain"] for r in rs]) for p, rs in shared.items()}
        plot_lines(
            "concurrency", "Total tokens/s against one client, 150 tokens shared", "clients", "times one client", series
        )


if __name__ == "__main__":
    main()
