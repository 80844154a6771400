"""Heads of fewer rows than the embedding, with and without the list of ids that tells their tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from invented_packages import OLD, VOCAB
from stub_packages import tree
from tiny_models import Tiny, convert_tiny

from axpress.core.errors import PackageError
from axpress.core.model_files.model_package import open_package
from axpress.core.model_files.safetensors import array_source
from axpress.core.model_files.simulated_axmodel import read_axmodel, write_axmodel

IDS = [*range(0, VOCAB, 2)]
FOLDER = "qwen3-9b-ax650/"


def with_head(directory: Path, rows: int) -> Path:
    """A simulated package whose head gives `rows` logits; its embedding has 384 tokens."""
    package = convert_tiny(directory, Tiny("qwen3"), rows=127, name="tiny")
    meta, file = read_axmodel(package / "tiny_post.axmodel")
    head = np.resize(file.array("head"), (rows, meta.hidden))
    tensors = {"norm": array_source(np.array(file.array("norm"))), "head": array_source(head)}
    write_axmodel(package / "new.axmodel", replace(meta, vocab=rows), tensors)
    (package / "new.axmodel").rename(package / "tiny_post.axmodel")
    return package


@pytest.mark.parametrize("name", ["kept_ids.json", "qwen3_post.json", "vocab_map.json"])
def test_a_list_beside_the_head(name: str, tmp_path: Path) -> None:
    package = open_package(tree(tmp_path / "m", {**OLD, FOLDER + name: IDS}))
    assert package.head_ids_file == package.layers_dir / name
    ids = package.head_token_ids(len(IDS), VOCAB)
    assert ids is not None and ids.dtype == np.int32 and ids.tolist() == IDS


def test_other_forms_of_the_list(tmp_path: Path) -> None:
    package = open_package(tree(tmp_path / "object", {**OLD, "trim.json": {"vocab": VOCAB, "ids": IDS}}))
    assert package.head_token_ids(len(IDS), VOCAB) is not None
    root = tree(tmp_path / "npy", OLD)
    np.save(root / FOLDER / "ids.npy", np.array(IDS, np.uint32))
    ids = open_package(root).head_token_ids(len(IDS), VOCAB)
    assert ids is not None and ids[3] == 6
    files = {**OLD, "lists/a.json": IDS, "config.json": {"head_token_ids": "lists/a.json"}}
    assert open_package(tree(tmp_path / "named", files)).head_ids_file == tmp_path / "named" / "lists" / "a.json"


def test_a_whole_or_padded_head_needs_none(tmp_path: Path) -> None:
    package = open_package(tree(tmp_path / "m", OLD))
    assert package.head_ids_file is None
    assert package.head_token_ids(VOCAB, VOCAB) is None and package.head_token_ids(VOCAB + 24, VOCAB) is None
    with pytest.raises(PackageError, match=r"qwen3_post\.axmodel gives 999 logits for a vocabulary of 1000.*list"):
        package.head_token_ids(VOCAB - 1, VOCAB)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (IDS[:-1], "holds 499 ids, the head gives 500 logits"),
        ([*IDS[:-1], IDS[0]], "ids twice"),
        ([*IDS[:-1], VOCAB], "outside of the vocabulary of 1000"),
        ([*IDS[:-1], -1], "outside of the vocabulary"),
    ],
)
def test_a_wrong_list_is_named(ids: list[int], words: str, tmp_path: Path) -> None:
    package = open_package(tree(tmp_path / "m", {**OLD, FOLDER + "kept_ids.json": ids}))
    with pytest.raises(PackageError, match=words) as caught:
        package.head_token_ids(len(IDS), VOCAB)
    assert "kept_ids.json" in str(caught.value)


def test_two_lists_need_a_choice(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"several lists of token ids \(a_ids\.json, b_ids\.json\)"):
        open_package(tree(tmp_path / "m", {**OLD, FOLDER + "a_ids.json": IDS, FOLDER + "b_ids.json": IDS}))


def test_files_that_are_no_list(tmp_path: Path) -> None:
    files = {**OLD, FOLDER + "ids.json": {"a": 1}, FOLDER + "names.json": ["a", "b"], FOLDER + "x_ids.json": "no JSON"}
    assert open_package(tree(tmp_path / "m", files)).head_ids_file is None


def test_simulated_heads_are_checked_when_the_package_is_opened(tmp_path: Path) -> None:
    padded = open_package(with_head(tmp_path / "padded", 400))
    assert padded.vocab_size == 384
    root = with_head(tmp_path / "trimmed", 300)
    with pytest.raises(PackageError, match=r"tiny_post\.axmodel gives 300 logits for a vocabulary of 384"):
        open_package(root)
    (root / "head_ids.json").write_text(json.dumps([*range(84, 384)]))
    assert open_package(root).head_ids_file == root / "head_ids.json"
