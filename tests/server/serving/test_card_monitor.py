"""The monitor of the card: what it reads, from where, and what is done about heat. All temperatures are modelled."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path

import pytest
from collecting import GREEDY, Collector
from server_process import RunningServer, chat, hollow_package, made_up_profile

from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine
from axpress.core.engine.throttle import Throttle
from axpress.core.request import GenerationRequest
from axpress.server.serving.card_monitor import LEAST_DUTY, CardMonitor, HeatPolicy
from axpress.server.serving.card_reading import CardReading
from axpress.server.serving.engine_service import Service
from axpress.server.settings import Settings

LIMITS = (75.0, 80.0, 85.0)


@pytest.mark.parametrize(("rise", "seconds"), [(40.0, 60.0), (60.0, 60.0), (70.0, 30.0), (75.0, 60.0)])
def test_a_card_that_would_get_too_hot_is_held_below_the_throttle_and_works_on(rise: float, seconds: float) -> None:
    policy, temperature, temperatures, work = HeatPolicy(LIMITS), 45.0, [], 0.0
    for look in range(2000):
        policy.see(temperature)
        duty = 0.0 if policy.paused else policy.duty
        temperature += (45.0 + rise * duty - temperature) * (1 - 2.718281828 ** (-5.0 / seconds))
        temperatures.append(temperature)
        if look > 100:
            work += duty
    assert max(temperatures) < 80 and min(temperatures[100:]) > 70
    assert work / len(temperatures[101:]) > 0.75 * 35 / rise  # near what the model can get rid of at 80


def test_levels_end_below_where_they_began() -> None:
    policy = HeatPolicy(LIMITS)
    levels = []
    for temperature in (60, 75, 74, 73, 71.9, 80, 78, 76.9, 86, 84, 80, 79.9, 76, 71):
        policy.see(temperature)
        levels.append(policy.level)
    assert levels == [0, 1, 1, 1, 0, 2, 2, 1, 3, 3, 3, 2, 1, 0]
    for _ in range(50):
        policy.see(84.0)
    assert policy.duty == LEAST_DUTY
    for _ in range(50):
        policy.see(50.0)
    assert policy.duty == 1.0 and not policy.paused


def test_a_question_that_hangs_takes_only_the_monitor_with_it(caplog: pytest.LogCaptureFixture) -> None:
    asked, answer = threading.Event(), threading.Event()

    def ask() -> CardReading:
        asked.set()
        answer.wait(60)
        return CardReading("", 0.0)

    monitor = CardMonitor(ask, Throttle(), LIMITS)
    monitor.start()
    assert asked.wait(30) and monitor.latest is None
    monitor.stop(0.01)
    answer.set()


def test_heat_and_lost_memory_are_events(caplog: pytest.LogCaptureFixture) -> None:
    now = time.monotonic()
    readings = [
        CardReading("runtime", now, t, 7 << 30, free) for t, free in ((50, 6 << 30), (81, 5 << 30), (90, 5 << 30))
    ]
    throttle = Throttle()
    monitor = CardMonitor(lambda: readings.pop(0), throttle, LIMITS)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            monitor.look()
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING", "WARNING"]
    assert "81 C" in caplog.text and "1024 MiB less" in caplog.text and "90 C" in caplog.text
    assert throttle.paused and throttle.duty < 1


def test_a_slower_link_and_a_weak_supply_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    now = time.monotonic()
    links = [(5.0, 2), (None, None), (5.0, 1), (5.0, 1), (2.5, 2), (5.0, 2)]
    readings = [CardReading("", now, link_gts=gts, link_width=width, undervoltage=gts == 5.0) for gts, width in links]
    monitor = CardMonitor(lambda: readings.pop(0), Throttle(), LIMITS)
    with caplog.at_level(logging.INFO):
        for _ in links:
            monitor.look()
    assert len(caplog.records) == 2 and "5 GT/s x1, and was at 5 GT/s x2" in caplog.text
    assert "too little voltage" in caplog.text


def test_a_paused_engine_waits_and_goes_on_with_the_same_tokens(tmp_path: Path) -> None:
    package, _ = hollow_package(tmp_path)
    engine = Engine.open(package, "emu", "none")
    try:
        request = GenerationRequest([1, 2, 3], GREEDY, max_tokens=40, ignore_eos=True)
        free = Collector()
        engine.submit(request, free)
        free.wait()
        engine.throttle.set(1.0, True)
        held, cancelled = Collector(), Collector()
        engine.submit(request, held)
        engine.submit(request, cancelled).cancel()
        cancelled.wait()  # leaving is noticed meanwhile
        assert cancelled.reason == "cancelled" and not held.deltas
        engine.throttle.set(0.5, False)
        assert held.wait().text == free.text
    finally:
        engine.close()


def test_the_emulated_card_warms_with_work_and_cools_with_time(tmp_path: Path) -> None:
    package, profile = hollow_package(tmp_path)
    engine = Engine.open(package, "emu", str(profile))
    emulator = Emulator()

    def temperature() -> float:
        return float(engine.model.card.properties()["temperature_c"])

    try:
        emulator.set("THERMAL_SECONDS", "1")
        emulator.set("THERMAL_RISE", "40000")
        engine.model.card.bind_thread()
        before = temperature()
        done = Collector()
        engine.submit(GenerationRequest([1, 2, 3], max_tokens=100, ignore_eos=True), done)
        done.wait()
        warm = temperature()
        assert before + 3 < warm < 86
        until = time.monotonic() + 60
        while temperature() > before + 1:
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        emulator.set("THERMAL_RISE", "0")
        engine.close()


def test_health_says_hot_and_who_waits_is_answered_when_it_is_cooler(tmp_path: Path) -> None:
    package, _ = hollow_package(tmp_path)
    made_up_profile(tmp_path)
    emulator = Emulator()

    async def main() -> None:
        service = Service(Settings(model_dir=package, device="emu", profile="none"))
        await service.start()
        monitor = service.monitor
        assert monitor is not None
        while monitor.latest is None:  # its own first look is over
            await asyncio.sleep(0.01)
        emulator.set("TEMPERATURE", "90000")
        await asyncio.to_thread(monitor.look)
        status, body = service.health()
        assert (status, body["status"]) == (503, "hot") and body["card"]["temperature_c"] == 90
        answer = Collector()
        service.ready().engine.submit(GenerationRequest([1, 2, 3], max_tokens=3, ignore_eos=True), answer)
        assert not answer.deltas
        emulator.set("TEMPERATURE", "60000")
        await asyncio.to_thread(monitor.look)
        await asyncio.to_thread(answer.wait)
        assert service.health()[0] == 200
        await service.stop()

    try:
        asyncio.run(asyncio.wait_for(main(), 60))
    finally:
        emulator.set("TEMPERATURE", "45000")


def test_options_of_heat() -> None:
    with RunningServer("--emu-profile", "none", "--heat", "40,41,60") as server:
        server.wait(lambda: "card" in server.health()[1], 30, "read")
        server.wait(lambda: "the card is at 45 C: hot" in server.log, 30, "told")
        assert server.post(chat(max_tokens=2))[0] == 200
