"""The profiles, checked against published rates: the vendor's own decode loop, modelled, comes out at the vendor's
tokens/s."""

from __future__ import annotations

import ctypes
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ctypes_runner import LIBRARY, LoadedFile, Runner, Runtime, open_runtime
from tiny_models import QWEN3_5, Tiny, convert_tiny

from axpress.core.capacity.profile_costs import model_shape, profile_costs
from axpress.core.errors import PackageError
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.model_package import open_package
from axpress.core.model_files.simulated_axmodel import published_bytes
from axpress.core.model_files.timing_profile import load_profile, profile_path

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


HYBRID = "qwen3.5-0.8b-int4-pi5"


def test_a_hybrid_has_the_published_rates_and_memory(tmp_path: Path) -> None:
    package, profile = open_package(hollow(HYBRID, tmp_path / "out")), load_profile(HYBRID)
    assert package.recurrent == (True, True, True, False) * 6
    shape = model_shape(package, profile)
    assert shape == model_shape(replace(package, simulated=False), profile), "files and profile say the same"
    assert shape.row_bytes == 12 << 10 and shape.state_bytes == 18 * 2 * (3 * 6144 + 16 * 128 * 128)
    costs = profile_costs(shape, profile.cost)
    rates = [1 / costs.single_seconds(context) for context in (100, 2000)]
    assert rates == pytest.approx([27.0, 25.2], rel=0.01)
    assert package.device_bytes + (profile.memory.idle_cmm_mib << 20) == pytest.approx(0.9e9, rel=0.01)


def test_recurrent_layers_take_their_own_time(tmp_path: Path) -> None:
    """Of files that say no costs: those of the profile, decode's and a chunk's; attention as its rows are."""
    tiny = Tiny(QWEN3_5, layers=2, layer_types=("linear_attention", "full_attention"))
    package, cost = open_package(convert_tiny(tmp_path, tiny, rows=255, chunk=16)), load_profile(HYBRID).cost
    took = []
    with open_runtime(HYBRID) as runtime:
        for path in package.layer_files:
            file = LoadedFile(runtime, path)
            for group in (0, 1):
                sizes = [file.input_bytes(index, group) for index in range(5)]
                inputs = [runtime.malloc(size) for size in sizes]
                outputs = [runtime.malloc(max(size, 1 << 10)) for size in (sizes[0], sizes[1], sizes[3])]
                runtime("axemu_set", b"MODE", b"tolerant")
                runtime("axemu_reset_counters")
                file.execute(group, inputs, outputs)
                took.append(1e3 * modelled_seconds(runtime) - cost.sync_call_ms)
                for buffer in inputs + outputs:
                    runtime("axclrtFree", ctypes.c_void_p(buffer))
            file.close()
        runtime("axemu_set", b"MODE", b"strict")
    assert took == pytest.approx([cost.recurrent_decode_ms, cost.recurrent_chunk_ms, 0.79, 3.3], abs=0.02)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("full_attention_interval = 4\n", ""), "needs full_attention_interval"),
        (('"qwen3_5_text"', '"qwen3"'), "for no other"),
    ],
)
def test_a_profile_says_that_layers_are_recurrent(change: tuple[str, str], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(profile_path(HYBRID).read_text().replace(*change))
    with pytest.raises(PackageError, match=sentence):
        load_profile(str(path))
