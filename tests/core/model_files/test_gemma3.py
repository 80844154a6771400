"""Gemma 3's checkpoints: who multiplies embeddings, which layers have windows, and variants that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import GEMMA, Tiny, convert_tiny, write_checkpoint

from axpress.core.errors import PackageError
from axpress.core.model_files.convert import convert
from axpress.core.model_files.model_package import open_package

TINY = Tiny(GEMMA, hidden=96, heads=3, kv_heads=1, head_dim=32, tied=True, window=24)


def test_host_and_table_multiply_embeddings_alike(tmp_path: Path) -> None:
    raw, scaled = (
        open_package(convert_tiny(tmp_path / kind, TINY, rows=64, chunk=16, embeddings=kind))
        for kind in ("raw", "scaled")
    )
    assert (raw.embedding_file.scale, scaled.embedding_file.scale) == (pytest.approx(96**0.5), 1.0)
    tables = [package.embedding(96)[np.arange(TINY.vocab)].tobytes() for package in (raw, scaled)]
    assert tables[0] == tables[1] != np.fromfile(raw.embed_file, np.uint16).tobytes()
    assert raw.windows == (24, 0)


@pytest.mark.parametrize("key", ["attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"])
def test_variants_with_other_arithmetic_are_refused(key: str, tmp_path: Path) -> None:
    write_checkpoint(TINY, tmp_path / "hf")
    path = tmp_path / "hf" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: 30.0}))
    with pytest.raises(PackageError, match=rf"config\.json describes .*\({key} 30"):
        convert(tmp_path / "hf", tmp_path / "out", progress=False)


def package_with(folder: Path, **keys: object) -> Path:
    """A converted package whose configuration says other things; None: not."""
    package = convert_tiny(folder, TINY, rows=64, chunk=16)
    path = package / "config.json"
    values = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return package


def test_windows_of_a_package_that_lists_no_types(tmp_path: Path) -> None:
    old = {"layer_types": None, "model_type": "gemma3_text", "sliding_window": 24}
    assert open_package(package_with(tmp_path / "a", **old)).windows == (24, 24)  # of six layers the last sees all
    assert open_package(package_with(tmp_path / "b", **old, sliding_window_pattern=2)).windows == (24, 0)
    with pytest.raises(PackageError, match="sliding_window_pattern"):
        open_package(package_with(tmp_path / "c", **old, sliding_window_pattern="x"))


@pytest.mark.parametrize("key", ["attn_logit_softcapping", "use_bidirectional_attention"])
def test_packages_of_other_arithmetic_are_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=key):
        open_package(package_with(tmp_path, **{key: 50.0}))
