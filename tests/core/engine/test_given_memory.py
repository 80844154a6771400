"""A card short of memory while answers run: banks go, answers keep their tokens. The card is emulated."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from collecting import GREEDY, Collector
from tiny_models import Tiny, convert_tiny

from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine
from axpress.core.recovery.ladder import RecoveryPolicy
from axpress.core.request import GenerationRequest
from axpress.server.serving.card_monitor import LITTLE_MEMORY, CardMonitor
from axpress.server.serving.card_reading import CardReading, of_runtime

LAYERS, ROWS = 2, 127


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    package = convert_tiny(tmp_path, Tiny("qwen3", layers=LAYERS), rows=ROWS, chunk=32, history=[0, 32, 64])
    engine = Engine.open(package, "emu", "none", banks=3, recovery=RecoveryPolicy(backoff=0.01, settle=5, check=5))
    yield engine
    Emulator().set("faults", "")
    engine.close()
    assert Emulator().report()["memory"]["device_used"] == 0


def used() -> int:
    return int(Emulator().report()["memory"]["device_used"])


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def long_answers(engine: Engine, count: int) -> list[Collector]:
    """Too long for two to live in one bank."""
    answers = [Collector() for _ in range(count)]
    for i, answer in enumerate(answers):
        engine.submit(GenerationRequest([i + 1] * 20, GREEDY, max_tokens=100, ignore_eos=True), answer)
    return answers


def texts(answers: list[Collector]) -> list[str]:
    for answer in answers:
        answer.wait()
    return [answer.text for answer in answers]


@pytest.mark.parametrize("faults", ["", "axclrtFree@1=fail:0x8030070c"])
def test_banks_are_given_back_in_the_middle_of_answers(engine: Engine, faults: str) -> None:
    expected = texts(long_answers(engine, 4))
    before, bank = used(), LAYERS * ROWS * 2 * 2 * engine.model.program.shape.kv_dim
    answers = long_answers(engine, 4)
    until(lambda: engine.scheduler.num_running >= 3 and all(answer.text for answer in answers[:3]))
    Emulator().set("faults", faults)
    assert engine.give_up_memory()
    until(lambda: engine.info.num_banks == 2)
    assert texts(answers) == expected
    assert engine.stats()["preemptions"] and engine.stats()["rows"] == 2 * ROWS
    until(lambda: engine.state == "ready")
    given = before - used()  # allocations are aligned
    assert bank <= given < 1.1 * bank and bool(engine.ladder.rungs) == bool(
        faults
    )  # the card's allocations are aligned
    assert engine.give_up_memory()
    until(lambda: engine.info.num_banks == 1)
    assert not engine.give_up_memory() and before - used() == 2 * given
    assert texts(long_answers(engine, 4)) == expected
    engine.scheduler.check_integrity()


def test_the_monitor_gives_memory_back_while_there_is_little(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    free = [LITTLE_MEMORY, LITTLE_MEMORY - 1, LITTLE_MEMORY - 1, LITTLE_MEMORY - 1, LITTLE_MEMORY]
    readings = [CardReading("runtime", 0.0, free_cmm=bytes_left) for bytes_left in free]
    monitor = CardMonitor(lambda: readings.pop(0), engine.throttle, (75, 80, 85), engine.give_up_memory)
    with caplog.at_level(logging.WARNING):
        for num_banks in (3, 2, 1, 1, 1):
            monitor.look()
            until(lambda n=num_banks: engine.info.num_banks == n)
    said = [record.getMessage().split(": ")[-1] for record in caplog.records if "free memory" in record.getMessage()]
    assert said == ["a bank of cached conversations is given back", "close other programs on the card"]


def test_what_another_program_takes_is_seen_by_the_runtime(engine: Engine) -> None:
    total = of_runtime(engine.model.card.properties())["total_cmm"]
    Emulator().set("faults", f"memory={(used() >> 20) + 1}")
    facts = of_runtime(engine.model.card.properties())
    assert facts["free_cmm"] < LITTLE_MEMORY and facts["total_cmm"] <= total
