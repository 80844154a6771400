"""Fixtures shared by the rooms' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT
from server_process import RunningServer


@pytest.fixture(scope="session")
def shared_data() -> Path | None:
    """Data that lies beside a developer's checkout; None elsewhere."""
    path = ROOT.parent / "shared" / "data"
    return path if path.is_dir() else None


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """`axpress serve` of the demo model. A file that wants another model or other flags has a `server` of its own."""
    with RunningServer("--emu-profile", "none") as running:
        yield running
        running.wait(running.idle, 20, "idle")
