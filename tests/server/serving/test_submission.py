"""Requests are submitted in a thread: the loop never waits for it, and a client that leaves meanwhile leaves nothing
behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from axpress.core.errors import QueueFull
from axpress.core.request import Delta, GenerationRequest
from axpress.server.serving.engine_bridge import EngineBridge
from axpress.server.serving.generation_spec import GenerationSpec
from axpress.server.serving.handler import _generating
from axpress.server.serving.prepared_request import PreparedRequest


class SlowEngine:
    """Submits as soon as `go` is set, and counts."""

    def __init__(self, error: Exception | None = None) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.error = error
        self.sinks: list[Callable[[Delta], None]] = []
        self.cancelled = 0

    def submit_all(self, requests: list[GenerationRequest], sinks: list[Callable[[Delta], None]]) -> list[Any]:
        self.began.set()
        assert self.go.wait(20)
        if self.error is not None:
            raise self.error
        self.sinks += sinks
        return [SimpleNamespace(cancel=self._cancel) for _ in requests]

    def _cancel(self) -> None:
        self.cancelled += 1


def run(engine: SlowEngine, test: Callable[[Any, PreparedRequest], Any]) -> None:
    """`test` with a service whose engine this is, and a request for two answers."""

    async def main() -> None:
        bridge = EngineBridge(asyncio.get_running_loop())
        with ThreadPoolExecutor(1) as submitting:
            service = SimpleNamespace(bridge=bridge, submitting=submitting)
            requests = [GenerationRequest([1]), GenerationRequest([2])]
            prepared = PreparedRequest(GenerationSpec(n=2), requests, engine, "m", "fp")  # type: ignore[arg-type]
            try:
                await test(service, prepared)
            finally:
                engine.go.set()
        bridge.close()

    asyncio.run(asyncio.wait_for(main(), 30))


async def began(engine: SlowEngine) -> None:
    """The engine is at it, while the loop goes on."""
    while not engine.began.is_set():
        await asyncio.sleep(0.001)


def test_answers_arrive_and_are_cancelled_at_the_end() -> None:
    engine, deltas = SlowEngine(), []

    async def test(service: Any, prepared: PreparedRequest) -> None:
        engine.go.set()
        async with _generating(service, prepared, lambda index, some: deltas.append((index, some[0].text))):
            for sink, text in zip(engine.sinks, "ab", strict=True):
                sink(Delta(text, 1))
            while len(deltas) < 2:
                await asyncio.sleep(0.001)
            assert not engine.cancelled
        assert engine.cancelled == 2
        engine.sinks[0](Delta("late", 1))
        await asyncio.sleep(0.05)

    run(engine, test)
    assert deltas == [(0, "a"), (1, "b")]


def test_a_client_that_leaves_while_its_request_is_submitted_leaves_nothing_behind() -> None:
    engine = SlowEngine()

    async def test(service: Any, prepared: PreparedRequest) -> None:
        entered = False

        async def client() -> None:
            nonlocal entered
            async with _generating(service, prepared, lambda index, some: None):
                entered = True

        first, second = asyncio.create_task(client()), asyncio.create_task(client())
        await began(engine)  # the first; the second waits for the thread
        for task in (first, second):
            task.cancel()
        await asyncio.wait([first, second])
        assert first.cancelled() and second.cancelled() and not entered and not engine.cancelled
        engine.go.set()
        await asyncio.get_running_loop().run_in_executor(service.submitting, bool)
        assert len(engine.sinks) == engine.cancelled == 2  # the first's; the second's never were

    run(engine, test)


def test_what_is_refused_is_told() -> None:
    engine = SlowEngine(QueueFull("full", 3.0))
    engine.go.set()

    async def test(service: Any, prepared: PreparedRequest) -> None:
        with pytest.raises(QueueFull, match="full"):
            async with _generating(service, prepared, lambda index, some: None):
                raise AssertionError("admitted")

    run(engine, test)
    assert not engine.cancelled
