"""The pictures of one sequence: the ids and positions of their tokens, and the rows that these have in a pass.

Placeholder tokens are equal for all pictures. In a sequence each of them has a negative id instead, made from the
picture's digest and its place in the picture: what is cached of one picture is found again by the same picture alone,
and prefixes, preemption and recovery need to know nothing of pictures."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from hashlib import shake_128
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..device.image_rows import ImageRows
from ..device.step import Step
from ..device.vision_encoder import Encoding
from ..request import GenerationRequest, ImageInput


def keyed_tokens(request: GenerationRequest) -> array[int]:
    """The prompt's tokens, those of pictures by negative ids."""
    tokens = array("i", request.prompt_ids)
    for image in request.images:
        name = image.digest + repr((image.grid, image.num_tokens)).encode()
        bits = np.frombuffer(shake_128(name).digest(4 * image.num_tokens), np.uint32)
        ids = (-1 - (bits & 0x7FFFFFFF).astype(np.int64)).astype(np.int32)
        tokens[image.start : image.start + image.num_tokens] = array("i", ids.tobytes())
    return tokens


def axis_positions(num_tokens: int, images: Iterable[ImageInput]) -> NDArray[np.int32]:
    """Time, height and width of a prompt's tokens and of the one that follows, int32 [3, num_tokens + 1]. Text stands
    at the same place on all; a picture that begins at b spans b + row and b + column at time b; what follows it begins
    after the largest of them."""
    out = np.empty((3, num_tokens + 1), np.int32)
    at = base = 0
    for image in images:
        count = image.start - at
        out[:, at : image.start] = np.arange(base, base + count)
        at, base = image.start + image.num_tokens, base + count
        rows, columns = image.grid
        out[0, image.start : at] = base
        out[1, image.start : at] = base + np.repeat(np.arange(rows), columns)
        out[2, image.start : at] = base + np.tile(np.arange(columns), rows)
        base += max(rows, columns)
    out[:, at:] = np.arange(base, base + num_tokens + 1 - at)
    return out


class SequenceImages:
    """Of a request with pictures. `axes`: of the model's positions, 1 or 3."""

    def __init__(self, request: GenerationRequest, axes: int) -> None:
        self._images = request.images
        self._num_prompt = len(request.prompt_ids)
        self._positions = axis_positions(self._num_prompt, request.images) if axes == 3 else None
        self._held: dict[int, Encoding] = {}  # by index of the picture
        self.end = request.images[-1].start + request.images[-1].num_tokens
        """Index of the first token after all of them."""
        self.missing: int | None = None
        """Index of the picture without which the next tokens cannot be computed."""

    def needs_chunk(self, num_cached: int) -> bool:
        """Whether tokens are left that only a chunk can place: decode takes one position for all axes."""
        return self._positions is not None and num_cached < self.end

    def wanted(self, num_cached: int, count: int) -> list[int]:
        """Which pictures the `count` tokens from `num_cached` on take rows of; lets those before them go."""
        for index in [i for i in self._held if _end(self._images[i]) <= num_cached]:
            del self._held[index]
        last = num_cached + count
        return [i for i, image in enumerate(self._images) if image.start < last and _end(image) > num_cached]

    def image(self, index: int) -> ImageInput:
        """One of them, in their order."""
        return self._images[index]

    def holds(self, index: int) -> bool:
        """Whether its encoding is at hand."""
        return index in self._held

    def hold(self, index: int, encoding: Encoding) -> None:
        """Keeps what the encoder gave until the picture's tokens are computed."""
        self._held[index] = encoding

    def release(self) -> None:
        """Lets all encodings go."""
        self._held.clear()
        self.missing = None

    def place(self, step: Step, query: int, first: int, count: int) -> None:
        """Positions of `count` tokens from index `first` on, which are queries from `query` on."""
        if self._positions is None:
            return
        index = np.arange(first, first + count)
        known = np.minimum(index, self._num_prompt)
        step.place(query, np.ascontiguousarray(self._positions[:, known] + (index - known), np.int32))

    def rows(self, first: int, count: int) -> list[tuple[int, Encoding, slice]]:
        """For the pictures' tokens among the `count` from index `first` on: how far behind `first` they begin, and
        which tokens of which encoding they are."""
        found = []
        for index in self.wanted(first, count):
            image = self._images[index]
            start, stop = max(image.start, first), min(_end(image), first + count)
            found.append((start - first, self._held[index], slice(start - image.start, stop - image.start)))
        return found


def _end(image: ImageInput) -> int:
    return image.start + image.num_tokens


class Carried(Protocol):
    """A sequence's share of a pass: see ScheduledSequence."""

    @property
    def query(self) -> int:
        """Its first."""

    @property
    def num_tokens(self) -> int:
        """Known ones."""

    @property
    def num_drafts(self) -> int:
        """After them."""


def fill_images(step: Step, carried: Sequence[tuple[Carried, SequenceImages, int]]) -> None:
    """Gives a filled step the positions and rows of pictures: of each share of it, the pictures of its sequence, and
    the index of its first token."""
    queries: list[NDArray[np.int32]] = []
    rows: list[NDArray[np.uint16]] = []
    added: list[NDArray[np.float32]] = []
    for share, images, first in carried:
        images.place(step, share.query, first, share.num_tokens + share.num_drafts)
        for offset, encoding, which in images.rows(first, share.num_tokens):
            at = share.query + offset
            queries.append(np.arange(at, at + which.stop - which.start, dtype=np.int32))
            rows.append(encoding.rows[which])
            added.append(encoding.added[:, which])
    if queries:
        step.images = ImageRows(np.concatenate(queries), np.concatenate(rows), np.concatenate(added, axis=1))
