"""bench/people.py: what it calls unreliable, and that a missing matplotlib is told before anything is measured."""

from __future__ import annotations

import importlib.util
import sys
import time

import pytest
from repository import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import people


def test_a_figure_is_unreliable_where_the_host_was_late() -> None:
    figures = [people.Figure("soon", "s", [1.0, 3.0, 2.0], 0.05), people.Figure("late", "s", [1.0], 0.06)]
    soon, late = people.table(figures, "modelled").splitlines()[2:]
    assert soon == "| soon | 2 s | 1 to 3 | 5% |"
    assert late == "| late | 1 s | 1 to 1 | 6% **unreliable** |"


def test_a_modelled_card_that_stands_still_is_the_hosts_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    now, busy = [100.0], [7.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(people.Lateness, "_read", staticmethod(lambda kind: (busy[0], 0.0)))
    lateness = people.Lateness("modelled")
    now[0], busy[0] = 110.0, 15.0
    assert lateness.share() == pytest.approx(0.2)


def test_matplotlib_is_looked_for_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["people.py"])
    monkeypatch.setattr(people, "modelled", lambda repeats: pytest.fail("measured"))
    with pytest.raises(SystemExit, match=r"pip install -e '\.\[bench\]'"):
        people.main()
