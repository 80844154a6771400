"""A start after a crash: memory of the card that a dead process left occupied is waited for, else the card rebooted.
Emulated: what leaks there stays occupied until a reboot, as after a kill on a card."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from server_process import hollow_package

from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine
from axpress.core.errors import RuntimeCallError
from axpress.core.recovery import left_memory
from axpress.core.recovery.attempts import AttemptLog
from axpress.core.recovery.ladder import RecoveryPolicy
from axpress.core.recovery.left_memory import LeftMemory

GIB = 1 << 30


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    emulator = Emulator()
    yield emulator
    emulator.set("FAULTS", "")


def test_what_a_dead_process_left_is_freed_by_a_reboot(
    tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(left_memory, "WAIT_SECONDS", 0.3)
    package, _ = hollow_package(tmp_path)
    policy = replace(RecoveryPolicy(), backoff=0.01)

    def start() -> int:
        engine = Engine.open(package, "emu", "none", state_dir=tmp_path / "state", recovery=policy)
        free = int(engine.model.card.properties()["free_cmm"])
        engine.close()
        return free

    emulator.set("FAULTS", f"leak={100 << 20}")  # of each of three files
    first = start()
    with caplog.at_level(logging.INFO):
        assert start() == first
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert "MiB of the card's memory are held by a process that ended" in told[0]
    assert any("held by a process that is gone" in text for text in told)
    assert any(text.startswith("rebooting the firmware") for text in told)
    assert AttemptLog(tmp_path / "state" / "recovery.json").recent("reboot") == 1


class Card:
    """Says what is free, one answer after the other, the last one for ever."""

    device = 7

    def __init__(self, *free: int | None) -> None:
        self.free = list(free)

    def properties(self) -> dict[str, Any]:
        free = self.free.pop(0) if len(self.free) > 1 else self.free[0]
        return {} if free is None else {"free_cmm": free}


def left(tmp_path: Path, holders: str | None = "", reboots: int = 6) -> LeftMemory:
    return LeftMemory(AttemptLog(tmp_path / "recovery.json"), reboots, lambda: holders)


def known(tmp_path: Path) -> dict[str, int]:
    return dict(json.loads((tmp_path / "idle_memory.json").read_text()))


def test_memory_that_comes_back_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left(tmp_path).check(Card(6 * GIB))
    assert known(tmp_path) == {"7": 6 * GIB}
    with caplog.at_level(logging.INFO):
        left(tmp_path, "axpress (process 12)").check(Card(4 * GIB, 5 * GIB, 6 * GIB))
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"] and "by axpress (process 12)" in caplog.text


@pytest.mark.parametrize(("holders", "reboots"), [("llama (process 12)", 6), (None, 6), ("", 0)])
def test_no_reboot_where_others_live_or_reboots_did_not_help(
    holders: str | None, reboots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left_memory, "WAIT_SECONDS", 0.1)
    left(tmp_path).check(Card(6 * GIB))
    left(tmp_path, holders, reboots).check(Card(4 * GIB))
    assert known(tmp_path) == {"7": 6 * GIB}  # those who hold it will end


def test_after_reboots_in_vain_what_there_is_has_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_memory, "WAIT_SECONDS", 0.1)
    left(tmp_path).check(Card(6 * GIB))
    again, card = left(tmp_path), Card(4 * GIB)
    for _ in range(2):
        with pytest.raises(RuntimeCallError, match="2048 MiB of the card's memory"):
            again.check(card)
    again.check(card)
    assert known(tmp_path) == {"7": 4 * GIB}  # a new firmware may need more: not again at each start


def test_a_card_that_does_not_tell_and_a_file_that_is_broken(tmp_path: Path) -> None:
    left(tmp_path).check(Card(None))
    assert not (tmp_path / "idle_memory.json").exists()
    (tmp_path / "idle_memory.json").write_text("[1")
    left(tmp_path).check(Card(6 * GIB))
    assert known(tmp_path) == {"7": 6 * GIB}
