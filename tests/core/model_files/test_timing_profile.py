"""The profiles, checked against published rates: the vendor's own decode loop, modelled, comes out at the vendor's
tokens/s."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import numpy as np
import pytest
from ctypes_runner import LIBRARY, Runner, Runtime, open_runtime

from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.model_package import open_package
from axpress.core.model_files.simulated_axmodel import published_bytes
from axpress.core.model_files.timing_profile import load_profile

pytestmark = pytest.mark.skipif(not LIBRARY.is_file(), reason="the emulated runtime is not built")
PUBLISHED = {"qwen3-0.6b-w8a16-pi5": 12.88, "qwen3-1.7b-w8a16-pi5": 7.38, "qwen3-4b-w8a16-pi5": 3.65}
PUBLISHED_LOAD = {"qwen3-0.6b-w8a16-pi5": 36, "qwen3-4b-w8a16-pi5": 133}


def vendor_token(runtime: Runtime, runner: Runner) -> None:
    """One token as the vendor's newest runner asks for it: all calls synchronous, 6 a layer, uploads from pageable
    memory."""
    hidden, other = runner.x
    row = 2 * runner.kv
    runtime.upload(hidden, np.zeros(runner.hidden, np.uint16))
    for layer, (k, v) in zip(runner.layers, runner.caches, strict=True):
        runtime.upload(runner.indices, np.zeros(1, np.uint32))
        runtime.upload(runner.mask, np.zeros(runner.rows + 1, np.uint16))
        layer.execute(0, (k, v, runner.indices, hidden, runner.mask), (runner.k_out, runner.v_out, other))
        runtime.copy(k, runner.k_out, row)
        runtime.copy(v, runner.v_out, row)
        runtime.copy(hidden, other, 2 * runner.hidden)
    runner.head.execute(0, (hidden,), (runner.logits,))
    runtime.download(runner.logits, runner.vocab)


def modelled_seconds(runtime: Runtime) -> float:
    """Time in which the modelled card was busy since the counters were reset; the speed of this machine is not in
    it."""
    buffer = ctypes.create_string_buffer(1 << 16)
    runtime.lib.axemu_report(buffer, ctypes.c_size_t(len(buffer)))
    return json.loads(buffer.value)["modelled_ns"] / 1e9


@pytest.mark.parametrize("name", PUBLISHED_LOAD)
def test_loading_takes_the_published_time(name: str, tmp_path: Path) -> None:
    package, cost = open_package(hollow(name, tmp_path / "out")), load_profile(name).cost
    sizes = [published_bytes(path) for path in (package.head_file, *package.layer_files)]
    assert sum(map(cost.load_s, sizes)) == pytest.approx(PUBLISHED_LOAD[name], rel=0.01)


@pytest.mark.parametrize("profile", PUBLISHED)
def test_the_vendors_loop_runs_at_the_published_rate(profile: str, tmp_path: Path) -> None:
    package = open_package(hollow(profile, tmp_path / "out"))
    with open_runtime(profile) as runtime:
        runner = Runner(runtime, package)
        runtime("axemu_reset_counters")
        for _ in range(3):
            vendor_token(runtime, runner)
        rate = 3 / modelled_seconds(runtime)
        runner.close()
    assert rate == pytest.approx(PUBLISHED[profile], rel=0.05)
