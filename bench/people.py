"""What people want to know, in under 10 minutes: how fast an answer comes, alone and beside others, and when it begins.

    make bench                          # python bench/people.py
    python bench/people.py --model MODEL_DIR --repeats 5

Two parts, neither on a real card: a hollow model of the 1.7B's full size, paced by its timing profile in real time
(modelled), and a small real model (smollm2-135m if it was pulled, else the built-in toy) as fast as this machine's
processor goes (emulated card, profile none). The engine alone, without HTTP: bench/serving.py says what that costs.

Each figure is measured several times; the table has the median and the range. A figure is unreliable where the host was
late: in the modelled part, where the modelled card stood still for more than 5 % of the time although somebody waited
for it; on the processor, where this program's threads waited for a processor for more than 10 % of the time that they
ran. Prints a table; writes docs/benchmarks.md and docs/benchmarks.png with date, machine and commit, and
bench/results/people.json."""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from clients import Client, numbers, serving, submit
from concurrency import steady
from plots import plot_groups, require_matplotlib
from results import write_results

from axpress.core.device.emulator import Emulator
from axpress.core.device.model_loader import default_model
from axpress.core.engine.engine import Engine
from axpress.core.model_store import ModelStore

ROOT = Path(__file__).resolve().parents[1]
PROFILE = "qwen3-1.7b-w8a16-pi5"
SMALL = "smollm2-135m"
SYSTEM, OWN, ANSWER = 150, 30, 60
"""Tokens: of a system prompt that all share, of each one's own prompt, of an answer."""
TALK, NEXT = 600, 30
"""Tokens of a conversation, and of the message that goes on from it."""
PEOPLE = 8
LATE = {"modelled": 0.05, "processor": 0.10}

Prompt = Callable[[int, int], list[int]]
"""Token ids that begin at some place of a text: place, how many."""


@dataclass
class Figure:
    """One line of the table; `late`: the worst of its runs."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    late: float = 0.0


class Lateness:
    """How much of the time of a run the host was late: `share()` since it was made."""

    def __init__(self, kind: str) -> None:
        self.kind, self._begun, self._before = kind, time.perf_counter(), self._read(kind)

    def share(self) -> float:
        """modelled: of the wall time, what the card stood still. processor: of the time that this process's threads
        were able to run, what they waited for a processor."""
        now = self._read(self.kind)
        first, second = now[0] - self._before[0], now[1] - self._before[1]
        if self.kind == "modelled":
            return max(0.0, 1 - first / (time.perf_counter() - self._begun))
        return second / max(first + second, 1e-9)

    @staticmethod
    def _read(kind: str) -> tuple[float, float]:
        if kind == "modelled":
            return Emulator().report()["modelled_ns"] / 1e9, 0.0
        ran = waited = 0
        for task in Path("/proc/self/task").iterdir():
            words = (task / "schedstat").read_text().split()
            ran, waited = ran + int(words[0]), waited + int(words[1])
        return ran / 1e9, waited / 1e9


class Bench:
    """Measures one served model; `figures` in the order of the table."""

    def __init__(self, engine: Engine, kind: str, prompt: Prompt) -> None:
        self.kind, self._engine, self._prompt, self._place = kind, engine, prompt, 0
        self.figures = {
            name: Figure(name, unit)
            for name, unit in (
                ("one person", "tokens/s"),
                (f"{PEOPLE} people at once, together", "tokens/s"),
                (f"first token, prompt of {SYSTEM + OWN} tokens", "s"),
                (f"first token, conversation of {TALK} tokens", "s"),
                (f"... going on from it, {TALK} of {TALK + NEXT} cached", "s"),
            )
        }

    def run(self) -> None:
        """All figures once."""
        one, many, first, talk, again = self.figures
        with self._watched(one, first):
            alone = self._ask(self._fresh(SYSTEM + OWN)).wait()
        self.figures[one].values.append((len(alone.tokens) - 1) / (alone.tokens[-1] - alone.tokens[0]))
        self.figures[first].values.append(alone.first_token)
        system = self._fresh(SYSTEM)
        self._ask([*system, *self._fresh(1)], 1).wait()
        with self._watched(many):
            people = [client.wait() for client in [self._ask(system + self._fresh(OWN)) for _ in range(PEOPLE)]]
        self.figures[many].values.append(steady(people, 1.0)[0])
        said = self._fresh(TALK)
        for name, prompt in ((talk, said), (again, said + self._fresh(NEXT))):
            with self._watched(name):
                self.figures[name].values.append(self._ask(prompt, 1).wait().first_token)

    def _fresh(self, count: int) -> list[int]:
        """Tokens of a text that nobody had before."""
        self._place += 1
        return self._prompt(self._place, count)

    def _ask(self, prompt: list[int], answer: int = ANSWER) -> Client:
        return submit(self._engine, prompt, answer, seed=self._place)

    @contextmanager
    def _watched(self, *names: str) -> Iterator[None]:
        lateness = Lateness(self.kind)
        yield
        share = lateness.share()
        for name in names:
            self.figures[name].late = max(self.figures[name].late, share)


def modelled(repeats: int) -> tuple[str, list[Figure]]:
    """The published model's size and times: its name and figures."""
    with serving(PROFILE, 1.0, max_running=PEOPLE) as engine:
        return engine.info.model, repeated(
            Bench(engine, "modelled", lambda place, count: numbers(1000 + place, count)), repeats
        )


def on_processor(directory: Path, repeats: int) -> tuple[str, list[Figure]]:
    """A real model, really computed here: its name and figures."""
    engine = Engine.open(directory, "emu", "none", max_running=PEOPLE)
    try:
        text = engine.text.encode("\n".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))))

        def prompt(place: int, count: int) -> list[int]:
            start = 997 * place % (len(text) - count)
            return text[start : start + count]

        submit(engine, prompt(0, 20), 2).wait()
        return engine.info.model, repeated(Bench(engine, "processor", prompt), repeats)
    finally:
        engine.close()


def repeated(bench: Bench, repeats: int) -> list[Figure]:
    for _ in range(repeats):
        bench.run()
    return list(bench.figures.values())


INTRODUCTION = """# Benchmarks

Written by `make bench`, which measures this on any machine in less than 10 minutes; do not edit. **Nothing here was
measured on a real card.** Run on {machine}; load {load} before it began.

{repeats} runs of each; the engine alone, without HTTP, whose cost bench/serving.py measures. "Host late": the share of
the time in which the modelled card stood still although somebody waited for it, or, on the processor, in which threads
waited for their turn; above {modelled:.0%} and {processor:.0%} a figure is called unreliable.

![Tokens a second, and seconds until the first token](benchmarks.png)

"""
PARTS = {
    "modelled": f"Qwen3-1.7B's shape at its published times ({PROFILE}; modelled, hollow: its text is noise)",
    "processor": "{model}, computed by this machine's processor (emulated card, profile none)",
}


def table(figures: list[Figure], kind: str) -> str:
    """As Markdown, which people can read, too."""
    lines = ["| | median | range | host late |", "| --- | --- | --- | --- |"]
    for one in figures:
        middle, low, high = statistics.median(one.values), min(one.values), max(one.values)
        note = " **unreliable**" if one.late > LATE[kind] else ""
        lines.append(f"| {one.name} | {middle:.3g} {one.unit} | {low:.3g} to {high:.3g} | {one.late:.0%}{note} |")
    return "\n".join(lines)


def machine() -> str:
    """What it ran on, and of which state of the source."""
    board, known = Path("/proc/device-tree/model"), re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = board.read_text().strip("\0") if board.exists() else known[1] if known else platform.machine()
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return f"{time.strftime('%Y-%m-%d %H:%M')}, {name}, {os.cpu_count()} processors, commit {commit}"


def draw(results: dict[str, list[Figure]], model: str) -> Path:
    """docs/benchmarks.png: speeds on the left, waits on the right, a bar a figure and part, its range as a line."""
    labels = {"modelled": "Qwen3-1.7B's shape, modelled", "processor": f"{model}, this processor"}
    groups = {}
    for unit in ("tokens/s", "s"):
        names = [one.name for one in results["modelled"] if one.unit == unit]
        series = {
            labels[kind]: [one.values for one in figures if one.unit == unit] for kind, figures in results.items()
        }
        groups[unit] = names, series
    return plot_groups(ROOT / "docs" / "benchmarks.png", groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, metavar="MODEL_DIR", help=f"the real model (default: {SMALL}, if pulled)")
    parser.add_argument("--repeats", type=int, default=3, help="how often each figure is measured (default 3)")
    args = parser.parse_args()
    require_matplotlib()
    pulled = ModelStore().find(SMALL)
    directory = args.model or (pulled.directory if pulled else default_model())
    load, where = f"{os.getloadavg()[0]:.1f}", machine()
    print(f"{where}; load {load} before; a few minutes", flush=True)
    results, parts = {}, []
    for kind, name in PARTS.items():
        model, results[kind] = modelled(args.repeats) if kind == "modelled" else on_processor(directory, args.repeats)
        parts.append(f"## {name.format(model=model)}\n\n{table(results[kind], kind)}\n")
        print(f"\n{parts[-1]}", flush=True)
    introduction = INTRODUCTION.format(machine=where, load=load, repeats=args.repeats, **LATE)
    (ROOT / "docs" / "benchmarks.md").write_text(introduction + "\n".join(parts))
    print(f"docs/benchmarks.md, {draw(results, model)}")
    write_results("people", {"machine": where, **{k: [asdict(one) for one in v] for k, v in results.items()}})


if __name__ == "__main__":
    main()
