"""`axpress plan` against what an engine does on the emulated card: memory, first token, one client, eight clients. Four
profiles.

    python bench/plan_check.py --speed 2

The plan adds up published times on paper; the engine runs hollow models of full size on the emulated card, which is
paced by the same profile. So this checks the plan's idea of how passes are made up, not the profile. Writes
bench/results/plan_check.json."""

from __future__ import annotations

import argparse
from typing import Any

from clients import INT4, PROFILES, announce, numbers, serving, submit, verdict
from concurrency import crowd, steady
from plots import Plot, plot_bars
from results import write_results

from axpress.core.capacity.report import plan
from axpress.core.device.emulator import Emulator

ANSWER = 70
CROWD = (8, 150, 30)  # clients, tokens in common, prompt tokens of their own
CROWD_INT4 = (4, 0, 60)  # its chunk groups reach back 192 rows only: prompts that fit one chunk, answers one by one
FIRST = 180  # tokens of the prompt whose first token is timed
LIMIT = 0.10


def check(profile: str, speed: float) -> dict[str, Any]:
    """Planned and measured figures; the best of three where this machine's other work could only add time."""
    figures: dict[str, tuple[float, float]] = {}  # planned, measured
    count, shared, own = CROWD_INT4 if profile == INT4 else CROWD
    with serving(profile, speed) as engine:
        planned = plan(engine.package.directory, profile, context=FIRST, target_tokens=ANSWER)
        together = plan(engine.package.directory, profile, count, shared + own, ANSWER, shared=shared).crowd
        budget, memory = planned.budget, Emulator().report()["memory"]
        used = budget.idle + budget.weights + budget.buffers + engine.info.num_banks * budget.bank_bytes
        figures["card memory in use, MiB"] = used / 2**20, memory["device_used"] / 2**20
        figures["banks"] = budget.banks, engine.info.num_banks
        alone = [submit(engine, numbers(50 + i, FIRST), 40, seed=i).wait() for i in range(3)]
        figures[f"first token of {FIRST}, s"] = planned.first_token_ms / 1e3, min(c.first_token for c in alone) * speed
        rate = max((len(c.tokens) - 1) / (c.tokens[-1] - c.tokens[0]) for c in alone) / speed
        figures["one client, tokens/s"] = planned.tokens_per_s, rate
        rates = [steady(crowd(engine, (count, shared, own, ANSWER), seed=77 + 100 * i), speed)[0] for i in range(2)]
        figures[f"{count} clients, tokens/s"] = together.total_per_s, max(rates)
    print(profile)
    for name, (paper, real) in figures.items():
        off = real / paper - 1
        print(
            f"  {name:28} planned {paper:9.2f}, measured {real:9.2f}: {off:+.1%} {verdict(abs(off), LIMIT, most=True)}",
            flush=True,
        )
    return {
        "profile": profile,
        "figures": {k: {"planned": p, "measured": m, "off": m / p - 1} for k, (p, m) in figures.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--profile", action="append", choices=[*PROFILES, INT4], help="only this profile (may be given again)"
    )
    parser.add_argument("--speed", type=float, default=2.0, help="how many times faster than the card (default 2)")
    parser.add_argument("--plot", action=Plot, help="also bench/results/plan_check.png")
    args = parser.parse_args()
    announce(f"Plan against the emulated card, goal within {LIMIT:.0%}", args.speed)
    rows = [check(profile, args.speed) for profile in args.profile or [*PROFILES, INT4]]
    write_results("plan_check", {"speed": args.speed, "rows": rows})
    if args.plot:
        labels = ["memory", "banks", "first token", "one client", "many clients"]
        series = {r["profile"]: [100 * f["off"] for f in r["figures"].values()] for r in rows}
        plot_bars("plan_check", "Measured against planned", "percent off", labels, series)


if __name__ == "__main__":
    main()
