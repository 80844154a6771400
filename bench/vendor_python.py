"""The same decode loop through the vendor's PyAXEngine and through our core, on the emulated card: tokens/s, calls,
bytes.

    python bench/vendor_python.py [--profile qwen3-0.6b-w8a16-pi5] [--tokens 5] [--paced]

Needs the vendor's PyAXEngine wheel (not on PyPI). Each side runs in a process of its own on the same hollow model and
the same emulated runtime; the wheel finds it through LD_LIBRARY_PATH, unmodified. Without --paced the card takes no
time, so the figures are what each side costs the host. Nothing here was measured on a card."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from results import write_results

from axpress.core.device.emulator import Emulator, emulator_library
from axpress.core.device.model_loader import open_model
from axpress.core.device.step import Step
from axpress.core.model_files.hollow import hollow


def run_loop(directory: str, device: str, profile: str, tokens: int) -> dict[str, Any]:
    """Decodes greedily from token 1; returns what it cost and a digest of every logit that was seen."""
    model = open_model(directory, device, profile if device == "emu" else None)
    step, logits, digest, token = Step(1), model.program.logits(0), hashlib.sha256(), 1
    emulator = Emulator()
    chosen = []
    for position in range(tokens + 1):
        if position == 1:  # the first one warms up
            emulator.reset_counters()
            start = time.perf_counter()
        step.reset(0)
        step.add(token, position, position, -1, step.add_view(0, position), True)
        model.program.run(step)
        token = int(logits.view("int16").argmax())  # positive bf16 numbers sort as integers
        chosen.append(token)
        digest.update(logits.tobytes())
    seconds = time.perf_counter() - start
    report = emulator.report()
    del logits
    layers = model.info.num_layers
    model.close()
    calls = {k: v for k, v in report["calls"].items() if v}
    device_calls = sum(
        v for k, v in calls.items() if not k.startswith(("axclrtEngineGet", "axclrtEngineSet", "axclrtSetCurrent"))
    )
    return {
        "layers": layers,
        "tokens_per_s": tokens / seconds,
        "calls_per_token": sum(calls.values()) / tokens,
        "device_calls_per_token": device_calls / tokens,
        "host_copies_per_token": (report["copies"]["h2d"] + report["copies"]["d2h"]) / tokens,
        "waits_per_token": report["waits"] / tokens,
        "bus_bytes_per_token": (report["bytes"]["h2d"] + report["bytes"]["d2h"]) / tokens,
        "logits": digest.hexdigest(),
        "chosen": chosen,
    }


def start_side(device: str, directory: Path, profile: str, tokens: int) -> dict[str, Any]:
    """Runs one side in a process of its own."""
    environment = dict(os.environ, AXPRESS_EMU_PROFILE=profile, AXPRESS_EMU_LOAD_TIME="0")
    if device == "axengine":
        environment |= {"AXPRESS_EMU_MODE": "tolerant", "LD_LIBRARY_PATH": str(emulator_library().parent)}
    command = [
        sys.executable,
        __file__,
        "--side",
        device,
        "--directory",
        str(directory),
        "--profile",
        profile,
        "--tokens",
        str(tokens),
    ]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise SystemExit(f"the {device} side failed:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="qwen3-0.6b-w8a16-pi5")
    parser.add_argument("--tokens", type=int, default=5)
    parser.add_argument("--paced", action="store_true", help="let the profile pace executes and copies (modelled time)")
    parser.add_argument("--side", choices=("emu", "axengine"), help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(run_loop(args.directory, args.side, args.profile, args.tokens)))
        return
    if importlib.util.find_spec("axengine") is None:
        raise SystemExit("the vendor's PyAXEngine wheel (axengine) is not installed: nothing to compare with")
    with tempfile.TemporaryDirectory() as folder:
        package = hollow(args.profile, Path(folder) / "model")
        pace = args.profile if args.paced else "none"
        sides = {side: start_side(side, package, pace, args.tokens) for side in ("axengine", "emu")}
    vendor, ours = sides["axengine"], sides["emu"]
    print(
        f"{args.profile} shapes, emulated card, {'modelled time' if args.paced else 'a card that takes no time'},"
        f" {args.tokens} tokens"
    )
    print(f"{'':28}{'PyAXEngine':>14}{'axpress':>14}")
    for key in (
        "tokens_per_s",
        "calls_per_token",
        "device_calls_per_token",
        "host_copies_per_token",
        "waits_per_token",
    ):
        print(f"{key:28}{vendor[key]:14.1f}{ours[key]:14.1f}")
    print(
        f"{'bus MB per token':28}{vendor['bus_bytes_per_token'] / 1e6:14.2f}{ours['bus_bytes_per_token'] / 1e6:14.2f}"
    )
    print("logits equal, bit for bit:", vendor["logits"] == ours["logits"])
    write_results(
        "vendor_python", {"profile": args.profile, "paced": args.paced, "pyaxengine": vendor, "axpress": ours}
    )


if __name__ == "__main__":
    main()
