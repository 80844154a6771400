"""A package with eyes on the emulated card through ctypes alone: prompts with pictures, as a host without a core would
feed them."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_void_p
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ctypes_runner import LoadedFile, Runner, Runtime

from axpress.core.model_files.model_package import ModelPackage
from axpress.core.model_files.safetensors import from_bf16, to_bf16


class Encoder:
    """The vision encoder of a package; loaded before its layers."""

    def __init__(self, runtime: Runtime, path: Path) -> None:
        self.file, self.runtime = LoadedFile(runtime, path), runtime
        shapes = [self.file.dims("Output", 0, number) for number in range(len(self.file.outputs))]
        self.shapes = [shape[-2:] for shape in shapes]
        self.input = runtime.malloc(self.file.input_bytes(0))
        self.outputs = [runtime.malloc(4 * int(np.prod(shape))) for shape in shapes]

    def encode(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Float32 [tokens, H], of each output."""
        self.runtime.upload(self.input, pixels)
        self.file.execute(0, (self.input,), self.outputs)
        results = []
        for buffer, shape in zip(self.outputs, self.shapes, strict=True):
            results.append(self.runtime.download(buffer, 2 * int(np.prod(shape))).view(np.float32).reshape(shape))
        return results

    def close(self) -> None:
        """Frees model and buffers."""
        self.file.close()
        for buffer in (self.input, *self.outputs):
            self.runtime("axclrtFree", c_void_p(buffer))


@dataclass
class Prompt:
    """Token ids, and where the pictures' are: `marks` [n], of each token whether it is one of a picture's; `grids`,
    rows and columns of each picture's tokens."""

    ids: list[int]
    marks: np.ndarray
    grids: list[tuple[int, int]]

    @classmethod
    def of(cls, parts: Sequence[Sequence[int] | tuple[str, int, int, int]]) -> Prompt:
        """From texts (ids) and pictures ("picture", placeholder's id, rows, columns)."""
        ids: list[int] = []
        marks: list[bool] = []
        grids = []
        for part in parts:
            if isinstance(part, tuple):
                _, token, rows, columns = part
                grids.append((rows, columns))
                part, seen = [token] * (rows * columns), True
            else:
                seen = False
            ids += part
            marks += [seen] * len(part)
        return cls(ids, np.array(marks), grids)

    def positions(self, axes: int) -> np.ndarray:
        """[axes, n]. Of three, a picture's tokens share one, and have their row and column on the others; what comes
        after goes on behind the largest."""
        if axes == 1:
            return np.arange(len(self.ids))[None]
        columns: list[tuple[int, int, int]] = []
        grids, at = iter(self.grids), 0
        while len(columns) < len(self.ids):
            if not self.marks[len(columns)]:
                columns.append((at, at, at))
                at += 1
                continue
            rows, across = next(grids)
            columns += [(at, at + row, at + column) for row in range(rows) for column in range(across)]
            at += max(rows, across)
        return np.array(columns).T


@dataclass
class Picture:
    """What an encoder gave of all pictures of a prompt: the tokens' rows, and what is added after the first layers."""

    rows: np.ndarray
    added: list[np.ndarray] = field(default_factory=list)


class PictureRunner(Runner):
    """A Runner whose prompt has pictures; `feed` takes the prompt's tokens in parts, then others."""

    def __init__(self, runtime: Runtime, package: ModelPackage) -> None:
        super().__init__(runtime, package)
        self.prompt, self.picture = Prompt([], np.zeros(0, bool), []), Picture(np.zeros((0, self.hidden)))

    def start(self, prompt: Prompt, picture: Picture) -> None:
        """A new sequence that begins with this prompt; `picture` has as many rows as it has marks."""
        self.reset()
        self.prompt, self.picture = prompt, picture
        self._places = prompt.positions(self.axes)
        self._number = np.cumsum(prompt.marks) - 1  # of a picture's token, its row

    def _marked(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Of the next tokens those of pictures, and their rows."""
        marks = self.prompt.marks[self.used : self.used + count]
        mine = np.flatnonzero(marks)
        return mine, self._number[self.used + mine]

    def rows_of(self, tokens: Sequence[int]) -> np.ndarray:
        rows = np.array(super().rows_of(tokens))
        mine, numbers = self._marked(len(tokens))
        rows[mine] = to_bf16(self.picture.rows[numbers])
        return rows

    def positions(self, count: int) -> np.ndarray:
        after = self._places.max() + 1 + np.arange(self.used + count - self._places.shape[1])
        return np.concatenate([self._places, np.tile(after, (self.axes, 1))], 1)[:, self.used : self.used + count]

    def after_layer(self, number: int, output: int, count: int) -> None:
        mine, numbers = self._marked(count)
        if number >= len(self.picture.added) or not len(mine):
            return
        rows = self.runtime.download(output, count * self.hidden).reshape(count, self.hidden)
        rows[mine] = to_bf16(from_bf16(rows[mine]) + self.picture.added[number][numbers])
        self.runtime.upload(output, rows)
