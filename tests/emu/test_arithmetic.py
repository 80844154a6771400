"""The emulator's arithmetic: right within bf16 rounding, and the same bits however the work is arranged."""

from __future__ import annotations

import ctypes
import ctypes.util
import subprocess
from collections.abc import Iterator
from pathlib import Path

import emu_native
import numpy as np
import pytest
from emu_native import HIDDEN_MASK, LayerShape, Model, bf16, reference, safetensors, wide
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from repository import PATIENCE

FAMILIES = ("qwen3", "qwen2", "llama")
HIDDEN = bf16(np.array([HIDDEN_MASK]))[0]
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def library() -> Iterator[ctypes.CDLL]:
    lib = emu_native.library()
    yield lib
    lib.emu_threads_stop()


@pytest.fixture(autouse=True)
def defaults(library: ctypes.CDLL) -> Iterator[None]:
    library.emu_threads_set(1)
    yield
    library.emu_math_select(b"auto")


def isas(library: ctypes.CDLL) -> list[str]:
    return [name for name in ("scalar", "avx2", "avx512", "neon") if library.emu_math_select(name.encode()) == 0]


def cache(shape: LayerShape, rows: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    size = (max(rows, 1), shape.kv_heads * shape.head_dim)
    return bf16(rng.normal(0, 1, size)), bf16(rng.normal(0, 1, size) * np.exp(rng.normal(0, 2, size)))


def inputs(shape: LayerShape, tokens: int, seed: int = 9) -> np.ndarray:
    return bf16(np.random.default_rng(seed).normal(0, 1, (tokens, shape.hidden)))


def causal(rows: int, visible: np.ndarray, tokens: int) -> np.ndarray:
    """bf16 mask [tokens, rows + tokens]: the given cache rows, and the chunk causally."""
    mask = np.full((tokens, rows + tokens), HIDDEN, np.uint16)
    mask[:, visible] = 0
    mask[:, rows:][np.tril_indices(tokens)] = 0
    return mask


def close(got: np.ndarray, want: np.ndarray) -> None:
    """Within a bf16 rounding of each value, plus fp32 accumulation noise."""
    np.testing.assert_allclose(wide(got), want, rtol=2**-8, atol=2e-5 * max(1.0, np.abs(want).max()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("head_dim", "heads", "kv_heads"), [(32, 4, 4), (64, 4, 2), (80, 6, 2), (96, 8, 1), (128, 3, 1), (10, 2, 1)]
)
def test_layer_equals_float64_reference(
    library: ctypes.CDLL, family: str, head_dim: int, heads: int, kv_heads: int
) -> None:
    shape = LayerShape(family, hidden=56, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ffn=100)
    shape.rope_factor = 1.1 if family == "llama" else 1.0
    model = Model(library, shape.file())
    for group, (rows, tokens) in enumerate([(40, 1), (0, 6), (40, 6)]):
        k, v = cache(shape, rows)
        visible = np.flatnonzero(np.random.default_rng(3).random(rows) < 0.6)
        mask, x, positions = causal(rows, visible, tokens), inputs(shape, tokens), np.arange(tokens) + 1000
        for got, want in zip(
            model.layer(shape, group, k, v, positions, x, mask), reference(shape, k, v, positions, x, mask), strict=True
        ):
            close(got, want)
    model.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_layer_equals_float64_reference_on_the_weights_it_has(library: ctypes.CDLL, family: str) -> None:
    shape = LayerShape(family, hidden=56, heads=6, kv_heads=2, head_dim=80, ffn=100)
    model, exact = Model(library, shape.file("int8")), shape.as_int8()
    for group, (rows, tokens) in enumerate([(40, 1), (0, 6), (40, 6)]):
        k, v = cache(shape, rows)
        mask, x, positions = causal(rows, np.arange(0, rows, 3), tokens), inputs(shape, tokens), np.arange(tokens) + 9
        for got, want in zip(
            model.layer(shape, group, k, v, positions, x, mask), reference(exact, k, v, positions, x, mask), strict=True
        ):
            close(got, want)
    model.close()


def test_int8_is_within_two_percent_of_bf16(library: ctypes.CDLL) -> None:
    """The bound that the emulator's README states: of what a layer adds to its input, root mean squares compared."""
    shape = LayerShape(hidden=576, heads=9, kv_heads=3, head_dim=64, ffn=1536)
    x, mask, empty = inputs(shape, 6), causal(0, np.arange(0), 6), np.zeros((1, 576), np.uint16)
    added = []
    for weights in ("bf16", "int8"):
        model = Model(library, shape.file(weights))
        added.append(wide(model.layer(shape, 1, empty, empty, range(6), x, mask)[2]) - wide(x))
        model.close()
    difference = np.sqrt(np.mean((added[1] - added[0]) ** 2) / np.mean(added[0] ** 2))
    assert 1e-4 < difference < 0.02


def test_other_mask_values_are_added(library: ctypes.CDLL) -> None:
    shape = LayerShape()
    model = Model(library, shape.file())
    k, v = cache(shape, 40)
    x = inputs(shape, 1)
    mask = bf16(np.random.default_rng(2).normal(0, 3, (1, 41)))
    close(model.layer(shape, 0, k, v, [7], x, mask)[2], reference(shape, k, v, [7], x, mask)[2])
    # sees nothing, so everything: softmax does not change when all scores move; but fp32 keeps them to 2^-8 at -65536
    mask[:] = HIDDEN
    got, want = model.layer(shape, 0, k, v, [7], x, mask)[2], reference(shape, k, v, [7], x, np.zeros_like(mask))[2]
    np.testing.assert_allclose(wide(got), want, rtol=2**-6, atol=2e-3 * np.abs(want).max())
    model.close()


@QUICK
@given(
    seed=st.integers(0, 2**32 - 1),
    family=st.sampled_from(FAMILIES),
    head_dim=st.sampled_from([32, 80, 128]),
    spread=st.floats(0, 12),
)
def test_rows_and_their_order_do_not_matter(
    library: ctypes.CDLL, seed: int, family: str, head_dim: int, spread: float
) -> None:
    """The same context in other rows, in another order, in a larger or a smaller group: the same bits."""
    rng = np.random.default_rng(seed)
    kv_heads = int(rng.choice([1, 2, 4]))
    shape = LayerShape(
        family, head_dim=head_dim, kv_heads=kv_heads, rows=300, chunk=5, history=(0, 64, 300), seed=seed % 97
    )
    model = Model(library, shape.file())
    n, x, kv = int(rng.integers(1, 65)), inputs(shape, 1, seed), shape.kv_heads * head_dim
    context = [bf16(rng.normal(0, 1, (n, kv)) * np.exp(rng.normal(0, spread, (n, kv)))) for _ in range(2)]
    context[0] = bf16(wide(context[0]).clip(-8, 8))
    results = []
    for group, rows, tokens in [(0, 300, 1), (0, 300, 1), (2, 64, 5), (3, 300, 5)]:
        place, order = rng.choice(rows, n, replace=False), rng.permutation(n)
        k, v = cache(shape, rows, seed + len(results))
        k[place], v[place] = context[0][order], context[1][order]
        at = int(rng.integers(tokens))
        xs, mask = inputs(shape, tokens, seed + 1 + len(results)), causal(rows, rng.choice(rows, 3), tokens)
        xs[at], mask[at] = x[0], HIDDEN
        mask[at, place], mask[at, rows + at] = 0, 0
        positions = rng.integers(0, 5000, tokens)
        positions[at] = 321
        results.append([out[at] for out in model.layer(shape, group, k, v, positions, xs, mask)])
    model.close()
    for result in results[1:]:
        for got, want in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("family", FAMILIES)
def test_chunked_prefill_equals_token_by_token(library: ctypes.CDLL, family: str) -> None:
    shape = LayerShape(family, head_dim=64, rows=40, chunk=16, history=(0, 40))
    model = Model(library, shape.file())
    x, mask = inputs(shape, 32), np.full((1, 41), HIDDEN, np.uint16)
    k, v = cache(shape, 40)
    one = []
    for t in range(32):
        mask[0, 40], mask[0, :t] = 0, 0
        outs = model.layer(shape, 0, k, v, [t], x[t : t + 1], mask)
        k[t], v[t] = outs[0][0], outs[1][0]
        one.append(outs[2][0])
    k2, v2 = cache(shape, 40, seed=6)
    first = model.layer(shape, 1, k2[:1], v2[:1], range(16), x[:16], causal(0, np.arange(0), 16))
    k2[:16], v2[:16] = first[0], first[1]
    second = model.layer(shape, 2, k2, v2, range(16, 32), x[16:], causal(40, np.arange(16), 16))
    np.testing.assert_array_equal(np.concatenate([first[2], second[2]]), np.array(one))
    np.testing.assert_array_equal(second[0], k[16:32])
    model.close()


PADDING = bf16(np.array([-32768.0]))[0]  # as csrc/mask.h


@pytest.mark.parametrize("alone", [True, False])
def test_padding_is_not_computed_and_changes_nothing(library: ctypes.CDLL, alone: bool) -> None:
    """Last rows of a chunk whose masks show nothing, be it that they see only themselves or nothing at all."""
    shape = LayerShape(chunk=16, history=(0, 40))
    model = Model(library, shape.file())
    k, v = cache(shape, 40)
    x, positions = inputs(shape, 16), np.arange(16, dtype=np.uint32)
    full = causal(40, np.arange(9), 16)
    want = model.layer(shape, 2, k, v, positions, x, full)
    for count in (1, 7, 16):
        mask = full.copy()
        mask[count:] = HIDDEN
        mask[range(count, 16), range(40 + count, 56)] = PADDING if alone else HIDDEN
        outputs = [np.full((16, n), 7, np.uint16) for n in (64, 64, shape.hidden)]
        assert model.execute(2, [k, v, positions, x, mask], outputs) == count
        for got, expected in zip(outputs, want, strict=True):
            np.testing.assert_array_equal(got[:count], expected[:count])
            assert not got[count:].any()
    model.close()


def test_padding_that_matters_to_others_is_computed(library: ctypes.CDLL) -> None:
    shape = LayerShape(chunk=6)
    model = Model(library, shape.file())
    empty, x, positions = np.zeros((1, 64), np.uint16), inputs(shape, 6), np.arange(6, dtype=np.uint32)
    outputs = [np.zeros((6, n), np.uint16) for n in (64, 64, shape.hidden)]
    mask = causal(0, np.arange(0), 6)
    mask[3:] = HIDDEN
    assert model.execute(1, [empty, empty, positions, x, mask], outputs) == 3
    seen = mask.copy()
    seen[1, 4] = 0
    assert model.execute(1, [empty, empty, positions, x, seen], outputs) == 6
    plain = wide(outputs[2])
    assert np.isfinite(plain).all() and (plain[4] != 0).any()
    x[5] = 0x7FC0  # spoils all, as on the card
    assert model.execute(1, [empty, empty, positions, x, mask], outputs, scan_nan=1) == 6
    assert np.isnan(wide(outputs[2])).all()
    model.close()


def test_outputs_may_be_the_cache_rows_and_the_input(library: ctypes.CDLL) -> None:
    shape = LayerShape()
    model = Model(library, shape.file())
    for group, tokens, mask in [(0, 1, causal(40, np.arange(9), 1)), (2, 6, causal(40, np.arange(9), 6))]:
        k, v = cache(shape, 40)
        x, positions = inputs(shape, tokens), np.arange(9, 9 + tokens, dtype=np.uint32)
        want = model.layer(shape, group, k, v, positions, x, mask)
        model.execute(group, [k, v, positions, x, mask], [k[9:], v[9:], x])
        for got, expected in zip((k[9 : 9 + tokens], v[9 : 9 + tokens], x), want, strict=True):
            np.testing.assert_array_equal(got, expected)
    model.close()


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_threads_and_instruction_sets_give_the_same_bits(library: ctypes.CDLL, weights: str) -> None:
    shape = LayerShape(hidden=200, heads=6, kv_heads=3, head_dim=80, ffn=333, rows=150, chunk=21, history=(0, 150))
    model, names = Model(library, shape.file(weights)), isas(library)
    k, v = cache(shape, 150)
    for group, tokens in [(0, 1), (2, 21)]:
        x, mask = inputs(shape, tokens), causal(150, np.arange(3, 140), tokens)
        results = []
        for isa, threads in [(isa, n) for isa in names for n in (1, 2, 3)]:
            assert library.emu_math_select(isa.encode()) == 0
            library.emu_threads_set(threads)
            results.append(model.layer(shape, group, k, v, range(tokens), x, mask))
        for result in results[1:]:
            for got, want in zip(result, results[0], strict=True):
                np.testing.assert_array_equal(got, want)
    assert "scalar" in names
    model.close()


def test_isa_that_is_not_there(library: ctypes.CDLL) -> None:
    before = library.emu_math_isa()
    assert library.emu_math_select(b"sse9") == -1
    assert library.emu_math_isa() == before


@pytest.mark.parametrize("value", [0x7FC0, 0x7F80, 0xFF80])
def test_masked_rows_are_read_only_when_asked(library: ctypes.CDLL, value: int) -> None:
    """NaN or infinity in a hidden row of V: not seen normally; with scan_nan it spoils, as 0 * NaN on the card."""
    shape = LayerShape(rows=64, chunk=6, history=(0, 64))
    model = Model(library, shape.file())
    for group, tokens in [(0, 1), (2, 6)]:
        rows, x = 64, inputs(shape, tokens)
        mask = causal(rows, np.array([1, 2, 3, 30, 63]), tokens)
        k, v = cache(shape, rows)
        clean = model.layer(shape, group, k, v, range(tokens), x, mask)
        for row in (0, 17, 62):
            v[row, 3] = value
        for flag, spoiled in ((0, False), (1, True)):
            outs = model.layer(shape, group, k, v, range(tokens), x, mask, scan_nan=flag)
            assert np.isnan(wide(outs[2])).all() == spoiled
            np.testing.assert_array_equal(outs[0], clean[0])
            if not spoiled:
                np.testing.assert_array_equal(outs[2], clean[2])
    model.close()


def test_a_poisoned_neighbour_spoils_the_chunk_as_on_the_card(library: ctypes.CDLL) -> None:
    shape = LayerShape()
    model = Model(library, shape.file())
    x, mask = inputs(shape, 6), np.full((6, 6), HIDDEN, np.uint16)
    np.fill_diagonal(mask, 0)
    x[4] = 0x7FC0
    empty = np.zeros((1, 64), np.uint16)
    assert np.isnan(wide(model.layer(shape, 1, empty, empty, range(6), x, mask)[2])).all()
    model.close()


@pytest.mark.parametrize("side", ["k", "v"])
def test_nan_in_a_hidden_row_survives_when_scanned(library: ctypes.CDLL, side: str) -> None:
    shape = LayerShape()
    model = Model(library, shape.file())
    x, mask = inputs(shape, 1), causal(40, np.arange(5), 1)
    k, v = cache(shape, 40)
    (k if side == "k" else v)[20, 3] = 0x7FC0
    assert not np.isnan(wide(model.layer(shape, 0, k, v, [5], x, mask)[2])).any()
    assert np.isnan(wide(model.layer(shape, 0, k, v, [5], x, mask, scan_nan=1)[2])).all()
    mask[0, 20] = 0
    assert np.isnan(wide(model.layer(shape, 0, k, v, [5], x, mask)[2])).all()
    model.close()


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_head_of_one_and_more_rows(library: ctypes.CDLL, dtype: str) -> None:
    rng = np.random.default_rng(4)
    norm, matrix = bf16(rng.normal(1, 0.2, 40)), bf16(rng.normal(0, 0.2, (333, 40)))
    metadata = {
        "format": "axpress-sim-1",
        "kind": "head",
        "family": "llama",
        "hidden": 40,
        "vocab": 333,
        "head_rows": "1,19",
        "output_dtype": dtype,
    }
    model = Model(library, safetensors(metadata, {"norm": norm, "head": matrix}))
    x = bf16(rng.normal(0, 1, (19, 40)))
    wx = wide(x).astype(np.float64)
    want = wx / np.sqrt((wx * wx).mean(-1, keepdims=True) + 1e-6) * wide(norm) @ wide(matrix).T.astype(np.float64)
    kind = np.uint16 if dtype == "bf16" else np.float32
    many, one = np.zeros((19, 333), kind), np.zeros((1, 333), kind)
    model.execute(1, [x], [many])
    model.execute(0, [x[7:8]], [one])
    np.testing.assert_array_equal(many[7], one[0])
    if dtype == "bf16":
        close(many, want)
    else:
        np.testing.assert_allclose(many, want, rtol=2e-5, atol=2e-5)
    model.close()


@pytest.mark.parametrize("gives", ["norm", "norm_as_output", "both"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_head_that_gives_normed_states(library: ctypes.CDLL, gives: str, dtype: str) -> None:
    rng = np.random.default_rng(5)
    norm, matrix = bf16(rng.normal(1, 0.2, 40)), bf16(rng.normal(0, 0.2, (333, 40)))
    metadata = {"format": "axpress-sim-1", "kind": "head", "family": "qwen3", "hidden": 40, "head_rows": "1,19"}
    metadata |= {"output_dtype": dtype, "head_gives": gives, **({"vocab": 333} if gives == "both" else {})}
    tensors = {"norm": norm, **({"head": matrix} if gives == "both" else {})}
    model = Model(library, safetensors(metadata, tensors))
    x, kind = bf16(rng.normal(0, 1, (19, 40))), np.uint16 if dtype == "bf16" else np.float32
    wx = wide(x).astype(np.float64)
    want = wx / np.sqrt((wx * wx).mean(-1, keepdims=True) + 1e-6) * wide(norm)
    normed, logits = np.zeros((19, 40), kind), np.zeros((19, 333), kind)
    model.execute(1, [x], [logits, normed] if gives == "both" else [normed])
    np.testing.assert_allclose(wide(normed) if dtype == "bf16" else normed, want, rtol=2**-8, atol=1e-6)
    if gives == "both":
        plain = {key: value for key, value in metadata.items() if key != "head_gives"}
        other, alone = Model(library, safetensors(plain, tensors)), np.zeros_like(logits)
        other.execute(1, [x], [alone])
        np.testing.assert_array_equal(logits, alone)
        other.close()
    model.close()


def hollow(kind: str, **more: object) -> bytes:
    metadata = {
        "format": "axpress-sim-1",
        "kind": kind,
        "family": "qwen3",
        "hollow": 1,
        "hidden": 64,
        "layers": 2,
        **more,
    }
    return safetensors(metadata, {})


def test_hollow_layer_rows_depend_on_their_own_input_and_position(library: ctypes.CDLL) -> None:
    sizes = {"heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 8, "decode_rows": 16, "chunk": 4, "history": "0,8"}
    shape = LayerShape(hidden=64, heads=4, kv_heads=2, head_dim=16, tensors={})
    models = [Model(library, hollow("layer", layer=n, **sizes)) for n in (0, 1)]
    x, empty = inputs(shape, 4), np.zeros((16, 32), np.uint16)
    one = models[0].layer(shape, 0, empty, empty, [5], x[2:3], np.zeros((1, 17), np.uint16))
    many = models[0].layer(shape, 2, empty[:8], empty[:8], [3, 4, 5, 6], x, np.zeros((4, 12), np.uint16))
    for single, chunk in zip(one, many, strict=True):
        np.testing.assert_array_equal(single[0], chunk[2])
    for other in (
        models[0].layer(shape, 0, empty, empty, [6], x[2:3], np.zeros((1, 17), np.uint16)),
        models[1].layer(shape, 0, empty, empty, [5], x[2:3], np.zeros((1, 17), np.uint16)),
    ):
        assert all((a != b).any() for a, b in zip(one, other, strict=True))
    assert np.isfinite(wide(many[2])).all()
    for model in models:
        model.close()


@pytest.mark.parametrize("vocab", [40, 5000, 151936])
def test_hollow_head_looks_like_logits(library: ctypes.CDLL, vocab: int) -> None:
    model, shape = Model(library, hollow("head", vocab=vocab)), LayerShape(hidden=64, tensors={})
    x, tops = inputs(shape, 30), set()
    patched = np.zeros(vocab, np.uint16)
    for i in range(30):
        fresh = np.full(vocab, 0x7FC0, np.uint16)
        model.execute(0, [x[i : i + 1]], [fresh])
        model.execute(0, [x[i : i + 1]], [patched], unchanged=int(i > 0))
        np.testing.assert_array_equal(fresh, patched)
        logits = wide(patched)
        tops.add(int(logits.argmax()))
        peaks = np.flatnonzero(logits > 12)
        assert 1 <= len(peaks) <= 12 and peaks.max() < max(vocab - 1024, (vocab + 1) // 2)
        bulk = logits[logits < 12]
        assert vocab < 5000 or (2.1 < bulk.std() < 2.3 and -1.1 < bulk.mean() < -0.9)
        # few lie within 20 temperatures (0.9) of the best: a sampler has as little to look at as with a published model
        assert vocab < 5000 or (logits > logits.max() - 18).sum() < 12 + vocab / 1000
    assert len(tops) > 10
    model.close()


@pytest.mark.skipif(not ctypes.util.find_library("asan"), reason="gcc's address sanitizer is not installed")
def test_native_under_sanitizers(tmp_path: Path) -> None:
    program = emu_native.build_native(
        tmp_path, "gcc", ["-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    )
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=120 * PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
