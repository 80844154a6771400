"""Fixtures shared by the rooms' tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT
from server_process import RunningServer

os.environ["AXPRESS_MODELS"] = os.devnull  # a developer's own models are no part of any test


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
