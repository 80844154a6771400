"""Servers with keys and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from access_requests import APP, BOB, ENVIRONMENT, KEYS, bearer
from server_process import RunningServer, hollow_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return hollow_package(tmp_path_factory.mktemp("access"))


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(KEYS)
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def keyed(package: tuple[Path, Path], key_file: Path) -> Iterator[RunningServer]:
    """With keys, limits and an allowed page."""
    flags = [
        "--banks",
        1,
        "--key-concurrency",
        2,
        "--separate-keys",
        "--allow-origin",
        APP,
        "--allow-host",
        "Models.Example",
    ]
    flags += ["--api-keys", key_file, "--log-level", "debug"]
    environment = {"AXPRESS_API_KEYS": f" {ENVIRONMENT} ,"}
    with RunningServer(package[0], "--emu-profile", package[1], *flags, environment=environment) as running:
        yield running
        assert json.loads(running.request("GET", "/health", headers=bearer(BOB))[2])["num_answers"] == 0
    assert "CANARY" not in running.log


@pytest.fixture(scope="module")
def free(package: tuple[Path, Path]) -> Iterator[RunningServer]:
    """Without keys."""
    with RunningServer(package[0], "--emu-profile", "none", "--log-level", "debug") as running:
        yield running
    assert "CANARY" not in running.log
