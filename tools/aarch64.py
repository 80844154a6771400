"""axpress on the Pi's processor without a Pi: `make test-aarch64`. Needs a Debian on x86-64, root, and the network.

    python tools/aarch64.py [--suite bookworm|trixie] [--minutes 40] [--work build/aarch64] [--jobs N] [--only PATH ...]

Makes an arm64 Debian in a folder (arm64_debian.py), builds the wheel there with warnings as errors, says what it asks
of a system, runs the native tests (NEON against scalar, bit for bit), then those tests of core and server that finish
in the minutes given, installs the wheel in an empty environment, serves, and asks with OpenAI's client. Ends with a
table, and with an error where anything failed. Emulated: nothing here tells how fast a Pi is."""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import time
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from arm64_debian import ROOT, SUITES, Arm64Debian
from wheels import build_toy

NATIVE = ("mask", "sampler", "math", "runtime", "loading")
GROUPS = {
    "the emulated card": "emu/test_arithmetic.py emu/test_model_files.py emu/test_runtime_api.py"
    " emu/test_recurrent_layers.py emu/test_vision_modelled.py",
    "core: device": "core/device/test_backend.py core/device/test_library.py core/device/test_lifetime.py"
    " core/device/test_step.py core/device/test_program.py core/device/test_shape_groups.py"
    " core/device/test_head_logits.py core/device/test_pruned_layers.py core/recovery",
    "core: engine": "core/engine/test_engine.py core/engine/test_engine_failures.py"
    " core/engine/test_constrained_answers.py core/engine/test_pass_planner.py core/engine/test_draft_proposer.py"
    " core/engine/test_scored.py core/engine/test_split.py core/engine/test_long_contexts.py"
    " core/engine/test_hybrids.py",
    "core: sampling, caches, capacity": "core/sampling core/kv_cache core/capacity",
    "core: texts and grammars": "core/tokenizer/test_detokenizer.py core/structured_output",
    "core: pictures": "core/vision/test_decoding.py",
    "core: model files": "core/model_files/test_model_package.py core/model_files/test_package_names.py"
    " core/model_files/test_package_rules.py core/model_files/test_published_packages.py"
    " core/model_files/test_sampling_defaults.py core/model_files/test_trimmed_head.py core/model_store/test_store.py",
    "server, in one process": "server/docs/test_field_table.py server/monitor/test_health.py"
    " server/ollama/test_ollama_requests.py server/openai/test_chat_request.py server/serving/test_card_reading.py"
    " server/serving/test_chat_format.py server/serving/test_engine_bridge.py server/serving/test_family_formats.py"
    " server/serving/test_model_names.py server/serving/test_output_parser.py server/serving/test_sampling_rule.py"
    " server/serving/test_submission.py server/test_check_command.py",
    "server, served": "server/openai/test_chat.py server/openai/test_choices.py server/openai/test_logprobs.py"
    " server/openai/test_response_formats.py server/openai/test_tool_calls.py server/openai/test_tokens.py"
    " server/openai/test_completions.py server/ollama/test_ollama.py server/anthropic/test_messages.py"
    " server/http/test_access.py server/http/test_rates.py",
}
"""What is run, below tests/: of each room what the processor could change, and what finishes in the time. Each group is
one run of pytest, whose start alone takes half a minute under QEMU."""

LEFT_OUT = {
    "tests/server/page": "no browser inside",
    "tests/emu/test_arithmetic_oracle.py, emu/test_vision.py, test_vision_text, test_axes, core/vision/test_adapters,"
    " core/engine/test_images, test_image_exactness, server/test_images, tests/real, core/tokenizer/test_tokenizer.py":
        "PyTorch for aarch64 weighs gigabytes, and transformers wants it; the same bits as x86-64's are shown by the"
        " native tests",
    "core/doctor, device/test_probe, engine/test_exactness, tokenizer/test_vendor_tokenizer, model_files/test_convert,"
    " test_gguf, model_store/test_hub, server/serving/test_recovery, test_lifecycle and others of them":
        "long already on a PC",
    "tests/deploy, examples, docs, tools, bench, server/terminal, server/test_hostile_*, test_attacks":
        "nothing of the processor's in them that is not above, and take hours under QEMU",
}  # fmt: skip
PATIENCE = 20
"""How many times slower than on a Pi or PC a test may be: AXPRESS_TEST_PATIENCE."""

OUTCOME = re.compile(r"^tests/\S+::.* (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")


@dataclass
class Row:
    """What came of one folder or program."""

    name: str
    seconds: float = 0.0
    computed: float = 0.0
    """Seconds of the processors: more or less than `seconds`, where it had two of them, or shared them with others."""
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    note: str = ""

    @property
    def failed(self) -> int:
        return self.outcomes["FAILED"] + self.outcomes["ERROR"]

    def line(self) -> str:
        run, counts = sum(self.outcomes.values()), self.outcomes
        numbers = (run, counts["PASSED"] + counts["XFAIL"], counts["SKIPPED"], self.failed)
        cells = (self.name, *numbers, f"{self.seconds / 60:.1f}", f"{self.computed / 60:.1f}", self.note)
        return f"| {' | '.join(map(str, cells))} |"

    def took(self, began: tuple[float, float]) -> None:
        """Since `began`, a `clock()`."""
        self.seconds, self.computed = (now - then for now, then in zip(clock(), began, strict=True))


def clock() -> tuple[float, float]:
    """Seconds, and seconds that programs which ended have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic(), used.ru_utime + used.ru_stime


def native(debian: Arm64Debian) -> list[Row]:
    """The tests in C, compiled and run inside. The one of the arithmetic prints fingerprints of what NEON and plain C
    computed alike, which must be those of this machine's processor."""
    rows = []
    for test in NATIVE:
        row, began = Row(f"native: {test}"), clock()
        options = ["plain", f"TEST={test}"]
        make = ["make", "-s", "-C", debian.inside(debian.source) / "tests/native", *options, "OUT=/w/native"]
        done = subprocess.run(debian.command(*make), stdout=subprocess.PIPE, text=True, timeout=900)
        works = done.returncode == 0
        if test == "math":
            here = ["make", "-s", "-C", ROOT / "tests/native", *options, f"OUT={debian.work / 'native-here'}"]
            said = subprocess.run(here, stdout=subprocess.PIPE, text=True, check=True).stdout
            fingerprints = [re.findall(r"fingerprint.*", text) for text in (done.stdout, said)]
            works = works and "neon: compared with scalar" in done.stdout and fingerprints[0] == fingerprints[1]
            row.note = f"NEON = plain C = x86-64: {', '.join(fingerprints[0])}" if works else str(fingerprints)
        row.took(began)
        row.outcomes["PASSED" if works else "FAILED"] += 1
        print(done.stdout, end="" if works else "^ failed\n", flush=True)
        rows.append(row)
    return rows


def next_generation(debian: Arm64Debian) -> None:
    """build/ax8860/libaxcl_rt.so, which an in-place build would have made, of the wheel's objects."""
    link = """cd "$1"; mkdir -p build/ax8860; cc -shared $(find build/temp.*/csrc/emu -name '*.o') -pthread -lm -ldl \\
-Wl,-soname,libaxcl_rt.so -Wl,--version-script=csrc/emu/ax8860.map -o build/ax8860/libaxcl_rt.so"""
    debian.run("bash", "-euc", link, "link", debian.inside(debian.source))


def site(debian: Arm64Debian, wheel: Path, toy: Path) -> Path:
    """A folder with both wheels and all that the tests need, as wheels."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    heavy = re.compile("torch|playwright|axe-playwright|accelerate|transformers")
    tests = [line for line in project["optional-dependencies"]["test"] if not heavy.match(line)]
    needs = debian.work / "test-needs.txt"
    needs.write_text("\n".join([*project["dependencies"], *tests]) + "\n")
    folder = debian.work / f"site-{debian.tag}"
    if not folder.exists():
        wheels = debian.wheels_for(needs)
        debian.pip("install", "--no-compile", "--target", folder, "--no-index", "--find-links", wheels, "-r", needs)
    axpress = debian.work / f"unpacked-{debian.tag}"
    debian.pip("install", "--no-compile", "--no-deps", "--upgrade", "--target", axpress, wheel, toy)
    return folder


def pytest(debian: Arm64Debian, name: str, paths: list[str], jobs: int, seconds: float) -> Row:
    """One group of tests; its lines are shown as they come, and counted even where the time runs out."""
    row, began = Row(name), clock()
    setting = [f"AXPRESS_TEST_PATIENCE={PATIENCE}", f"PYTHONPATH=/w/unpacked-{debian.tag}:/w/site-{debian.tag}"]
    options = ["-v", "-p", "no:cacheprovider", "--hypothesis-profile", "ci", "--timeout", str(60 * PATIENCE)]
    spread = ["-n", str(jobs), "--dist", "loadfile"] if jobs > 1 else []
    source = str(debian.inside(debian.source))
    test = debian.command("env", "-C", source, *setting, "python3", "-P", "-m", "pytest", *options, *spread, *paths)
    process = subprocess.Popen(test, stdout=subprocess.PIPE, text=True)
    guard = subprocess.Popen(["sh", "-c", f"sleep {seconds:.0f}; kill -KILL {process.pid}"])
    assert process.stdout is not None
    with (debian.work / "pytest.log").open("a", buffering=1) as log:
        for line in process.stdout:
            log.write(line)
            if found := OUTCOME.match(line) or re.match(r"\[gw\d+\] .* (PASSED|FAILED|ERROR|SKIPPED) tests/", line):
                row.outcomes[found[1]] += 1
            if found := re.match(r"SKIPPED \[(\d+)\] \S+: (.*)", line):
                row.reasons[found[2]] += int(found[1])
            if re.match(r"(FAILED|ERROR) ", line):
                row.outcomes["ERROR"] += "::" not in line  # a file that cannot be imported
                print(line.rstrip(), flush=True)
    code = process.wait()
    guard.kill()
    guard.wait()
    row.took(began)
    if code < 0:
        row.note = "the minutes were over: not finished"
    elif code not in (0, 1, 5):
        row.outcomes["ERROR"] += 1
        row.note = f"pytest ended with {code}"
    print(row.line(), flush=True)
    return row


def suites(debian: Arm64Debian, jobs: int, minutes: float, only: list[str]) -> list[Row]:
    """All groups, one after the other, as far as the time goes."""
    until, rows = time.monotonic() + 60 * minutes, []
    groups = {name: [f"tests/{path}" for path in paths.split()] for name, paths in GROUPS.items()}
    for name, paths in {" ".join(only): only}.items() if only else groups.items():
        left = until - time.monotonic()
        if left < 30:
            rows.append(Row(name, note="the minutes were over: not run"))
        else:
            rows.append(pytest(debian, name, paths, jobs, left))
    return rows


def needs_of(wheel: Path, debian: Arm64Debian) -> str:
    """The newest symbol of glibc that the wheel's libraries ask for, and how far apart their segments lie."""
    script = r"""cd /w && rm -rf looked-at && mkdir looked-at && python3 -m zipfile -e "$1" looked-at
find looked-at -name '*.so' | while read -r so; do readelf -VW "$so"; readelf -lW "$so"; done"""
    command = debian.command("bash", "-euc", script, "look", debian.inside(wheel))
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    newest = max(tuple(map(int, name.split("."))) for name in re.findall(r"GLIBC_([0-9.]+)", said))
    apart = min(int(line.split()[-1], 16) for line in said.splitlines() if line.strip().startswith("LOAD"))
    if apart < 16384:
        raise SystemExit(f"segments {apart} bytes apart: too close for the pages of a Pi 5, which have 16 KiB")
    return f"newest symbol GLIBC_{'.'.join(map(str, newest))}, segments {apart >> 10} KiB apart"


def table(rows: Iterable[Row], system: str) -> str:
    """All that was run, and what was not, with reasons."""
    rows = list(rows)
    total = Row("all", sum(row.seconds for row in rows), sum(row.computed for row in rows))
    total.outcomes = sum((row.outcomes for row in rows), Counter())
    lines = [f"{system}, under QEMU (emulated)", "| tests | run | passed | skipped | failed | minutes | of CPU | |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |", *(row.line() for row in (*rows, total))]  # fmt: skip
    lines += [f"skipped {n}: {reason}" for reason, n in sum((row.reasons for row in rows), Counter()).most_common()]
    lines += [f"left out: {paths}: {reason}" for paths, reason in LEFT_OUT.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--suite", choices=SUITES, default="bookworm", help="Debian (default bookworm, Python 3.11)")
    parser.add_argument("--minutes", type=float, default=40.0, help="for the tests in Python (default 40)")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "aarch64", help="folder, kept: 1.5 GB")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes of pytest")
    parser.add_argument("--only", nargs="+", metavar="PATH", help="these tests instead, such as tests/core/engine")
    arguments = parser.parse_args()
    began = time.monotonic()

    def step(what: str) -> None:
        print(f"== {(time.monotonic() - began) / 60:.1f} min: {what}", flush=True)

    debian = Arm64Debian(arguments.suite, arguments.work.resolve())
    step(f"Debian {arguments.suite} for arm64")
    debian.make()
    step("the wheel, built inside, warnings are errors")
    wheel = debian.build_wheel(debian.work / "raw")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {needs_of(wheel, debian)}")
    toy = build_toy(debian.python, debian.work / "raw")
    step("packages for the tests")
    site(debian, wheel, toy)
    next_generation(debian)
    step("native tests")
    rows = native(debian)
    step("pytest")
    rows += suites(debian, arguments.jobs, arguments.minutes, arguments.only or [])
    step("the wheel in an empty environment, served, asked by OpenAI's client")
    debian.try_wheels(wheel, toy, client=True)
    step("done")
    print(table(rows, f"{wheel.name}, Debian {arguments.suite}"))
    raise SystemExit(any(row.failed for row in rows))


if __name__ == "__main__":
    main()
