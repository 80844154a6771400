"""The emulator's recurrent layers: right within rounding, and the same bits however tokens come."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import emu_native
import numpy as np
import pytest
from ctypes_runner import LoadedFile, open_runtime
from emu_native import Model, bf16, safetensors, wide

from axpress.core.model_files.int8_weights import int8_tensors
from axpress.core.model_files.safetensors import array_source

TYPES = {"bf16": np.uint16, "fp16": np.float16, "fp32": np.float32}
CHUNK, HISTORY = 6, (0, 12)
DECODE, FIRST, LATER = range(3)  # shape groups
EXAMPLES = (
    {"key_heads": 2, "value_heads": 4, "key_dim": 16, "value_dim": 24},
    {"key_heads": 1, "value_heads": 3, "key_dim": 20, "value_dim": 7, "conv_kernel": 2},
    {"key_heads": 3, "value_heads": 3, "key_dim": 8, "value_dim": 40, "hidden": 40},
)


@dataclass
class Layer:
    """Sizes of a recurrent layer, what it does with its states, and its tensors."""

    hidden: int = 48
    ffn: int = 72
    conv_kernel: int = 4
    key_heads: int = 2
    value_heads: int = 4
    key_dim: int = 16
    value_dim: int = 24
    state_dtype: str = "bf16"
    state_order: str = "kv"
    padding: str = "exact"
    p0_state: str = "reads"
    seed: int = 1
    tensors: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng, values = np.random.default_rng(self.seed), self.value_heads * self.value_dim
        matrices = {
            "qkv": (self.conv_dim, self.hidden),
            "z": (values, self.hidden),
            "b": (self.value_heads, self.hidden),
            "a": (self.value_heads, self.hidden),
            "o": (self.hidden, values),
            "gate": (self.ffn, self.hidden),
            "up": (self.ffn, self.hidden),
            "down": (self.hidden, self.ffn),
            "conv": (self.conv_kernel, self.conv_dim),
        }
        for name, shape in matrices.items():
            scale = 1.2 / np.sqrt(shape[0] if name == "conv" else shape[1])
            self.tensors[name] = bf16(rng.normal(0, scale, shape))
        for name, size in {"input_norm": self.hidden, "post_norm": self.hidden, "state_norm": self.value_dim}.items():
            self.tensors[name] = bf16(rng.normal(0.5, 0.3, size))
        for name, low in {"a_log": -3, "dt_bias": 0}.items():
            self.tensors[name] = rng.uniform(low, 1, self.value_heads).astype(np.float32)
        self.tensors = dict(sorted(self.tensors.items(), key=lambda item: -item[1].itemsize))

    @property
    def conv_dim(self) -> int:
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    def metadata(self, **changes: object) -> dict[str, object]:
        """The `__metadata__` of the file; None takes a key away."""
        names = ("hidden", "ffn", "conv_dim", "conv_kernel", "key_heads", "value_heads", "key_dim", "value_dim")
        names += ("state_dtype", "state_order", "padding", "p0_state")
        result: dict[str, object] = {name: getattr(self, name) for name in names}
        result |= {"format": "axpress-sim-1", "kind": "layer", "layer_kind": "recurrent", "family": "qwen3_5_text"}
        result |= {"layer": 0, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "rms_eps": 1e-6}
        result |= {"decode_rows": 12, "chunk": CHUNK, "history": ",".join(map(str, HISTORY))}
        return {key: value for key, value in (result | changes).items() if value is not None}

    def file(self, weights: str = "bf16", **changes: object) -> bytes:
        """The simulated axmodel."""
        return safetensors(self.metadata(**changes), self.int8() if weights == "int8" else self.tensors)

    def int8(self) -> dict[str, np.ndarray]:
        """The tensors with matrices as int8, and their scales."""
        sources = int8_tensors({name: array_source(tensor) for name, tensor in self.tensors.items()})
        whole = {name: np.concatenate(list(source.blocks())) for name, source in sources.items()}
        return dict(sorted(whole.items(), key=lambda item: -item[1].itemsize))

    def zeros(self) -> list[np.ndarray]:
        """K and V of a fresh sequence."""
        dtype = TYPES[self.state_dtype]
        conv = np.zeros((self.conv_kernel - 1, self.conv_dim), dtype)
        state = np.zeros((self.value_heads, self.key_dim, self.value_dim), dtype)
        return [state, conv] if self.state_order == "vk" else [conv, state]

    def garbage(self) -> list[np.ndarray]:
        """States of some other sequence."""
        rng = np.random.default_rng(77)
        values = [rng.normal(0, 1, part.shape).astype(np.float32) for part in self.zeros()]
        return [bf16(v) if self.state_dtype == "bf16" else v.astype(TYPES[self.state_dtype]) for v in values]


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


def tokens(layer: Layer, count: int, seed: int = 9) -> np.ndarray:
    """Hidden rows, bf16 bits."""
    return bf16(np.random.default_rng(seed).normal(0, 1, (count, layer.hidden)))


def execute(
    model: Model, group: int, states: Sequence[np.ndarray], x: np.ndarray, mask: Sequence[float]
) -> tuple[list[np.ndarray], np.ndarray, int]:
    """New states, output, and how many rows were computed; `x` is filled up with zeros."""
    width = 1 if group == DECODE else CHUNK
    rows = np.zeros((width, x.shape[1]), np.uint16)
    rows[: len(x)] = x
    shown = np.zeros(width, np.float32)
    shown[: len(mask)] = mask
    after, output = [np.full_like(state, 3) for state in states], np.full_like(rows, 7)
    inputs = [*map(np.ascontiguousarray, states), np.zeros(width, np.uint32), rows, bf16(shown)]
    computed = model.execute(group, inputs, [*after, output])
    return after, output, computed


def feed(model: Model, layer: Layer, x: np.ndarray, widths: Sequence[int]) -> tuple[list[bytes], bytes]:
    """States and outputs after the tokens came in parts of these widths: 1 by decode, others in masked chunks."""
    states, outputs, at = layer.zeros(), [], 0
    for width in widths:
        group = DECODE if width == 1 else LATER if at else FIRST
        states, output, _ = execute(model, group, states, x[at : at + width], [1.0] * width)
        outputs.append(output[:width])
        at += width
    assert at == len(x)
    return [state.tobytes() for state in states], np.concatenate(outputs).tobytes()


def reference(
    layer: Layer, x_bits: np.ndarray, mask: Sequence[float], tensors: dict[str, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The layer in float64 from zero states, these not rounded: conv state, recurrent state, output."""
    given = tensors or layer.tensors
    w = {
        name: wide(t).astype(np.float64) if t.dtype == np.uint16 else t.astype(np.float64) for name, t in given.items()
    }

    def norm(a: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return a / np.sqrt((a * a).mean(-1, keepdims=True) + 1e-6) * weight

    def silu(a: np.ndarray) -> np.ndarray:
        return a / (1 + np.exp(-a))

    x = wide(x_bits).astype(np.float64)
    h = norm(x, 1 + w["input_norm"]) * np.asarray(mask)[:, None]
    columns = np.concatenate([np.zeros((layer.conv_kernel - 1, layer.conv_dim)), h @ w["qkv"].T])
    heads, times = layer.value_heads, layer.value_heads // layer.key_heads
    state, mixed = np.zeros((heads, layer.key_dim, layer.value_dim)), []
    for t, row in enumerate(h):
        conv = silu((columns[t : t + layer.conv_kernel] * w["conv"]).sum(0))
        keys = layer.key_heads * layer.key_dim
        q, k = (part.reshape(layer.key_heads, -1).repeat(times, 0) for part in (conv[:keys], conv[keys : 2 * keys]))
        q, k = (part / np.sqrt((part * part).sum(-1, keepdims=True) + 1e-6) for part in (q, k))
        v, beta = conv[2 * keys :].reshape(heads, -1), 1 / (1 + np.exp(-(w["b"] @ row)))
        state = state * np.exp(-np.exp(w["a_log"]) * np.log1p(np.exp(w["a"] @ row + w["dt_bias"])))[:, None, None]
        known = np.einsum("hkv,hk->hv", state, k)
        state = state + k[:, :, None] * ((v - known) * beta[:, None])[:, None]
        out = np.einsum("hkv,hk->hv", state, q) / np.sqrt(layer.key_dim)
        mixed.append((norm(out, w["state_norm"]) * silu(w["z"] @ row).reshape(heads, -1)).reshape(-1))
    x = x + np.array(mixed) @ w["o"].T
    h = norm(x, 1 + w["post_norm"])
    return columns[len(h) :], state, x + (silu(h @ w["gate"].T) * (h @ w["up"].T)) @ w["down"].T


@pytest.mark.parametrize("sizes", EXAMPLES, ids=str)
@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_layer_equals_float64_reference(library: ctypes.CDLL, sizes: dict[str, int], weights: str) -> None:
    layer = Layer(state_dtype="fp32", **sizes)
    model, x = Model(library, layer.file(weights)), tokens(layer, CHUNK)
    exact = dict(layer.tensors)
    if weights == "int8":
        whole = layer.int8()
        scaled = [name for name in exact if f"{name}_scale" in whole]
        exact |= {name: whole[name] * whole[f"{name}_scale"][:, None].astype(np.float64) for name in scaled}
    (conv, state), output, _ = execute(model, FIRST, layer.zeros(), x, [1.0] * CHUNK)
    model.close()
    wanted = reference(layer, x, [1.0] * CHUNK, exact)
    for got, want in zip((conv, state), wanted, strict=False):
        np.testing.assert_allclose(got, want, atol=2e-6 * max(1.0, np.abs(want).max()))
    np.testing.assert_allclose(wide(output), wanted[2], rtol=2**-8, atol=2e-5 * np.abs(wanted[2]).max())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("sizes", EXAMPLES, ids=str)
def test_no_split_of_the_tokens_changes_a_bit(library: ctypes.CDLL, sizes: dict[str, int], dtype: str) -> None:
    layer = Layer(state_dtype=dtype, **sizes)
    model, x = Model(library, layer.file()), tokens(layer, 14)
    singly = feed(model, layer, x, [1] * 14)
    for widths in ([6, 6, 2], [6, 1, 1, 6], [3, 5, 4, 2], [2, 6, 6]):
        assert feed(model, layer, x, widths) == singly
    other = Model(library, layer.file(state_order="vk"))
    layer.state_order = "vk"
    states, output = feed(other, layer, x, [6, 1, 1, 6])
    assert (states[::-1], output) == singly
    model.close(), other.close()


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_states_are_the_fp32_ones_rounded(library: ctypes.CDLL, dtype: str) -> None:
    """After one token, when nothing was rounded before; with values from subnormal ones to infinity."""
    states = {}
    for kind in (dtype, "fp32"):
        layer = Layer(state_dtype=kind)
        layer.tensors["qkv"] = bf16(wide(layer.tensors["qkv"]) * 2.0 ** np.linspace(-30, 16, layer.conv_dim)[:, None])
        model = Model(library, layer.file())
        states[kind] = execute(model, DECODE, layer.zeros(), tokens(layer, 1), [1.0])[0]
        model.close()
    with np.errstate(over="ignore"):
        for got, exact in zip(states[dtype], states["fp32"], strict=True):
            np.testing.assert_array_equal(got, bf16(exact) if dtype == "bf16" else exact.astype(np.float16))
    assert dtype == "bf16" or (np.isinf(states[dtype][0]).any() and (np.abs(states[dtype][0]) < 6e-5).any())


def test_every_fp16_value_is_kept(library: ctypes.CDLL) -> None:
    layer = Layer(state_dtype="fp16", state_order="vk", key_heads=16, value_heads=16, key_dim=8, value_dim=512)
    model, states = Model(library, layer.file()), layer.zeros()
    states[0] = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(states[0].shape)
    after, _, _ = execute(model, DECODE, states, tokens(layer, 1), [0.0])
    model.close()
    nan = np.isnan(states[0])
    assert (after[0].view(np.uint16) == states[0].view(np.uint16))[~nan].all() and np.isnan(after[0])[nan].all()


def test_padding_leaves_the_states_or_spoils_them(library: ctypes.CDLL) -> None:
    x = tokens(Layer(), CHUNK)
    after = {}
    for padding in ("exact", "spoils"):
        layer = Layer(state_dtype="fp32", padding=padding)
        model = Model(library, layer.file())
        short, output, computed = execute(model, FIRST, layer.zeros(), x[:4], [1.0] * 4)
        noisy, _, _ = execute(model, FIRST, layer.zeros(), x, [1.0] * 4 + [0.0] * 2)
        assert [s.tobytes() for s in short] == [s.tobytes() for s in noisy], "what stands at padding must not matter"
        assert computed == (4 if padding == "exact" else CHUNK)
        assert not output[4:].any() or padding == "spoils"
        full = execute(model, FIRST, layer.zeros(), x, [1.0] * CHUNK)
        after[padding] = short, output[:4].tobytes(), [part.tobytes() for part in (*full[0], full[1])]
        model.close()
    assert after["exact"][1:] == after["spoils"][1:], "real tokens and full chunks are the same"
    for exact, spoiled in zip(after["exact"][0], after["spoils"][0], strict=True):
        assert np.abs(exact - spoiled).max() > 0.01 * np.abs(exact).max()
    conv, state, _ = reference(layer, x, [1.0] * 4 + [0.0] * 2)
    np.testing.assert_allclose(after["spoils"][0][0], conv, atol=1e-5)
    np.testing.assert_allclose(after["spoils"][0][1], state, atol=1e-5)


def test_hidden_tokens_within_a_chunk_are_skipped_and_masks_multiply(library: ctypes.CDLL) -> None:
    layer = Layer(state_dtype="fp32")
    model, x = Model(library, layer.file()), tokens(layer, 5)
    skipped, output, _ = execute(model, FIRST, layer.zeros(), x, [1.0, 0.0, 1.0, 0.0, 1.0])
    packed, dense, _ = execute(model, FIRST, layer.zeros(), x[::2], [1.0] * 3)
    assert [s.tobytes() for s in skipped] == [s.tobytes() for s in packed]
    np.testing.assert_array_equal(output[[0, 2, 4]], dense[:3])
    mask = [1.0, 0.5, 2.0, 1.0, 0.25]
    half, output, _ = execute(model, FIRST, layer.zeros(), x, mask)
    model.close()
    wanted = reference(layer, x, mask)
    np.testing.assert_allclose(half[1], wanted[1], atol=1e-5)
    np.testing.assert_allclose(wide(output[:5]), wanted[2], rtol=2**-8, atol=1e-3)


def test_a_first_chunk_reads_its_states_or_begins_with_zeros(library: ctypes.CDLL) -> None:
    layer = Layer()
    x, seen = tokens(layer, CHUNK), {}
    for kind in ("reads", "ignores"):
        model = Model(library, layer.file(p0_state=kind))
        for name, states in {"zeros": layer.zeros(), "garbage": layer.garbage()}.items():
            for group in (DECODE, FIRST, LATER):
                part = x[:1] if group == DECODE else x
                after, output, _ = execute(model, group, states, part, [1.0] * len(part))
                seen[kind, name, group] = b"".join(array.tobytes() for array in (*after, output))
        model.close()
    for group in (DECODE, LATER):
        assert seen["reads", "garbage", group] == seen["ignores", "garbage", group] != seen["reads", "zeros", group]
    assert seen["reads", "garbage", FIRST] != seen["reads", "zeros", FIRST] == seen["ignores", "zeros", FIRST]
    assert seen["ignores", "garbage", FIRST] == seen["ignores", "zeros", FIRST]


def test_nan_survives_the_mask_and_in_states(library: ctypes.CDLL) -> None:
    layer = Layer()
    model, x = Model(library, layer.file()), tokens(layer, CHUNK)
    x[5] = 0x7FC0
    after, output, computed = execute(model, FIRST, layer.zeros(), x, [1.0] * 5 + [0.0])
    assert computed == CHUNK and np.isnan(wide(after[1])).all() and np.isfinite(wide(output[:5])).all()
    states = layer.zeros()
    states[1][:] = 0x7FC0  # memory that nobody filled
    after, output, _ = execute(model, DECODE, states, x[:1], [1.0])
    assert np.isnan(wide(after[1])).all() and np.isnan(wide(output)).all()
    model.close()


def test_threads_and_instruction_sets_give_the_same_bits(library: ctypes.CDLL) -> None:
    layer = Layer(hidden=200, ffn=333, key_heads=4, value_heads=8, key_dim=96, value_dim=90)
    model, x = Model(library, layer.file()), tokens(layer, CHUNK)
    names = [name for name in ("scalar", "avx2", "avx512", "neon") if library.emu_math_select(name.encode()) == 0]
    results = set()
    for name, threads in [(name, threads) for name in names for threads in (1, 3)]:
        library.emu_math_select(name.encode())
        library.emu_threads_set(threads)
        after, output, _ = execute(model, LATER, layer.garbage(), x, [1.0] * CHUNK)
        results.add(b"".join(array.tobytes() for array in (*after, output)))
    model.close()
    assert len(results) == 1


def test_outputs_may_be_the_states_and_the_input(library: ctypes.CDLL) -> None:
    layer = Layer()
    model, x, states = Model(library, layer.file()), tokens(layer, CHUNK), layer.garbage()
    after, output, _ = execute(model, LATER, states, x, [1.0] * CHUNK)
    model.execute(LATER, [*states, np.zeros(CHUNK, np.uint32), x, bf16(np.ones(CHUNK))], [*states, x])
    for got, want in zip((*states, x), (*after, output), strict=True):
        np.testing.assert_array_equal(got, want)
    model.close()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"layer_kind": "looped"}, r'layer_kind "looped" is not one of attention, recurrent'),
        ({"state_dtype": "int8"}, r'state_dtype "int8" is not one of bf16, fp32, fp16'),
        ({"state_order": "vv"}, r'state_order "vv" is not one of kv, vk'),
        ({"padding": "maybe"}, r'padding "maybe" is not one of exact, spoils'),
        ({"p0_state": "x"}, r'p0_state "x" is not one of reads, ignores'),
        ({"conv_dim": None}, "conv_dim is missing"),
        ({"value_dim": None}, "value_dim is missing"),
        ({"conv_dim": 100}, "conv_dim is 100, keys, queries and values have 160"),
        ({"conv_kernel": 1}, "conv_kernel = .*from 2 to 16"),
        ({"key_heads": 3}, "4 value heads cannot share 3 key heads"),
        ({"family": "qwen3"}, "recurrent layers are of family qwen3_5_text, not qwen3"),
        ({"conv_kernel": 3}, r"tensor conv has shape \[4, 160\]"),
        ({"ffn": 73}, "tensor gate has shape"),
        ({"layer_kind": "attention"}, "tensor inv_freq is missing|tensor q is missing"),
    ],
)
def test_bad_metadata_is_refused_by_name(library: ctypes.CDLL, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Model(library, Layer().file(**changes))


@pytest.mark.parametrize("name", ["conv", "a_log", "dt_bias", "state_norm", "b", "o"])
def test_a_missing_tensor_is_named(library: ctypes.CDLL, name: str) -> None:
    layer = Layer()
    del layer.tensors[name]
    with pytest.raises(ValueError, match=f"tensor {name} is missing"):
        Model(library, layer.file())


def test_hollow_states_depend_on_what_came_before_and_on_no_split(library: ctypes.CDLL) -> None:
    layer = Layer(state_dtype="fp32")
    model, x = Model(library, safetensors(layer.metadata(hollow=1), {})), tokens(layer, 8)
    singly = feed(model, layer, x, [1] * 8)
    assert feed(model, layer, x, [6, 2]) == feed(model, layer, x, [3, 4, 1]) == singly
    assert feed(model, layer, x[::-1].copy(), [6, 2])[0] != singly[0]
    model.close()


def test_the_runtime_tells_the_shapes_and_refuses_states_in_place(tmp_path: Path) -> None:
    layer, path = Layer(state_dtype="fp32"), tmp_path / "qwen3_5_text_p6_l0_together.axmodel"
    path.write_bytes(layer.file(rope_sections="2,1,1"))
    with open_runtime() as runtime:
        file = LoadedFile(runtime, path)
        names = dict(zip(file.inputs, range(5), strict=True))
        for group, width in ((DECODE, 1), (FIRST, CHUNK), (LATER, CHUNK)):
            dims = {name: file.dims("Input", group, index) for name, index in names.items()}
            assert dims["K_cache"] == [1, 3, 160] == file.dims("Output", group, 0)
            assert dims["V_cache"] == [1, 4, 16, 24] == file.dims("Output", group, 1)
            assert dims["mask"] == [1, 1, width] and dims["input"] == [1, width, 48]
            assert dims["indices"] == ([1, 1] if width == 1 else [3, CHUNK])
        sizes = [file.input_bytes(index) for index in range(5)]
        assert sizes[:2] == [4 * 3 * 160, 4 * 4 * 16 * 24]
        inputs = [runtime.malloc(size) for size in sizes]
        outputs = [runtime.malloc(size) for size in (*sizes[:2], sizes[3])]
        file.execute(DECODE, inputs, outputs)
        with pytest.raises(RuntimeError):
            file.execute(DECODE, inputs, [inputs[0], *outputs[1:]])
        runtime("axemu_set", b"MODE", b"tolerant")
        file.execute(DECODE, inputs, [inputs[0], *outputs[1:]])
        runtime("axemu_set", b"MODE", b"strict")
        file.close()
        for buffer in inputs + outputs:
            runtime("axclrtFree", ctypes.c_void_p(buffer))
