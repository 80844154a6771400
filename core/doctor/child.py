"""Work that touches the card, in a process of its own: a runtime that hangs or crashes takes only that process with it.

The child is `python -m MODULE FD ARGUMENT...`; it writes one JSON object a line to the descriptor FD, each as soon as
it is known, so that whatever ends the child, what it had found stays. `Reporter` is its side of that.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OUTPUT_TAIL = 2000  # characters of what the runtime printed that are kept
GRACE = 3.0  # seconds that a killed child may take to go
_left_alone: list[subprocess.Popen[bytes]] = []  # children that outlive their deadlines: nobody waits for them


@dataclass
class Outcome:
    """How a child ended. `records`: what it reported. `signal`: 0, or what ended it. `pid`: of one that still runs."""

    records: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    signal: int = 0
    timed_out: bool = False
    pid: int | None = None
    seconds: float = 0.0
    printed: str = ""

    @property
    def step(self) -> str:
        """What the child was about to do when it last said so; empty before that."""
        return next((str(record["step"]) for record in reversed(self.records) if "step" in record), "")

    @property
    def done(self) -> bool:
        """Whether it came to its end by itself."""
        return self.exit_code == 0

    def merged(self) -> dict[str, Any]:
        """All that it reported, as one object; later values count."""
        return {key: value for record in self.records for key, value in record.items() if key != "step"}

    def how(self) -> str:
        """Words for a child that did not come to its end."""
        where = f" in {self.step}" if self.step else ""
        if self.timed_out:
            return f"no answer{where} after {self.seconds:.0f} s"
        if self.signal:
            return f"the runtime crashed{where} ({signal.Signals(self.signal).name})"
        return f"the process ended with code {self.exit_code}{where}"


class Reporter:
    """The child's side: one line of JSON a call, written at once."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "w", buffering=1)

    def step(self, what: str) -> None:
        """Says what comes next, before it is done."""
        self.found(step=what)

    def found(self, **values: Any) -> None:
        """Says what was found."""
        self._file.write(json.dumps(values) + "\n")


def run_child(
    module: str,
    arguments: Sequence[str],
    seconds: float,
    *,
    environ: Mapping[str, str] | None = None,
    kill: bool = True,
    waiting: Callable[[float], None] | None = None,
) -> Outcome:
    """Runs `module` with `arguments` for at most `seconds`.

    `kill`: end it with SIGKILL at the deadline; without, it is left alone (a card wedges where its program is killed
    while it computes), and `Outcome.pid` says which one it is. A child that waits in the driver cannot be killed: then
    it is left, too. `waiting` is called about every second with the seconds that have passed.
    """
    reads, writes = os.pipe()
    outcome, started = Outcome(), time.monotonic()
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(writes), *arguments],
            stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT, pass_fds=(writes,),
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )  # fmt: skip
        os.close(writes)
        try:
            _collect(reads, outcome, started, seconds, waiting)
            _end(process, outcome, kill, max(started + seconds - time.monotonic(), GRACE))
        except BaseException:  # Ctrl-C: a child of ours may not go on alone where it can be ended
            if kill:
                process.kill()
            raise
        finally:
            os.close(reads)
        outcome.seconds = time.monotonic() - started
        printed.seek(0)
        outcome.printed = printed.read().decode(errors="replace")[-OUTPUT_TAIL:].strip()
    return outcome


def _collect(
    reads: int, outcome: Outcome, started: float, seconds: float, waiting: Callable[[float], None] | None
) -> None:
    """Reads reports until the child closes its end or the time is over."""
    rest = b""
    while (left := started + seconds - time.monotonic()) > 0:
        if not select.select([reads], [], [], min(left, 1.0))[0]:
            if waiting:
                waiting(time.monotonic() - started)
            continue
        if not (data := os.read(reads, 65536)):
            return
        *lines, rest = (rest + data).split(b"\n")
        outcome.records += [json.loads(line) for line in lines]
    outcome.timed_out = True


def _end(process: subprocess.Popen[bytes], outcome: Outcome, kill: bool, patience: float) -> None:
    if outcome.timed_out and kill:
        process.kill()
    try:
        code = process.wait(0.1 if outcome.timed_out and not kill else patience)
    except subprocess.TimeoutExpired:
        outcome.timed_out, outcome.pid = True, process.pid
        _left_alone.append(process)
        return
    if not outcome.timed_out:
        outcome.exit_code, outcome.signal = code, -min(code, 0)
