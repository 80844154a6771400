"""Prompts with pictures on the emulated card against transformers: encoder, positions of three axes, what is added
after the first layers, and the tokens that follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from card_rounding import inputs_rounded, states_rounded
from ctypes_runner import LIBRARY, open_runtime
from picture_runner import Encoder, Picture, PictureRunner, Prompt
from tiny_vision_models import CASES, IMAGE_TOKEN, START_TOKEN, encoder_input, grid_of, logits, picture, save

from axpress.core.model_files.convert import convert
from axpress.core.model_files.model_package import open_package
from axpress.core.model_files.safetensors import from_bf16, to_bf16
from axpress.core.model_files.vision_axmodel import VisionMeta, read_encoder

torch = pytest.importorskip("torch", reason="the reference needs torch and transformers")
pytestmark = pytest.mark.skipif(not LIBRARY.is_file(), reason="the emulated runtime is not built")
WHOLE = [tiny for tiny in CASES if not tiny.label]


@dataclass
class Pair:
    """A model of transformers, and its package on the emulated card."""

    model: Any
    meta: VisionMeta
    encoder: Encoder
    runner: PictureRunner

    def prompt(self, pictures: int) -> Prompt:
        """Random text around so many pictures."""
        random = np.random.default_rng(pictures)
        parts: list[Any] = []
        for _ in range(pictures):
            parts += [random.integers(0, 290, 7).tolist(), [START_TOKEN], ("picture", IMAGE_TOKEN, *grid_of(self.meta))]
        return Prompt.of([*parts, random.integers(0, 290, 9).tolist()])

    def pixels(self, count: int) -> list[np.ndarray]:
        return [picture(self.meta.image_size, number) for number in range(count)]

    def seen(self, pixels: list[np.ndarray]) -> Picture:
        """What the encoder sees in these pictures."""
        outputs = [self.encoder.encode(encoder_input(self.meta, each)) for each in pixels]
        rows, *added = [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
        return Picture(rows, added)


@pytest.fixture(scope="module", params=WHOLE, ids=lambda tiny: tiny.name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    tiny, base = request.param, tmp_path_factory.mktemp("vision")
    model = save(tiny, base / "hf")
    options = {"image_size": tiny.image_size, "image_input": tiny.image_input}
    out = convert(base / "hf", base / "out", rows=255, chunk=16, history=(0, 16, 128), progress=False, **options)
    package = open_package(out)
    assert package.vision is not None
    with open_runtime() as runtime:
        encoder = Encoder(runtime, package.vision.encoder)
        runner = PictureRunner(runtime, package)
        yield Pair(model, read_encoder(package.vision.encoder)[0], encoder, runner)
        runner.close()
        encoder.close()


def reference(pair: Pair, prompt: Prompt, pixels: list[np.ndarray], answer: list[int], rounded: bool) -> np.ndarray:
    """transformers' logits of the prompt and an answer, with the card's roundings or without."""
    rounding: AbstractContextManager[None] = nullcontext()
    states: AbstractContextManager[None] = nullcontext()
    if rounded:
        text = pair.model.model
        rounding = inputs_rounded(getattr(text, "language_model", None) or text.text_model)
        states = states_rounded("bf16") if any(pair.runner.recurrent) else states
    with rounding, states, torch.no_grad():
        return logits(pair.model, pair.meta, prompt, pixels, answer)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def test_prompts_with_pictures_are_those_of_transformers(pair: Pair) -> None:
    prompt, pixels = pair.prompt(2), pair.pixels(2)
    pair.runner.start(prompt, pair.seen(pixels))
    rows = [*pair.runner.feed(prompt.ids, 16)]
    answer: list[int] = []
    for _ in range(8):
        answer.append(int(rows[-1].argmax()))
        rows += [*pair.runner.feed(answer[-1:], 1)]
    mine = np.array(rows)
    plain = reference(pair, prompt, pixels, answer, rounded=False)
    close = from_bf16(to_bf16(reference(pair, prompt, pixels, answer, rounded=True)))
    cost = rms(close - plain)
    assert cost < 0.03 * rms(plain), "bf16 costs so much that the test shows nothing"
    assert rms(mine - plain) < 1.1 * cost, "further from transformers than bf16 explains"
    assert rms(mine - close) < 0.75 * cost  # only the order of float32 sums is left


def test_mistakes_would_be_noticed(pair: Pair) -> None:
    prompt, pixels = pair.prompt(1), pair.pixels(1)
    plain = reference(pair, prompt, pixels, [], False)
    seen = pair.seen(pixels)
    wrong = [Picture(seen.rows[::-1], [added[::-1] for added in seen.added])]  # tokens in another order
    wrong += [Picture(seen.rows, seen.added[:-1])] if seen.added else []  # one addition is missing
    pair.runner.start(prompt, seen)
    right = rms(pair.runner.feed(prompt.ids, 16) - plain)
    for other in wrong:
        pair.runner.start(prompt, other)
        assert rms(pair.runner.feed(prompt.ids, 16) - plain) > 4 * right


def test_positions_are_those_of_transformers(pair: Pair) -> None:
    if pair.runner.axes == 1:
        pytest.skip("the family's positions have one axis")
    prompt, (rows, columns), merge = pair.prompt(2), grid_of(pair.meta), pair.meta.merge
    grids = torch.tensor([[1, rows * merge, columns * merge]] * 2)
    kinds = torch.tensor(prompt.marks[None].astype(np.int64))
    wanted, delta = pair.model.model.get_rope_index(torch.tensor([prompt.ids]), kinds, image_grid_thw=grids)
    mine = prompt.positions(3)
    assert np.array_equal(mine, wanted[:, 0].numpy())
    assert mine.max() + 1 == len(prompt.ids) + int(delta)
