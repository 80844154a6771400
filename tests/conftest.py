"""Fixtures shared by the rooms' tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from repository import ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path | None:
    """Data that lies beside a developer's checkout; None elsewhere."""
    path = ROOT.parent / "shared" / "data"
    return path if path.is_dir() else None
