"""`axpress doctor` on the command line: arguments, text or JSON, the exit code."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import version

OPEN_SECONDS = 75.0
"""Opening a card that answers takes a second or two; one that does not keeps a program in the driver for 50."""


def add_arguments(
    parser: argparse.ArgumentParser, device: Callable[[str], Any], seconds: Callable[[str], float]
) -> None:
    """Defines the subcommand; `device` and `seconds` read such arguments as the other subcommands do."""
    parser.description = "Looks at everything a card needs and says what to do. Exit code 1 where something is wrong."
    add = parser.add_argument
    add("model_dir", nargs="?", type=Path, metavar="MODEL_DIR", help="also look at this model directory")
    add("--device", type=device, default="auto", help="auto (default), emu, or a card's index")
    add("--json", action="store_true", help="print one JSON object (docs/doctor.md) instead of lines")
    add(
        "--timeout",
        type=seconds,
        default=OPEN_SECONDS,
        metavar="S",
        help=f"how long the card may take to answer (default {OPEN_SECONDS:.0f})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns the exit code."""
    if arguments.device == "axengine":
        raise OSError("the doctor opens the card itself: use auto, emu, or a card's index")
    from axpress.core.doctor.check import Check, State
    from axpress.core.doctor.examination import Subject, as_json, examine
    from axpress.core.doctor.host import Host

    subject = Subject(arguments.model_dir, arguments.device, arguments.timeout)
    checks: list[Check] = []
    for check in examine(Host(), subject, _waiting):
        checks.append(check)
        if not arguments.json:
            print(check.lines(), flush=True)
    result = as_json(checks, subject, version())
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        kind = " on the emulated card" if subject.emulated else ""
        print(f"{result['wrong']} wrong, {result['warnings']} to look at, of {len(checks)} checks{kind}")
    return int(any(check.state is State.WRONG for check in checks))


def _waiting(seconds: float) -> None:
    if round(seconds) % 10 == 5:
        print(f"axpress: the card has not answered for {seconds:.0f} s, still waiting", file=sys.stderr)
