"""The property that everything hangs on: whatever else happens on the card, each request gets exactly what it gets
alone.

A pool of requests is answered alone first: token by token, one at a time, nothing shared, no guesses. Then a state
machine lets them arrive, leave and crowd each other in every order (tests/support/schedules.py); answers and
log-probabilities must be the same bits."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from schedules import AT_ONCE, CHUNK, EXAMPLES, HISTORY, PAST, ROWS, Alone, Schedule, answers_alone, crowd, fail
from tiny_models import Tiny, convert_tiny

from axpress.core.device.emulator import Emulator
from axpress.core.engine import bank_selection
from axpress.core.engine.engine import Engine


@pytest.fixture(scope="module", params=[("qwen3", "bf16"), ("gemma3_text", "int8")], ids=lambda param: "-".join(param))
def package(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("schedule")
    # rows of 2 KiB, so that decode may write them in place
    family, weights = request.param
    tiny = Tiny(family, layers=2, hidden=32, heads=8, kv_heads=8, head_dim=128, ffn=48, window=12)
    return convert_tiny(folder, tiny, rows=ROWS, chunk=CHUNK, history=HISTORY, weights=weights)


@pytest.fixture(scope="module")
def alone(package) -> Alone:
    return answers_alone(package)


CONFIGS = [
    {"banks": 1, "drafts": True},
    {"banks": 1, "drafts": False},
    {"banks": 2, "drafts": True, "draft_history": PAST},
    {"banks": 2, "drafts": True, "split": (0, 1)},
    {"banks": 1, "drafts": True, "settings": {"async": "0"}},
    {"banks": 1, "drafts": True, "settings": {"inplace_decode": "0"}},
]
MODES = {"async": "use_async", "inplace_decode": "in_place_decode"}
"""What a setting of the emulated card takes from the program."""


@pytest.fixture(autouse=True)
def little_foresight(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that rows do run out."""
    monkeypatch.setattr(bank_selection, "HEADROOM", 2)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: "-".join(f"{k}={v}" for k, v in c.items()))
def test_any_schedule_gives_what_each_request_gets_alone(package, alone, config) -> None:
    engine = Engine.open(
        package, "emu", "none", max_queue=1000, max_running=6, threaded=False, recovery=AT_ONCE, **config
    )
    engine.scheduler.costs.observe = lambda *measured: None  # the machine decides what a pass seems to cost
    for setting, mode in MODES.items():
        assert getattr(engine.model.modes, mode) == (setting not in config.get("settings", {}))
    examples = max(1, EXAMPLES // 4) if "split" in config else EXAMPLES  # more of it in test_split.py
    try:
        machine = type("Machine", (Schedule,), {"engine": engine, "alone": alone})
        run_state_machine_as_test(
            machine, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None)
        )
        crowd(engine, alone)
        fail(engine, alone)
        stats = engine.stats()
        if "draft_history" in config:  # all of the answers are known by now
            crowd(engine, alone, predicted=False)
            assert engine.stats()["accepted_draft_tokens"] > stats["accepted_draft_tokens"] + 100
        assert (
            stats["preemptions"]
            and stats["chunk_passes"]
            and stats["decode_passes"]
            and stats["cached_tokens"]
            and stats["moved_rows"]
        )
        assert bool(stats["accepted_draft_tokens"]) == config["drafts"]
        assert engine.ladder.rungs["reopen"] and engine.ladder.rungs["reboot"] and stats["repeated_passes"]
    finally:
        engine.close()
        for key, value in {
            **dict.fromkeys(MODES, 1),
            "inplace_unaligned": 0,
            "devices": 1,
        }.items():  # they stay with the process
            Emulator().set(key, value)
