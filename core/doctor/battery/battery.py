"""Runs the experiments, one at a time, each in a process and with a deadline of its own, from harmless to risky.

Run as `python -m axpress.core.doctor.battery.battery FD NAME SUBJECT` it is the child that runs one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import AxpressError, FailureKind, failure_kind
from ...model_files.model_package import ModelPackage
from ..child import Outcome, Reporter, run_child
from . import calls, exactness, models
from .bench import Bench
from .report import ProbeReport, results

TOTAL_SECONDS = 590.0
LEAST_SECONDS = 20.0  # an experiment is not begun with less left
CALLS_SECONDS = 60.0
LOADING = 10e6  # bytes a second: a quarter of what cards are seen to load


@dataclass(frozen=True, slots=True)
class Experiment:
    """`layers`: how many are loaded beside the head (None: no model at all)."""

    run: Callable[[Bench], None]
    answers: str
    layers: int | None = None


EXPERIMENTS = {
    "identity": Experiment(calls.identity, "versions, ids, memory"),
    "transfers": Experiment(calls.transfers, "copies one by one"),
    "streams": Experiment(calls.streams, "copies in a stream"),
    "load": Experiment(models.load, "loading, tensors, memory", 3),
    "costs": Experiment(models.costs, "what each shape group costs", 1),
    "queued_executes": Experiment(exactness.queued_executes, "executes in a stream", 1),
    "chunks": Experiment(exactness.chunks, "chunks against decodes", 3),
    "in_place": Experiment(exactness.in_place, "rows written into the cache", 1),
    "batch_size": Experiment(models.batch_size, "SetDynamicBatchSize", 0),
    "start_and_end": Experiment(calls.start_and_end, "opening the card twice in one process"),
    "late": Experiment(models.late, "a layer loaded after an execute", 2),
    "usage": Experiment(models.usage, "GetUsage", 0),
    "order": Experiment(models.order, "a head loaded after layers", 3),
}
"""In the order in which they are run. Newer documents warn of the last but one; after the last a card was seen to drop
off the bus."""


def run_battery(
    package: ModelPackage,
    library: str,
    index: int,
    report: ProbeReport,
    environ: Mapping[str, str],
    say: Callable[[str], None],
    waiting: Callable[[float], None] | None = None,
) -> bool:
    """Runs all experiments and saves each; whether all came to their end.

    After one that hangs or crashes, or finds the card gone, the others are not run: the card may be unwell. A process
    that hangs on a real card is left alone, since a card wedges where its program is killed while it computes.
    """  # fmt: skip
    started, stopped = time.monotonic(), ""
    report.hide(library, "LIBRARY")
    report.save()  # where it cannot be written, this is the time to know
    subject = json.dumps(
        {
            "library": library,
            "index": index,
            "head": str(package.head_file),
            "layers": [str(path) for path in _attending(package)],
        }
    )
    emulated = bool(report.data["emulated"])
    for name, experiment in EXPERIMENTS.items():
        left = TOTAL_SECONDS - (time.monotonic() - started)
        stopped = stopped or ("no time was left" if left < LEAST_SECONDS else "")
        if stopped:
            report.add(name, "not run", 0.0, {}, stopped)
            continue
        say(f"{name}: {experiment.answers}")
        limit = min(_limit(package, experiment), left)
        outcome = run_child(__name__, [name, subject], limit, environ=environ, kill=emulated, waiting=waiting)
        stopped = _record(report, name, outcome)
        if stopped:
            say(f"{name}: {stopped}")
    if results(report.data, "order").get("head_after_layers") == models.LOST:
        say("order: the card dropped off the bus, as some do: reboot it (`axcl-smi reboot`), or cut its power")
    return all(test["state"] == "done" for test in report.data["tests"].values())


def _limit(package: ModelPackage, experiment: Experiment) -> float:
    """Seconds that an experiment may take, loading included."""
    if experiment.layers is None:
        return CALLS_SECONDS
    files = [package.head_file, *_attending(package)[: experiment.layers + 1]]
    return CALLS_SECONDS + 2 * sum(path.stat().st_size for path in files) / LOADING


def _attending(package: ModelPackage) -> list[Path]:
    """The layers that the experiments are about: those with rows. What recurrent ones do is probed at each load."""
    if not any(package.recurrent):
        return list(package.layer_files)
    return [path for path, recurrent in zip(package.layer_files, package.recurrent, strict=True) if not recurrent]


def _record(report: ProbeReport, name: str, outcome: Outcome) -> str:
    """Saves what came out; why no further experiment may follow, or nothing."""
    found = outcome.merged()
    error, gone = found.pop("failed", ""), found.pop("card_gone", False)
    if outcome.done:
        report.add(name, "failed" if error else "done", outcome.seconds, found, error)
        return f"the card cannot be used any more ({error})" if gone else ""
    how = outcome.how()
    if outcome.pid:
        how += (
            f"; its process {outcome.pid} is left alone, since killing it could wedge the card: wait until it has ended"
        )
    state = "no answer" if outcome.timed_out else "crashed" if outcome.signal else "failed"
    report.add(name, state, outcome.seconds, found, "; ".join([how, *outcome.printed.splitlines()[-1:]]))
    return "" if state == "failed" else how


def _child(report: Reporter, name: str, subject: str) -> None:
    try:
        EXPERIMENTS[name].run(Bench(report, **json.loads(subject)))
    except (AxpressError, ValueError, MemoryError) as error:
        report.found(failed=str(error), card_gone=failure_kind(error) is FailureKind.CARD_LOST)


if __name__ == "__main__":
    _child(Reporter(int(sys.argv[1])), sys.argv[2], sys.argv[3])
