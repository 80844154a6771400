"""Long runs that must leave nothing behind, on the emulated card.

    # load, 200 tokens, cancel another answer, unload: no card memory stays in use
    python bench/soak.py cycles --count 100
    python bench/soak.py requests --count 2000   # one engine, answers of all ends: memory of the process stays flat

`make soak` runs the first under AddressSanitizer and UBSan, then both plain. Exit status 1 says that something leaked.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import random
import sys
import tempfile
import threading
from pathlib import Path

from axpress.core.device.emulator import Emulator
from axpress.core.device.model_loader import default_model
from axpress.core.engine.engine import Engine, Generation
from axpress.core.model_files.convert import convert
from axpress.core.request import Delta, GenerationRequest, SamplingParams

SANITIZED = bool(os.environ.get("AXPRESS_SANITIZED"))
ALLOWED_GROWTH = 256 << 10 if SANITIZED else 4 << 20  # bytes; resident memory includes arenas and caches that fill once


class Answer:
    """A sink that knows when its answer is over and can cancel it at its n-th token."""

    def __init__(self, cancel_at: int = 0) -> None:
        self.done = threading.Event()
        self.tokens = 0
        self._cancel_at = cancel_at
        self.generation: Generation | None = None

    def __call__(self, delta: Delta) -> None:
        self.tokens += delta.num_tokens
        if self.tokens == self._cancel_at and self.generation is not None:
            self.generation.cancelled = True
        if delta.finish_reason:
            self.done.set()


def memory_bytes() -> int:
    """Memory of this process: resident, or what is allocated under AddressSanitizer, which holds freed blocks back."""
    gc.collect()
    if SANITIZED:
        allocated = ctypes.CDLL(None).__sanitizer_get_current_allocated_bytes
        allocated.restype = ctypes.c_size_t
        return int(allocated())
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ask(engine: Engine, prompt: list[int], tokens: int, *, cancel_at: int = 0, seed: int = 0) -> int:
    answer = Answer(cancel_at)
    params = SamplingParams(temperature=0.9, top_p=0.95, seed=seed, frequency_penalty=0.1)
    answer.generation = engine.submit(
        GenerationRequest(prompt, params, tokens, ignore_eos=True, stop=("\0\0",)), answer
    )
    if not answer.done.wait(120):
        raise SystemExit("an accepted request did not end within 120 s")
    return answer.tokens


def cycles(directory: Path, count: int) -> bool:
    """Opens and closes the whole engine `count` times; true if the card's memory is free again each time."""
    emulator, after_warm_up = Emulator(), 0
    for i in range(count):
        engine = Engine.open(directory, "emu", "none")
        ask(engine, [5, 6, 7] * 20, 200)
        ask(engine, [9] * 70, 100, cancel_at=5)
        engine.close()
        memory = emulator.report()["memory"]
        if memory["device_used"] or memory["pinned_used"]:
            print(f"cycle {i}: still in use: {memory}")
            return False
        if i == min(9, count // 2):
            after_warm_up = memory_bytes()
    growth = memory_bytes() - after_warm_up
    print(
        f"{count} cycles of load, 200 tokens, cancel, unload: nothing left on the card; memory grew by"
        f" {growth / 1e6:.2f} MB"
    )
    return growth <= ALLOWED_GROWTH


def requests(directory: Path, count: int) -> bool:
    """Asks one engine `count` times, with every kind of end; true if memory stays flat after the first tenth."""
    engine, random_numbers, base = Engine.open(directory, "emu", "none"), random.Random(1), 0
    for i in range(count):
        prompt = [random_numbers.randrange(5, 300) for _ in range(random_numbers.randrange(1, 150))]
        ask(engine, prompt, random_numbers.randrange(1, 30), cancel_at=random_numbers.choice((0, 0, 3)), seed=i)
        if i == count // 10:
            base = memory_bytes()
    growth = memory_bytes() - base
    engine.close()
    print(
        f"{count} requests: memory grew by {growth / 1e6:.2f} MB after the first tenth (allowed"
        f" {ALLOWED_GROWTH / 1e6:.0f})"
    )
    return growth <= ALLOWED_GROWTH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cycles", "requests"))
    parser.add_argument("--count", type=int, default=0, help="default: 100 cycles or 2000 requests")
    parser.add_argument(
        "--checkpoint", type=Path, help="convert this Hugging Face checkpoint instead of using the demo model"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = default_model()
        if args.checkpoint:
            directory = convert(
                args.checkpoint, Path(folder) / "model", rows=511, chunk=64, history=[0, 64, 128], progress=False
            )
        good = (
            cycles(directory, args.count or 100) if args.what == "cycles" else requests(directory, args.count or 2000)
        )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
