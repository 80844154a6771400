"""Shape groups: what a layer and a head accept, read from their shapes and never assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from ..errors import PackageError

LAYER_INPUTS = ("K_cache", "V_cache", "indices", "input", "mask")
LAYER_OUTPUTS = ("K_cache_out", "V_cache_out", "output")
BF16 = 14  # the runtime's data types, as in csrc/axcl_abi.h
INDEX_TYPES = (8, 7)  # uint32, and int32, which has the same bits for what positions there are


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output: its name, runtime data type, and shape and bytes for each shape group."""

    name: str
    dtype: int
    shapes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A layer's shape group: `width` tokens a pass, over the first `history` rows of the cache.

    Width 1 is decode; `history` is then the whole cache R (and the card reads all of it, whatever the mask shows).
    """

    index: int
    width: int
    history: int

    @property
    def mask_bytes(self) -> int:
        """Bytes of a pass's mask: bf16 [width, history + width]."""
        return 2 * self.width * (self.history + self.width)


@dataclass(frozen=True, slots=True)
class LayerShape:
    """A layer's geometry: decode groups by growing cache, chunk groups by growing history. `axes` of a chunk's
    positions: 1, or 3 (time, height, width), indices then are [3, C]; decode takes one position for all."""

    hidden: int
    kv_dim: int
    decode: tuple[Group, ...]
    chunks: tuple[Group, ...]
    axes: int = 1

    @property
    def rows(self) -> int:
        """Rows of a bank: the largest cache that any decode group reads."""
        return self.decode[-1].history


@dataclass(frozen=True, slots=True)
class StateShape:
    """A recurrent layer's geometry. It takes a state of `k_bytes` and `v_bytes`, the same in every group, as its
    K_cache and V_cache, and gives a new one; what is in it is its own business. `widths`: tokens a pass, by group."""

    hidden: int
    k_bytes: int
    v_bytes: int
    widths: tuple[int, ...]


def find_tensor(tensors: list[TensorInfo], name: str, where: str) -> int:
    """Index of `name`, also where a build suffixed it per group (`K_cache_1`). PackageError names what is there."""
    exact = [i for i, t in enumerate(tensors) if t.name == name]
    suffixed = [
        i for i, t in enumerate(tensors) if t.name.rpartition("_")[0] == name and t.name.rpartition("_")[2].isdigit()
    ]
    if exact or suffixed:
        return (exact or suffixed)[0]
    raise PackageError(
        f"{where}: no tensor named {name!r} (it has {', '.join(t.name for t in tensors)}); axpress serves transformer"
        f" layers with inputs {', '.join(LAYER_INPUTS)}"
    )


def head_output(head: HasTensors, embeds: bool) -> int:
    """Index of what a head gives of each token: its logits, or with `embeds` its normed hidden state. PackageError:
    it has no such output."""
    names = [tensor.name for tensor in head.outputs]
    if embeds and "output_norm" in names:
        return names.index("output_norm")
    index = find_tensor(head.outputs, "output", head.path)
    given, hidden = head.outputs[index].shapes[0][-1], hidden_size(head)
    if embeds and given != hidden:
        raise PackageError(
            f"{head.path}: it gives {given} logits of a token, an embedding model's head gives its normed hidden state"
            f" of {hidden} values: compile it with --ret_postnorm"
        )
    return index


def gives_norm_alone(head: HasTensors, vocab: int) -> bool:
    """Whether the head gives hidden states and no logits over `vocab` tokens: it is then an embedding model's, whatever
    its package says."""
    given = {tensor.name: tensor.shapes[0][-1] for tensor in head.outputs}
    if "output" not in given:
        return "output_norm" in given
    return given["output"] == hidden_size(head) < vocab


def hidden_size(head: HasTensors) -> int:
    """Values of the hidden rows that a head takes."""
    return head.inputs[find_tensor(head.inputs, "input", head.path)].shapes[0][-1]


def is_recurrent(layer: HasTensors) -> bool:
    """Whether the layer keeps a state in place of K and V of each token: its mask has an element for each token, and
    it puts out its whole K_cache."""
    k, indices, mask = (
        layer.inputs[find_tensor(layer.inputs, name, layer.path)] for name in ("K_cache", "indices", "mask")
    )
    k_out = layer.outputs[find_tensor(layer.outputs, "K_cache_out", layer.path)]
    return prod(mask.shapes[0]) == indices.shapes[0][-1] and k_out.shapes[0] == k.shapes[0]


def state_shape(layer: HasTensors) -> StateShape:
    """Reads a recurrent layer's. PackageError where the shapes contradict each other."""
    inputs, outputs, where = layer.inputs, layer.outputs, layer.path
    _check_tensors(inputs, outputs, where, recurrent=True)
    k, v, x, mask, indices = (
        inputs[find_tensor(inputs, name, where)] for name in ("K_cache", "V_cache", "input", "mask", "indices")
    )
    k_out, v_out, y = (outputs[find_tensor(outputs, name, where)] for name in LAYER_OUTPUTS)
    widths = tuple(shape[-1] for shape in indices.shapes)
    states = {(k.sizes[g], k_out.sizes[g], v.sizes[g], v_out.sizes[g]) for g in range(len(widths))}
    fits = all(
        prod(mask.shapes[g]) == width and x.shapes[g][-2:] == y.shapes[g][-2:] == (width, x.shapes[0][-1])
        for g, width in enumerate(widths)
    )
    if len(states) != 1 or k.sizes[0] != k_out.sizes[0] or v.sizes[0] != v_out.sizes[0] or not fits:
        raise PackageError(
            f"{where}: a recurrent layer whose state or tokens differ between shape groups (K_cache {list(k.shapes)},"
            f" V_cache {list(v.shapes)}, mask {list(mask.shapes)}): a broken build?"
        )
    return StateShape(x.shapes[0][-1], k.sizes[0], v.sizes[0], widths)


def layer_shape(inputs: list[TensorInfo], outputs: list[TensorInfo], where: str) -> LayerShape:
    """Reads groups from a layer's IO. PackageError where the shapes contradict each other or are of another kind of
    model, whatever its name."""
    _check_tensors(inputs, outputs, where)
    k, indices, x, mask, k_out = (
        *(inputs[find_tensor(inputs, name, where)] for name in ("K_cache", "indices", "input", "mask")),
        outputs[find_tensor(outputs, "K_cache_out", where)],
    )
    hidden, kv_dim = x.shapes[0][-1], k_out.shapes[0][-1]
    decode: list[Group] = []
    chunks: list[Group] = []
    for g in range(len(x.shapes)):
        if kind := _other_kind(k.shapes[g], indices.shapes[g], mask.shapes[g], k_out.shapes[g]):
            raise PackageError(f"{where}: {kind}, in shape group {g}: such models are not supported yet")
        width, history = indices.shapes[g][-1], mask.shapes[g][-1] - indices.shapes[g][-1]
        cache_fits = k.shapes[g][-2] == max(history, 1) and (history == 0 or k.shapes[g][-1] == kv_dim)
        rows_fit = k_out.shapes[g][-2:] == (width, kv_dim) and x.shapes[g][-2:] == (width, hidden)
        if history < 0 or not cache_fits or not rows_fit:
            raise PackageError(
                f"{where}: shape group {g} is not a transformer layer's (indices {indices.shapes[g]}, mask"
                f" {mask.shapes[g]}, K_cache {k.shapes[g]}, K_cache_out {k_out.shapes[g]}, input {x.shapes[g]}); hybrid"
                " models are not supported yet"
            )
        (decode if width == 1 else chunks).append(Group(g, width, history))
    if not decode:
        raise PackageError(f"{where}: no decode group (one token a pass) among its {len(x.shapes)} shape groups")
    axes = {prod(indices.shapes[group.index][:-1]) for group in chunks} or {1}
    if len(axes) > 1:
        raise PackageError(f"{where}: its chunks take positions on {' and '.join(map(str, sorted(axes)))} axes")
    ladders = [tuple(sorted(groups, key=lambda group: group.history)) for groups in (decode, chunks)]
    return LayerShape(hidden, kv_dim, ladders[0], ladders[1], axes.pop())


def _check_tensors(inputs: list[TensorInfo], outputs: list[TensorInfo], where: str, *, recurrent: bool = False) -> None:
    """PackageError names a tensor that is missing, is of another data type, or is one that nobody would fill. The
    states of `recurrent` layers may be of any type: nobody looks into them."""
    expected = {*(find_tensor(inputs, name, where) for name in LAYER_INPUTS)}
    for number, tensor in enumerate(inputs):
        if number not in expected:
            raise PackageError(
                f"{where}: it has an input {tensor.name!r} {list(tensor.shapes[0])}, axpress fills only"
                f" {', '.join(LAYER_INPUTS)}: this kind of model is not supported yet"
            )
    for tensors, names in ((inputs, LAYER_INPUTS), (outputs, LAYER_OUTPUTS)):
        for name in names:
            tensor = tensors[find_tensor(tensors, name, where)]
            kinds = INDEX_TYPES if name == "indices" else (BF16,)
            if tensor.dtype not in kinds and not (recurrent and "cache" in name):
                raise PackageError(
                    f"{where}: {tensor.name} is of the runtime's data type {tensor.dtype}, axpress takes"
                    f" {kinds[0]} there: compile the model with bf16 hidden states and caches"
                )


def _other_kind(
    k: tuple[int, ...], indices: tuple[int, ...], mask: tuple[int, ...], k_out: tuple[int, ...]
) -> str | None:
    """What a layer with these shapes in one group is, if it is no layer with attention over rows and one position."""
    if prod(indices[:-1]) not in ((1, 3) if indices[-1] > 1 else (1,)):
        return f"indices of shape {list(indices)} are neither one position for each token nor three"
    width, seen = indices[-1], mask[-1]
    if prod(mask) == width and k_out == k:
        return f"a K_cache {list(k)} that is put out whole, with a mask of {list(mask)}, is a recurrent layer's state"
    if min(len(k), len(k_out)) < 2:
        return f"a K_cache {list(k)} has no rows"
    if seen > width and k[-2] == seen:
        return f"a K_cache {list(k)} as long as its mask {list(mask)} is one that layers share"
    return None


class HasTensors(Protocol):
    """A loaded model, as far as its shapes are concerned."""

    path: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


@dataclass(frozen=True, slots=True)
class CommonShape:
    """What all layers of a model can do. `shape`: the groups that each of them has, numbered as in the first layer with
    attention. `numbers`: of each layer, the numbers on the card of these groups, decode's first. `states`: of each
    layer, None where it has attention."""

    shape: LayerShape
    numbers: tuple[tuple[int, ...], ...]
    states: tuple[StateShape | None, ...]

    @property
    def num_attention(self) -> int:
        """Layers that have K and V of each token."""
        return self.states.count(None)

    def part(self, layers: slice) -> CommonShape:
        """The same of some of the layers."""
        return CommonShape(self.shape, self.numbers[layers], self.states[layers])


def common_shape(layers: Sequence[HasTensors]) -> CommonShape:
    """The groups that every layer can serve, matched by tokens and rows: files may have fewer groups than others, in
    another order. Of recurrent layers, whose shapes say nothing of rows, by their numbers, the last for all that are
    missing. PackageError names a layer that is of another model, or shares no decode group with those before."""
    states = [state_shape(layer) if is_recurrent(layer) else None for layer in layers]
    attention = [layer for layer, state in zip(layers, states, strict=True) if state is None]
    if not attention:
        raise PackageError(
            f"{layers[0].path}: all layers of the model are recurrent, none tells how long a text may be"
        )
    shape, by_layer = _common_attention(attention)
    numbers, rest = [], iter(by_layer)
    for layer, state in zip(layers, states, strict=True):
        if state is not None and state.hidden != shape.hidden:
            raise PackageError(
                f"{layer.path}: its hidden rows have {state.hidden} values; in {attention[0].path} they have"
                f" {shape.hidden}: files of two models?"
            )
        groups = shape.decode + shape.chunks
        numbers.append(next(rest) if state is None else tuple(_state_group(layer.path, state, g) for g in groups))
    return CommonShape(shape, tuple(numbers), tuple(states))


def _state_group(where: str, state: StateShape, group: Group) -> int:
    """The number of a recurrent layer's group for passes of this one."""
    number = min(group.index, len(state.widths) - 1)
    if state.widths[number] == group.width:
        return number
    if group.width in state.widths:
        return state.widths.index(group.width)
    raise PackageError(
        f"{where}: it has no shape group of {group.width} tokens, other layers have (its groups take"
        f" {', '.join(map(str, state.widths))}): files of two builds?"
    )


def _common_attention(layers: Sequence[HasTensors]) -> tuple[LayerShape, list[tuple[int, ...]]]:
    """The groups that all layers with attention have, and their numbers in each layer."""
    shapes = [layer_shape(layer.inputs, layer.outputs, layer.path) for layer in layers]
    first, where = shapes[0], layers[0].path
    by_layer = [{(group.width, group.history): group.index for group in s.decode + s.chunks} for s in shapes]
    common = set(by_layer[0])
    for layer, shape, numbers in zip(layers, shapes, by_layer, strict=True):
        if (shape.hidden, shape.kv_dim) != (first.hidden, first.kv_dim):
            raise PackageError(
                f"{layer.path}: its hidden rows have {shape.hidden} values, those of K and V {shape.kv_dim}; in {where}"
                f" they have {first.hidden} and {first.kv_dim}: files of two models?"
            )
        if shape.axes != first.axes:
            raise PackageError(
                f"{layer.path}: its chunks take positions on {shape.axes} axes, those of {where} on {first.axes}: files"
                " of two models?"
            )
        if not any(width == 1 for width, _ in common & numbers.keys()):
            mine, theirs = (", ".join(str(p) for w, p in sorted(of) if w == 1) for of in (numbers, common))
            raise PackageError(
                f"{layer.path}: it decodes over {mine} rows, the layers before it ({where} and on) over {theirs}: no"
                " shape group is common to them, files of two builds?"
            )
        common &= numbers.keys()
    rows = max(history for width, history in common if width == 1)  # of the cache: no chunk can read more
    kept = [
        [g for g in groups if (g.width, g.history) in common and g.history <= rows]
        for groups in (first.decode, first.chunks)
    ]
    keys = [(group.width, group.history) for groups in kept for group in groups]
    return (
        LayerShape(first.hidden, first.kv_dim, tuple(kept[0]), tuple(kept[1]), first.axes),
        [tuple(numbers[key] for key in keys) for numbers in by_layer],
    )
