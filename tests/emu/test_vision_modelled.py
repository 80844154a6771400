"""What a picture costs by the profile of a published model, against what is published of it."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import numpy as np
import pytest
from ctypes_runner import LIBRARY, Runtime, open_runtime
from picture_runner import Encoder, Picture, PictureRunner, Prompt

from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.model_package import open_package

pytestmark = pytest.mark.skipif(not LIBRARY.is_file(), reason="the emulated runtime is not built")


def test_modelled_time_of_a_picture_is_the_published_one(tmp_path: Path) -> None:
    """Qwen3-VL-2B on a Pi 5 with the vendor's runner: 192 ms a picture, 597 ms to the first token. This driver waits
    for each call, too."""
    package = open_package(hollow("qwen3-vl-2b-w8a16-pi5", tmp_path / "hollow"))
    assert package.vision is not None
    with open_runtime("qwen3-vl-2b-w8a16-pi5") as runtime:
        runtime("axemu_set", b"SPEED", b"1000")
        encoder = Encoder(runtime, package.vision.encoder)
        runner = PictureRunner(runtime, package)
        spent = [modelled_ms(runtime)]
        rows, *added = encoder.encode(np.zeros((576, 512, 3), np.uint8))
        spent.append(modelled_ms(runtime))
        prompt = Prompt.of([[1] * 10, ("picture", 5, 12, 12), [1] * 10])
        runner.start(prompt, Picture(rows, added))
        for part in (prompt.ids[:128], prompt.ids[128:]):
            runner.run_layers(runner.group_for(128), part)
        runner.logits_of(runner.x[0])
        spent.append(modelled_ms(runtime))
        runtime("axemu_set", b"SPEED", b"1")
        runner.close()
        encoder.close()
    assert 192 <= spent[1] - spent[0] < 192 * 1.1
    assert abs(spent[2] - spent[0] - 597) < 0.07 * 597


def modelled_ms(runtime: Runtime) -> float:
    """Modelled milliseconds so far."""
    report = ctypes.create_string_buffer(1 << 16)
    runtime.lib.axemu_report(report, ctypes.c_size_t(len(report)))
    return float(json.loads(report.value)["modelled_ns"]) / 1e6
