"""Requests with pictures for tiny models with eyes, and what transformers makes of the same."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from card_rounding import rounded_like_the_card
from tiny_vision_models import END_TOKEN, IMAGE_TOKEN, START_TOKEN, TinyVision, encoder_input, normalised, picture, save

from axpress.core.model_files.convert import convert
from axpress.core.model_files.vision_axmodel import VisionMeta, read_encoder
from axpress.core.request import GenerationRequest, ImageInput, SamplingParams

ROWS, CHUNK, HISTORY = 111, 16, (0, 16, 32, 48, 64, 80)


@dataclass
class Seeing:
    """A tiny model with eyes, as transformers has it (`model`; None: never made) and as a package."""

    package: Path
    meta: VisionMeta
    model: Any = None

    @classmethod
    def make(cls, folder: Path, tiny: TinyVision, **sizes: Any) -> Seeing:
        """Makes and converts it. `sizes`: of the package."""
        model = save(tiny, folder / "hf")
        sizes = {"rows": ROWS, "chunk": CHUNK, "history": HISTORY, **sizes}
        options = {"image_size": tiny.image_size, "image_input": tiny.image_input}
        package = convert(folder / "hf", folder / "out", progress=False, **sizes, **options)
        (path,) = [p for p in package.rglob("*.axmodel") if "_together" not in p.name and "post" not in p.name]
        return cls(package, read_encoder(path)[0], model)

    @property
    def num_tokens(self) -> int:
        """Of a picture."""
        return self.meta.num_tokens

    @functools.cached_property
    def grid(self) -> tuple[int, int]:
        """Its rows and columns of them."""
        rows = self.meta.image_rows // self.meta.merge
        return rows, self.num_tokens // rows

    def image(self, seed: int, start: int) -> ImageInput:
        """The random picture of this seed, whose tokens begin at `start`."""
        pixels = encoder_input(self.meta, picture(self.meta.image_size, seed))
        return ImageInput(start, self.num_tokens, self.grid, pixels[0], seed.to_bytes(16, "big"))

    def request(self, *parts: int | Sequence[int], **fields: Any) -> GenerationRequest:
        """A prompt of pictures (by seed) and texts (token ids) in turn; 20 tokens, the best ones, unless told."""
        ids: list[int] = []
        images: list[ImageInput] = []
        for part in parts:
            if isinstance(part, int):
                images.append(self.image(part, len(ids) + 1))
                ids += [START_TOKEN, *[IMAGE_TOKEN] * self.num_tokens, END_TOKEN]
            else:
                ids += part
        fields = {"params": SamplingParams(temperature=0, logprobs=0), "max_tokens": 20, "ignore_eos": True, **fields}
        return GenerationRequest(ids, images=tuple(images), **fields)

    def pictures(self, request: GenerationRequest) -> list[int]:
        """The seeds of a request's pictures."""
        return [int.from_bytes(image.digest, "big") for image in request.images]

    def logprobs(self, request: GenerationRequest, answer: Sequence[int]) -> Any:
        """transformers' own, with the card's roundings, of all tokens at each place of an answer: [answer, vocab]."""
        import torch

        ids = [*request.prompt_ids, *answer]
        given = [self._values(seed) for seed in self.pictures(request)]
        axis = 1 if self.meta.vision_kind == "smolvlm2" else 0
        values = {name: torch.cat([each[name] for each in given], dim=axis) for name in given[0]} if given else {}
        if self.meta.vision_kind.startswith("qwen"):
            values["mm_token_type_ids"] = torch.tensor([[int(token == IMAGE_TOKEN) for token in ids]])
        inner = self.model.model
        text = inner.text_model if hasattr(inner, "text_model") else inner.language_model
        with torch.no_grad(), rounded_like_the_card(SimpleNamespace(model=text)):
            logits = self.model(input_ids=torch.tensor([ids]), **values).logits
        return logits[0, len(request.prompt_ids) - 1 : -1].log_softmax(-1).numpy()

    def _values(self, seed: int) -> dict[str, Any]:
        """A picture as transformers' model takes it."""
        import torch

        meta = self.meta
        values = torch.tensor(normalised(meta, picture(meta.image_size, seed)).transpose(2, 0, 1))
        if not meta.vision_input.startswith("patches"):
            return {"pixel_values": values[None, None] if meta.vision_kind == "smolvlm2" else values[None]}
        side, merge, rows, cols = meta.patch_size, meta.merge, meta.image_rows, meta.image_cols
        frames = torch.stack([values, values])
        blocks = frames.reshape(2, 3, rows // merge, merge, side, cols // merge, merge, side)
        flat = blocks.permute(2, 5, 3, 6, 1, 0, 4, 7).reshape(rows * cols, -1)
        return {"pixel_values": flat, "image_grid_thw": torch.tensor([[1, rows, cols]])}


def pool(seeing: Seeing, count: int, most: int) -> list[GenerationRequest]:
    """Requests that share beginnings, pictures, or both, and choose tokens in several ways; of at most `most` tokens
    with their answers."""
    rnd = np.random.default_rng(7)
    heads: list[list[int | list[int]]] = [[[5, 6, 7]], [[5, 6, 7], 1], [1], [[9] * 12], [2, [8, 8], 1]]
    made = []
    while len(made) < count:
        parts = [*heads[len(made) % len(heads)]]
        for _ in range(rnd.integers(0, 2)):
            parts += [rnd.integers(5, 250, rnd.integers(1, 9)).tolist(), int(rnd.integers(1, 4))]
        parts.append(rnd.integers(5, 250, rnd.integers(1, 12)).tolist())
        params = SamplingParams(
            temperature=float(rnd.choice([0.0, 0.0, 1.2])), seed=len(made), logprobs=[None, 0, 3][rnd.integers(3)],
            repetition_penalty=float(rnd.choice([1.0, 1.3])),
        )  # fmt: skip
        request = seeing.request(*parts, params=params, max_tokens=int(rnd.integers(1, 30)))
        end = max((image.start + image.num_tokens for image in request.images), default=0)
        if len(request.prompt_ids) + request.max_tokens <= most and end <= HISTORY[-1] + 1:
            made.append(request)
    return made
