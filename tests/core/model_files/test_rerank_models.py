"""Rerankers: which checkpoints become one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reranker_models import NAME, SIGN, TINY, as_published, reranker_package
from tiny_models import Tiny, convert_tiny, write_checkpoint

from axpress.core.errors import PackageError
from axpress.core.model_files.convert import convert
from axpress.core.model_files.model_package import inspect_package, open_package
from axpress.core.model_files.rerank_models import SYSTEM
from axpress.server.check_command import render, report_on

PAIRS = "<|im_start|>user\n{{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}"


def test_a_checkpoint_as_published_becomes_a_reranker(tmp_path: Path) -> None:
    write_checkpoint(TINY, tmp_path / NAME)
    as_published(tmp_path / NAME, "Find code")
    (tmp_path / NAME / "chat_template.jinja").write_text(f"<|im_start|>system\n{SYSTEM}{PAIRS}")
    package = open_package(convert(tmp_path / NAME, tmp_path / "out", rows=255, progress=False))
    assert package.reranks and not package.embeds and package.rerank_instruction == "Find code"
    assert not (package.tokenizer_path / "chat_template.jinja").exists(), "it would leave out what a person says"
    report = report_on(package.directory)
    assert report["reranks"] and report["opens"] and "a reranker: it ranks documents" in render(report)


def test_one_that_says_nothing_is_told(tmp_path: Path) -> None:
    plain = write_checkpoint(TINY, tmp_path / NAME)
    assert plain and not open_package(convert(tmp_path / NAME, tmp_path / "out", rows=255, progress=False)).reranks
    with pytest.raises(PackageError, match="has no token 'yes'"):
        convert(tmp_path / NAME, tmp_path / "new", rows=255, progress=False, reranker=True)
    as_published(tmp_path / NAME)
    for file in (SIGN, "1_LogitScore/config.json"):
        (tmp_path / NAME / file).unlink()
    (tmp_path / NAME / "1_LogitScore").rmdir()
    package = open_package(convert(tmp_path / NAME, tmp_path / "new", rows=255, progress=False, reranker=True))
    assert package.reranks and package.rerank_instruction is None


def config(**changes: Any) -> Callable[[Path], Any]:
    def change(path: Path) -> None:
        values = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(values | changes))

    return change


def judged_by(**ids: Any) -> Callable[[Path], Any]:
    return lambda path: (path / "1_LogitScore" / "config.json").write_text(json.dumps(ids))


def without_score(path: Path) -> None:
    (path / "1_LogitScore" / "config.json").unlink()
    (path / "1_LogitScore").rmdir()


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("qwen3", config(architectures=["Qwen3ForSequenceClassification"]), "gives scores and no tokens.*the original"),
        ("qwen3", judged_by(true_token_id=7, false_token_id=None), "judges by the tokens 7 and None"),
        ("qwen3", judged_by(true_token_id=7, false_token_id=8), "judges by the tokens 7 and 8"),
        ("qwen3", without_score, "LogitScore says what judges"),
        ("qwen3", lambda path: (path / "chat_template.jinja").write_text(PAIRS), "in other words"),
        ("qwen2", lambda path: None, "of the family qwen2, and no reranker"),
    ],
    ids=["head of scores", "one token", "other tokens", "unknown", "another prompt", "family"],
)
def test_other_kinds_are_refused(family: str, change: Any, said: str, tmp_path: Path) -> None:
    write_checkpoint(Tiny(family, vocab=640), tmp_path / NAME)
    change(as_published(tmp_path / NAME))
    with pytest.raises(PackageError, match=said):
        convert(tmp_path / NAME, tmp_path / "out", rows=255, progress=False)
    assert not (tmp_path / "out").exists()


def test_packages_of_others(tmp_path: Path) -> None:
    package = reranker_package(tmp_path, rows=255)
    values = json.loads((package / "config.json").read_text())
    del values["is_reranker"]
    (package / "config.json").write_text(json.dumps(values))
    (package / "tokenizer" / SIGN).write_text(json.dumps({"model_type": "CrossEncoder"}))
    opened, _ = inspect_package(package)
    assert opened is not None and not opened.embeds and not opened.reranks
    assert any("serve it with --reranker" in warning for warning in opened.warnings)
    (package / "config.json").write_text(json.dumps(values | {"is_reranker": True, "is_embedding": True}))
    with pytest.raises(PackageError, match="is an embedding model, and no reranker"):
        open_package(package)
    llama = convert_tiny(tmp_path / "llama", Tiny("llama"), rows=255)
    config(is_reranker=True)(llama)
    with pytest.raises(PackageError, match="of the family llama"):
        open_package(llama)
