"""Children of the doctor: whatever ends one, what it had found stays, and how it ended is told."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from axpress.core.doctor import child
from axpress.core.doctor.child import Outcome, run_child

CHILD = """
import os, sys, time
from axpress.core.doctor.child import Reporter
report = Reporter(int(sys.argv[1]))
report.found(first=1)
report.step("work")
print("words of the runtime", flush=True)
{ending}
report.found(second=2)
"""


def run(folder: Path, ending: str, seconds: float = 60.0, kill: bool = True) -> Outcome:
    (folder / "a_child.py").write_text(CHILD.format(ending=ending))
    return run_child("a_child", ["argument"], seconds, environ={"PYTHONPATH": str(folder)}, kill=kill)


def test_one_that_ends(tmp_path) -> None:
    outcome = run(tmp_path, "assert sys.argv[2] == 'argument'")
    assert outcome.done and outcome.merged() == {"first": 1, "second": 2}
    assert outcome.step == "work" and outcome.printed == "words of the runtime"


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("os.abort()", "the runtime crashed in work (SIGABRT)"),
        ("os._exit(7)", "the process ended with code 7 in work"),
        ("raise ValueError('no')", "the process ended with code 1 in work"),
    ],
)
def test_one_that_ends_badly(tmp_path, ending: str, words: str) -> None:
    outcome = run(tmp_path, ending)
    assert not outcome.done and outcome.how() == words
    assert outcome.merged() == {"first": 1} and "words of the runtime" in outcome.printed


def test_one_that_hangs_is_ended_at_its_deadline(tmp_path) -> None:
    started = time.monotonic()
    outcome = run(tmp_path, "open(__file__ + '.pid', 'w').write(str(os.getpid())); time.sleep(600)", seconds=8.0)
    assert outcome.timed_out and outcome.pid is None and time.monotonic() - started < 60
    assert outcome.how() == "no answer in work after 8 s" and outcome.merged() == {"first": 1}
    assert not Path(f"/proc/{(tmp_path / 'a_child.py.pid').read_text()}").exists()


def test_one_that_may_not_be_killed_is_left_alone(tmp_path) -> None:
    os.mkfifo(tmp_path / "go")
    outcome = run(tmp_path, f"open({str(tmp_path / 'go')!r}).read()", seconds=2.0, kill=False)
    assert outcome.timed_out and outcome.pid is not None
    os.kill(outcome.pid, 0)  # it lives
    with open(tmp_path / "go", "w"):
        pass  # and now comes to its end
    child._left_alone.pop().wait(60)


def test_those_who_wait_are_told(tmp_path) -> None:
    (tmp_path / "a_child.py").write_text(CHILD.format(ending="time.sleep(3)"))
    told: list[float] = []
    run_child("a_child", [], 60.0, environ={"PYTHONPATH": str(tmp_path)}, waiting=told.append)
    assert len(told) >= 2 and told == sorted(told)
