"""What a layer's shapes and data types tell of it: groups of every published form, and kinds that are refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from axpress.core.device.shape_groups import CommonShape, Group, TensorInfo, common_shape, layer_shape
from axpress.core.errors import PackageError

H, D, R, C = 64, 16, 255, 32
BF16, FP16, INT8, UINT32 = 14, 13, 3, 8
LADDER = [(1, R), (C, 0), (C, 64), (C, 128)]  # width, history
IO = tuple[list[TensorInfo], list[TensorInfo]]


def layer(groups: list[tuple[int, int]] = LADDER, empty_width: int = D) -> IO:
    """IO of a layer with these groups; where there is no history the cache is one row of `empty_width`."""

    def info(name: str, shapes: list[tuple[int, ...]], dtype: int = BF16) -> TensorInfo:
        return TensorInfo(name, dtype, tuple(shapes), tuple(0 for _ in shapes))

    cache: list[tuple[int, ...]] = [(1, p, D) if p else (1, 1, empty_width) for _, p in groups]
    rows: list[tuple[int, ...]] = [(1, w, D) for w, _ in groups]
    hidden: list[tuple[int, ...]] = [(1, w, H) for w, _ in groups]
    inputs = [
        info("K_cache", cache), info("V_cache", cache), info("indices", [(1, w) for w, _ in groups], UINT32),
        info("input", hidden), info("mask", [(1, w, p + w) for w, p in groups]),
    ]  # fmt: skip
    return inputs, [info("K_cache_out", rows), info("V_cache_out", rows), info("output", hidden)]


def changed(io: IO, name: str, **changes: object) -> IO:
    """The same with another tensor of this name."""
    inputs, outputs = ([replace(t, **changes) if t.name == name else t for t in side] for side in io)
    return inputs, outputs


@pytest.mark.parametrize("empty_width", [D, H, 1])
def test_without_history_the_width_of_the_cache_means_nothing(empty_width: int) -> None:
    shape = layer_shape(*layer(empty_width=empty_width), "l0")
    assert (shape.hidden, shape.kv_dim, shape.rows) == (H, D, R)
    assert shape.chunks == (Group(1, C, 0), Group(2, C, 64), Group(3, C, 128)) and shape.decode == (Group(0, 1, R),)


def test_the_first_group_may_be_the_one_without_history() -> None:
    shape = layer_shape(*layer([(C, 0), (1, 127), (1, R)], empty_width=H), "l0")
    assert shape.kv_dim == D and shape.decode == (Group(1, 1, 127), Group(2, 1, R))


@pytest.mark.parametrize("name", ["K_cache", "V_cache", "input", "mask", "output", "K_cache_out", "V_cache_out"])
@pytest.mark.parametrize("dtype", [INT8, FP16, 15, 0])
def test_other_data_types_are_refused_by_name(name: str, dtype: int) -> None:
    with pytest.raises(PackageError, match=rf"l0: {name} is of the runtime's data type {dtype}, axpress takes 14"):
        layer_shape(*changed(layer(), name, dtype=dtype), "l0")


def test_positions_may_be_signed_and_nothing_else() -> None:
    assert layer_shape(*changed(layer(), "indices", dtype=7), "l0").rows == R
    with pytest.raises(PackageError, match="indices is of the runtime's data type 10"):
        layer_shape(*changed(layer(), "indices", dtype=10), "l0")


def test_an_input_that_nobody_would_fill_is_refused_by_name() -> None:
    inputs, outputs = layer()
    extra = TensorInfo("per_layer_input", BF16, ((1, 1, 256),) * len(LADDER), (0,) * len(LADDER))
    with pytest.raises(PackageError, match=r"input 'per_layer_input' \[1, 1, 256\]"):
        layer_shape([*inputs, extra], outputs, "l0")


@pytest.mark.parametrize("shape", [(3, C), (1, 3, C), (3, 1, C)])
def test_positions_on_three_axes(shape: tuple[int, ...]) -> None:
    indices = ((1, 1), *(shape for _ in LADDER[1:]))
    three = changed(layer(), "indices", shapes=indices)
    assert layer_shape(*three, "l0") == replace(layer_shape(*layer(), "l0"), axes=3) == common(three, three).shape
    with pytest.raises(PackageError, match="l1: its chunks take positions on 3 axes, those of l0 on 1"):
        common(layer(), three)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (((1, 1), *((2, C) for _ in LADDER[1:])), r"indices of shape \[2, 32\] are neither.*in shape group 1"),
        (((3, 1), *((3, C) for _ in LADDER[1:])), r"indices of shape \[3, 1\] are neither.*in shape group 0"),
        (((1, 1), (1, C), (3, C), (3, C)), "its chunks take positions on 1 and 3 axes"),
    ],
)
def test_positions_on_other_axes(shapes: tuple[tuple[int, ...], ...], said: str) -> None:
    with pytest.raises(PackageError, match=said):
        layer_shape(*changed(layer(), "indices", shapes=shapes), "l0")


def test_the_state_of_a_recurrent_layer() -> None:
    state = tuple((1, 16, 128, 128) for _ in LADDER)
    io = changed(changed(layer(), "K_cache", shapes=state), "K_cache_out", shapes=state)
    io = changed(io, "mask", shapes=tuple((1, width) for width, _ in LADDER))
    with pytest.raises(PackageError, match="recurrent layer"):
        layer_shape(*io, "l0")


def test_a_cache_that_layers_share() -> None:
    shared = tuple((1, history + width, D) for width, history in LADDER)
    with pytest.raises(PackageError, match="is one that layers share"):
        layer_shape(*changed(layer(), "K_cache", shapes=shared), "l0")


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("K_cache", tuple((1, 3, D) for _ in LADDER)),
        ("K_cache", tuple((5,) for _ in LADDER)),
        ("K_cache_out", (*((1, width, D + 1) for width, _ in LADDER[:-1]), (1, C, D))),
        ("input", tuple((1, width + 1, H) for width, _ in LADDER)),
        ("mask", tuple((1, width, width - 1) for width, _ in LADDER)),
    ],
)
def test_shapes_that_contradict_each_other(name: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(PackageError, match="l0: "):
        layer_shape(*changed(layer(), name, shapes=shapes), "l0")


def common(*layers: IO) -> CommonShape:
    return common_shape([SimpleNamespace(path=f"l{i}", inputs=io[0], outputs=io[1]) for i, io in enumerate(layers)])


def test_layers_serve_the_groups_that_all_have_wherever_each_has_them() -> None:
    several = [(1, 127), (1, R), *LADDER[1:]]
    found = common(layer(several), layer([(C, 64), (1, R), (C, 0)], H), layer([(C, 0), (C, 128), (C, 64), (1, R)]))
    assert found.shape.decode == (Group(1, 1, R),) and found.shape.rows == R
    assert found.shape.chunks == (Group(2, C, 0), Group(3, C, 64))
    assert found.numbers == ((1, 2, 3), (1, 2, 0), (3, 0, 2)), "of each layer, decode first"


def test_chunks_of_another_width_are_not_common() -> None:
    found = common(layer(), layer([(1, R), (2 * C, 0), (2 * C, 64)]))
    assert found.shape.chunks == () and found.numbers == ((0,), (0,))


def test_layers_without_a_common_decode_group_are_refused_by_file_and_rows() -> None:
    with pytest.raises(PackageError, match=r"^l2: it decodes over 127, 200 rows, .*\(l0 and on\) over 255: no shape"):
        common(layer(), layer([(1, 127), (1, R)]), layer([(1, 127), (1, 200), (C, 0)]))


def test_layers_of_another_size_are_another_models() -> None:
    wider = changed(changed(layer(), "input", shapes=tuple((1, w, 2 * H) for w, _ in LADDER)), "output", shapes=())
    with pytest.raises(
        PackageError, match=r"l1: its hidden rows have 128 values, those of K and V 16; in l0 .* 64 and"
    ):
        common(layer(), wider)
