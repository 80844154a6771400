"""What probes find out on emulated cards that can do less, and what they cannot be deceived by."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_models import Tiny, convert_tiny

from axpress.core.device import card_models, probe
from axpress.core.device.backend import Modes
from axpress.core.device.emulator import Emulator
from axpress.core.device.load_watch import LoadWatch
from axpress.core.device.model_loader import Model, open_model
from axpress.core.device.probe import TIMINGS
from axpress.core.device.probe_passes import choose_tokens
from axpress.core.device.step import Step
from axpress.core.errors import StepTimeout
from axpress.core.model_files.convert import EMBED_NAME
from axpress.core.model_files.embedding_file import EmbeddingTable

ALL = Modes(use_async=True, in_place_decode=True, chunks=True)
SMALL = {"rows": [127, 255], "chunk": 32, "history": [0, 32, 64, 128]}
AS_THEY_WERE = {
    "async": 1, "inplace_decode": 1, "inplace_unaligned": 0, "narrow_output": 1, "faults": "", "hang_ms": 60000,
}  # fmt: skip


@pytest.fixture(autouse=True)
def settings_of_this_process() -> Iterator[None]:
    yield
    for key, value in AS_THEY_WERE.items():
        Emulator().set(key, value)


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """Rows of 2 KiB, two decode groups, three layers."""
    tiny = Tiny("qwen3", layers=3, heads=8, kv_heads=8, head_dim=128)
    return convert_tiny(tmp_path_factory.mktemp("wide"), tiny, **SMALL)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory) -> Path:
    """Rows of 64 bytes."""
    return convert_tiny(tmp_path_factory.mktemp("narrow"), Tiny("qwen3", layers=3), **SMALL)


def with_zeros(package: Path, out: Path, zero: slice) -> Path:
    """The package with zeros for some tokens' embeddings."""
    out.mkdir()
    for file in package.iterdir():
        (out / file.name).symlink_to(file)
    table = np.fromfile(package / EMBED_NAME, np.uint16).reshape(-1, 64)
    table[zero] = 0
    (out / EMBED_NAME).unlink()
    table.tofile(out / EMBED_NAME)
    return out


def probed(package: Path, use: Callable[[Model], object] = lambda _: None, **settings: object) -> Modes:
    model = open_model(package, "emu", "none", {k: str(v) for k, v in settings.items()}, banks=1)
    try:
        use(model)
        return model.modes
    finally:
        model.close()


CARDS: dict[str, tuple[dict[str, object], Modes]] = {
    "all works": ({}, ALL),
    "rows in place are lost": ({"inplace_decode": 0}, Modes(True, False, True)),
    "rows in place are refused": ({"inplace_decode": "error"}, Modes(True, False, True)),
    "no asynchronous calls": ({"async": 0}, Modes(False, True, True)),
    "narrow chunks leave no hidden state": ({"narrow_output": 0}, Modes(True, True, False)),
}


@pytest.mark.parametrize("card", CARDS)
def test_probes_find_out_what_the_card_can_do(wide: Path, card: str) -> None:
    settings, expected = CARDS[card]
    assert probed(wide, **settings) == expected


def test_answers_do_not_depend_on_what_the_card_can_do(wide: Path) -> None:
    answers: list[list[int]] = []
    for settings, _ in CARDS.values():
        probed(wide, lambda model: answers.append(greedy(model)), **{**AS_THEY_WERE, **settings})
    assert all(answer == answers[0] for answer in answers) and len(set(answers[0])) > 1


def greedy(model: Model) -> list[int]:
    """Four tokens after thirty, in chunks where the probes allow them."""
    step, out = Step(32), []
    if model.modes.chunks:
        step.reset(len(model.program.shape.decode))
        step.add_chain(range(20, 50), 0, 0, step.add_view(0, 0), True)
        model.program.run(step)
    for i in range(30 if model.modes.chunks else 0, 34):
        if i >= 30:
            out.append(int(model.program.logits(0).argmax()))
        step.reset(0)
        step.add(20 + i if i < 30 else out[-1], i, i, -1, step.add_view(0, i), True)
        model.program.run(step)
    return out


def test_rows_that_are_no_multiple_of_2_kib_are_always_copied(narrow: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Even where the card could."""
    with caplog.at_level(logging.INFO):
        assert probed(narrow, inplace_unaligned=1) == Modes(True, False, True)
    assert "rows of 64 bytes are no multiple of 2048: copied" in caplog.text


@pytest.mark.parametrize(("works", "expected"), [("1", True), ("0", False), ("down", False), ("error", False)])
def test_in_place_is_tried_in_odd_rows(
    narrow: Path, works: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that forgives the first row of each 2 KiB only."""
    monkeypatch.setattr(probe, "ALIGNMENT", 64)
    assert probed(narrow, inplace_unaligned=works).in_place_decode == expected


@pytest.mark.parametrize("zero", [slice(0, 1), slice(0, 300)])
def test_zero_rows_of_an_embedding_deceive_nobody(wide: Path, tmp_path: Path, zero: slice) -> None:
    """Their K and V are zero however wrong the hidden state was."""
    package = with_zeros(wide, tmp_path / "package", zero)
    assert probed(package, narrow_output=0) == Modes(True, True, False)
    assert probed(package, narrow_output=1) == ALL


def test_where_all_rows_are_zero_everything_is_done_the_slow_way(
    wide: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package = with_zeros(wide, tmp_path / "package", slice(None))
    assert probed(package) == Modes()
    assert "probes prove nothing with this model" in caplog.text


@pytest.mark.parametrize("group", range(4))
def test_every_chunk_group_is_probed(narrow: Path, group: int, caplog: pytest.LogCaptureFixture) -> None:
    decodes = 4 + 2 * 4  # the history, and four tokens in both groups; then a chunk, and all that asynchronously
    before = decodes + 1 + 2 * 4 + 1 + group
    assert not probed(narrow, faults=f"nan@layer:{3 * before + 2}").chunks
    assert f"chunks of 32 tokens over {SMALL['history'][group]} rows" in caplog.text  # type: ignore[index]


@pytest.mark.parametrize("passes", range(12))
def test_a_nan_in_any_decode_leads_to_the_slow_way(narrow: Path, passes: int) -> None:
    """In the history or in either group."""
    assert probed(narrow, faults=f"nan@layer:{3 * passes + 1}") == Modes()


def test_tokens_are_chosen_whose_rows_are_finite_not_zero_and_different() -> None:
    table = np.zeros((5000, 4), np.uint16)
    table[100:4000] = 0x8000  # minus zero
    table[4000:4500] = np.arange(500)[:, None] // 100 + 1
    table[4500:] = 0x7FC0
    tokens = choose_tokens(EmbeddingTable(table), 5)
    assert sorted(int(table[token, 0]) for token in tokens) == [1, 2, 3, 4, 5]
    assert len(set(choose_tokens(EmbeddingTable(table), 8))) == 8  # there are no more such: others
    assert len(choose_tokens(EmbeddingTable(table[:3]), 8)) == 8


HANGS = {
    "asynchronous": ("axclrtEngineExecuteAsync@1=hang", {}, "the probe of asynchronous calls, decode over 127 rows"),
    "timing of layers": ("axclrtEngineExecuteAsync@{timing}=hang", {}, "the timing of group 0"),
    "synchronous": ("axclrtEngineExecute@2=hang:6000", {"async": 0}, "the probe of synchronous calls, decode over 255"),
}


@pytest.mark.parametrize("how", HANGS)
def test_a_card_that_does_not_answer_is_not_waited_for(
    narrow: Path, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fault, settings, said = HANGS[how]
    if "{timing}" in fault:
        Emulator().reset_counters()
        probed(narrow)  # how many calls come before: all but the layers of six groups, one of them twice, and a head
        calls = Emulator().report()["calls"]["axclrtEngineExecuteAsync"]
        fault = fault.format(timing=calls - TIMINGS * 7 * 3)
    monkeypatch.setattr(card_models, "LoadWatch", partial(LoadWatch, probe_seconds=1.5))
    told: list[str] = []
    with pytest.raises(StepTimeout, match=f"did not answer within 1.5 s during {said}"):
        open_model(
            narrow, "emu", "none", {"faults": fault, **{k: str(v) for k, v in settings.items()}},
            lambda progress: told.append(progress.unanswered), banks=1,
        )  # fmt: skip
    hung_in_a_call = how == "synchronous"
    assert ("the card has not answered for" in caplog.text) == hung_in_a_call
    assert any(said in text for text in told) == hung_in_a_call
