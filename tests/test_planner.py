"""Groups are read from shapes; the planner takes the cheapest pass that reaches."""

from __future__ import annotations

import pytest
from axpress.core.errors import PackageError
from axpress.core.groups import Group, TensorInfo, layer_shape
from axpress.core.planner import Pass, Planner

H, D = 64, 16


def tensors(groups: list[tuple[int, int]], suffix: str = "") -> tuple[list[TensorInfo], list[TensorInfo]]:
    """IO of a layer with (width, history) groups."""

    def info(name: str, shapes: list[tuple[int, ...]]) -> TensorInfo:
        return TensorInfo(name + suffix, 14, tuple(shapes), tuple(0 for _ in shapes))

    inputs = [
        info("mask", [(1, w, p + w) for w, p in groups]),
        info("K_cache", [(1, max(p, 1), D) for _, p in groups]),
        info("V_cache", [(1, max(p, 1), D) for _, p in groups]),
        info("indices", [(1, w) for w, _ in groups]),
        info("input", [(1, w, H) for w, _ in groups]),
    ]
    outputs = [info("output", [(1, w, H) for w, _ in groups]), info("K_cache_out", [(1, w, D) for w, _ in groups])]
    outputs.append(info("V_cache_out", [(1, w, D) for w, _ in groups]))
    return inputs, outputs


def test_groups_come_from_shapes_in_any_order() -> None:
    shape = layer_shape(*tensors([(128, 256), (1, 2047), (128, 0), (1, 511)]), "layer")
    assert shape.decode == (Group(3, 1, 511), Group(1, 1, 2047))
    assert shape.chunks == (Group(2, 128, 0), Group(0, 128, 256))
    assert (shape.rows, shape.hidden, shape.kv_dim) == (2047, H, D)


def test_suffixed_names_and_models_without_chunks() -> None:
    shape = layer_shape(*tensors([(1, 255)], "_1"), "layer")
    assert shape.chunks == () and shape.rows == 255


def test_no_decode_group_is_refused() -> None:
    with pytest.raises(PackageError, match="no decode group"):
        layer_shape(*tensors([(128, 0)]), "l.axmodel")


def test_other_kinds_of_model_are_refused_by_name() -> None:
    inputs, outputs = tensors([(1, 255)])
    with pytest.raises(PackageError, match="K_cache"):
        layer_shape(inputs[:1] + inputs[2:], outputs, "l.axmodel")
    broken = [TensorInfo("K_cache", 14, ((1, 3, D),), (0,)) if t.name == "K_cache" else t for t in inputs]
    with pytest.raises(PackageError, match="hybrid"):
        layer_shape(broken, outputs, "l.axmodel")
    three = [TensorInfo("indices", 8, ((3, 1),), (0,)) if t.name == "indices" else t for t in inputs]
    with pytest.raises(PackageError, match="multimodal"):
        layer_shape(three, outputs, "l.axmodel")


GROUPS = (Group(1, 1, 511), Group(0, 1, 2047), Group(2, 128, 0), Group(3, 128, 256), Group(4, 128, 512))
COSTS = (0.06, 0.10, 0.16, 0.18, 0.20)


def test_decode_takes_the_smallest_cache_that_covers_the_rows() -> None:
    planner = Planner(GROUPS, COSTS)
    assert planner.decode(511) == 0
    assert planner.decode(512) == 1


def test_prompt_takes_the_nearest_history() -> None:
    planner = Planner(GROUPS, COSTS)
    assert planner.prompt(0, 500) == Pass(2, 128)
    assert planner.prompt(128, 300) == Pass(3, 128)
    assert planner.prompt(257, 100) == Pass(4, 100)


def test_few_tokens_are_decoded_singly() -> None:
    planner = Planner(GROUPS, COSTS)
    assert planner.prompt(0, 2) == Pass(0, 1)
    assert planner.prompt(0, 3) == Pass(2, 3)


def test_beyond_the_deepest_group_prompts_go_token_by_token() -> None:
    assert Planner(GROUPS, COSTS).prompt(513, 400) == Pass(1, 1)
    assert Planner(GROUPS[:2], COSTS[:2]).prompt(0, 400) == Pass(0, 1)


def test_chunks_that_the_probe_refused_are_not_used() -> None:
    planner = Planner(GROUPS, COSTS, chunks=False)
    assert planner.prompt(0, 400) == Pass(0, 1)
    assert planner.max_width == 1
