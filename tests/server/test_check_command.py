"""`axpress check`: what it says of directories that open and of those that do not, in words and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from invented_packages import FLAT, HIDDEN, OLD, VOCAB, build, hf
from repository import PATIENCE
from stub_packages import build_entry, published, tree
from tiny_models import Tiny, convert_tiny

from axpress.core.device.model_loader import default_model, open_model
from axpress.core.errors import PackageError
from axpress.core.model_files.layer_blocks import block_bytes
from axpress.core.model_files.model_package import open_package
from axpress.server import check_command
from axpress.server.cli import main

KEYS = ("opens", "reason", "name", "aliases", "layers_dir", "tokenizer", "num_layers", "family", "sampling")
ENTRIES = {entry["name"]: entry for entry in published()}
# refused once for its .npy embedding only, which is read now: the description leaves both open
READ_NOW = ("Qwen2.5-1.5B-Instruct-python@aa999d91",)


def check(directory: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The JSON report; the exit code says the same as `opens`."""
    code = main(["check", str(directory), "--json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert tuple(report)[: len(KEYS)] == KEYS and code == (0 if report["opens"] else 1)
    assert report["opens"] is (report["reason"] is None)
    return report


@pytest.mark.parametrize("name", ENTRIES)
def test_published_packages(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry, expect = ENTRIES[name], ENTRIES[name]["expect"]
    report = check(build_entry(tmp_path, entry), capsys)
    assert (report["layers_dir"], report["tokenizer"]) == (expect["layer_dir"], expect["tokenizer_dir"])
    assert report["opens"] is (expect["opens"] or name in READ_NOW), report["reason"]
    if report["opens"]:
        assert report["num_layers"] == entry["layers"] and report["family"] and report["aliases"][0] == report["name"]


def test_the_first_users_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = build_entry(tmp_path, ENTRIES["Qwen3-4B@2025 (pulled)"])
    report = check(root, capsys)
    assert report["name"] == "Qwen3-4B" and "qwen3-4b-ax650" in report["aliases"]
    assert (report["num_layers"], report["family"], report["tokenizer_loads"]) == (36, "qwen3", True)
    assert report["sampling"]["top_k"] == 1 and report["sampling"]["greedy"] is True
    assert report["sampling"]["sources"]["top_k"] == "post_config.json"
    card_bytes = 36 * 118040663 + 424609063
    assert report["memory"] == {"card_bytes": card_bytes, "embedding_bytes": 777912320, "cards": 1}
    inner = check(root / "qwen3-4b-ax650", capsys)
    assert (inner["layers_dir"], inner["tokenizer"]) == (".", "../qwen3_tokenizer")
    assert {"Qwen3-4B", "qwen3-4b-ax650"} <= set(inner["aliases"]) and inner["sampling"]["top_k"] == 1


def test_shapes_of_a_simulated_package(capsys: pytest.CaptureFixture[str]) -> None:
    report = check(default_model(), capsys)
    shapes = report["shapes"]
    assert report["simulated"] and shapes["rows"] == 2047 and shapes["head_vocab"] == shapes["vocab"] == 3072
    assert report["tokenizer_loads"] is True and report["warnings"] == []


def test_a_model_for_several_cards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = convert_tiny(tmp_path, Tiny("qwen3", layers=4), rows=63, chunk=0)
    assert check(package, capsys)["memory"]["cards"] == 1
    sizes = block_bytes(open_package(package), 2)
    monkeypatch.setattr(check_command, "CMM_FLOOR", (check_command.CARD_MIB << 20) - max(sizes))
    assert check(package, capsys)["memory"]["cards"] == 2
    assert main(["check", str(package)]) == 0
    assert "it needs 2 cards (`axpress serve --split 0,1`)" in capsys.readouterr().out


def test_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {**build("x-ax650/"), **hf("qwen2.5_tokenizer/"), "qwen2.5_tokenizer/generation_config.json": {"top_k": 7}}
    assert main(["check", str(tree(tmp_path / "Qwen3-9B", files))]) == 0
    said = capsys.readouterr().out
    for words in (
        "opens:       yes\n", "layers:      4 in x-ax650", "answers to:  Qwen3-9B, x-ax650",
        "tokenizer:   qwen2.5_tokenizer",
        "sampling:    top_k 7 (qwen2.5_tokenizer/generation_config.json)", "warning:     qwen2.5_tokenizer is the only",
    ):  # fmt: skip
        assert words in said, said


def test_why_not_and_what_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: value for name, value in OLD.items() if not name.endswith(("_post.axmodel", "tokenizer.json"))}
    root = tree(tmp_path / "m", files)
    assert main(["check", str(root)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("opens:       no: ") and "*_post.axmodel" in lines[0] and "download" in lines[0]
    assert any(line.startswith("also:") and "no tokenizer" in line for line in lines)
    assert check(tmp_path / "nowhere", capsys)["reason"].endswith("(the one with the .axmodel files)")


def test_a_tokenizer_that_does_not_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path / "m", {**OLD, "qwen3_tokenizer/tokenizer.json": '{"cut": '})
    report = check(root, capsys)
    assert report["opens"] and report["tokenizer_loads"] is False, "where the layers are placeholders, names count"
    assert "is a placeholder" in report["warnings"][0] and "tokenizer.json" in report["warnings"][0]
    for layer in root.rglob("*_l*_*.axmodel"):
        layer.write_bytes(b"compiled" * 10000)
    report = check(root, capsys)
    assert report["opens"] is report["tokenizer_loads"] is False and not report["warnings"]
    assert report["num_layers"] == 4 and report["tokenizer"] == "qwen3_tokenizer", "what was found is still told"
    with pytest.raises(PackageError) as refused:
        open_model(root)  # what serve does, before it touches a card
    assert str(refused.value) in report["reason"]
    assert main(["check", str(root)]) == 1
    assert capsys.readouterr().out.startswith("opens:       no: the tokenizer does not load")


def test_a_text_tokenizer_of_an_unknown_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the file is a placeholder: its type is not."""
    config = {**FLAT["config.json"], "tokenizer_type": "Phi9"}
    report = check(tree(tmp_path / "m", {**FLAT, "config.json": config}), capsys)
    assert not report["opens"] and "tokenizer_type 'Phi9'" in report["reason"] and "copy" in report["reason"]


def test_sizes_come_from_whatever_tells_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = check(tree(tmp_path / "plain", OLD), capsys)["shapes"]
    assert (plain["hidden"], plain["vocab"], plain["chunk"]) == (None, None, 128)
    original = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": 4}
    told = check(tree(tmp_path / "told", {**OLD, "qwen3_tokenizer/config.json": original}), capsys)["shapes"]
    assert (told["hidden"], told["vocab"]) == (HIDDEN, VOCAB)
    inner = tree(tmp_path / "flat", {**FLAT, **build("C256/", "qwen3_p256")}) / "C256"
    assert check(inner, capsys)["shapes"]["hidden"] == HIDDEN, "another build of the same model"


def test_from_the_shell(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "axpress.server.cli", "check", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60 * PATIENCE)
    assert result.returncode == 1 and result.stdout.startswith("opens:       no: ") and not result.stderr
