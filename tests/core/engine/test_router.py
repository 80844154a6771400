"""Where requests go is decided by measured seconds, which may be anything: a place is found all the same."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import pytest
from collecting import GREEDY, Collector
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import RECURRENT, Tiny, convert_tiny

from axpress.core.device.backend import Costs
from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine
from axpress.core.engine.router import Request, Router
from axpress.core.request import GenerationRequest

SECONDS = st.floats(1e-6, 10.0)


@pytest.fixture(scope="module", params=[Tiny("qwen3"), RECURRENT], ids=lambda tiny: tiny.family)
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Engine]]:
    """Two with texts in their caches: of the first two answers are under way and one waits, of the second one."""
    folder = tmp_path_factory.mktemp("router")
    package = convert_tiny(folder, request.param, rows=255, chunk=64, history=[0, 64, 128])
    Emulator().set("devices", 2)
    opened = [Engine.open(package, f"emu:{i}", "none", banks=2, max_running=2, threaded=False) for i in (0, 1)]
    for engine, count in zip(opened, (3, 1), strict=True):
        for i in range(count):
            ask = GenerationRequest([7] * 9 + [20 + i] * (1 + 60 * i), GREEDY, 60, ignore_eos=True)
            engine.submit(ask, Collector())
        for _ in range(4):
            engine.step()
    yield opened
    for engine in opened:
        engine.close()
    Emulator().set("devices", 1)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_whatever_passes_seem_to_take_every_card_has_a_place_in_the_order(engines: list[Engine], data) -> None:
    router = Router()
    for engine in engines:
        router.join(engine.scheduler)
        costs = engine.scheduler.costs
        states = data.draw(st.tuples(SECONDS, SECONDS)) if costs.state_chunk else (0.0, 0.0)
        figures = Costs(tuple(data.draw(SECONDS) for _ in costs.groups), data.draw(SECONDS), 0.0, 0.0, *states)
        costs.set(figures)
        decodes = [seconds for seconds, group in zip(figures.groups, costs.groups, strict=True) if group.width == 1]
        for slot in range(len(costs.groups)):
            for count in (1, 2, 3):
                assert costs.pass_seconds(slot, count, count) >= min(*decodes, figures.groups[slot])
    request = Request(array("i", [7] * data.draw(st.integers(1, 200))), b"", data.draw(st.integers(0, 1000)))
    assert sorted(router.best(request, [0, 1])) == [0, 1]
    assert all(router.seconds(index, request) >= 0 for index in (0, 1))
