"""How long the event loop can be kept waiting by a request that is being admitted.

    python bench/admission.py [--tokens 3000] [--schema-kib 100] [--rounds 20]

While one thread submits prompts of so many tokens whose answers obey a JSON schema of that size, and a stream runs,
another asks for `stats()` and cancels an answer, again and again, and keeps the longest time that either took. Host
work, measured here; the card is emulated and hollow. Each round is also run without the submissions: what this machine
itself adds."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

from axpress.core.engine.engine import Engine
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.timing_profile import PROFILE_DIR
from axpress.core.request import GenerationRequest, SamplingParams
from axpress.core.structured_output.grammar_compiler import GrammarCompiler
from axpress.core.structured_output.output_spec import JsonSchema, OutputSpec

BOUND_MS = 2.0


def schema(kib: int) -> dict:
    """An object with so many KiB of properties."""
    properties: dict[str, dict] = {}
    while len(json.dumps(properties)) < (kib - 1) << 10:
        words = [f"value {len(properties)} {i}" for i in range(20)]
        properties[f"property number {len(properties)}"] = {"enum": words}
    return {"type": "object", "properties": properties, "required": list(properties)}


def long_profile(folder: Path, rows: int) -> str:
    """The 1.7B profile with more rows."""
    lines = (PROFILE_DIR / "qwen3-1.7b-w8a16-pi5.toml").read_text().splitlines()
    text = "\n".join(f"rows = {rows}" if line.startswith("rows = ") else line for line in lines)
    (folder / "long.toml").write_text(text)
    return str(folder / "long.toml")


def worst(engine: Engine, seconds: float, busy: threading.Event) -> dict[str, float]:
    """The longest `stats()` and `cancel()`, in ms, for so many seconds, and how late a sleep of 1 ms came back."""
    cancelled = engine.submit(GenerationRequest([5], SamplingParams(), 1), lambda delta: None)
    longest = {"stats": 0.0, "cancel": 0.0, "sleep": 0.0}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or busy.is_set():
        for name, call in (("stats", engine.stats), ("cancel", cancelled.cancel), ("sleep", lambda: time.sleep(1e-3))):
            start = time.perf_counter()
            call()
            took = (time.perf_counter() - start) * 1e3 - (name == "sleep")
            longest[name] = max(longest[name], took)
    return longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=3000)
    parser.add_argument("--schema-kib", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        package = hollow(long_profile(Path(folder), max(4095, args.tokens + 100)), Path(folder) / "model")
        engine = Engine.open(package, "emu", "none", banks=1, max_running=4)
        text = engine.text
        constraint = GrammarCompiler(text, engine.info.vocab_size).compile(
            OutputSpec(JsonSchema(schema(args.schema_kib), "response_format"))
        )
        stream = engine.submit(GenerationRequest([9] * 50, SamplingParams(), 4000, ignore_eos=True), lambda d: None)
        idle, busy = threading.Event(), threading.Event()
        quiet = worst(engine, 2.0, idle)

        def submit() -> None:
            for number in range(args.rounds):
                prompt = [(7 * i + number) % 900 + 20 for i in range(args.tokens)]
                done = threading.Event()
                request = GenerationRequest(prompt, SamplingParams(), 2, constraint=constraint)
                engine.submit(request, lambda d, done=done: done.set() if d.finish_reason else None)
                done.wait(60)
            busy.clear()

        busy.set()
        thread = threading.Thread(target=submit)
        thread.start()
        loaded = worst(engine, 0.5, busy)
        thread.join()
        stream.cancel()
        engine.close()
    for name, row in (("while nothing is admitted", quiet), (f"while {args.rounds} are admitted", loaded)):
        print(f"{name:26}", *(f"{key} {value:7.3f} ms" for key, value in row.items()))
    late = max(loaded["stats"], loaded["cancel"])
    print(f"longest wait {late:.3f} ms, goal {BOUND_MS} ms: {'met' if late <= BOUND_MS else 'MISSED'}")
    sys.exit(late > BOUND_MS)


if __name__ == "__main__":
    main()
