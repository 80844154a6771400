"""Faults of every kind in random places under random load, on one engine: does every answer end once, with the text of
a run without faults? Everything here is emulated.

    python bench/campaign.py [--seconds 1800] [--seed 1]

Requests of the demo model (greedy and sampled, long and short, some cancelled) run eight at a time while faults are
set again and again. Prints what happened, and writes bench/results/campaign.json; the exit code is 1 where an answer
differed, one ended in an error, or the engine was given up.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import resource
import sys
import threading
import time
from pathlib import Path

from results import write_results

from axpress.core.device.emulator import Emulator
from axpress.core.device.model_loader import default_model
from axpress.core.engine import pass_runner
from axpress.core.engine.engine import Engine
from axpress.core.recovery.ladder import RecoveryPolicy
from axpress.core.request import Delta, GenerationRequest, SamplingParams

CALLS = ("axclrtEngineExecuteAsync", "axclrtMemcpyAsync", "axclrtSynchronizeStreamWithTimeout")
LOADING = ("axclrtEngineLoadFromFile@{}=fail:0x8030070c", "axclrtMalloc@{}=fail:0x80300501")
FAULTS = [
    *(f"{call}@{{}}={how}" for call in CALLS for how in ("fail:0x8030070c", "later:0x8030010c", "hang", "block")),
    *("nan@layer:{}", "nan@head:{}", "nan@any:{}", "device=offline@{}"),
    *(f"axclrtEngineExecuteAsync@9=fail:0x8030070c; {load}" for load in LOADING),
    "axclrtEngineExecuteAsync@9=fail:0x8030070c; axclrtEngineUnload@{}=block",
]
AT_ONCE = 8


class Answer:
    """What came of one request."""

    def __init__(self, number: int) -> None:
        self.number, self.text, self.ends = number, "", 0
        self.reason: str | None = None
        self.error: str | None = None

    def __call__(self, delta: Delta) -> None:
        self.text += delta.text
        if delta.finish_reason:
            self.ends += 1
            self.reason, self.error = delta.finish_reason, delta.error


def make_requests(rnd: random.Random) -> list[GenerationRequest]:
    """Prompts with common beginnings."""
    heads = [[rnd.randrange(5, 400) for _ in range(n)] for n in (3, 20, 90)]
    requests = []
    for i in range(24):
        prompt = heads[i % 3] + [rnd.randrange(5, 400) for _ in range(rnd.randrange(1, 30))]
        params = SamplingParams(temperature=(0.0, 0.9)[i % 2], seed=i)
        requests.append(GenerationRequest(prompt, params, rnd.randrange(5, 120), ignore_eos=True))
    return requests


def alone(engine: Engine, requests: list[GenerationRequest]) -> list[str]:
    """The text of each without faults."""
    answers = [Answer(i) for i in range(len(requests))]
    for request, answer in zip(requests, answers, strict=True):
        engine.submit(request, answer)
        while not answer.ends:
            time.sleep(0.002)
    return [answer.text for answer in answers]


def spoil(rnd: random.Random, stop: threading.Event) -> None:
    """Sets one fault after the other until `stop`."""
    while not stop.wait(rnd.uniform(0.05, 0.6)):
        fault = rnd.choice(FAULTS)
        most = 6 if "Unload" in fault or "Load" in fault or "Malloc" in fault else 150
        Emulator().set("faults", fault.format(rnd.randrange(1, most)))
    Emulator().set("faults", "")


def figures() -> dict[str, int]:
    """What must not grow."""
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"max_rss_mib": rss, "descriptors": len(os.listdir("/proc/self/fd")), "threads": threading.active_count()}


def run(
    engine: Engine, requests: list[GenerationRequest], texts: list[str], rnd: random.Random, seconds: float
) -> dict:
    """The load; what became of it."""
    outcomes: collections.Counter[str] = collections.Counter()
    until, open_answers = time.monotonic() + seconds, []
    while time.monotonic() < until or open_answers:
        while len(open_answers) < AT_ONCE and time.monotonic() < until and engine.state in ("ready", "recovering"):
            answer = Answer(rnd.randrange(len(requests)))
            open_answers.append((answer, engine.submit(requests[answer.number], answer)))
        if rnd.random() < 0.02 and open_answers:
            rnd.choice(open_answers)[1].cancel()
        for answer, _ in open_answers:
            if answer.ends:
                right = texts[answer.number].startswith(answer.text)
                whole = answer.reason == "cancelled" or answer.text == texts[answer.number]
                outcomes[str(answer.reason) if right and whole and answer.ends == 1 else "wrong"] += 1
                if answer.error and answer.reason == "error":
                    print(answer.error, file=sys.stderr)
        open_answers = [pair for pair in open_answers if not pair[0].ends]
        if engine.state == "failed" and not open_answers:
            break
        time.sleep(0.01)
    return dict(outcomes)


def main() -> int:
    """Runs the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    pass_runner.HOST_FLOOR_SECONDS = pass_runner.GRACE_SECONDS = 0.5  # so that hangs do not take all the time
    rnd, stop = random.Random(options.seed), threading.Event()
    policy = RecoveryPolicy(backoff=0.01, max_backoff=0.1, healthy_passes=1, settle=2, max_reboots=10**6)
    engine = Engine.open(default_model(), "emu", "none", recovery=policy, max_running=AT_ONCE)
    requests = make_requests(rnd)
    texts = alone(engine, requests)
    before = figures()
    spoiler = threading.Thread(target=spoil, args=(random.Random(options.seed + 1), stop))
    spoiler.start()
    timer = threading.Timer(options.seconds, stop.set)
    timer.start()
    outcomes = run(engine, requests, texts, rnd, options.seconds)
    stop.set()
    spoiler.join()
    timer.cancel()
    ladder, repeated = engine.ladder, engine.stats()["repeated_passes"]
    results = {
        "seconds": options.seconds, "seed": options.seed, "state": engine.state, "answers": outcomes,
        "faults": dict(ladder.faults), "repeated_passes": repeated, "rungs": dict(ladder.rungs),
        "before": before, "after": figures(),
    }  # fmt: skip
    engine.close()
    results["card_memory_left"] = Emulator().report()["memory"]["device_used"]
    for name, value in results.items():
        print(f"{name:18} {value}")
    write_results(Path(__file__).stem, results)
    return int(engine.failure is not None or bool(outcomes.get("wrong") or outcomes.get("error")))


if __name__ == "__main__":
    sys.exit(main())
