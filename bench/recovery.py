"""What a fault of the card costs those who are being served: a modelled card of a published model, everything emulated.

    python bench/recovery.py [PROFILE]      # default qwen3-1.7b-w8a16-pi5

Four answers run; then the card fails. For each kind of fault: seconds from that moment until it is noticed and
until the card works again, the longest gap between two tokens, and what helped. Loading again takes what the profile
says. Prints a table and writes bench/results/recovery.json.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

from results import write_results

from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine
from axpress.core.model_files.hollow import hollow
from axpress.core.request import Delta, GenerationRequest, SamplingParams

FAULTS = {
    "an execute fails": "axclrtEngineExecuteAsync@1=fail:0x8030070c",
    "queued work fails": "axclrtEngineExecuteAsync@1=later:0x8030070c",
    "a result is NaN once": "nan@any:1",
    "an execute hangs": "axclrtEngineExecuteAsync@1=hang",
    "a wait never returns": "axclrtSynchronizeStreamWithTimeout@1=block",
    "the link is lost": "device=offline@1",
}
CLIENTS, TOKENS, AT = 4, 60, 20
REBOOT_MS = 8000


class Answer:
    """When each token of an answer came."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.half, self.done = threading.Event(), threading.Event()
        self.reason: str | None = None

    def __call__(self, delta: Delta) -> None:
        self.times.append(time.monotonic())
        if len(self.times) == AT:
            self.half.set()
        if delta.finish_reason:
            self.reason = delta.finish_reason
            self.half.set()
            self.done.set()


def measure(engine: Engine, fault: str) -> dict[str, object]:
    """One fault in the middle of `CLIENTS` answers."""
    answers = [Answer() for _ in range(CLIENTS)]
    params = SamplingParams(temperature=0)
    prompts = [[9 + i, *range(20, 60)] for i in range(CLIENTS)]
    engine.submit_all([GenerationRequest(p, params, TOKENS, ignore_eos=True) for p in prompts], answers)
    answers[0].half.wait()
    rungs, faults = dict(engine.ladder.rungs), engine.ladder.faults.total()
    Emulator().set("faults", fault)
    begun, noticed, healed = time.monotonic(), None, None
    while not all(answer.done.is_set() for answer in answers):
        if noticed is None and engine.ladder.faults.total() > faults:
            noticed = time.monotonic() - begun
        if noticed is not None and healed is None and engine.state == "ready":
            healed = time.monotonic() - begun
        time.sleep(0.005)
    Emulator().set("faults", "")
    gap = max(b - a for answer in answers for a, b in zip(answer.times, answer.times[1:], strict=False))
    tried = ", ".join(name for name, n in engine.ladder.rungs.items() if n != rungs.get(name)) or "the pass again"
    return {
        "noticed_s": noticed, "card_works_s": healed, "longest_gap_s": gap, "helped": tried,
        "ends": sorted({answer.reason or "" for answer in answers}),
    }  # fmt: skip


def main() -> None:
    """Measures all and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("profile", nargs="?", default="qwen3-1.7b-w8a16-pi5")
    profile = parser.parse_args().profile
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine.open(hollow(profile, Path(folder) / "package"), "emu", profile)
        loaded = engine.model.load_seconds
        Emulator().set("reboot_ms", REBOOT_MS)
        print(f"{profile}, emulated; a load takes {loaded:.1f} s as modelled, a reboot {REBOOT_MS / 1000:g} s")
        print(f"{'fault':24}{'noticed':>10}{'works':>10}{'longest gap':>13}  helped")
        for name, fault in FAULTS.items():
            row = results[name] = measure(engine, fault)
            cells = [f"{row[key]:.2f} s" if row[key] is not None else "-" for key in ("noticed_s", "card_works_s")]
            print(f"{name:24}{cells[0]:>10}{cells[1]:>10}{row['longest_gap_s']:>11.2f} s  {row['helped']}", flush=True)
        engine.close()
    write_results("recovery", {"profile": profile, "load_s": loaded, "reboot_s": REBOOT_MS / 1000, "faults": results})


if __name__ == "__main__":
    main()
