"""A backend over the vendor's Python sessions (PyAXEngine), for a card whose runtime only they can open.

Every call moves every tensor: the whole K and V cache goes up and comes down again for each layer and pass. It is the
baseline that bench compares with, not a way to be fast. The wheel is the vendor's and not on PyPI; without it
`open_backend` says so. Imported only where this device is asked for.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PackageError, RuntimeUnavailable
from ..model_files.model_package import ModelPackage
from .backend import Costs, Modes
from .shape_groups import LAYER_INPUTS, LAYER_OUTPUTS, TensorInfo, common_shape, find_tensor
from .step import Step
from .vision_encoder import VisionEncoder

log = logging.getLogger(__name__)

_BF16, _FP32, _UINT32 = 14, 15, 8


def open_backend(package: ModelPackage, logits_slots: int) -> tuple[AxengineCard, AxengineProgram, Modes, Costs]:
    """What stands for the card and runs the passes, what it can do, and what passes cost.

    The costs are only a plausible order: measuring all groups through sessions would take minutes. Errors as for
    `open_model`."""
    if package.embeds:
        raise PackageError(f"{package.directory}: embedding models are not served through PyAXEngine")
    program = AxengineProgram(package, logits_slots=logits_slots)
    log.warning(
        "%s: served through PyAXEngine, which moves the whole cache for every layer: expect it to be slow", package.name
    )
    seconds = tuple(1e-3 * (1 + g.width / 64 + g.history / 4096) for g in program.groups)
    return AxengineCard(), program, Modes(chunks=True), Costs(seconds, 0.0)


def _import_axengine() -> Any:
    """The vendor's module. RuntimeUnavailable when it, or the runtime library that it looks for, is missing."""
    try:
        import axengine
    except ImportError as error:
        raise RuntimeUnavailable(
            f"the axengine backend needs the vendor's PyAXEngine wheel, which is not installed ({error})"
        ) from None
    except AssertionError as error:
        raise RuntimeUnavailable(f"PyAXEngine finds no runtime library: {error}") from None
    return axengine


class AxengineCard:
    """What stands for the card here: the sessions open and own it themselves."""

    library = ""
    closed = False
    device = 0
    devices: tuple[int, ...] = (0,)

    def __init__(self) -> None:
        path = ctypes.util.find_library("axcl_rt")
        library = ctypes.CDLL(path) if path else None
        self.emulated = library is not None and hasattr(library, "axemu_version")

    def bind_thread(self) -> None:
        """Sessions bind their context on each call."""

    def version(self) -> str:
        """The runtime's version is not readable through sessions."""
        return "through PyAXEngine"

    def properties(self) -> dict[str, Any]:
        """Sessions cannot ask the card."""
        return {}

    def begin_close(self, settle_ms: int = 5000) -> None:
        """Nothing runs between calls."""

    def close(self) -> None:
        """Sessions free what they hold when they are dropped; PyAXEngine ends the runtime at exit."""


class AxengineProgram:
    """The Backend, over one InferenceSession per layer. K and V live in the host's memory."""

    num_banks = 1
    embeds = False
    encoder: VisionEncoder | None = None  # its sessions compute no pictures

    def __init__(self, package: ModelPackage, logits_slots: int = 1) -> None:
        """Loads the head, then the layers. PackageError where the files do not fit each other."""
        axengine = _import_axengine()
        self.logits_slots = logits_slots
        sessions = [axengine.InferenceSession(os.fspath(p)) for p in (package.head_file, *package.layer_files)]
        self.head, self.layers = sessions[0], sessions[1:]
        self.num_layers, self.num_states = len(self.layers), 0
        opened = [_OpenedLayer(str(p), s) for p, s in zip(package.layer_files, self.layers, strict=True)]
        inputs, outputs, where = opened[0].inputs, opened[0].outputs, opened[0].path
        common = common_shape(opened)
        if common.num_attention < self.num_layers:
            raise PackageError(f"{package.directory}: hybrid models are not served through PyAXEngine: use --device 0")
        self.shape, self._numbers = common.shape, common.numbers
        self.groups = self.shape.decode + self.shape.chunks
        self.bank_rows = self.shape.rows
        self._names = {n: inputs[find_tensor(inputs, n, where)].name for n in LAYER_INPUTS}
        caches = [layer.inputs[find_tensor(layer.inputs, "K_cache", layer.path)] for layer in opened]
        self._cache_widths = [[shape[-1] for shape in cache.shapes] for cache in caches]
        self._outputs = [outputs[find_tensor(outputs, n, where)].name for n in LAYER_OUTPUTS]
        self._bf16 = self.layers[0].get_inputs(0)[0].dtype
        self.embedding = package.embedding(self.shape.hidden)
        self._bind_head(package)
        self.windows = package.windows or (0,) * self.num_layers
        self._positions = np.zeros(self.bank_rows, np.int32)
        bank = (self.num_layers, 1, self.bank_rows, self.shape.kv_dim)
        self._k, self._v = np.zeros(bank, self._bf16), np.zeros(bank, self._bf16)

    def _bind_head(self, package: ModelPackage) -> None:
        where = str(package.head_file)
        tensors = _tensors(self.head, "outputs")
        self._head_output = find_tensor(tensors, "output", where)
        output = tensors[self._head_output]
        if self.head.get_inputs(0)[0].shape[-1] != self.shape.hidden:
            raise PackageError(
                f"{where}: it takes {self.head.get_inputs(0)[0].shape}, the layers give rows of {self.shape.hidden}"
            )
        self._head_input = self.head.get_inputs(0)[0].name
        self.logits_dtype = "float32" if output.dtype == _FP32 else "uint16"
        width, self.vocab_size = output.shapes[0][-1], len(self.embedding)
        # of a trimmed head's logits, else of those that are tokens
        self.token_ids = package.head_token_ids(width, self.vocab_size)
        minus_inf = -np.inf if self.logits_dtype == "float32" else 0xFF80
        self._logits = np.full((self.logits_slots, self.vocab_size), minus_inf, self.logits_dtype)

    def logits(self, slot: int = 0) -> NDArray[Any]:
        """Logits of the last step's query with this slot: uint16 (bf16 bits) or float32 [vocab_size]."""
        return self._logits[slot]

    def run(self, step: Step, timeout_ms: int = -1) -> None:
        """Runs one step. The vendor's sessions know no deadline: `timeout_ms` cannot be kept."""
        group = self.groups[step.group]
        queries = step.as_array()
        masks = self._masks(step, group.width, group.history, queries)
        axes = self.shape.axes if group.width > 1 else 1
        indices = np.zeros((axes, group.width), np.uint32)
        indices[:, : len(queries)] = step.positions()[:axes]
        hidden = np.zeros((1, group.width, self.shape.hidden), np.uint16)
        hidden[0, : len(queries)] = self.embedding[queries["token"]]
        state = hidden.view(self._bf16)
        kept = queries["row"] >= 0
        for layer, session in enumerate(self.layers):
            number, mask = self._numbers[layer][step.group], masks[self.windows[layer] > 0]
            feed = {"indices": indices, "mask": mask, "input": state}
            state = self._layer(session, layer, number, group.history, feed, queries["row"], kept)
        self._state = state
        self.more_logits(np.flatnonzero(queries["logits"] >= 0).tolist())

    def _masks(self, step: Step, width: int, history: int, queries: np.ndarray) -> list[NDArray[Any]]:
        """The step's mask, and that of layers with a sliding window where there are any."""
        masks = [step.mask(width, history)]
        if window := max(self.windows):
            masks.append(step.window_mask(width, history, self._positions, window))
            kept = queries["row"] >= 0
            self._positions[queries["row"][kept]] = queries["position"][kept]
        return [mask.view(self._bf16)[np.newaxis] for mask in masks]

    def more_logits(self, queries: Sequence[int], timeout_ms: int = -1) -> None:
        """Logits of these queries of the last step, into slots 0 and up."""
        for slot, index in enumerate(queries):
            feed = {self._head_input: np.ascontiguousarray(self._state[:, index : index + 1])}
            logits = self.head.run(None, feed)[self._head_output]
            tokens = slice(None) if self.token_ids is None else self.token_ids
            self._logits[slot, tokens] = logits.reshape(-1).view(self.logits_dtype)[: self.vocab_size]

    def bad_logits(self, count: int) -> list[int]:
        """Slots that hold NaN, +inf, or the same for every token."""
        bits = self._logits[:count].astype(np.uint32) << 16 if self.logits_dtype == "uint16" else self._logits[:count]
        bad = [np.isnan(v).any() or np.isposinf(v).any() or (v == v[0]).all() for v in bits.view(np.float32)]
        return [slot for slot, is_bad in enumerate(bad) if is_bad]

    def clear_rows(self, bank: int, rows: NDArray[np.int32]) -> None:
        """Zeros in K and V of these rows."""
        self._k[:, :, rows], self._v[:, :, rows] = 0, 0

    def clear_states(self) -> None:
        """There are none."""

    def clear_bank(self, bank: int) -> None:
        """Zeros in all rows."""
        self._k[:], self._v[:] = 0, 0

    def drop_bank(self) -> None:
        """There is only one."""
        raise ValueError("the only bank")

    def abandon(self) -> None:
        """The sessions make their calls themselves: nothing can be kept from them."""

    def move_rows(self, bank: int, old: NDArray[np.int32], new: NDArray[np.int32], timeout_ms: int = -1) -> None:
        """Copies K and V of rows `old` to rows `new` in every layer."""
        self._k[:, :, new], self._v[:, :, new] = self._k[:, :, old], self._v[:, :, old]
        self._positions[new] = self._positions[old]

    def _layer(
        self, session: Any, layer: int, number: int, history: int, feed: dict[str, Any], rows: np.ndarray,
        kept: np.ndarray,
    ) -> Any:  # fmt: skip
        if history:
            cache = {"K_cache": self._k[layer][:, :history], "V_cache": self._v[layer][:, :history]}
        else:  # nothing is seen: one row that some builds want as wide as the hidden state
            width = self._cache_widths[layer][number]
            cache = {n: np.zeros((1, 1, width), self._bf16) for n in ("K_cache", "V_cache")}
        feed = cache | feed
        named = {self._names[n]: np.ascontiguousarray(a) for n, a in feed.items()}
        names = [o.name for o in session.get_outputs(number)]
        results = dict(zip(names, session.run(None, named, shape_group=number), strict=True))
        k, v, out = (results[n] for n in self._outputs)
        self._k[layer][0, rows[kept]] = k[0, : len(rows)][kept]
        self._v[layer][0, rows[kept]] = v[0, : len(rows)][kept]
        return out

    def check_closable(self) -> None:
        """Logits are plain arrays here: nothing stands in the way."""

    def close(self) -> None:
        """Drops the sessions, which unload their models."""
        self.head, self.layers = None, []


class _OpenedLayer:
    """A session's shapes, as `common_shape` reads them."""

    def __init__(self, path: str, session: Any) -> None:
        self.path = path
        self.inputs, self.outputs = _tensors(session, "inputs"), _tensors(session, "outputs")


def _tensors(session: Any, side: str) -> list[TensorInfo]:
    """TensorInfo of a session's inputs or outputs over all its shape groups."""
    groups: list[Any] = []
    while True:
        try:
            groups.append(getattr(session, f"get_{side}")(len(groups)))
        except (ValueError, IndexError):
            break
    kinds = {"bfloat16": _BF16, "float32": _FP32, "uint32": _UINT32, "int32": 7}
    return [
        TensorInfo(
            first.name,
            kinds.get(np.dtype(first.dtype).name, 0),
            tuple(tuple(g[i].shape) for g in groups),
            tuple(0 for _ in groups),
        )
        for i, first in enumerate(groups[0])
    ]
