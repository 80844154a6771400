"""Positions of three axes: which pair of a head's dimensions turns by which row of a chunk's indices, as transformers
has it; and that three equal rows are nothing new."""

from __future__ import annotations

import numpy as np
import pytest
from emu_native import HIDDEN_MASK, LayerShape, Model, bf16, library, safetensors, wide

SECTIONS = {
    "sections": ((6, 5, 5), 0),
    "interleaved": ((6, 5, 5), 1),
    "uneven": ((10, 4, 2), 1),
    "last": ((2, 6, 8), 0),
}


def opened(shape: LayerShape, sections: tuple[int, ...], interleaved: int) -> Model:
    axes = {"rope_sections": ",".join(map(str, sections)), "rope_interleaved": interleaved}
    return Model(library(), safetensors(shape.metadata() | axes, shape.tensors))


def of_axes(pairs: int, sections: tuple[int, ...], interleaved: int) -> list[int]:
    """The axis of each pair, written as transformers writes it: slices of a row."""
    axis = np.repeat(np.arange(3), sections)
    if interleaved:
        axis[:] = 0
        for number in (1, 2):
            axis[number : 3 * sections[number] : 3] = number
    assert len(axis) == pairs
    return axis.tolist()


def inputs(shape: LayerShape, tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An empty cache of one row, hidden states and a causal mask."""
    x = bf16(np.random.default_rng(5).normal(size=(tokens, shape.hidden)))
    mask = np.full((tokens, tokens), HIDDEN_MASK, np.float32)
    mask[np.tril_indices(tokens)] = 0
    return np.zeros((1, shape.hidden), np.uint16), x, bf16(mask)


@pytest.mark.parametrize("sections, interleaved", SECTIONS.values(), ids=SECTIONS)
def test_pairs_turn_by_their_axis(sections: tuple[int, ...], interleaved: int) -> None:
    shape = LayerShape(head_dim=32, chunk=6, history=(0,))
    empty, x, mask = inputs(shape, shape.chunk)
    positions = np.array([[3, 4, 4, 4, 4, 9], [3, 4, 4, 5, 5, 9], [3, 4, 5, 4, 5, 9]], np.uint32)
    model, kv = opened(shape, sections, interleaved), shape.kv_heads * shape.head_dim
    out = [np.zeros((shape.chunk, n), np.uint16) for n in (kv, kv, shape.hidden)]
    model.execute(1, [empty, empty, positions, x, mask], out)
    axis = of_axes(shape.head_dim // 2, sections, interleaved)
    plain = Model(library(), shape.file())
    for row in range(3):  # what one axis alone gives, of the pairs that turn by it
        alone = plain.layer(shape, 1, empty, empty, positions[row], x, mask)[0]
        mine = [i for i, a in enumerate(axis) if a == row]
        halves = (wide(keys_of).reshape(-1, shape.kv_heads, 2, shape.head_dim // 2) for keys_of in (out[0], alone))
        got, wanted = (half[..., mine] for half in halves)
        assert np.array_equal(got, wanted), f"axis {row}"


@pytest.mark.parametrize("sections, interleaved", SECTIONS.values(), ids=SECTIONS)
def test_equal_rows_are_one_position(sections: tuple[int, ...], interleaved: int) -> None:
    shape = LayerShape(head_dim=32, chunk=6, history=(0, 40))
    empty, x, mask = inputs(shape, shape.chunk)
    positions = np.arange(7, 13, dtype=np.uint32)
    plain, axes = Model(library(), shape.file()), opened(shape, sections, interleaved)
    wanted = plain.layer(shape, 1, empty, empty, positions, x, mask)
    out = [np.zeros_like(array) for array in wanted]
    axes.execute(1, [empty, empty, np.tile(positions, (3, 1)), x, mask], out)
    assert all(np.array_equal(a, b) for a, b in zip(out, wanted, strict=True))
    cache = np.zeros((shape.rows, shape.kv_heads * shape.head_dim), np.uint16)  # decode: one element for all three
    seen = bf16(np.concatenate([np.full((1, shape.rows), HIDDEN_MASK, np.float32), [[0]]], 1))
    single = [m.layer(shape, 0, cache, cache, [12], x[:1], seen) for m in (plain, axes)]
    assert all(np.array_equal(a, b) for a, b in zip(*single, strict=True))


def test_nonsense_is_refused() -> None:
    shape = LayerShape(head_dim=32)
    with pytest.raises(ValueError, match="rope_sections are of 15 pairs, inv_freq has 16"):
        opened(shape, (5, 5, 5), 0)
    with pytest.raises(ValueError, match="2 numbers instead of 3"):
        opened(shape, (8, 8), 0)
    with pytest.raises(ValueError, match="rope_interleaved needs rope_sections"):
        opened(shape, (), 1)
