"""Packages some of whose layers have fewer shape groups than others: the same tokens as from the whole ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from collecting import ask
from tiny_models import Tiny, convert_tiny, prune

from axpress.core.capacity.report import plan
from axpress.core.engine.engine import Engine
from axpress.core.errors import PackageError
from axpress.core.model_files.model_package import open_package
from axpress.server.check_command import report_on

PRUNED: dict[str, tuple[dict[int, dict[str, Any]], int, list[tuple[int, int]]]] = {
    # what layers keep, rows of a bank, all groups (width, history) that are left
    "the first layer": ({0: {"decode_rows": (255,), "history": (0, 64)}}, 255, [(1, 255), (32, 0), (32, 64)]),
    "two layers, each otherwise": (
        {1: {"decode_rows": (127, 255), "history": (0, 64, 128)}, 2: {"decode_rows": (127,), "history": (32, 64, 128)}},
        127,
        [(1, 127), (32, 64)],  # the cache is smaller than 128 rows
    ),
    "one has no chunks": ({1: {"chunk": 0, "history": ()}}, 255, [(1, 64), (1, 127), (1, 255)]),
    "one has chunks of another width": ({2: {"chunk": 64}}, 255, [(1, 64), (1, 127), (1, 255)]),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = Tiny("qwen3", layers=3, heads=8, kv_heads=8, head_dim=128)  # rows of 2 KiB: written in place
    folder = tmp_path_factory.mktemp("whole")
    return convert_tiny(folder, tiny, rows=[64, 127, 255], chunk=32, history=[0, 32, 64, 128])


@pytest.fixture(scope="module")
def answers(whole: Path) -> list[tuple[Any, ...]]:
    return _answers(whole)[0]


def _answers(package: Path) -> tuple[list[tuple[Any, ...]], Engine]:
    engine = Engine.open(package, "emu", "none", banks=1)
    try:
        prompts = (range(40, 140), range(60, 75))  # over several chunks, and within the first
        return [ask(engine, prompt, max_tokens=20).outcome for prompt in prompts], engine
    finally:
        engine.close()


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "pruned"))


@pytest.mark.parametrize("case", PRUNED)
def test_pruned_layers_give_the_tokens_of_whole_ones(case: str, copied: Path, answers: list[tuple[Any, ...]]) -> None:
    layers, rows, groups = PRUNED[case]
    for layer, kept in layers.items():
        prune(copied, layer, **kept)
    found, engine = _answers(copied)
    assert found == answers
    assert engine.info.context_length == rows == open_package(copied).rows
    shapes = report_on(copied)["shapes"]
    assert (shapes["rows"], shapes["history"]) == (rows, [p for w, p in groups if w > 1])
    assert shapes["chunk"] == (32 if groups[-1][0] > 1 else None)
    plan(copied, "qwen3-0.6b-w8a16-pi5", 1, None, 10, 3.0).render()


def test_without_a_common_decode_group_the_file_and_its_rows_are_named(copied: Path) -> None:
    prune(copied, 0, decode_rows=(64, 255))
    prune(copied, 2, decode_rows=(127,))
    said = r"_l2_together\.axmodel decodes over 127 rows, the layers before it over 64, 255: no shape group is common"
    with pytest.raises(PackageError, match=said):
        open_package(copied)
    assert report_on(copied)["opens"] is False
