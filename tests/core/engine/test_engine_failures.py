"""An engine that ends, and what its program raises: each test opens the card for itself, one at a time. What becomes of
a card that fails: test_recovery.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from collecting import GREEDY, Collector, Held, ask
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


@pytest.fixture
def open_engine(package) -> Iterator[Callable[..., Engine]]:
    """Opens the package; in the end the card is well again and closed."""
    engines: list[Engine] = []

    def open_one(**options: int) -> Engine:
        engines.append(Engine.open(package, "emu", "none", **options))
        return engines[-1]

    yield open_one
    Emulator().set("faults", "")
    for engine in engines:
        engine.close()


def long_request(first: int = 7, max_tokens: int = 200) -> GenerationRequest:
    return GenerationRequest([first] * 5, GREEDY, max_tokens, ignore_eos=True)


def test_closing_drains_within_its_bound_and_frees_the_card(open_engine) -> None:
    engine = open_engine()
    running, waiting = Collector(), Collector()
    engine.submit(long_request(7, 100), running)
    engine.submit(long_request(8, 10), waiting)
    engine.close(drain_s=30)
    assert (running.reason, waiting.reason) == ("length", "length")
    with pytest.raises(EngineClosed):
        engine.submit(long_request(), Collector())
    assert Emulator().report()["memory"]["device_used"] == 0


def test_closing_at_once_cancels(open_engine) -> None:
    engine, running = open_engine(), Held(3)
    engine.submit(long_request(), running)
    running.wait_held()
    closer = threading.Thread(target=engine.close)
    closer.start()
    while engine.state != "closed":
        time.sleep(0.001)
    running.go.set()
    closer.join(60)
    assert not closer.is_alive()
    assert (running.reason, running.num_tokens) == ("cancelled", 3)


def test_one_process_has_one_card(open_engine) -> None:
    engine = open_engine()
    with pytest.raises(RuntimeUnavailable, match="has card 1 open already"):
        open_engine()
    assert ask(engine, max_tokens=2).num_tokens == 2
    engine.close()
    assert ask(open_engine(), max_tokens=2).num_tokens == 2


def test_the_queue_is_bounded_fair_and_cancellable(open_engine) -> None:
    engine, first = open_engine(max_queue=4, max_running=1), Held(1)
    engine.submit(GenerationRequest([9], GREEDY, 3, ignore_eos=True), first)
    first.wait_held()
    order: list[int] = []
    waiting = [Collector(lambda count, i=i: order.append(i) if count == 1 else None) for i in range(4)]
    handles = [engine.submit(GenerationRequest([9, i], GREEDY, 3, ignore_eos=True), w) for i, w in enumerate(waiting)]
    with pytest.raises(QueueFull, match="4 requests are waiting") as full:
        engine.submit(GenerationRequest([9], GREEDY, 3), Collector())
    assert full.value.retry_after >= 1
    with pytest.raises(QueueFull, match="4 requests are waiting, this one brings 2 and the queue holds 4"):
        engine.submit_all([GenerationRequest([9], GREEDY, 3)] * 2, [Collector(), Collector()])
    handles[2].cancel()
    first.go.set()
    for w in [first, *waiting]:
        w.wait()
    assert [w.reason for w in waiting] == ["length", "length", "cancelled", "length"]
    assert [i for i in order if i != 2] == [0, 1, 3]


def test_an_error_of_its_own_ends_it_and_asks_for_another_process(open_engine) -> None:
    def out_of_memory() -> None:
        raise MemoryError

    engine, answer = open_engine(), Collector()
    engine.scheduler.run_pass = out_of_memory
    engine.submit(long_request(), answer)
    assert answer.wait().reason == "error" and engine.state == "failed" and engine.exit_wanted
