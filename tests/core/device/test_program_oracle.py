"""The core against plain synchronous calls: the same logits and cache rows, bit for bit, in every mode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core_runner import CoreRunner
from ctypes_runner import LIBRARY, Runner, open_runtime
from oracle_cases import CASES, HYBRIDS, Case, package_of
from tiny_models import write_checkpoint

from axpress.core.device.model_loader import open_model
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.model_package import open_package

pytestmark = pytest.mark.skipif(not LIBRARY.is_file(), reason="the emulated runtime is not built")

# asynchronous, K/V rows written in place by decode
MODES = [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.parametrize("case", [*CASES, *HYBRIDS], ids=lambda case: case.label)
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
    for use_async, decode in MODES:
        modes = {"use_async": use_async, "in_place_decode": decode}
        core = CoreRunner(package, **modes)
        try:
            logits = np.concatenate([core.feed(ids, width), core.feed(ids[:10], 1)]).tobytes()
            assert (logits, core.cache_bytes()) == expected, modes
        finally:
            core.close()


def test_a_hollow_package_leaves_the_published_memory(tmp_path: Path) -> None:
    """Of 7040 MiB, more than fits into 32 bits, the 0.6B model leaves about the 5068 MiB that are published."""
    model = open_model(hollow("qwen3-0.6b-w8a16-pi5", tmp_path / "out"), "emu", "none", banks=1)
    try:
        properties = model.card.properties()
        assert (model.info.num_layers, model.info.vocab_size, model.info.context_length) == (28, 151936, 2047)
    finally:
        model.close()
    assert properties["total_cmm"] == 7040 << 20
    assert properties["free_cmm"] / 2**20 == pytest.approx(5068, abs=16)
