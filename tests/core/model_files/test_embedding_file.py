"""Embeddings in every form they come in: the same bf16 rows, read when they are needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from core_runner import CoreRunner
from stub_packages import npy, sparse
from tiny_models import Tiny, convert_tiny

from axpress.core.errors import PackageError
from axpress.core.model_files.convert import EMBED_NAME
from axpress.core.model_files.embedding_file import EmbeddingTable, read_embedding_file
from axpress.core.model_files.safetensors import from_bf16, to_bf16

VOCAB, HIDDEN = 50, 8
VALUES = np.random.default_rng(7).standard_normal((VOCAB, HIDDEN)).astype(np.float32)
HALF = VALUES.astype(np.float16)
MODES = {"use_async": False, "in_place_decode": False}
FORMS: dict[str, tuple[str, Callable[[Path], object], np.ndarray]] = {
    "bf16": ("a.bfloat16.bin", lambda path: path.write_bytes(to_bf16(VALUES).tobytes()), VALUES),
    "bf16, not named so": ("embed.bin", lambda path: path.write_bytes(to_bf16(VALUES).tobytes()), VALUES),
    "fp32": ("a.float32.bin", lambda path: path.write_bytes(VALUES.tobytes()), VALUES),
    "fp32, not named so": ("embed.bin", lambda path: path.write_bytes(VALUES.tobytes()), VALUES),
    "fp16": ("a.fp16.bin", lambda path: path.write_bytes(HALF.tobytes()), HALF),
    "npy of fp32": ("a.npy", lambda path: np.save(path, VALUES), VALUES),
    "npy of fp16": ("a.NPY", lambda path: path.write_bytes(_npy_bytes(path, HALF)), HALF),
    "npy of bf16": ("a.npy", lambda path: np.save(path, to_bf16(VALUES).view("V2")), VALUES),
    "npy of uint16": ("a.npy", lambda path: np.save(path, to_bf16(VALUES)), VALUES),
    "npy with a dimension more": ("a.npy", lambda path: np.save(path, VALUES[np.newaxis]), VALUES),
    "npy in Fortran's order": ("a.npy", lambda path: np.save(path, np.asfortranarray(VALUES)), VALUES),
}


def _npy_bytes(path: Path, values: np.ndarray) -> bytes:
    plain = path.with_name("plain.npy")
    np.save(plain, values)
    return plain.read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_the_same_in_every_form(form: str, tmp_path: Path) -> None:
    name, write, values = FORMS[form]
    write(tmp_path / name)
    file = read_embedding_file(tmp_path / name, VOCAB, HIDDEN)
    assert (file.rows, file.hidden, file.num_bytes) == (VOCAB, HIDDEN, VOCAB * HIDDEN * file.itemsize)
    table = file.open(HIDDEN)
    assert table.shape == (VOCAB, HIDDEN) and len(table) == VOCAB
    ids = [3, 49, 3, 0]
    assert table[ids].dtype == np.uint16 and (table[ids] == to_bf16(np.asarray(values, np.float32))[ids]).all()
    assert (table[7] == to_bf16(values[7])).all()


def test_rows_are_rounded_when_they_are_needed(tmp_path: Path) -> None:
    table = EmbeddingTable(VALUES)
    assert table.rounds and not table.array.any()
    table.need([5, 5, 6])
    assert (table.array[[5, 6]] == to_bf16(VALUES[[5, 6]])).all() and not np.delete(table.array, [5, 6], 0).any()
    with pytest.raises(IndexError):
        table.need([VOCAB])
    assert not EmbeddingTable(to_bf16(VALUES)).rounds


def test_a_large_table_is_not_read(tmp_path: Path) -> None:
    npy(tmp_path / "big.npy", (1 << 20, 4096))  # 16 GiB of nothing
    table = read_embedding_file(tmp_path / "big.npy", None, None).open(4096)
    assert table.shape == (1 << 20, 4096) and not table[[1 << 19]].any()


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "cut npy": ("a.npy", lambda path: path.write_bytes(_npy_bytes(path, VALUES)[:-4]), "not a sound .npy"),
    "no npy": ("a.npy", lambda path: sparse(path, 1000), "not a sound .npy"),
    "npy of objects": ("a.npy", lambda path: np.save(path, np.array([{}] * 3)), "not a sound .npy"),
    "npy of one dimension": ("a.npy", lambda path: np.save(path, VALUES.ravel()), r"float32 \[400\], not a table"),
    "npy of doubles": ("a.npy", lambda path: np.save(path, VALUES.astype(float)), "float64"),
    "npy of another width": ("a.npy", lambda path: np.save(path, VALUES[:, :4]), "a vocabulary of 50 with rows of 8"),
    "cut bytes": ("a.bfloat16.bin", lambda path: sparse(path, 2 * VOCAB * HIDDEN - 2), "needs 800"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_damaged_table_is_named(case: str, tmp_path: Path) -> None:
    name, write, words = BAD[case]
    write(tmp_path / name)
    with pytest.raises(PackageError, match=words) as caught:
        read_embedding_file(tmp_path / name, VOCAB, HIDDEN)
    assert str(tmp_path / name) in str(caught.value)


def logits(package: Path) -> np.ndarray:
    """Of five tokens on the emulated card, in a chunk."""
    runner = CoreRunner(package, **MODES)
    try:
        return runner.feed([5, 9, 300, 9, 0], 128)
    finally:
        runner.close()


@pytest.mark.parametrize("form", ["float32.bin", "npy"])
def test_the_card_is_given_the_same_rows(form: str, tmp_path: Path) -> None:
    """Logits on the emulated card do not depend on the form of the embedding."""
    package = convert_tiny(tmp_path, Tiny("qwen3"), rows=127)
    expected = logits(package)
    config = json.loads((package / "config.json").read_text())
    values = from_bf16(np.fromfile(package / EMBED_NAME, np.uint16)).reshape(-1, 64)
    (package / EMBED_NAME).unlink()
    del config["filename_tokens_embed"]
    (package / "config.json").write_text(json.dumps(config))
    path = package / f"model.embed_tokens.weight.{form}"
    np.save(path, values) if form == "npy" else path.write_bytes(values.tobytes())
    assert (logits(package) == expected).all()
