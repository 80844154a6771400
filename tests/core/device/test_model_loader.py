"""Loading on a card that forgives nothing: time, memory, which device, what is asked of the runtime."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_models import Tiny, convert_tiny

from axpress.core.device import load_watch
from axpress.core.device.card_memory import CardMemory
from axpress.core.device.emulator import Emulator, emulator_library
from axpress.core.device.load_watch import LoadProgress
from axpress.core.device.model_loader import open_model
from axpress.core.device.runtime import Card
from axpress.core.device.step import Step
from axpress.core.errors import PackageError, RuntimeCallError, RuntimeUnavailable
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.timing_profile import load_profile

SMALL, LARGE = "qwen3-0.6b-w8a16-pi5", "qwen3-4b-w8a16-pi5"


@pytest.fixture(autouse=True)
def settings_of_this_process() -> Iterator[None]:
    """What a test sets stays with the library; put back what it was."""
    Emulator().reset_counters()
    yield
    for key, value in {"speed": 1, "memory_mib": 0, "devices": 1, "device_id": 1, "profile": "none"}.items():
        Emulator().set(key, value)


def test_loading_takes_the_modelled_time_of_its_files(tmp_path: Path) -> None:
    profile = load_profile(LARGE)
    files = [profile.model.head_file_bytes] + [profile.model.layer_file_bytes] * profile.model.layers
    expected = sum(map(profile.cost.load_s, files))
    assert 132 < expected < 134  # as published
    open_model(hollow(LARGE, tmp_path / "out"), "emu", LARGE, {"speed": "1000"}, banks=1).close()
    report = Emulator().report()
    assert expected <= report["modelled_ns"] * 1e-9 <= 1.12 * expected  # probes: 14.5 s
    assert report["calls"]["axclrtEngineLoadFromFile"] == len(files)
    assert "axclrtEngineGetUsage" not in report["calls"]  # it would load everything once more


NO_ROOM = {  # MiB of the card: what the refusal says, how many files were loaded
    600: ("its 29 model files need at least 653 MiB of card memory and 64 MiB stay free", 0),
    1000: (r"head and 1 of 28 layers on the card.* the remaining 27 files will take about \d+ MiB, caches 223 MiB", 2),
}


@pytest.mark.parametrize("mib", NO_ROOM)
def test_what_does_not_fit_is_refused_early(tmp_path: Path, mib: int) -> None:
    package, (said, loads) = hollow(SMALL, tmp_path / "out"), NO_ROOM[mib]
    with pytest.raises(PackageError, match=f"{said}.* {mib - 18 if not loads else ''}.*choose a smaller model"):
        open_model(package, "emu", "none", {"memory_mib": str(mib)})
    assert Emulator().report()["calls"].get("axclrtEngineLoadFromFile", 0) == loads


def test_a_cache_that_does_not_fit_beside_the_layers_is_refused_after_the_first(tmp_path: Path) -> None:
    """Not after minutes of loading."""
    package = hollow(SMALL, tmp_path / "out")
    with pytest.raises(PackageError, match=r"1 of 28 layers on the card.*caches 223 MiB"):
        open_model(package, "emu", "none", {"memory_mib": "1150"})
    assert Emulator().report()["calls"]["axclrtEngineLoadFromFile"] == 2


def test_the_head_is_loaded_first(tmp_path: Path) -> None:
    """Some cards drop off the bus otherwise."""
    package = convert_tiny(tmp_path, Tiny("qwen3"), rows=127, chunk=32)
    open_model(package, "emu", "none", {"head_first": "offline"}).close()
    Emulator().set("head_first", 1)


def test_a_card_is_chosen_by_its_place_in_the_list() -> None:
    for index, device in ((0, 5), (2, 7)):
        card = Card(emulator_library(), index, {"devices": "3", "device_id": "5"})
        assert card.device == device
        card.close()
    with pytest.raises(RuntimeUnavailable, match="card 3 was asked for"):
        Card(emulator_library(), 3, {})


def test_both_widths_of_a_cache_without_rows_give_the_same_answers(tmp_path: Path) -> None:
    logits = []
    for width in ("hidden", "kv"):
        (tmp_path / width).mkdir()
        package = convert_tiny(tmp_path / width, Tiny("qwen3"), rows=127, chunk=32, p0_width=width)
        model = open_model(package, "emu", "none", banks=1)
        step = Step(32)
        step.reset(1)
        step.add_chain(range(20), 0, 0, step.add_view(0, 0), True)
        model.program.run(step)
        assert (model.program.groups[1].history, model.program.shape.hidden, model.program.shape.kv_dim) == (0, 64, 32)
        logits.append(model.program.logits(0).tobytes())
        model.close()
    assert logits[0] == logits[1] and any(logits[0])


def test_progress_tells_files_sizes_and_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(load_watch, "LOG_SECONDS", 0.1)
    told: list[LoadProgress] = []
    with caplog.at_level(logging.INFO):
        open_model(hollow(SMALL, tmp_path / "out"), "emu", SMALL, {"speed": "30"}, told.append, banks=1).close()
    assert [p.files_done for p in told] == [*range(29), 29] and {p.files for p in told} == {29}
    assert [p.stage for p in told] == ["loading"] * 29 + ["probing"]
    assert told[0].seconds_left is None and (told[0].mib_done, told[-1].mib_done, told[0].mib) == (0, 653, 653)
    left = [p.seconds_left or 0.0 for p in told[5:-1]]
    assert left[-1] < left[0], "it comes down, however busy this machine is"
    lines = [line for line in caplog.messages if line.startswith("loading: ")]
    assert 1 < len(lines) < 29 and re.fullmatch(r"loading: \d+ of 29 files, \d+ of 653 MiB, about \d+ s left", lines[1])


def test_a_load_that_hangs_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(load_watch, "LOAD_SECONDS", 0.1)
    package = convert_tiny(tmp_path, Tiny("qwen3"), rows=127, chunk=32)
    told: list[LoadProgress] = []
    with pytest.raises(RuntimeCallError, match=r"during loading .*_l0_.*\.axmodel"):
        open_model(package, "emu", "none", {"faults": "axclrtEngineLoadFromFile@2=hang:2000"}, told.append)
    Emulator().set("faults", "")
    assert told[-2].unanswered == "loading " + next(package.glob("*_l0_*")).name and not told[-1].unanswered
    assert "the card does not answer: loading" in str(told[-2])
    assert "the card has not answered for" in caplog.text and "the card came back after" in caplog.text


def test_a_runtime_that_does_not_tell_its_memory_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    memory = CardMemory(SimpleNamespace(properties=dict), "package", [1 << 40], None)  # type: ignore[arg-type]
    memory.check_files()
    memory.check_growth([None])  # type: ignore[list-item]
    assert memory.fit_banks([]) == (1, 1, None)
    assert "does not say how much card memory is free" in caplog.text
