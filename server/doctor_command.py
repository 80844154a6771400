"""`axpress doctor` on the command line: arguments, text or JSON, the exit code."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axpress.core.errors import PackageError

from . import version
from .model_arguments import known_directory

if TYPE_CHECKING:
    from axpress.core.doctor.compare import Comparison
    from axpress.core.doctor.examination import Subject
    from axpress.core.doctor.host import Host

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
    add("--bundle", type=Path, metavar="FILE",
        help="also write all that an issue needs to FILE: checks, versions, the driver's kernel lines, and what the "
        "running server says of itself (its key: AXPRESS_API_KEY); nothing private")  # fmt: skip
    add("--url", default="http://127.0.0.1:8000", help="that server (default http://127.0.0.1:8000)")
    add = parser.add_argument_group("measuring a card, and using what was measured").add_argument
    add("--probe", action="store_true", help="then run experiments with MODEL_DIR, under 10 minutes; writes a report")
    add("--out", type=Path, metavar="FILE", help="where the report goes (default axpress-probe-MODEL-TIME.json)")
    add("--compare", type=Path, metavar="REPORT", help="only tell where this report differs from what we assume")
    add("--profile", metavar="NAME", help="timing profile to compare with (default: the nearest)")
    add("--make-profile", metavar="NAME", help="write NAME.toml, which paces the emulated card like that report's")
    parser.set_defaults(run=lambda arguments: run(parser, arguments))


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns the exit code."""
    if arguments.probe and arguments.model_dir is None:
        parser.error("--probe needs MODEL_DIR: the experiments load its head and some layers")
    if arguments.make_profile and not (arguments.probe or arguments.compare):
        parser.error("--make-profile needs --compare REPORT, or --probe")
    if arguments.device == "axengine":
        parser.error("the doctor opens the card itself: use --device auto, emu, or a card's index")
    if arguments.compare:
        return _compare(arguments, arguments.compare)
    from axpress.core.doctor.examination import Subject, card_environ
    from axpress.core.doctor.host import Host

    if arguments.model_dir is not None:
        arguments.model_dir = known_directory(arguments.model_dir)
    subject = Subject(arguments.model_dir, arguments.device, arguments.timeout)
    host = Host(environ=card_environ(Host(), subject))
    quiet = arguments.json and arguments.probe
    if (code := _examine(host, subject, arguments, quiet)) or not arguments.probe:
        return code
    return _probe(host, subject, arguments)


def _examine(host: Host, subject: Subject, arguments: argparse.Namespace, quiet: bool) -> int:
    """Prints all checks, writes the bundle; the exit code. `quiet`: only what is wrong, on standard error."""
    from axpress.core.doctor.check import Check, State
    from axpress.core.doctor.examination import as_json, examine

    checks: list[Check] = []
    as_object = arguments.json
    for check in examine(host, subject, _waiting):
        checks.append(check)
        if not as_object or (quiet and check.state is State.WRONG):
            print(check.lines(), file=sys.stderr if quiet else sys.stdout, flush=True)
    result = as_json(checks, subject, version())
    if as_object and not quiet:
        print(json.dumps(result, indent=1))
    elif not quiet:
        kind = " on the emulated card" if subject.emulated else ""
        print(f"{result['wrong']} wrong, {result['warnings']} to look at, of {len(checks)} checks{kind}")
    if arguments.bundle is not None:
        from .bundle_command import write_bundle

        _to_stderr(write_bundle(arguments.bundle, host, subject, checks, arguments.url))
    return int(result["wrong"] > 0)


def _waiting(seconds: float) -> None:
    if round(seconds) % 10 == 5:
        print(f"axpress: no answer for {seconds:.0f} s, still waiting", file=sys.stderr)


def _probe(host: Host, subject: Subject, arguments: argparse.Namespace) -> int:
    """Runs the experiments on a card that is well and alone; the exit code."""
    from axpress.core.doctor.battery.battery import run_battery
    from axpress.core.doctor.battery.report import ProbeReport
    from axpress.core.doctor.driver import card_users
    from axpress.core.doctor.examination import library_of
    from axpress.core.model_files.model_package import open_package

    if not subject.emulated and (users := card_users(host)[0]):
        raise PackageError(
            f"{users[0][1]} (process {users[0][0]}) has the card open: end it, the experiments run alone"
        )
    package = open_package(subject.model_dir or Path())
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", package.name)
    out = arguments.out or Path(f"axpress-probe-{name}-{time.strftime('%Y%m%d-%H%M%S')}.json")
    report = ProbeReport(out, host, package, version(), subject.emulated)
    say = _to_stderr if arguments.json else print
    library = library_of(host, subject)
    complete = run_battery(package, library or "", subject.index, report, host.environ, say)
    say(f"the report is in {out}")
    if arguments.json:
        print(json.dumps(report.data, indent=1))
    else:
        _compare(arguments, out)
    return int(not complete)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def _compare(arguments: argparse.Namespace, path: Path) -> int:
    """Prints where a report differs from assumptions and profile, and makes a profile of it where that is asked for."""
    from axpress.core.doctor.battery.report import read_report
    from axpress.core.doctor.compare import compare
    from axpress.core.doctor.measured import write_profile

    report = read_report(path)
    compared = compare(report, arguments.profile)
    if arguments.json:
        print(json.dumps([_as_dict(one) for one in compared], indent=1))
    else:
        _print_comparison(compared, bool(report["emulated"]))
    if arguments.make_profile:
        made = write_profile(report, arguments.make_profile)
        given = made if made.is_absolute() or "/" in str(made) else Path(".") / made
        _to_stderr(
            f"axpress: {made} is written: axpress hollow ./{given} OUT_DIR, serve it with --emu-profile ./{given}"
        )
    return 0


def _as_dict(one: Comparison) -> dict[str, Any]:
    return {"subject": one.subject, "assumed": one.assumed, "seen": one.seen, "agrees": one.agrees}


def _print_comparison(compared: Iterable[Comparison], emulated: bool) -> None:
    compared = list(compared)
    for one in compared:
        print(one.line())
    different = sum(bool(one.seen) and not one.agrees for one in compared)
    card = "an EMULATED card" if emulated else "a card"
    print(f"{different} of {len(compared)} differ; the report is of {card}")
