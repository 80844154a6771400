"""The clients of the other benches without a clock on the wall: an engine stepped pass by pass, its time added up from
the profile.

    python bench/simulate.py                                        # all cases
    python bench/simulate.py --case crowds --profile qwen3-4b-w8a16-pi5
    python bench/simulate.py --case visitors --visitors 400         # as many as the goals' arithmetic took

Hollow models of full size on the emulated card, everything is modelled. A pass takes what the emulated card says its
calls took, plus the host's share as core/capacity assumes it, so figures repeat exactly and do not depend on this
machine: for comparing policies, and as a check of the paced benches. The planner believes the profile. crowds: on one
engine, so that later ones find banks full of what earlier ones left; banks: contexts that need several banks; arrival:
a prompt while 4 streams run. Writes bench/results/simulate.json."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from clients import INT4, PROFILES, numbers, package, quantile, verdict
from concurrency import ANSWER, GOALS, PROMPT, SYSTEM, steady
from results import write_results
from visitors import GOALS as VISITOR_GOALS
from visitors import KINDS, arrivals
from visitors import PROFILE as VISITORS_PROFILE

from axpress.core.capacity.profile_costs import HOST_STEP_MS, HOST_TOKEN_MS
from axpress.core.capacity.report import plan
from axpress.core.device.backend import Costs
from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine
from axpress.core.request import Delta, GenerationRequest, SamplingParams

SPEED = 1000  # the emulated card keeps times in nanoseconds, divided by this

Case = tuple[int, int, int, int]  # clients, tokens they share, tokens of their own, answer tokens
CROWDS: list[Case] = [(n, SYSTEM, PROMPT, ANSWER) for n in (1, 4, 8, 16)] + [
    (8, 0, 180, ANSWER),
    (16, SYSTEM, PROMPT, ANSWER),
    (8, 0, 180, ANSWER),
]
BANKS: list[Case] = [(4, 0, 500, 60), (8, 0, 500, 60), (2, 0, 1200, 60)]


class Visitor:
    """A sink that keeps when each token came, in modelled seconds since the simulation began."""

    def __init__(self, simulation: Simulation, submitted: float) -> None:
        self._simulation = simulation
        self.submitted = submitted
        self.tokens: list[float] = []
        self.reason: str | None = None
        self.cached = 0
        self._fresh = 0

    def __call__(self, delta: Delta) -> None:
        self._fresh += delta.num_tokens
        if delta.finish_reason:
            self.reason = delta.finish_reason
            self.cached = delta.spent.cached_tokens if delta.spent else 0
        self._simulation.news.append(self)

    def stamp(self, now: float) -> None:
        """The pass that gave the latest tokens ended at `now`."""
        self.tokens += [now] * self._fresh
        self._fresh = 0

    @property
    def first_token(self) -> float:
        """Seconds from submission to the first token."""
        return self.tokens[0] - self.submitted


class Simulation:
    """An engine whose clock is the modelled one."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.emulator = Emulator()
        self.now = 0.0
        self.news: list[Visitor] = []
        self._card = self._busy()
        self._waiting: list[tuple[float, int, GenerationRequest, Visitor]] = []
        self._count = 0
        engine.scheduler.costs.observe = lambda *measured: None  # type: ignore[method-assign]  # wall times mean nothing here

    def _busy(self) -> float:
        return self.emulator.report()["modelled_ns"] / 1e9

    def submit(self, prompt: Sequence[int], tokens: int, *, at: float | None = None, seed: int = 0) -> Visitor:
        """A client who comes at `at` (now)."""
        visitor = Visitor(self, self.now if at is None else at)
        request = GenerationRequest(
            list(prompt), SamplingParams(temperature=0.8, top_p=0.95, seed=seed), tokens, ignore_eos=True
        )
        self._count += 1
        self._waiting.append((visitor.submitted, self._count, request, visitor))
        self._waiting.sort(key=lambda w: w[:2])
        return visitor

    def step(self) -> bool:
        """One pass; False when nobody is left."""
        while self._waiting and self._waiting[0][0] <= self.now:
            _, _, request, visitor = self._waiting.pop(0)
            self.engine.submit(request, visitor)
        if not self.engine.step():
            if not self._waiting:
                return False
            self.now = max(self.now, self._waiting[0][0])
            return True
        card = self._busy()
        self.now += card - self._card + HOST_STEP_MS / 1e3 + len(self.news) * HOST_TOKEN_MS / 1e3
        self._card = card
        for visitor in self.news:
            visitor.stamp(self.now)
        self.news.clear()
        return True

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Passes until `until()` or nobody is left."""
        while not until() and self.step():
            pass


@contextmanager
def simulation(profile: str, **options) -> Iterator[Simulation]:
    """An engine on the emulated card as `profile` has it."""
    with package(profile) as directory:
        settings = {"speed": str(SPEED), "load_time": "0"}
        engine = Engine.open(directory, "emu", profile, max_queue=10_000, settings=settings, threaded=False, **options)
        try:
            set_costs(engine, str(directory), profile)
            yield Simulation(engine)
        finally:
            engine.close()


def set_costs(engine: Engine, directory: str, profile: str) -> None:
    """What the planner believes: the profile's times instead of those it measured on a card that runs too fast."""
    costs, believed = engine.scheduler.costs, plan(directory, profile).costs
    assert [(g.width, g.history) for g in costs.groups] == [(g.width, g.history) for g in believed.groups]
    costs.set(Costs(tuple(believed.seconds), believed.head, believed.copy))


def crowd(sim: Simulation, case: Case, seed: int) -> list[Visitor]:
    """All clients of one case at once; what they share is in the cache before."""
    count, shared, own, answer = case
    system = numbers(seed, shared)
    if shared:
        sim.submit([*system, 7], 1)
        sim.run()
    visitors = [sim.submit(system + numbers(seed + 1 + i, own), answer, seed=i) for i in range(count)]
    sim.run()
    return visitors


def crowd_row(sim: Simulation, case: Case, seed: int, alone: float) -> dict[str, Any]:
    visitors = crowd(sim, case, seed)
    rate, _, together = steady(visitors, 1.0)  # type: ignore[arg-type]  # a visitor has a client's tokens
    start, end = visitors[0].submitted, max(v.tokens[-1] for v in visitors)
    firsts, overall, gain = [v.first_token for v in visitors], case[0] * case[3] / (end - start), rate / (alone or rate)
    goal = (
        GOALS.get(str(sim.engine.info.profile), {}).get(("shared" if case[1] else "private", case[0]))
        if case in CROWDS
        else None
    )
    said = f", goal {goal:.2f} {verdict(gain, goal)}" if goal else ""
    note = "" if together else " (never all at once)"
    print(f"  {case[0]:2} clients, {case[1]} shared, {case[2]} + {case[3]} own: {rate:6.2f} tokens/s{note}, "
          f"{gain:.2f} times one{said}; "
          f"{overall:.2f} from first to last; first tokens {min(firsts):.1f} to {max(firsts):.1f} s",
              flush=True)  # fmt: skip
    return {
        "case": case,
        "tokens_per_s": rate,
        "all_at_once": together,
        "gain": gain,
        "goal": goal,
        "overall": overall,
        "first_token_s": firsts,
    }


def crowds(profile: str, cases: list[Case]) -> list[dict[str, Any]]:
    """One after another on one engine; what one client gets alone is what they are compared with."""
    with simulation(profile, max_running=16) as sim:
        rows = [crowd_row(sim, (1, SYSTEM, PROMPT, ANSWER), 1, 0.0)]
        return rows + [crowd_row(sim, case, 1000 * i, rows[0]["tokens_per_s"]) for i, case in enumerate(cases, 1)]


def visitors(load: str, count: int) -> dict[str, Any]:
    """First tokens of visitors who come as bench/visitors.py lets them come."""
    kind, gap = load.split(":")
    shared = KINDS[kind][2]
    system = numbers(1, shared)
    with simulation(VISITORS_PROFILE, max_running=32) as sim:
        coming = enumerate(arrivals(kind, float(gap), count))
        all_of_them = [
            sim.submit(system + numbers(10 + i, p - shared), answer, at=at, seed=i) for i, (at, p, answer) in coming
        ]
        sim.run()
    firsts, goal = [v.first_token for v in all_of_them], VISITOR_GOALS[load]
    p95 = quantile(firsts, 0.95)
    print(f"  {load}: first token p50 {quantile(firsts, 0.5):.2f} s, p95 {p95:.2f} s, goal {goal} "
          f"{verdict(p95, goal, most=True)}, "
          f"worst {max(firsts):.2f} s", flush=True)  # fmt: skip
    return {"load": load, "visitors": count, "p95_s": p95, "goal": goal, "first_token_s": firsts}


def arrival(profile: str, repeats: int = 5) -> dict[str, Any]:
    """4 streams run, a prompt of 100 tokens arrives: its first token and the longest pause of a stream, in chunk passes
    with 5 heads."""
    firsts, pauses = [], []
    with simulation(profile, max_running=16) as sim:
        one = plan(sim.engine.package.directory, profile).costs.chunk_seconds(SYSTEM + 4 * (PROMPT + ANSWER) + 110, 5)
        assert one is not None
        for i in range(repeats):
            system = numbers(90 + i, SYSTEM)
            sim.submit([*system, 7], 1)
            sim.run()
            streams = [sim.submit(system + numbers(500 + 10 * i + k, PROMPT), ANSWER, seed=k) for k in range(4)]
            sim.run(lambda streams=streams: all(v.tokens for v in streams))
            new = sim.submit(numbers(700 + i, 100), 10, at=sim.now + 1.2 + 0.31 * i)
            sim.run()
            end = new.submitted + 2 * new.first_token
            gaps = [
                b - a
                for v in streams
                for a, b in zip(v.tokens, v.tokens[1:], strict=False)
                if b >= new.submitted and a <= end
            ]
            firsts.append(new.first_token / one)
            pauses.append(max(gaps) / one)
    reached, paused = verdict(max(firsts), 2.0, most=True), verdict(max(pauses), 1.0, most=True)
    print(f"  {profile}: first token after at most {max(firsts):.2f} passes (goal 2 {reached}), longest pause of a "
          "stream "
          f"{max(pauses):.2f} passes (goal 1 {paused})", flush=True)  # fmt: skip
    return {"profile": profile, "first_token_passes": firsts, "pause_passes": pauses}


def narrow() -> dict[str, Any]:
    """A model whose chunks see 192 rows: a prompt of 600 tokens and one of 50 a second later, while 3 streams run."""
    with simulation(INT4, max_running=16) as sim:
        streams = [sim.submit(numbers(10 + k, 50), 60, seed=k) for k in range(3)]
        sim.run(lambda: all(v.tokens for v in streams))
        long, short = sim.submit(numbers(31, 600), 30), sim.submit(numbers(32, 50), 30, at=sim.now + 1)
        sim.run()
    print(
        f"  600 tokens: first token after {long.first_token:.1f} s; 50 tokens, a second later: after"
        f" {short.first_token:.2f} s",
        flush=True,
    )
    return {"long_first_token_s": long.first_token, "short_first_token_s": short.first_token}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=("crowds", "banks", "visitors", "arrival", "narrow"))
    parser.add_argument("--profile", action="append", choices=PROFILES, help="of crowds, banks and arrival")
    parser.add_argument("--visitors", type=int, default=120, help="of each load (default 120)")
    args = parser.parse_args()
    profiles, cases = args.profile or PROFILES, args.case or ("crowds", "banks", "visitors", "arrival", "narrow")
    print("Simulated: emulated card, hollow models, modelled seconds; nothing depends on this machine's clock.")
    out: dict[str, Any] = {}
    for name, kinds in (("crowds", CROWDS[1:]), ("banks", BANKS)):
        for profile in profiles if name in cases else ():
            print(f"{name}, {profile}")
            out.setdefault(name, {})[profile] = crowds(profile, kinds)
    if "visitors" in cases:
        print(f"visitors, {VISITORS_PROFILE}")
        out["visitors"] = [visitors(load, args.visitors) for load in VISITOR_GOALS]
    if "arrival" in cases:
        print("a prompt arrives while 4 streams run")
        out["arrival"] = [arrival(profile) for profile in profiles]
    if "narrow" in cases:
        print(f"chunks that see little, {INT4}")
        out["narrow"] = narrow()
    write_results("simulate", out)


if __name__ == "__main__":
    main()
