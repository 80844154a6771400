"""Loading on a card that forgives nothing: time, memory, which device, what is asked of the runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_models import Tiny, convert_tiny

from axpress.core.device.emulator import Emulator, emulator_library
from axpress.core.device.model_loader import open_model
from axpress.core.device.runtime import Card
from axpress.core.device.step import Step
from axpress.core.errors import PackageError, RuntimeUnavailable
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
    assert expected <= report["modelled_ns"] * 1e-9 <= 1.1 * expected
    assert report["calls"]["axclrtEngineLoadFromFile"] == len(files)
    assert "axclrtEngineGetUsage" not in report["calls"]  # it would load everything once more


@pytest.mark.parametrize(("mib", "said", "loads"), [(600, "29 model files need at least 653 MiB", 0), (1000, "27", 2)])
def test_what_does_not_fit_is_refused_early(tmp_path: Path, mib: int, said: str, loads: int) -> None:
    package = hollow(SMALL, tmp_path / "out")
    with pytest.raises(PackageError, match=f"{said}.* of card memory and 64 MiB stay free"):
        open_model(package, "emu", "none", {"memory_mib": str(mib)})
    assert Emulator().report()["calls"].get("axclrtEngineLoadFromFile", 0) == loads


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
