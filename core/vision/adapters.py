"""The families of models with eyes: how each wants its pictures, and how they stand in a prompt. One class a family,
one table; the sizes come from the encoder at hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, isqrt
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import PackageError, RequestError
from ..request import ImageInput
from .decoding import ImageLimits, decode_image
from .prepared import Detail, EncoderInput, PreparedImage, prepared_image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

Encode = Callable[[str], list[int]]
"""Ids of a text in which control tokens are spelled."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class ImageAdapter(ABC):
    """`encoder`: what the model's own encoder takes. `placeholder`: the token that stands for a picture's tokens.
    `in_text`: a picture in a chat template that knows none, control tokens spelled."""

    encoder: EncoderInput
    kind: ClassVar[str]
    placeholder: ClassVar[str]
    in_text: ClassVar[str]

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels, of what one run of the encoder sees."""

    @property
    def longest_side(self) -> int:
        """Pixels of a picture's longer side that the model can make out."""
        return max(self.size)

    @abstractmethod
    def runs(self, image: Image, detail: Detail) -> list[PreparedImage]:
        """An RGB picture as the encoder takes it."""

    @abstractmethod
    def check(self) -> None:
        """Raises PackageError where the encoder is not as the family has it."""

    def prepare(
        self,
        image: bytes,
        detail: Detail = "auto",
        limits: ImageLimits = ImageLimits(),  # noqa: B008 - frozen
        field: str = "image",
    ) -> list[PreparedImage]:
        """The runs of the encoder that the bytes of a picture file need, at most `max_runs`.

        Takes milliseconds to a second and several times the picture's size: not on an event loop. Raises RequestError,
        naming `field`, as `decode_image` does."""
        return self.runs(decode_image(image, limits, field), detail)

    def expand(
        self, prompt_ids: Sequence[int], pictures: Sequence[Sequence[PreparedImage]], encode: Encode
    ) -> tuple[list[int], tuple[ImageInput, ...]]:
        """The prompt with all tokens of each picture where one placeholder stands for it, and where its runs are.

        Raises RequestError where there are not as many placeholders as pictures: the chat template dropped some."""
        (mark,) = encode(self.placeholder)
        if (count := sum(token == mark for token in prompt_ids)) != len(pictures):
            text = f"the model's chat template shows {count} of the {len(pictures)} pictures of these messages"
            raise RequestError(text, "messages", "invalid_value")
        ids: list[int] = []
        images: list[ImageInput] = []
        left = iter(pictures)
        for token in prompt_ids:
            if token != mark:
                ids.append(token)
                continue
            between = ""
            for run in next(left):
                ids += encode(between + run.before)
                images.append(ImageInput(len(ids), run.num_tokens, run.grid, run.pixels, run.digest))
                ids += [mark] * run.num_tokens
                between = run.after
            ids += encode(between)
        return ids, tuple(images)

    def _run(self, pixels: NDArray[np.generic], before: str = "", after: str = "") -> PreparedImage:
        return prepared_image(pixels, self.grid, f"{self.kind} 1", before, after)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of one run."""
        count = self.encoder.num_tokens or self._usual_tokens()
        side = isqrt(count)
        return (side, side) if side * side == count else (1, count)

    def _usual_tokens(self) -> int:
        """Tokens of one run where the encoder does not say."""
        height, width = self.size
        return max(1, height // 28) * max(1, width // 28)

    def _unknown(self) -> PackageError:
        have = f"{list(self.encoder.shape)} of {self.encoder.dtype}"
        return PackageError(f"the vision encoder takes {have}: no form of {self.kind} that is known here")


class PatchAdapter(ImageAdapter):
    """Qwen's: uint8 patches [N, 2 * p * p, 3], each twice (a picture is a film of two equal frames), four neighbours
    after each other since they become one token; the picture is stretched to the encoder's size."""

    placeholder = "<|image_pad|>"
    in_text = "<|vision_start|><|image_pad|><|vision_end|>"
    patch: ClassVar[int]

    def check(self) -> None:
        shape, patch = self.encoder.shape, self.patch_size
        right = len(shape) == 3 and shape[1:] == (2 * patch * patch, 3) and patch > 0 and shape[0] % 4 == 0
        if self.encoder.dtype != np.uint8 or not right or isqrt(shape[0]) ** 2 != shape[0]:
            raise self._unknown()
        if self.encoder.num_tokens not in (None, shape[0] // 4):
            text = f"the vision encoder gives {self.encoder.num_tokens} tokens for {shape[0]} patches"
            raise PackageError(f"{text}; {self.kind} has one for four of them")

    @property
    def patch_size(self) -> int:
        """Pixels of a patch's side."""
        return isqrt(self.encoder.shape[1] // 2) if len(self.encoder.shape) == 3 else 0

    @property
    def size(self) -> tuple[int, int]:
        side = isqrt(self.encoder.shape[0]) * self.patch_size
        return side, side

    def _usual_tokens(self) -> int:
        return self.encoder.shape[0] // 4

    def runs(self, image: Image, detail: Detail) -> list[PreparedImage]:
        pixels = _resized(image, self.size, bicubic=True)
        return [self._run(_patches(pixels, self.patch_size))]


class Qwen3VL(PatchAdapter):
    """Qwen3-VL, and Qwen3.5's eyes."""

    kind = "qwen3_vl"


class Qwen2_5VL(PatchAdapter):
    """Qwen2.5-VL."""

    kind = "qwen2_5_vl"


class InternVL3(ImageAdapter):
    """The whole picture stretched to the encoder's square: uint8 [H, W, 3], or float32 [3, H, W] with ImageNet's mean
    and deviation taken off."""

    kind = "internvl3"
    placeholder = "<IMG_CONTEXT>"
    in_text = "<IMG_CONTEXT>\n"

    def check(self) -> None:
        shape, dtype = self.encoder.shape, self.encoder.dtype
        if len(shape) != 3 or shape[0 if dtype == np.float32 else 2] != 3:
            raise self._unknown()

    @property
    def size(self) -> tuple[int, int]:
        shape = self.encoder.shape
        return (shape[1], shape[2]) if self.encoder.dtype == np.float32 else (shape[0], shape[1])

    def runs(self, image: Image, detail: Detail) -> list[PreparedImage]:
        pixels: NDArray[np.generic] = _resized(image, self.size, bicubic=True)
        if self.encoder.dtype == np.float32:
            mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
            pixels = ((pixels.astype(np.float32) / np.float32(255) - mean) / std).transpose(2, 0, 1)
        return [self._run(pixels, "<img>", "</img>")]


class SmolVLM2(ImageAdapter):
    """uint8 [S, S, 3]: up to 2 x 2 tiles, as the picture's shape has it, and the whole picture after them; where
    `detail` is low the whole picture only."""

    kind = "smolvlm2"
    placeholder = "<image>"
    in_text = "<image>"
    tiles: ClassVar[int] = 2
    """Along the longer side."""

    def check(self) -> None:
        shape = self.encoder.shape
        if self.encoder.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or shape[0] != shape[1]:
            raise self._unknown()

    @property
    def size(self) -> tuple[int, int]:
        return self.encoder.shape[0], self.encoder.shape[1]

    @property
    def longest_side(self) -> int:
        return self.size[0] * self.tiles

    def _usual_tokens(self) -> int:
        return max(1, self.size[0] // 64) ** 2

    def runs(self, image: Image, detail: Detail) -> list[PreparedImage]:
        side, fake = self.size[0], "<fake_token_around_image>"
        whole, tiles = self._lengthened(image), []
        if detail != "low":
            rows, columns, whole = self._stretched(whole)
            for row in range(rows):
                for column in range(columns):
                    tile = whole.crop((column * side, row * side, (column + 1) * side, (row + 1) * side))
                    end = "\n" if column == columns - 1 else ""
                    tiles.append(self._run(np.asarray(tile), f"{fake}<row_{row + 1}_col_{column + 1}>", end))
        pixels = _resized(whole, self.size, bicubic=False)
        return [*tiles, self._run(pixels, "\n" * bool(tiles) + f"{fake}<global-img>", fake)]

    def _lengthened(self, image: Image) -> Image:
        """Its longer side as long as the tiles may be together, in its own shape; the shorter one even."""
        most, wide = self.size[0] * self.tiles, image.width >= image.height
        ratio = image.width / image.height
        short = int(most / ratio if wide else most * ratio)
        short = max(1, short + short % 2)
        return _resize(image, (short, most) if wide else (most, short), bicubic=False)

    def _stretched(self, image: Image) -> tuple[int, int, Image]:
        """Rows and columns of tiles, and the picture stretched to whole ones."""
        side, ratio, wide = self.size[0], image.width / image.height, image.width >= image.height
        across = max(1, ceil(int(image.width / ratio if wide else image.height * ratio) / side))
        rows, columns = (across, self.tiles) if wide else (self.tiles, across)
        return rows, columns, _resize(image, (rows * side, columns * side), bicubic=False)


KINDS: dict[str, type[ImageAdapter]] = {family.kind: family for family in (Qwen3VL, InternVL3, SmolVLM2, Qwen2_5VL)}
"""Families by `vision_kind` of the package."""


def adapter_for(kind: str, encoder: EncoderInput) -> ImageAdapter:
    """The adapter of a family, for one encoder. PackageError: neither is known here."""
    family = KINDS.get(kind)
    if family is None:
        raise PackageError(f"pictures of models of the kind {kind!r} are not read here, only of {', '.join(KINDS)}")
    adapter = family(encoder)
    adapter.check()
    return adapter


def _resize(image: Image, size: tuple[int, int], bicubic: bool) -> Image:
    """Stretched to height and width, as transformers' processors do it with Pillow."""
    from PIL.Image import Resampling

    height, width = size
    method = Resampling.BICUBIC if bicubic else Resampling.LANCZOS
    return image if image.size == (width, height) else image.resize((width, height), method)


def _resized(image: Image, size: tuple[int, int], bicubic: bool) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]."""
    return np.asarray(_resize(image, size, bicubic))


def _patches(pixels: NDArray[np.uint8], patch: int) -> NDArray[np.uint8]:
    """[H, W, 3] as [N, 2 * patch * patch, 3]: by blocks of two by two patches, row by row, and within a patch by frame,
    row and column."""
    rows, columns = pixels.shape[0] // patch, pixels.shape[1] // patch
    blocks = pixels.reshape(rows // 2, 2, patch, columns // 2, 2, patch, 3).transpose(0, 3, 1, 4, 2, 5, 6)
    frames = np.broadcast_to(blocks[:, :, :, :, None], (*blocks.shape[:4], 2, *blocks.shape[4:]))
    return frames.reshape(rows * columns, 2 * patch * patch, 3)
