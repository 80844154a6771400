"""Pictures in prompts: the answers of transformers, and the same bits whoever else is there."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import pytest
from collecting import Collector
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from image_requests import Seeing, pool
from schedules import AT_ONCE, EXAMPLES, FAULTS, POOL, ROWS, Alone, Schedule, crowd, fail
from tiny_vision_models import TinyVision

from axpress.core.device import vision_encoder
from axpress.core.device.emulator import Emulator
from axpress.core.engine import bank_selection, pass_runner
from axpress.core.engine.engine import Engine
from axpress.core.engine.engine_group import EngineGroup
from axpress.core.recovery.ladder import RecoveryPolicy
from axpress.core.request import GenerationRequest

pytest.importorskip("torch", reason="the reference needs torch and transformers")

FAMILIES = [
    TinyVision("qwen3_vl", image_size=64),
    TinyVision("qwen2_5_vl", image_size=40),
    TinyVision("internvl"),
    TinyVision("smolvlm", outer={"scale_factor": 4}),
]
CLOSE = 0.1  # of log-probabilities: bf16 of other operations in another order; measured 0.05


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda tiny: tiny.family)
def seeing(request, tmp_path_factory) -> Seeing:
    return Seeing.make(tmp_path_factory.mktemp("images"), request.param)


def answer(engine: Engine, request: GenerationRequest) -> Collector:
    """On the calling thread."""
    collector = Collector()
    engine.submit(request, collector)
    while engine.step():
        engine.scheduler.check_integrity()
    assert collector.reason in ("stop", "length"), collector.error
    return collector


def furthest(seeing: Seeing, engine: Engine) -> float:
    """How far log-probabilities of answers are from those that transformers gives the same tokens."""
    far = 0.0
    texts = [5, 6, 7], [8, 9], [30, 31, 32]
    for parts in ((texts[0],), (texts[0], 1, texts[1]), (2, texts[0], 3, texts[2])):
        request = seeing.request(*parts)
        got = answer(engine, request).logprobs
        wanted = seeing.logprobs(request, [each.token for each in got])
        far = max(far, *(abs(wanted[i, each.token] - each.logprob) for i, each in enumerate(got)))
        if far < CLOSE:  # greedy: no token is much better
            assert all(wanted[i].max() - wanted[i, each.token] < CLOSE for i, each in enumerate(got))
    return far


def test_answers_are_those_of_transformers(seeing: Seeing, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Engine.open(seeing.package, "emu", "none", banks=1, threaded=False)) as engine:
        assert engine.info.vision_kind == engine.package.vision.kind == seeing.meta.vision_kind
        assert engine.encoder_input.num_tokens == seeing.num_tokens
        assert furthest(seeing, engine) < CLOSE
        if engine.model.program.encoder.num_added:
            whole = vision_encoder.Encoding
            monkeypatch.setattr(vision_encoder, "Encoding", lambda rows, added: whole(rows, 0 * added))
            engine.scheduler._images.encodings.clear()
            engine.scheduler.set_bank_rows(1, ROWS)
            assert furthest(seeing, engine) > 4 * CLOSE, "what deepstack adds does not show: nor would it if missing"


@pytest.fixture(scope="module")
def alone(seeing: Seeing) -> Alone:
    """Each request by itself."""
    outcomes, num_images = [], 0
    options = {"banks": 1, "max_running": 1, "drafts": False, "threaded": False}
    with closing(Engine.open(seeing.package, "emu", "none", **options)) as engine:
        for request in pool(seeing, POOL, ROWS):
            engine.scheduler.set_bank_rows(1, ROWS)
            engine.scheduler._images.encodings.clear()
            ended = []
            engine.scheduler.on_answer = ended.append
            outcome = answer(engine, request).outcome
            outcomes.append((request, outcome, ended[0].tokens[len(request.prompt_ids) :].tolist()))
            num_images += len(set(seeing.pictures(request)))
        assert engine.stats()["encoded_images"] == num_images and engine.stats()["cached_tokens"] == 0
    return outcomes


CONFIGS = [
    {"banks": 1, "drafts": True},
    {"banks": 2, "drafts": True, "split": (0, 1)},
    {"banks": 2, "drafts": False, "settings": {"async": "0"}},
]


@pytest.mark.parametrize("seeing", FAMILIES[::2], ids=lambda tiny: tiny.family, indirect=True)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: "-".join(f"{k}={v}" for k, v in c.items()))
def test_any_schedule_gives_what_each_request_gets_alone(
    seeing: Seeing, alone: Alone, config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_selection, "HEADROOM", 2)
    engine = Engine.open(
        seeing.package, "emu", "none", max_queue=1000, max_running=6, threaded=False, recovery=AT_ONCE, **config
    )
    engine.scheduler.costs.observe = lambda *measured: None
    try:
        machine = type("Machine", (Schedule,), {"engine": engine, "alone": alone})
        run_state_machine_as_test(
            machine, settings=settings(max_examples=EXAMPLES // 20, stateful_step_count=30, deadline=None)
        )
        crowd(engine, alone)
        stats = engine.stats()
        assert stats["preemptions"] and stats["cached_tokens"] and stats["encoded_images"]
        if "split" not in config:
            fail(engine, alone)
    finally:
        engine.close()
        for key, value in {"async": 1, "devices": 1, "faults": ""}.items():
            Emulator().set(key, value)


@pytest.mark.parametrize("seeing", FAMILIES[::2], ids=lambda tiny: tiny.family, indirect=True)
def test_pictures_that_a_failing_card_was_at_go_on_on_another(seeing: Seeing, alone: Alone, monkeypatch) -> None:
    for name, seconds in {"FLOOR_SECONDS": 1.0, "HOST_FLOOR_SECONDS": 1.0, "GRACE_SECONDS": 0.5}.items():
        monkeypatch.setattr(pass_runner, name, seconds)
    Emulator().set("devices", 2)
    policy = RecoveryPolicy(backoff=0.01, max_backoff=0.01, settle=5, check=5)
    options = {"recovery": policy, "banks": 1, "max_queue": POOL}
    encoded, rungs = 0, Counter()
    with closing(EngineGroup.open(seeing.package, ["emu:0", "emu:1"], "none", **options)) as group:

        @settings(max_examples=max(3, EXAMPLES // 8), deadline=None)
        @given(fault=st.sampled_from(FAULTS), at=st.integers(1, 60), card=st.integers(1, 2),
               order=st.permutations(range(POOL)))  # fmt: skip
        def any_failure(fault: str, at: int, card: int, order: list[int]) -> None:
            Emulator().set("faults", f"{card}:{fault.format(at=at)}")
            answers = [(i, Collector()) for i in order]
            for i, collector in answers:
                group.submit(alone[i][0], collector)
            for i, collector in answers:
                assert collector.wait().outcome == alone[i][1], collector.error

        try:
            any_failure()
            encoded = group.stats()["encoded_images"]
            for engine in group.engines:
                rungs.update(engine.ladder.rungs)
        finally:
            for key, value in {"faults": "", "reboot_ms": 0}.items():
                Emulator().set(key, value)
    Emulator().set("devices", 1)
    assert encoded and rungs
