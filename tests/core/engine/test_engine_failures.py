"""A card that fails, hangs or gives nonsense, and an engine that ends: each test opens the card for itself, one at a
time."""

from __future__ import annotations

import threading

import pytest
from collecting import GREEDY, Collector, ask
from tiny_models import Tiny, convert_tiny

from axpress.core.device.emulator import Emulator
from axpress.core.device.model_loader import open_model
from axpress.core.device.step import Step
from axpress.core.engine.engine import Engine
from axpress.core.errors import EngineClosed, QueueFull, RuntimeCallError, RuntimeUnavailable, StepTimeout
from axpress.core.request import GenerationRequest


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failures")
    return convert_tiny(folder, Tiny("qwen3", layers=3), rows=255, chunk=64, history=[0, 64, 128])


def test_a_hanging_card_is_a_timeout_and_a_failing_one_an_error(package) -> None:
    model = open_model(package, "emu", "none")
    step = Step(1)
    step.reset(0)
    step.add(1, 0, 0, -1, step.add_view(0, 0), True)
    emulator = Emulator()
    try:
        emulator.set("faults", "axclrtEngineExecuteAsync@2=fail:0x8030070c")
        with pytest.raises(
            RuntimeCallError, match=r"execution of a layer failed with 0x8030070c \(engine: execute failed\)"
        ):
            model.program.run(step)
        emulator.set("faults", "")
        model.program.run(step)
        emulator.set("faults", "axclrtEngineExecuteAsync@1=hang")
        with pytest.raises(StepTimeout):
            model.program.run(step, 200)
    finally:
        emulator.set("faults", "")
        model.close()


def test_a_broken_result_ends_that_answer_only(package) -> None:
    engine = Engine.open(package, "emu", "none")
    emulator = Emulator()
    try:
        emulator.set("faults", "nan@head:2")
        answer = ask(engine, max_tokens=10)
        assert answer.reason == "error" and "NaN" in (answer.deltas[-1].error or "")
        emulator.set("faults", "")
        assert engine.state == "ready"
        assert ask(engine, max_tokens=3).num_tokens == 3
    finally:
        emulator.set("faults", "")
        engine.close()


def test_a_failing_card_ends_everything_with_the_reason(package) -> None:
    engine = Engine.open(package, "emu", "none")
    emulator = Emulator()
    try:
        emulator.set("faults", "axclrtEngineExecuteAsync@20=fail:0x8030070c")
        answers = [Collector(), Collector()]
        for collector in answers:
            engine.submit(GenerationRequest([7] * 5, GREEDY, 200, ignore_eos=True), collector)
        for collector in answers:
            collector.wait()
        assert [a.reason for a in answers] == ["error", "error"]
        assert "0x8030070c" in (answers[0].deltas[-1].error or "")
        assert engine.state == "failed" and "0x8030070c" in (engine.reason or "")
        with pytest.raises(EngineClosed, match="0x8030070c"):
            engine.submit(GenerationRequest([7], GREEDY, 2), Collector())
    finally:
        emulator.set("faults", "")
        engine.close()


def test_closing_drains_within_its_bound_and_frees_the_card(package) -> None:
    engine = Engine.open(package, "emu", "none")
    running, waiting = Collector(), Collector()
    engine.submit(GenerationRequest([7] * 5, GREEDY, 100, ignore_eos=True), running)
    engine.submit(GenerationRequest([8] * 5, GREEDY, 10, ignore_eos=True), waiting)
    engine.close(drain_s=30)
    assert (running.reason, waiting.reason) == ("length", "length")
    with pytest.raises(EngineClosed):
        engine.submit(GenerationRequest([7], GREEDY, 2), Collector())
    assert Emulator().report()["memory"]["device_used"] == 0
    engine.close()


def test_closing_at_once_cancels(package) -> None:
    engine = Engine.open(package, "emu", "none")
    running = Collector()
    engine.submit(GenerationRequest([7] * 5, GREEDY, 240, ignore_eos=True), running)
    assert running.began.wait(30)
    engine.close()
    assert running.reason in ("cancelled", "length")


def test_one_process_has_one_card(package) -> None:
    engine = Engine.open(package, "emu", "none")
    try:
        with pytest.raises(RuntimeUnavailable, match="has a card open already"):
            Engine.open(package, "emu", "none")
        assert ask(engine, max_tokens=2).num_tokens == 2
    finally:
        engine.close()
    Engine.open(package, "emu", "none").close()


def test_the_queue_is_bounded_fair_and_cancellable(package) -> None:
    engine = Engine.open(package, "emu", "none", max_queue=4, max_running=1)
    held = threading.Event()
    first = Collector(lambda count: held.wait(30) if count == 1 else None)
    engine.submit(GenerationRequest([9], GREEDY, 3, ignore_eos=True), first)
    assert first.began.wait(30) or first.deltas
    order: list[int] = []
    waiting = [Collector(lambda count, i=i: order.append(i) if count == 1 else None) for i in range(4)]
    handles = [engine.submit(GenerationRequest([9, i], GREEDY, 3, ignore_eos=True), w) for i, w in enumerate(waiting)]
    with pytest.raises(QueueFull, match="4 requests are waiting") as full:
        engine.submit(GenerationRequest([9], GREEDY, 3), Collector())
    assert full.value.retry_after >= 1
    with pytest.raises(QueueFull, match="4 requests are waiting, this one brings 2 and the queue holds 4"):
        engine.submit_all([GenerationRequest([9], GREEDY, 3)] * 2, [Collector(), Collector()])
    handles[2].cancel()
    held.set()
    for w in [first, *waiting]:
        w.wait()
    assert [w.reason for w in waiting] == ["length", "length", "cancelled", "length"]
    assert [i for i in order if i != 2] == [0, 1, 3]
    engine.close()
