"""Heads that give more or fewer logits than there are tokens, on the emulated card: what is sampled are tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import Tiny, convert_tiny

from axpress.core.device.model_loader import Model, open_model
from axpress.core.device.step import Step
from axpress.core.errors import PackageError
from axpress.core.model_files.safetensors import array_source, from_bf16
from axpress.core.model_files.simulated_axmodel import read_axmodel, write_axmodel

VOCAB = 384
IDS = np.sort(np.random.default_rng(3).choice(VOCAB, 300, replace=False))


def with_head(package: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replaces the rows of the package's head."""
    meta, file = read_axmodel(package / "tiny_post.axmodel")
    rows = np.ascontiguousarray(change(np.array(file.array("head"))))
    tensors = {"norm": array_source(np.array(file.array("norm"))), "head": array_source(rows)}
    write_axmodel(package / "new.axmodel", replace(meta, vocab=len(rows)), tensors)
    (package / "new.axmodel").rename(package / "tiny_post.axmodel")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return convert_tiny(tmp_path, Tiny("qwen3"), rows=127, name="tiny")


def logits(package: Path) -> np.ndarray:
    """float32 [3, vocabulary]: of three tokens, and the program's word on how many there are."""
    model: Model = open_model(package, "emu", "none", logits_slots=2)
    try:
        made = []
        for position, token in enumerate((7, 300, 41)):
            step = Step(1)
            step.reset(0)
            step.add(token, position, position, -1, step.add_view(0, position), True)
            model.program.run(step)
            made.append(from_bf16(np.array(model.program.logits(0))))
        assert model.info.vocab_size == len(made[0])
        return np.array(made)
    finally:
        model.close()


def test_a_trimmed_head_gives_its_tokens(package: Path) -> None:
    whole = logits(package)
    with_head(package, lambda rows: rows[IDS])
    (package / "head_ids.json").write_text(json.dumps(IDS.tolist()))
    trimmed = logits(package)
    rest = np.setdiff1d(np.arange(VOCAB), IDS)
    assert (trimmed[:, IDS] == whole[:, IDS]).all() and (trimmed[:, rest] == -np.inf).all()


def test_a_trimmed_head_without_its_list_is_refused(package: Path) -> None:
    with_head(package, lambda rows: rows[IDS])
    with pytest.raises(PackageError, match=r"tiny_post\.axmodel gives 300 logits for a vocabulary of 384.*list of ids"):
        open_model(package, "emu", "none")


def test_what_a_padded_head_gives_beyond_the_vocabulary_is_no_token(package: Path) -> None:
    whole = logits(package)
    with_head(package, lambda rows: np.concatenate([rows, 8 * rows[:40]]))
    assert (logits(package) == whole).all()


def test_a_head_of_another_model_is_refused(package: Path) -> None:
    with_head(package, lambda rows: np.concatenate([rows] * 6))
    with pytest.raises(PackageError, match="gives 2304 logits for 384 tokens: files of two models"):
        open_model(package, "emu", "none")
