"""The way from the engine's thread to the loop: nothing lost, nothing out of order, whatever the timing."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from axpress.core.request import Delta
from axpress.server.serving.engine_bridge import EngineBridge


@pytest.fixture(params=["eventfd", "socketpair"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Coroutine[Any, Any, None]], None]:
    if request.param == "socketpair":
        monkeypatch.delattr(os, "eventfd", raising=False)
    return asyncio.run


def test_everything_arrives_in_order(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def main() -> None:
        bridge = EngineBridge(asyncio.get_running_loop())
        got: list[list[int]] = [[] for _ in range(6)]
        batches: list[int] = []

        def receiver(index: int) -> Callable[[list[Delta]], None]:
            def receive(deltas: list[Delta]) -> None:
                got[index].extend(d.num_tokens for d in deltas)
                batches.append(len(deltas))

            return receive

        def produce(sink: Callable[[Delta], None], seed: int) -> None:
            rng = random.Random(seed)
            for number in range(2000):
                sink(Delta("", number))
                pause = rng.random()
                if pause < 0.02:
                    time.sleep(pause / 5)  # 0 to 4 ms: on both sides of the gathering time

        channels = [bridge.channel(receiver(i)) for i in range(6)]
        threads = [threading.Thread(target=produce, args=(c.sink, i)) for i, c in enumerate(channels)]
        for thread in threads:
            thread.start()
        while any(len(one) < 2000 for one in got):
            await asyncio.sleep(0.005)
        for thread in threads:
            thread.join()
        assert all(one == list(range(2000)) for one in got)
        assert max(batches) > 1
        bridge.close()

    run(asyncio.wait_for(main(), 30))


def test_single_deltas_are_passed_on_at_once(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def main() -> None:
        bridge = EngineBridge(asyncio.get_running_loop())
        for pause in (0.0, 0.0005, 0.002, 0.01) * 5:
            arrived = asyncio.Event()
            channel = bridge.channel(lambda _, event=arrived: event.set())
            threading.Thread(target=channel.sink, args=(Delta("x", 1),)).start()
            await asyncio.wait_for(arrived.wait(), 5)
            await asyncio.sleep(pause)
        bridge.close()

    run(main())


def test_a_failing_receiver_disturbs_nobody(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def main() -> None:
        bridge = EngineBridge(asyncio.get_running_loop())
        calls: list[str] = []

        def fail(_: list[Delta]) -> None:
            calls.append("failed")
            raise RuntimeError("on purpose")

        broken, sound = bridge.channel(fail), bridge.channel(lambda deltas: calls.extend(d.text for d in deltas))
        for _ in range(2):
            for channel in (broken, sound):
                channel.sink(Delta("ok", 1))
            await asyncio.sleep(0.05)
        assert calls.count("failed") == 1 and calls.count("ok") == 2
        sound.close()
        sound.sink(Delta("late", 1))
        await asyncio.sleep(0.05)
        assert "late" not in calls
        bridge.close()
        bridge.close()
        sound.sink(Delta("later", 1))  # the engine's thread may be last

    run(main())
