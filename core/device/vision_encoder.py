"""A model's vision encoder on the card: from the pixels of one run of it to the rows that its tokens have in a pass.

Calls are made and waited for one by one: a run is long (hundreds of milliseconds), and alone on the card. Whoever calls
`encode` bounds its time (see recovery/pass_watch.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PackageError, RuntimeUnavailable
from ..model_files.safetensors import from_bf16, to_bf16
from ..vision.prepared import EncoderInput
from .axmodel import Binding, LoadedModel
from .buffer import DeviceBuffer
from .shape_groups import BF16

FP32 = 15  # the runtime's data type, as in csrc/axcl_abi.h
UNWRITTEN = 0xFF  # each byte of an output before a run: NaN in every type, so that what is not written is noticed


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """What an encoder gave for one run: `rows` uint16 [tokens, H], bf16 bits, in place of embeddings; `added` float32
    [layers, tokens, H], for the outputs of the first layers (deepstack; often none)."""

    rows: NDArray[np.uint16]
    added: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Of host memory."""
        return self.rows.nbytes + self.added.nbytes

    def believable(self) -> bool:
        """Whether a card can have meant it: finite, and not the same value everywhere."""
        rows = self.rows & 0x7FFF
        finite = bool((rows < 0x7F80).all() and np.isfinite(self.added).all())
        return finite and (self.rows.size < 2 or bool((self.rows != self.rows.flat[0]).any()))


class VisionEncoder:
    """A loaded encoder and its buffers. `kind`: the family, as ModelPackage.vision says it; `hidden`: what the layers
    take. PackageError where it does not fit them."""

    def __init__(
        self, model: LoadedModel, kind: str, hidden: int, call: Callable[[Callable[[], Any]], Any] = lambda work: work()
    ) -> None:
        """`call`: does some work on the thread that may use the card."""
        if len(model.inputs) != 1:
            names = ", ".join(tensor.name for tensor in model.inputs)
            raise PackageError(f"{model.path}: it takes {names}; axpress knows encoders that take pixels alone")
        source = model.inputs[0]
        self.kind, self._model, self._call = kind, model, call
        self._outputs = [(tensor.dtype, tensor.shapes[0], tensor.sizes[0]) for tensor in model.outputs]
        for tensor in model.outputs:
            shape, size = tensor.shapes[0], tensor.sizes[0]
            if tensor.dtype not in (BF16, FP32) or shape[-1] != hidden or size % prod(shape):
                raise PackageError(
                    f"{model.path}: it gives {tensor.name} {list(shape)} of runtime data type {tensor.dtype}, the"
                    f" layers take rows of {hidden} bf16 values: files of two models?"
                )
        self.num_tokens = prod(self._outputs[0][1][:-1])
        if any(prod(shape[:-1]) != self.num_tokens for _, shape, _ in self._outputs):
            raise PackageError(f"{model.path}: its outputs have different numbers of tokens")
        self.num_added = len(self._outputs) - 1
        """Layers after which something is added (deepstack)."""
        self.input = EncoderInput.of(source.shapes[0], source.sizes[0], self.num_tokens)
        self.closed = self.abandoned = False
        self.num_runs = 0
        self._pixels = DeviceBuffer(model.card, source.sizes[0])
        self._results = [DeviceBuffer(model.card, size) for _, _, size in self._outputs]
        self._binding = Binding(model, 0)
        self._binding.set_input(0, self._pixels)
        for index, buffer in enumerate(self._results):
            self._binding.set_output(index, buffer)

    def encode(self, pixels: NDArray[np.generic]) -> Encoding:
        """One run. ValueError: pixels of another dtype or size; RuntimeCallError: the card refused or failed."""
        if pixels.dtype != self.input.dtype or pixels.size != prod(self.input.shape):
            raise ValueError(
                f"pixels {list(pixels.shape)} of {pixels.dtype}, the encoder takes {list(self.input.shape)} of"
                f" {self.input.dtype}"
            )
        encoding: Encoding = self._call(lambda: self._encode(np.ascontiguousarray(pixels)))
        self.num_runs += 1
        return encoding

    def _encode(self, pixels: NDArray[np.generic]) -> Encoding:
        self._do(self._model.card.bind_thread)  # whichever this is: synchronous calls want it
        self._do(partial(self._pixels.write, pixels))
        for buffer in self._results:
            self._do(partial(buffer.fill, UNWRITTEN))
        self._do(self._binding.execute)
        rows, *added = [
            self._do(partial(buffer.read, "float32" if dtype == FP32 else "uint16"))
            for buffer, (dtype, _, _) in zip(self._results, self._outputs, strict=True)
        ]
        size = self.num_tokens, -1
        wide = [(values if values.dtype == np.float32 else from_bf16(values)).reshape(size) for values in added]
        narrow = (rows if rows.dtype == np.uint16 else to_bf16(rows)).reshape(size)
        none = np.empty((0, *narrow.shape), np.float32)
        return Encoding(narrow, np.stack(wide) if wide else none)

    def _do(self, work: Callable[[], Any]) -> Any:
        """One call to the card; none once somebody gave up waiting for the one before."""
        if self.abandoned or self.closed:
            raise RuntimeUnavailable("the vision encoder is closed")
        return work()

    def abandon(self) -> None:
        """Somebody hangs in a call and is not waited for: should he come back, he makes no further one."""
        self.abandoned = True

    def close(self) -> None:
        """Frees its buffers. Again: nothing."""
        if not self.closed:
            self.closed = True
            self._binding.close()
            for buffer in (self._pixels, *self._results):
                buffer.close()
