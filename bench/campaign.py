"""Faults of every kind in random places under random load: does every answer end once, with the text of a run without
faults, and is nothing lost? Everything here is emulated.

    python bench/campaign.py [--seconds 1800] [--faults N] [--seed 1] [--half engine|server]

One half is an engine of the demo model in this process: answers run eight at a time while functions that the engine
calls fail, hang or block, results become NaN, the card gets lost, hot or short of memory, while answers run, during
recovery, while the engine is closed and while it is loaded. The other, at the same time, is a real server over HTTP,
which is killed, told to stop and ends itself, and is started again; its clients stream, want tools, forms and several
choices, leave.

Counted is what took effect, by the emulator's own count. Prints tables, and writes bench/results/campaign.json; the
exit code is 1 where an answer differed, ended twice or never or without need, or where something was lost.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import gc
import logging
import multiprocessing
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaign_server import run_server
from results import write_results
from supervised import hurry

from axpress.core.device.emulator import Emulator
from axpress.core.device.model_loader import default_model
from axpress.core.engine.engine import Engine, Generation
from axpress.core.errors import AxpressError, EngineClosed, FailureKind
from axpress.core.request import Delta, GenerationRequest, SamplingParams

AT_ONCE = 8
ROUNDS = (3, 10, 30, 150)  # faults between two looks at what was lost; in short ones more is met by loads and ends
CODES = ("0x8030070c", "0x8030010c", "0x80300181", "0x80300386")
CARD = {  # rules that are no calls: kind, rule, how often drawn
    "nan": ("nan@layer:{n}", "nan@head:{n}", "nan@any:{n}", "nan@any:{n}+"),
    "offline": ("device=offline@{n}",),
    "dead": ("device=dead@{n}",),
    "heat": ("temperature=119000+100",),
    "memory": ("axclrtEngineExecuteAsync@{n}=fail:0x8030070c; memory=1",),
    "leak": ("axclrtEngineExecuteAsync@{n}=fail:0x8030070c; leak=1000000",),
    "driver": ("axclrtEngineExecuteAsync@{n}=fail:0x8030070c; driver=missing",),
}
WEIGHTS = {"fail": 12, "later": 8, "nan": 12, "hang": 3, "block": 3, "offline": 3, "heat": 1, "memory": 1, "leak": 1,
           "driver": 1, "dead": 0.15}  # fmt: skip
Calls = dict[str, dict[str, int]]


class Faults:
    """Draws faults. `calls`: for each phase, which functions it calls, and how often."""

    def __init__(self, rnd: random.Random, calls: Calls) -> None:
        self._rnd, self._calls = rnd, calls

    def draw(self, phase: str) -> str:
        """Rules for the emulator."""
        return "; ".join(self._rule(phase) for _ in range(self._rnd.choice((1, 1, 2, 3))))

    def _rule(self, phase: str) -> str:
        rnd = self._rnd
        kind = rnd.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if kind in CARD:
            return rnd.choice(CARD[kind]).format(n=rnd.randrange(1, 80))
        name, most = rnd.choice(list(self._calls[phase].items()))
        action = f"{kind}:{rnd.choice(CODES)}" if kind in ("fail", "later") else kind
        onward = "+" if rnd.random() < 0.05 else ""
        return f"{name}@{rnd.randrange(1, min(most, 20) + 1)}{onward}={action}"


class Answer:
    """What came of one request."""

    def __init__(self, number: int) -> None:
        self.number, self.text, self.ends = number, "", 0
        self.reason: str | None = None
        self.error: str | None = None

    def __call__(self, delta: Delta) -> None:
        self.ends += bool(self.ends)  # something after the end counts as another
        self.text += delta.text
        if delta.finish_reason:
            self.ends += 1
            self.reason, self.error = delta.finish_reason, delta.error


class EngineHalf:
    """Rounds of load and faults on engines in this process."""

    def __init__(self, seed: int) -> None:
        self.rnd, self.emulator = random.Random(seed), Emulator()
        self.counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.answers: collections.Counter[str] = collections.Counter()
        self.recoveries: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.over_time: list[dict[str, Any]] = []
        self.engine: Any = None
        self._open()
        self.requests = self._make_requests()
        self.calls = self._count_calls()
        self.loaded = self.emulator.report()["memory"]
        self.faults = Faults(self.rnd, self.calls)
        self._open_answers: list[tuple[Answer, Generation]] = []

    @property
    def num_faults(self) -> int:
        """That took effect."""
        return sum(counter.total() for counter in self.counts.values())

    def _open(self) -> None:
        self.engine = Engine.open(default_model(), "emu", "none", max_running=AT_ONCE)

    def _make_requests(self) -> list[GenerationRequest]:
        """Prompts with common beginnings, long and short."""
        rnd = self.rnd
        heads = [[rnd.randrange(5, 400) for _ in range(n)] for n in (3, 20, 150)]
        requests = []
        for i in range(24):
            prompt = heads[i % 3] + [rnd.randrange(5, 400) for _ in range(rnd.randrange(1, 30))]
            params = SamplingParams(temperature=(0.0, 0.9)[i % 2], seed=i)
            requests.append(GenerationRequest(prompt, params, rnd.randrange(5, 120), ignore_eos=True))
        return requests

    def _count_calls(self) -> Calls:
        """Which functions each phase calls; and, without faults, the text of each request."""

        def counted(work: Callable[[], object]) -> dict[str, int]:
            self.emulator.reset_counters()
            work()
            return dict(self.emulator.report()["calls"])

        def alone() -> None:
            answers = [Answer(i) for i in range(len(self.requests))]
            for request, answer in zip(self.requests, answers, strict=True):
                self.engine.submit(request, answer)
                while not answer.ends:
                    time.sleep(0.002)
            self.texts = [answer.text for answer in answers]

        calls = {"pass": counted(alone), "shutdown": counted(self.engine.close)}
        calls["load"] = counted(self._open)
        calls["recovery"] = {**calls["load"], **calls["shutdown"], "axclrtRebootDevice": 2}
        return calls

    # ---- load ----

    def _feed(self) -> None:
        """Ends what ended, asks for more, cancels now and then."""
        for answer, _ in self._open_answers:
            if answer.ends:
                self._judge(answer)
        self._open_answers = [pair for pair in self._open_answers if not pair[0].ends]
        while len(self._open_answers) < AT_ONCE:
            number = self.rnd.randrange(len(self.requests))
            choices = [Answer(number) for _ in range(self.rnd.choice((1, 1, 1, 2)))]
            try:
                generations = self.engine.submit_all([self.requests[number]] * len(choices), list(choices))
            except EngineClosed:
                return
            self._open_answers += zip(choices, generations, strict=True)
        if self.rnd.random() < 0.01:
            self.rnd.choice(self._open_answers)[1].cancel()

    def _judge(self, answer: Answer) -> None:
        whole = self.texts[answer.number]
        right = whole.startswith(answer.text) if answer.reason in ("cancelled", "error") else answer.text == whole
        needless = answer.reason == "error" and self.engine.failure in (None, FailureKind.INTERNAL)
        self.answers[f"{answer.reason}"] += 1
        if not right or answer.ends != 1 or needless:
            self.wrong.append(f"request {answer.number} ended {answer.ends} times with {answer.reason} ({answer.error})"
                              f" and {'the right' if right else 'another'} text")  # fmt: skip

    # ---- faults ----

    def _effects(self) -> collections.Counter[str]:
        return collections.Counter(self.emulator.report()["faults"])

    def _break(self) -> None:
        """Sets a fault, and waits until it took effect; not for long, for it may never. A dead card is waited with
        until it is given up; else mostly until the card works again."""
        phase = "recovery" if self.engine.state == "recovering" else "pass"
        before, rules = self._effects(), self.faults.draw(phase)
        self.emulator.set("faults", rules)
        patience = 30.0 if "dead" in rules else 0.5
        self._feed_while(lambda: "dead" in rules or self._effects() == before, patience)
        if self.rnd.random() < 0.7:
            self._feed_while(lambda: self.engine.state == "recovering", 0.5)
            self.counts[phase] += self._effects() - before
            before = self._effects()
            self.emulator.set("faults", "")
            self._feed_while(lambda: self.engine.state == "recovering", 5.0)
        self.counts[phase] += self._effects() - before

    def _feed_while(self, condition: Callable[[], bool], seconds: float) -> None:
        """So long at most, and not for an engine that was given up."""
        until = time.monotonic() + seconds
        while condition() and time.monotonic() < until and self.engine.state != "failed":
            self._feed()
            time.sleep(0.003)

    def _during(self, phase: str, work: Callable[[], object]) -> None:
        """Faults while `work` is done, or none."""
        before = self._effects()
        self.emulator.set("faults", self.faults.draw(phase) if self.rnd.random() < 0.8 else "")
        try:
            work()
        finally:
            self.counts[phase] += self._effects() - before
            self.emulator.set("faults", "")

    def _settle(self, seconds: float = 30.0) -> None:
        """No more faults; everybody who waits gets an answer."""
        self.emulator.set("faults", "")
        until = time.monotonic() + seconds
        while any(not answer.ends for answer, _ in self._open_answers):
            if time.monotonic() > until:
                self.wrong.append(f"an answer did not end in {seconds:g} s; the engine is {self.engine.state}")
                break
            time.sleep(0.005)
        for answer, _ in self._open_answers:
            self._judge(answer)
        self._open_answers = []

    def round(self, most: int, until: float) -> None:
        """Faults until there were `most` more, or the engine gives up; then a look, an end and a new beginning."""
        first = self.num_faults
        while self.num_faults - first < most and time.monotonic() < until:
            self._break()
            self._feed_while(lambda: True, self.rnd.choice((0.0, 0.01, 0.05)))
            if self.engine.state == "failed":
                break
        if self.rnd.random() < 0.5:
            self._settle()
            self._look()
        self._end_and_begin()

    def _look(self) -> None:
        """What the engine holds with nobody there."""
        engine = self.engine
        while engine.state == "recovering":
            time.sleep(0.01)
        if engine.state == "failed":
            return
        engine.scheduler.check_integrity()
        for bank in engine.scheduler.banks:
            bank.tree.evict(bank.pool.num_rows)
            if bank.pool.num_used:
                self.wrong.append(f"{bank.pool.num_used} rows stay held")
        memory = self.emulator.report()["memory"]
        for name in ("device_used", "pinned_used", "allocations"):
            if memory[name] != self.loaded[name]:
                self.wrong.append(f"{name} is {memory[name]} after recoveries, {self.loaded[name]} when first loaded")

    def _end_and_begin(self) -> None:
        """The engine is closed, perhaps in the middle of answers, and opened again, both under faults."""
        for part in ("faults", "rungs"):
            self.recoveries.update({f"{part[:-1]} {k}": n for k, n in getattr(self.engine.ladder, part).items()})
        began = time.monotonic()
        self._during("shutdown", self.engine.close)
        if (seconds := time.monotonic() - began) > 20:
            self.wrong.append(f"closing took {seconds:.0f} s")
        self._settle()
        self.recoveries["closed with a call left behind"] += self.engine.card_left
        self.note()
        try:
            self._during("load", self._open)
            return
        except AxpressError:
            self.recoveries["gave up loading"] += 1
        except Exception as error:
            self.wrong.append(f"loading ended with {error!r}, which is no error of ours")
        self.note()
        self._open()

    def note(self) -> None:
        """What must not grow, while no engine is open. Threads that were left behind in a call get the time that their
        hang may last; the runtime is finalised where a fault kept it from that, as the end of a process would do."""
        until = time.monotonic() + 10
        while threading.active_count() > 1 and time.monotonic() < until:
            time.sleep(0.02)
        ctypes.CDLL(str(self.emulator.path)).axclFinalize()
        gc.collect()
        status = Path("/proc/self/status").read_text()
        anon = int(status.split("RssAnon:")[1].split()[0]) / 1024
        self.over_time.append({
            "faults": self.num_faults, "anon_mib": round(anon, 1), "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": len(os.listdir("/proc/self/task")),
        })  # fmt: skip


def run_engine(seed: int, seconds: float, faults: int) -> dict[str, Any]:
    """The half in this process."""
    hurry()
    Emulator().set("hang_ms", "3000")  # in a process that goes on, what was left behind has to come back some day
    half, until = EngineHalf(seed), time.monotonic() + seconds
    while time.monotonic() < until and (not faults or half.num_faults < faults):
        half.round(half.rnd.choice(ROUNDS), until)
    half.engine.close()
    if any(half.emulator.report()["memory"][name] for name in ("device_used", "pinned_used")):
        half.wrong.append(f"after the end there is still in use: {half.emulator.report()['memory']}")
    half.note()
    return {
        "faults": half.num_faults, "by_phase": {phase: dict(c) for phase, c in half.counts.items()},
        "answers": dict(half.answers), "recoveries": dict(half.recoveries), "over_time": half.over_time,
        "wrong": half.wrong, "calls": half.calls,
    }  # fmt: skip


def _run_server(seed: int, seconds: float, faults: int) -> dict[str, Any]:
    """The half over HTTP; a first look at an engine tells which functions each phase calls."""
    calls, rnd = run_engine(seed, 0.0, 0)["calls"], random.Random(seed)
    return run_server(rnd, Faults(rnd, calls).draw, seconds, faults)


def _run_half(half: Callable[..., dict[str, Any]], to: Any, *options: Any) -> None:
    logging.getLogger("axpress").setLevel(logging.CRITICAL)
    to.send(half(*options))


def run_beside(halves: dict[str, Callable[..., dict[str, Any]]], *options: Any) -> dict[str, Any]:
    """Each half in a process of its own. A half that crashes is the worst of all findings."""
    started, results = {}, {}
    spawn = multiprocessing.get_context("spawn")
    for name, half in halves.items():
        result, to = spawn.Pipe(duplex=False)
        started[name] = (spawn.Process(target=_run_half, args=(half, to, *options)), result)
        started[name][0].start()
        to.close()
    for name, (process, result) in started.items():
        try:
            results[name] = result.recv()
        except EOFError:
            process.join()
            results[name] = {"wrong": [f"the process of this half ended with {process.exitcode}"]}
    return results


def main() -> int:
    """Runs the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--faults", type=int, default=0, help="end a half when so many took effect")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--half", choices=("engine", "server", "both"), default="both")
    options = parser.parse_args()
    results: dict[str, Any] = {"seconds": options.seconds, "seed": options.seed}
    halves = {"engine": run_engine, "server": _run_server}
    results |= run_beside(
        {name: half for name, half in halves.items() if options.half in (name, "both")},
        options.seed, options.seconds, options.faults,
    )  # fmt: skip
    for half in ("engine", "server"):
        show(half, results.get(half, {}))
    write_results(Path(__file__).stem, results)
    return int(any(results[half]["wrong"] for half in results if half in ("engine", "server")))


def show(half: str, result: dict[str, Any]) -> None:
    """A table for people."""
    print(f"---- {half}, emulated")
    for name, value in result.items():
        if name == "by_phase":
            for kind in sorted({kind for counter in value.values() for kind in counter}):
                print(
                    f"{kind:10}" + "".join(f"{phase:>10} {counter.get(kind, 0):6}" for phase, counter in value.items())
                )
        elif name == "over_time":
            for figures in value[:: max(1, len(value) // 20)]:
                print("  ".join(f"{key} {number}" for key, number in figures.items()))
        elif name == "wrong":
            print("\n".join(f"WRONG: {line}" for line in value[:50]) or "nothing wrong")
        elif name != "calls":
            print(f"{name:12} {value}")


if __name__ == "__main__":
    sys.exit(main())
