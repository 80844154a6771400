"""Simulated model files: every damage is one clear sentence, and none is a crash."""

from __future__ import annotations

import ctypes
from pathlib import Path

import emu_native
import numpy as np
import pytest
from emu_native import LayerShape, Model, bf16, safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return emu_native.library()


def refusal(library: ctypes.CDLL, data: bytes) -> str:
    """Why the library does not open `data`."""
    with pytest.raises(ValueError) as caught:
        Model(library, data)
    assert len(str(caught.value)) < 256
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("format", "axpress-sim-2", 'format "axpress-sim-2"'),
        ("kind", "tail", 'kind is "tail"'),
        ("family", "gpt", 'family "gpt"'),
        ("hidden", "0", 'hidden = "0"'),
        ("hidden", "1e99", "whole number"),
        ("heads", "5", "5 heads cannot share 2"),
        ("heads", "four", 'heads = "four"'),
        ("head_dim", "31", "odd"),
        ("decode_rows", "12,,3", "decode_rows"),
        ("decode_rows", "0", "decode_rows"),
        ("decode_rows", ",".join(["7"] * 129), "decode_rows"),
        ("history", "", "history is empty"),
        ("history", "-1", "history"),
        ("rms_eps", "nan", "rms_eps"),
        ("rms_eps", "0x1p3", "rms_eps"),
        ("cost_chunk_us", "1,2,3", "3 entries for 2 chunk groups"),
        ("cost_decode_us", "1,2,3", "3 entries for 1 decode groups"),
        ("ffn", "73", "tensor gate has shape [72, 48]"),
        ("profile", "x" * 64, "too long"),
        ("head_gives", "states", "not logits, norm, norm_as_output or both"),
    ],
)
def test_bad_metadata_is_named(library: ctypes.CDLL, key: str, value: str, words: str) -> None:
    shape = LayerShape()
    assert words in refusal(library, safetensors({**shape.metadata(), key: value}, shape.tensors))


def test_a_head_of_states_needs_weights(library: ctypes.CDLL) -> None:
    metadata = {"format": "axpress-sim-1", "kind": "head", "family": "qwen3", "hidden": 40, "vocab": 9}
    assert "file is hollow" in refusal(library, safetensors({**metadata, "head_gives": "norm", "hollow": 1}, {}))
    assert "tensor norm is missing" in refusal(library, safetensors({**metadata, "head_gives": "norm"}, {}))


@pytest.mark.parametrize("key", ["hidden", "heads", "kv_heads", "head_dim", "ffn", "kind", "format", "family"])
def test_missing_metadata_is_named(library: ctypes.CDLL, key: str) -> None:
    shape = LayerShape()
    metadata = shape.metadata()
    del metadata[key]
    assert key in refusal(library, safetensors(metadata, shape.tensors))


@pytest.mark.parametrize("name", sorted(LayerShape().tensors))
def test_missing_or_wrong_tensor_is_named(library: ctypes.CDLL, name: str) -> None:
    shape = LayerShape()
    less = {key: value for key, value in shape.tensors.items() if key != name}
    assert f"tensor {name} is missing" in refusal(library, safetensors(shape.metadata(), less))
    wrong = np.float32 if shape.tensors[name].dtype == np.uint16 else np.uint16
    other_type = {**shape.tensors, name: shape.tensors[name].astype(wrong)}
    assert f"tensor {name} has type" in refusal(library, safetensors(shape.metadata(), other_type))
    smaller = {**shape.tensors, name: shape.tensors[name][:-1]}
    assert f"tensor {name} has shape" in refusal(library, safetensors(shape.metadata(), smaller))


def test_other_files_are_recognised(library: ctypes.CDLL) -> None:
    whole = LayerShape().file()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 31457280\n"
    assert "Git LFS pointer" in refusal(library, pointer)
    assert "not a simulated axmodel" in refusal(library, b"\x18\0\0\0" + bytes(range(256)) * 4)
    assert "not a simulated axmodel" in refusal(library, b"abc")
    assert "cut short" in refusal(library, whole[:-1])
    assert "cut short" in refusal(library, whole[:100])
    assert "names no format" in refusal(library, safetensors({}, {}))
    assert "unknown tensor" in refusal(
        library, safetensors(LayerShape().metadata(), {**LayerShape().tensors, "extra": bf16(np.zeros(3))})
    )


def test_files_that_cannot_be_opened(library: ctypes.CDLL, tmp_path: Path) -> None:
    error = ctypes.create_string_buffer(256)
    (tmp_path / "empty").touch()
    for name, words in (
        ("absent", b"No such file"),
        ("", b"is not a file"),
        ("empty", b"is empty"),
        ("n" * 300, b"too long"),
    ):
        assert not library.emu_model_open_file(str(tmp_path / name).encode(), error)
        assert words in error.value
    path = tmp_path / "layer.axmodel"
    path.write_bytes(LayerShape().file())
    handle = library.emu_model_open_file(str(path).encode(), error)
    assert handle and error.value == b""
    library.emu_model_close(handle)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 1400), st.one_of(st.integers(0, 255), st.sampled_from(b'{}[]",:\\0-e'))), max_size=6
    ),
    cut=st.integers(0, 4000),
)
def test_damaged_headers_are_refused_or_harmless(library: ctypes.CDLL, edits: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(LayerShape(hidden=8, heads=2, kv_heads=1, head_dim=4, ffn=8, rows=4, chunk=2, history=(0,)).file())
    for at, byte in edits:
        data[at % len(data)] = byte
    data = data[: len(data) - cut if cut < 2000 else len(data)]
    try:
        model = Model(library, bytes(data))
    except ValueError as refused:
        assert str(refused)
    else:
        model.close()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10000,
        '{"a":' * 10000,
        '{"__metadata__":{"format":"\\ud800"}}',
        '{"q":{"shape":[' + "1," * 50 + "1]}}",
        '{"q":3}',
        "{} {}",
    ],
)
def test_hostile_json(library: ctypes.CDLL, text: str) -> None:
    raw = text.encode()
    assert refusal(library, len(raw).to_bytes(8, "little") + raw)
