"""The core against plain synchronous calls: the same logits and cache rows, bit for bit, in every mode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from axpress.core.package import open_package
from core_runner import CoreRunner
from ctypes_runner import LIBRARY, Runner, open_runtime
from oracle_cases import CASES, Case, package_of
from tiny_models import write_checkpoint

pytestmark = pytest.mark.skipif(not LIBRARY.is_file(), reason="the emulated runtime is not built")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_the_core_gives_the_same_bits_as_plain_calls(case: Case, tmp_path: Path) -> None:
    """The loop of plain calls shares no code with the core."""
    write_checkpoint(case.tiny, tmp_path / "hf")
    package = package_of(case, tmp_path)
    ids = np.random.default_rng(5).integers(0, case.tiny.vocab, 150).tolist()
    width = case.chunk or 1
    with open_runtime() as runtime:
        plain = Runner(runtime, open_package(package))
        expected = np.concatenate([plain.feed(ids, width), plain.feed(ids[:10], 1)]).tobytes(), plain.cache_bytes()
        plain.close()
    for use_async in (False, True):
        for in_place in (False, True):
            core = CoreRunner(package, use_async=use_async, in_place_decode=in_place, in_place_chunk=False)
            try:
                logits = np.concatenate([core.feed(ids, width), core.feed(ids[:10], 1)]).tobytes()
                assert (logits, core.cache_bytes()) == expected, f"async {use_async}, rows in place {in_place}"
            finally:
                core.close()
