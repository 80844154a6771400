"""The costs of a model's passes on paper: PassCosts (core/engine) with the times of a profile or of model files in
place of measured ones, added up from what a pass submits (program.pyx)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..device.backend import Costs
from ..device.shape_groups import Group
from ..engine.pass_costs import PassCosts
from ..model_files.model_package import ModelPackage
from ..model_files.qwen3_5 import Recurrence
from ..model_files.simulated_axmodel import read_axmodel, read_layers
from ..model_files.timing_profile import Cost, Profile

HOST_STEP_MS = 0.3  # assumed: planning a pass and filling its buffers
HOST_TOKEN_MS = 0.4  # assumed: choosing a token and handing its text on


@dataclass(frozen=True)
class ModelShape:
    """What a pass depends on: sizes in elements; times of one layer in ms by rows of the decode cache and of a chunk's
    history. `recurrent` of the layers take `recurrent_*_ms` whatever the rows, and have no rows but a state of
    `state_bytes` in all."""

    layers: int
    hidden: int
    kv_dim: int
    vocab: int
    chunk: int
    decode_ms: dict[int, float]
    chunk_ms: dict[int, float]
    head_ms: float
    recurrent: int = 0
    recurrent_decode_ms: float = 0.0
    recurrent_chunk_ms: float = 0.0
    state_bytes: int = 0

    @property
    def rows(self) -> int:
        """Rows of a bank."""
        return max(self.decode_ms)

    @property
    def row_bytes(self) -> int:
        """Bytes of one token's K and V in all layers."""
        return (self.layers - self.recurrent) * 2 * self.kv_dim * 2

    def layers_ms(self, width: int, layer_ms: float) -> float:
        """A pass of that width through all layers, those with attention taking so long each."""
        own = self.recurrent_decode_ms if width == 1 else self.recurrent_chunk_ms
        return (self.layers - self.recurrent) * layer_ms + self.recurrent * (own or layer_ms)


def model_shape(package: ModelPackage, profile: Profile) -> ModelShape:
    """Shapes and layer times. What a simulated model's files say wins over the profile, as on the emulated card."""
    cost, model = profile.cost, profile.model
    if not package.simulated:
        decode = {r: cost.decode_us(r) / 1e3 for r in (*model.smaller_rows, model.rows)}
        chunks = {p: cost.chunk_us(p) / 1e3 for p in (min(p, model.rows) for p in model.history) if model.chunk}
        vocab, kv_dim = package.vocab_size or model.vocab, model.kv_heads * model.head_dim
        hybrid = _of_recurrence(model.recurrence, cost.recurrent_decode_ms, cost.recurrent_chunk_ms, 2)
        return ModelShape(
            model.layers, model.hidden, kv_dim, vocab, model.chunk, decode, chunks, cost.head_ms, **hybrid
        )
    layer, head = read_layers(package.layer_files), read_axmodel(package.head_file)[0]
    singly = layer.cost_decode_us or tuple(cost.decode_us(r) for r in layer.decode_rows)
    decode = {r: us / 1e3 for r, us in zip(layer.decode_rows, singly, strict=True)}
    micros = layer.cost_chunk_us or tuple(cost.chunk_us(p) for p in layer.history)
    chunks = {p: us / 1e3 for p, us in zip(layer.history, micros, strict=True)} if layer.chunk else {}
    head_ms = cost.head_ms if head.cost_head_us is None else head.cost_head_us / 1e3
    kv_dim = layer.kv_heads * layer.head_dim
    sizes = (package.num_layers, layer.hidden, kv_dim, head.vocab, layer.chunk, decode, chunks, head_ms)
    return ModelShape(*sizes, **_recurrent_layers(package, cost))


def _recurrent_layers(package: ModelPackage, cost: Cost) -> dict[str, Any]:
    """The same of a simulated package's recurrent layers, by the first of them."""
    if not any(package.recurrent):
        return {}
    meta = read_axmodel(package.layer_files[package.recurrent.index(True)])[0]
    recurrence = Recurrence(
        package.recurrent, meta.conv_kernel, meta.key_heads, meta.value_heads, meta.key_dim, meta.value_dim
    )
    decode = meta.cost_decode_us[0] / 1e3 if meta.cost_decode_us else cost.recurrent_decode_ms
    chunk = meta.cost_chunk_us[0] / 1e3 if meta.cost_chunk_us else cost.recurrent_chunk_ms
    return _of_recurrence(recurrence, decode, chunk, 4 if meta.state_dtype == "fp32" else 2)


def _of_recurrence(recurrence: Recurrence | None, decode: float, chunk: float, element: int) -> dict[str, Any]:
    if recurrence is None:
        return {}
    layers = sum(recurrence.layers)
    return {
        "recurrent": layers,
        "recurrent_decode_ms": decode,
        "recurrent_chunk_ms": chunk,
        "state_bytes": layers * recurrence.state_elements * element,
    }


def profile_costs(shape: ModelShape, cost: Cost, *, max_heads: int = 16) -> PassCosts:
    """What passes of the model take with the calls and the bus of a profile: uploads, the layers, a chunk's rows copied
    in one stretch (decode's are written in place), one wait and the host's share; a head with its logits."""

    def bus_ms(nbytes: float) -> float:
        return cost.transfer_us / 1e3 + nbytes / cost.bus_mb_s / 1e3

    def rows_copied_ms(rows: int) -> float:
        return (
            2 * (shape.layers - shape.recurrent) * (cost.d2d_us / 1e3 + 2 * shape.kv_dim * rows / cost.d2d_gb_s / 1e6)
        )

    def pass_ms(width: int, history: int, layer_ms: float) -> float:
        mask, indices, embeddings = 2 * width * (history + width), 4 * width, 2 * width * shape.hidden
        calls = bus_ms(mask) + bus_ms(indices) + bus_ms(embeddings) + cost.sync_call_ms + HOST_STEP_MS
        return shape.layers_ms(width, layer_ms) + calls + (rows_copied_ms(width) if width > 1 else 0.0)

    layer_ms = {(1, rows): ms for rows, ms in sorted(shape.decode_ms.items())}
    layer_ms |= {(shape.chunk, history): ms for history, ms in sorted(shape.chunk_ms.items())}
    groups = [Group(index, width, history) for index, (width, history) in enumerate(layer_ms)]
    seconds = tuple(pass_ms(width, history, ms) / 1e3 for (width, history), ms in layer_ms.items())
    head_ms = shape.head_ms + bus_ms(2 * shape.vocab) + HOST_TOKEN_MS
    figures = Costs(
        seconds,
        head_ms / 1e3,
        rows_copied_ms(1) / 1e3,
        state_decode=shape.recurrent * shape.recurrent_decode_ms / 1e3,
        state_chunk=shape.recurrent * shape.recurrent_chunk_ms / 1e3,
    )
    return PassCosts(groups, figures, max_heads=max_heads)
