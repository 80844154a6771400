"""The names that a package answers to."""

from __future__ import annotations

from pathlib import Path

from invented_packages import FLAT, OLD, config
from stub_packages import tree

from axpress.core.model_files.model_package import ModelPackage, open_package

README = """---
license: apache-2.0
base_model:
- Qwen/Qwen3-9B
pipeline_tag: text-generation
---
# Qwen3-9B
See https://huggingface.co/Qwen/Qwen3-0.6B and https://huggingface.co/AXERA-TECH/Qwen3-9B.
"""


def opened(directory: Path, files: dict[str, object], given: str = "") -> ModelPackage:
    return open_package(tree(directory, files) / given)


def test_directory_and_layers_folder(tmp_path: Path) -> None:
    package = opened(tmp_path / "Qwen3-9B", OLD)
    assert package.name == "Qwen3-9B" and package.aliases == ("Qwen3-9B", "qwen3-9b-ax650")


def test_the_configurations_name_and_its_last_part(tmp_path: Path) -> None:
    package = opened(tmp_path / "mine", FLAT)
    assert package.name == "AXERA-TECH/Qwen3-9B"
    assert package.aliases == ("AXERA-TECH/Qwen3-9B", "mine", "Qwen3-9B")


def test_papers_beside_the_package(tmp_path: Path) -> None:
    origin = '[remote "origin"]\n\turl = https://huggingface.co/AXERA-TECH/Qwen3-9B-Instruct.git\n'
    package = opened(tmp_path / "Qwen3-9B", {**OLD, "README.md": README, ".git/config": origin})
    found = {"AXERA-TECH/Qwen3-9B", "Qwen/Qwen3-9B", "AXERA-TECH/Qwen3-9B-Instruct", "Qwen3-9B-Instruct"}
    assert found <= set(package.aliases)
    assert "Qwen/Qwen3-0.6B" not in package.aliases, "a page that the README only mentions"


def test_a_mixture_of_models_is_none_of_them(tmp_path: Path) -> None:
    merged = README.replace("- Qwen/Qwen3-9B\n", "- Qwen/Qwen3-9B\n- other/Model\n")
    aliases = opened(tmp_path / "Qwen3-9B", {**OLD, "README.md": merged}).aliases
    assert "Qwen/Qwen3-9B" not in aliases and "other/Model" not in aliases


def test_the_hubs_cache(tmp_path: Path) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    files = {f"snapshots/{commit}/{name}": value for name, value in OLD.items()} | {"refs/main": commit}
    package = opened(tmp_path / "models--AXERA-TECH--Qwen3-9B", files)
    assert package.name == "AXERA-TECH/Qwen3-9B" and "Qwen3-9B" in package.aliases and commit not in package.aliases
    assert open_package(package.directory).name == "AXERA-TECH/Qwen3-9B"


def test_a_build_within_a_package(tmp_path: Path) -> None:
    package = opened(tmp_path / "Qwen3-9B", OLD, "qwen3-9b-ax650")
    assert package.name == "qwen3-9b-ax650" and "Qwen3-9B" in package.aliases


def test_the_directory_that_many_models_lie_in_is_no_name(tmp_path: Path) -> None:
    files = {f"Qwen3-9B/{name}": value for name, value in FLAT.items()} | {"Other/x.bin": 1}
    assert "all my models" not in opened(tmp_path / "all my models", files, "Qwen3-9B").aliases


def test_stackflows_homepage(tmp_path: Path) -> None:
    mode = {
        "mode": "qwen3-9B-Int4-ax650",
        "homepage": "https://huggingface.co/AXERA-TECH/Qwen3-9B-GPTQ-Int4",
        "mode_param": config(model_name=None, post_config_path=None),
    }
    files = {name: value for name, value in FLAT.items() if name != "config.json"}
    package = opened(tmp_path / "anything", {**files, "mode_x.json": mode})
    assert package.name == "qwen3-9B-Int4-ax650" and "AXERA-TECH/Qwen3-9B-GPTQ-Int4" in package.aliases


def test_modelscopes_cache_spells_dots_otherwise(tmp_path: Path) -> None:
    files = {**FLAT, "config.json": config(model_name=None), ".msc": "x"}
    aliases = opened(tmp_path / "AXERA-TECH" / "Qwen3-1___7B", files).aliases
    assert {"Qwen3-1___7B", "Qwen3-1.7B"} <= set(aliases)
