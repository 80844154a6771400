"""The emulated card's vision encoders against transformers: every output of every family, float32 against float32."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import emu_native
import numpy as np
import pytest
from emu_native import Model
from tiny_vision_models import CASES, TinyVision, encoder_input, picture, reference, save

from axpress.core.model_files.convert import convert
from axpress.core.model_files.vision_axmodel import VisionMeta, read_encoder

torch = pytest.importorskip("torch", reason="the reference needs torch and transformers")


@dataclass
class Pair:
    """A model of transformers, and its encoder as converted."""

    model: Any
    path: Path
    meta: VisionMeta

    def encode(self, pixels: np.ndarray) -> list[np.ndarray]:
        """What the emulated card makes of a picture."""
        opened = Model(emu_native.library(), self.path.read_bytes())
        shape = (self.meta.num_tokens, self.meta.out_hidden)
        outputs = [np.zeros(shape, np.float32) for _ in range(1 + len(self.meta.deepstack))]
        rows = opened.execute(0, [encoder_input(self.meta, pixels)], outputs)
        opened.close()
        assert rows == self.meta.num_tokens
        return outputs


@pytest.fixture(scope="module", params=CASES, ids=lambda tiny: tiny.name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    tiny: TinyVision = request.param
    base = tmp_path_factory.mktemp("vision")
    model = save(tiny, base / "hf")
    options = {"image_size": tiny.image_size, "image_input": tiny.image_input}
    package = convert(base / "hf", base / "out", rows=63, chunk=16, history=(0, 16), progress=False, **options)
    (path,) = [path for path in package.rglob("*.axmodel") if "_p16_" not in path.name and "post" not in path.name]
    yield Pair(model, path, read_encoder(path)[0])


def test_outputs_are_those_of_transformers(pair: Pair) -> None:
    pixels = picture(pair.meta.image_size)
    mine, wanted = pair.encode(pixels), reference(pair.model, pair.meta, pixels)
    assert len(mine) == len(wanted)
    for number, (got, want) in enumerate(zip(mine, wanted, strict=True)):
        assert got.shape == want.shape
        assert np.std(want) > 0.1, "so flat that the test shows nothing"
        assert np.abs(got - want).max() < 1e-4 * np.abs(want).max(), f"output {number}"


def test_threads_and_instruction_sets_give_the_same_bits(pair: Pair) -> None:
    library: ctypes.CDLL = emu_native.library()
    pixels, seen = picture(pair.meta.image_size, 1), set()
    try:
        for isa in ("scalar", "avx2", "avx512", "neon"):
            for threads in (1, 3):
                if library.emu_math_select(isa.encode()) == 0:
                    library.emu_threads_set(threads)
                    seen.add(b"".join(output.tobytes() for output in pair.encode(pixels)))
    finally:
        library.emu_math_select(b"auto")
        library.emu_threads_set(1)
    assert len(seen) == 1
