"""Trees that nobody has published yet: what is tested is the rules, not a list of today's packages."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from invented_packages import BYTES, EMBED, EMBEDS, HIDDEN, OLD, OPENS, REFUSED, VOCAB, build, hf
from stub_packages import npy, sparse, tokenizer_file, tree

from axpress.core.model_files.model_package import inspect_package, open_package


@pytest.mark.parametrize("name", OPENS)
def test_it_opens(name: str, tmp_path: Path) -> None:
    files, given, layers, tokenizer = OPENS[name]
    root = tree(tmp_path / "model dir", files) / given
    package, survey = inspect_package(root)
    assert package is not None, survey.problems
    assert os.path.relpath(package.layers_dir, root) == layers
    assert os.path.relpath(package.tokenizer_path, root) == tokenizer
    assert package.embedding(HIDDEN).shape == (VOCAB, HIDDEN)


@pytest.mark.parametrize("name", EMBEDS)
def test_an_embedding_model_is_told(name: str, tmp_path: Path) -> None:
    package = open_package(tree(tmp_path / "model dir", EMBEDS[name]))
    assert package.embeds and package.matryoshka is False
    assert not open_package(tree(tmp_path / "other dir", OLD)).embeds


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_what_it_is(name: str, tmp_path: Path) -> None:
    files, given, words = REFUSED[name]
    root = tree(tmp_path / "model dir", files) / given
    package, survey = inspect_package(root)
    assert package is None
    assert re.search(words, survey.problems[0]), survey.problems
    assert "\n" not in survey.problems[0] and str(tmp_path) in survey.problems[0]


def test_links_are_followed(tmp_path: Path) -> None:
    files = tree(tmp_path / "blobs", OLD)
    root = tmp_path / "Qwen3-9B"
    root.mkdir()
    (root / "layers-ax650").symlink_to(files / "qwen3-9b-ax650")
    (root / "again").symlink_to(root)  # a circle
    (root / "same-ax650").symlink_to(root / "layers-ax650")
    (root / "qwen3_tokenizer").symlink_to(files / "qwen3_tokenizer")
    package = open_package(root)
    assert package.layers_dir == root / "layers-ax650" and package.tokenizer_path == root / "qwen3_tokenizer"
    (tmp_path / "link").symlink_to(root)
    assert {"Qwen3-9B", "link"} <= set(open_package(tmp_path / "link").aliases)


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "m", OLD)
    layer = root / "qwen3-9b-ax650" / "qwen3_p128_l1_together.axmodel"
    layer.unlink()
    layer.symlink_to(tmp_path / "blob")
    _, survey = inspect_package(root)
    assert "_l1_together.axmodel is a link to nothing: layer 1 of 4" in survey.problems[0]


def test_an_older_embedding_of_another_build_is_not_taken(tmp_path: Path) -> None:
    files = {**OLD, **build("qwen3-9b-ax630c/"), EMBED: 2 * BYTES}
    assert open_package(tree(tmp_path / "m", files)).embed_file.parent.name == "qwen3-9b-ax650"


def test_what_is_odd_is_said_but_refuses_nothing(tmp_path: Path) -> None:
    files = {**build("x-ax650/", "qwen3_p128"), **hf("qwen2.5_tokenizer/")}
    package = open_package(tree(tmp_path / "m", files))
    assert package.tokenizer_path.name == "qwen2.5_tokenizer"
    assert len(package.warnings) == 1 and "qwen3" in package.warnings[0]


def test_a_tree_of_many_files_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axpress.core.model_files.package_tree.MAX_FILES", 20)
    for folder in range(10):
        for number in range(10):
            sparse(tmp_path / "home" / f"{folder}" / "below" / f"{number}", 1)
    sparse(tmp_path / "home" / "zz" / "below" / "further" / "a_l0_together.axmodel", 1)
    _, survey = inspect_package(tmp_path / "home")
    assert "not a model directory" in survey.problems[0]


def test_helpers_make_what_they_say(tmp_path: Path) -> None:
    npy(tmp_path / "a.npy", (3, 2), "<f2")
    tokenizer_file(tmp_path / "tokenizer.json")
    assert (tmp_path / "a.npy").stat().st_size == 128 + 12 and (tmp_path / "tokenizer.json").stat().st_size > 100
