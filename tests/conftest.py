"""Fixtures shared by the rooms' tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from repository import PATIENCE, ROOT
from server_process import RunningServer

os.environ["AXPRESS_MODELS"] = os.devnull  # a developer's own models are no part of any test

LONGEST = (
    "tests/core/doctor/test_doctor_probe.py",
    "tests/server/page/test_status.py",
    "tests/server/page/test_chat.py",
    "tests/real/",
    "tests/core/engine/test_exactness.py",
    "tests/server/serving/",
    "tests/deploy/",
    "tests/server/page/",
    "tests/server/test_models_command.py",
)
"""Begun first, so that no process is left alone with one of them at the end (make test, which keeps this order)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; everything else as it was found."""
    items.sort(key=lambda item: next((at for at, name in enumerate(LONGEST) if item.nodeid.startswith(name)), 99))


@pytest.fixture(scope="session")
def shared_data() -> Path | None:
    """Data that lies beside a developer's checkout; None elsewhere."""
    path = ROOT.parent / "shared" / "data"
    return path if path.is_dir() else None


def one_server(fixture_name: str, config: pytest.Config) -> Literal["session", "module"]:
    """How long the server of `fixture_name` lives. Under QEMU its start takes minutes."""
    return "session" if PATIENCE > 1 else "module"


@pytest.fixture(scope=one_server)
def server() -> Iterator[RunningServer]:
    """`axpress serve` of the demo model. A file that wants another model or other flags has a `server` of its own."""
    with RunningServer("--emu-profile", "none") as running:
        yield running
        running.wait(running.idle, 20, "idle")
