"""Embedding models: which checkpoints become one, and how long their vectors may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from embedding_models import NAME, POOLING, TINY, as_published, embedding_package
from tiny_models import Tiny, write_checkpoint

from axpress.core.errors import PackageError
from axpress.core.model_files.convert import convert
from axpress.core.model_files.embedding_models import matryoshka, vector_sizes
from axpress.core.model_files.model_package import open_package
from axpress.core.model_files.simulated_axmodel import read_axmodel


def test_a_checkpoint_as_published_becomes_a_package_as_published(tmp_path: Path) -> None:
    package = open_package(embedding_package(tmp_path, rows=255))
    assert package.embeds and package.family == "qwen3" and package.matryoshka is True
    config = json.loads((package.directory / "config.json").read_text())
    assert config["is_embedding"] is True
    meta, file = read_axmodel(package.head_file)
    assert meta.head_gives == "norm" and set(file.tensors) == {"norm"}


def test_what_the_checkpoint_says_of_shorter_vectors_is_kept(tmp_path: Path) -> None:
    write_checkpoint(TINY, tmp_path / NAME)
    config = json.loads((tmp_path / NAME / "config.json").read_text())
    more = {"matryoshka_dimensions": [48, 16], "architectures": ["Qwen3Model"]}
    (tmp_path / NAME / "config.json").write_text(json.dumps(config | more))
    package = open_package(convert(as_published(tmp_path / NAME), tmp_path / "out", rows=255, progress=False))
    assert vector_sizes(package.matryoshka, 64) == (16, 48, 64)


def without_the_end(path: Path) -> None:
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    (path / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}))


def pooled(**modes: Any) -> Any:
    return lambda path: (path / "1_Pooling" / "config.json").write_text(json.dumps(modes))


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("qwen3", pooled(**POOLING | {"pooling_mode_lasttoken": False, "pooling_mode_mean_tokens": True}), "1_Pooling"),
        ("qwen3", pooled(**POOLING | {"pooling_mode_mean_tokens": True}), "by lasttoken and mean_tokens"),
        ("qwen3", pooled(pooling_mode="mean"), "gathers vectors by mean"),
        ("qwen3", lambda path: (path / "2_Dense").mkdir(), "2_Dense"),
        ("qwen3", without_the_end, r"does not end a text with <\|endoftext\|>"),
        ("qwen2", lambda path: None, "of the family qwen2"),
    ],
    ids=["mean", "two", "mean, said anew", "dense", "no end token", "family"],
)
def test_other_kinds_are_refused(family: str, change: Any, said: str, tmp_path: Path) -> None:
    write_checkpoint(Tiny(family, vocab=512, tied=True), tmp_path / NAME)
    change(as_published(tmp_path / NAME))
    with pytest.raises(PackageError, match=said):
        convert(tmp_path / NAME, tmp_path / "out", rows=255, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "names", "sizes"),
    [
        ({}, ["AXERA-TECH/Qwen3-Embedding-0.6B"], range(32, 1025)),
        ({}, ["qwen3_embedding_4b"], range(32, 1025)),
        ({}, ["another-embedding"], range(1024, 1025)),
        ({"is_matryoshka": False}, ["Qwen3-Embedding-0.6B"], range(1024, 1025)),
        ({"is_matryoshka": True}, ["another"], range(32, 1025)),
        ({"matryoshka_dimensions": [256, 512, 4096]}, ["another"], (256, 512, 1024)),
    ],
)
def test_vector_sizes(values: dict[str, Any], names: list[str], sizes: Any) -> None:
    assert vector_sizes(matryoshka(values, names), 1024) == sizes
