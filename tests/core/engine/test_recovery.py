"""A card that fails, hangs or lies while answers run: they go on with the tokens they would have had, or end once with
the reason. The card is emulated."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from collecting import GREEDY, Collector, ask
from tiny_models import Tiny, convert_tiny

from axpress.core.device import load_watch
from axpress.core.device.emulator import Emulator
from axpress.core.engine import engine as engine_module
from axpress.core.engine import engine_loop, pass_runner
from axpress.core.engine.engine import Engine
from axpress.core.errors import CardBeyondHelp, CardRecovering, EngineClosed, FailureKind
from axpress.core.recovery.ladder import RecoveryPolicy
from axpress.core.request import GenerationRequest

QUICK = RecoveryPolicy(backoff=0.01, max_backoff=0.01, settle=5, check=5)
CALL = "axclrtEngineExecuteAsync"
PASS = 4  # executes of a pass: three layers and a head


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recovery")
    return convert_tiny(folder, Tiny("qwen3", layers=3), rows=255, chunk=64, history=[0, 64, 128])


@pytest.fixture
def open_engine(package, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Engine]]:
    """Opens the package, for passes that may take a second; in the end the card is well again and closed."""
    monkeypatch.setattr(pass_runner, "FLOOR_SECONDS", 1.0)
    monkeypatch.setattr(pass_runner, "HOST_FLOOR_SECONDS", 1.0)
    monkeypatch.setattr(pass_runner, "GRACE_SECONDS", 0.5)
    engines: list[Engine] = []

    def open_one(**options) -> Engine:
        engines.append(Engine.open(package, "emu", "none", **{"recovery": QUICK, **options}))
        return engines[-1]

    yield open_one
    emulator = Emulator()
    emulator.set("faults", "")
    emulator.set("reboot_ms", 0)
    emulator.set("hang_ms", 60000)
    for engine in engines:
        engine.close()
        assert not engine.card_left
    assert emulator.report()["memory"]["device_used"] == 0


def test_a_card_that_was_left_is_free_once_the_call_comes_back(
    open_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "CLOSE_SECONDS", 0.5)
    engine, answer = open_engine(), Collector()
    Emulator().set("hang_ms", 3000)
    Emulator().set("faults", "nan@any:1+; axclrtMemset@1+=block")
    engine.submit(requests(1)[0], answer)
    limit = time.monotonic() + 60
    while engine.state != "recovering" and time.monotonic() < limit:
        time.sleep(0.01)
    engine.close()
    assert engine.card_left
    Emulator().set("faults", "")
    while Emulator().report()["memory"]["device_used"] and time.monotonic() < limit:
        time.sleep(0.01)
    assert Emulator().report()["memory"]["device_used"] == 0
    open_engine().close()
    engine.card_left = False


def test_a_card_that_lets_a_thread_in_at_the_second_try_only_is_opened(open_engine: Callable[..., Engine]) -> None:
    for number in range(1, 9):  # whichever thread, in the loading or just after it
        Emulator().set("faults", f"axclrtSetCurrentContext@{number}=fail:0x8030070c")
        engine = open_engine()
        assert engine.submit(requests(1)[0], answer := Collector()) and answer.wait().num_tokens == 100
        engine.close()


def requests(count: int = 3) -> list[GenerationRequest]:
    """Long ones with prompts in common."""
    return [GenerationRequest([7] * 9 + [20 + i], GREEDY, 100, ignore_eos=True) for i in range(count)]


def run(engine: Engine, faults: str, count: int = 3) -> list[Collector]:
    """Answers to `requests`; at the fifth token of the first the faults are set."""
    set_faults = lambda n: Emulator().set("faults", faults) if n == 5 else None  # noqa: E731
    answers = [Collector(set_faults if i == 0 else None) for i in range(count)]
    engine.submit_all(requests(count), answers)
    return [answer.wait() for answer in answers]


CURABLE = {
    f"{CALL}@10=fail:0x8030070c": (FailureKind.CARD_FAILED, "reopen"),
    f"{CALL}@10=later:0x8030070c": (FailureKind.CARD_FAILED, "reopen"),
    "axclrtSynchronizeStreamWithTimeout@3=fail:0x80300181": (FailureKind.CARD_LOST, "reopen"),
    f"{CALL}@10=hang": (FailureKind.CARD_HUNG, "reopen"),
    f"{CALL}@10=block": (FailureKind.CARD_HUNG, "reopen"),
    "axclrtSynchronizeStreamWithTimeout@3=block": (FailureKind.CARD_HUNG, "reopen"),
    "axclrtMemcpyAsync@9=block": (FailureKind.CARD_HUNG, "reopen"),
    "device=offline@30": (FailureKind.CARD_LOST, "reboot"),
    f"{CALL}@10=fail:0x8030070c; axclrtEngineLoadFromFile@2=fail:0x8030070c": (FailureKind.CARD_FAILED, "reopen"),
    f"{CALL}@10=fail:0x8030070c; axclrtEngineLoadFromFile@1=fail:0x8030070c; "
    "axclrtEngineLoadFromFile@2=fail:0x8030070c": (FailureKind.CARD_FAILED, "reboot"),
    f"{CALL}@10=fail:0x8030070c; axclrtEngineUnload@2=block": (FailureKind.CARD_FAILED, "reboot"),
    "nan@head:3; nan@head:4": (FailureKind.BAD_OUTPUT, "clear"),
    "leak=3000000000": (None, ""),
}


@pytest.mark.parametrize("faults", CURABLE)
def test_answers_go_on_with_the_tokens_they_would_have_had(open_engine, faults: str) -> None:
    engine = open_engine()
    expected = [answer.outcome for answer in run(engine, "")]
    answers = run(engine, faults)
    assert [answer.outcome for answer in answers] == expected
    Emulator().set("faults", "")
    kind, rung = CURABLE[faults]
    assert dict(engine.ladder.faults) == ({kind.value: 1} if kind else {})
    assert list(engine.ladder.rungs) == ([rung] if rung else [])
    assert engine.state == "ready" and engine.reason is None and engine.ladder.status is None
    assert ask(engine, max_tokens=3).num_tokens == 3
    engine.scheduler.check_integrity()


def test_a_card_that_refuses_the_engines_thread_after_a_recovery_is_brought_back_again(open_engine) -> None:
    engine = open_engine()
    expected = [answer.outcome for answer in run(engine, "")]
    faults = f"{CALL}@10=fail:0x8030070c; axclrtSetCurrentContext@3=fail:0x8030070c"  # closing, loading, the engine
    assert [answer.outcome for answer in run(engine, faults)] == expected
    assert engine.state == "ready" and dict(engine.ladder.faults) == {"card_failed": 2}


def test_a_result_that_is_nonsense_once_is_computed_again(open_engine) -> None:
    engine = open_engine()
    expected = run(engine, "", 1)[0].outcome
    for faults in ("nan@head:3", "nan@layer:8", "nan@any:1"):
        assert run(engine, faults, 1)[0].outcome == expected
    assert engine.stats()["repeated_passes"] == 3
    assert not engine.ladder.faults


def test_nonsense_in_a_prompt_does_not_stay_in_the_cache(open_engine) -> None:
    """A chunk without logits leaves NaN in rows that nobody looks at, until its prompt's end."""
    engine = open_engine()
    prompt = [30 + i % 50 for i in range(150)]
    expected = ask(engine, prompt).outcome
    engine.scheduler.suspend()  # an empty cache
    Emulator().set("faults", "nan@layer:1")
    assert ask(engine, prompt).outcome == expected
    for i in range(5):
        assert ask(engine, [9, i], max_tokens=3).reason == "length"
    assert dict(engine.ladder.rungs) == {"clear": 1}


def test_a_card_that_nothing_helps_ends_every_answer_once_with_the_reason(open_engine, tmp_path) -> None:
    failed = threading.Event()
    engine = open_engine(on_failure=failed.set, state_dir=tmp_path / "state")
    answers = run(engine, "device=dead@20")
    assert [a.reason for a in answers] == ["error"] * 3
    assert all("0x80300181" in a.error for a in answers)
    assert failed.wait(60) and engine.state == "failed" and engine.exit_wanted
    with pytest.raises(EngineClosed, match="0x80300181"):
        engine.submit(requests()[0], Collector())
    told = (tmp_path / "state" / "recovery.json").read_text()
    assert all(rung in told for rung in ("reopen", "reboot", "spare", "exit"))


def test_a_card_that_lies_for_ever_is_given_up(open_engine) -> None:
    engine = open_engine()
    answers = run(engine, "nan@any:20+")
    assert {a.reason for a in answers} == {"error"} and engine.state == "failed"


def test_the_other_card_takes_over(package, open_engine) -> None:
    engine = open_engine(settings={"devices": "2"})
    try:
        expected = [answer.outcome for answer in run(engine, "")]
        first = engine.info.device
        answers = run(engine, "device=dead@30; axclrtRebootDevice@1+=fail:0x80300187")
        assert [answer.outcome for answer in answers] == expected
        assert list(engine.ladder.rungs) == ["spare"] and engine.info.device != first
    finally:
        engine.close()
        Emulator().set("devices", 1)


def test_while_the_card_reboots_requests_wait_up_to_the_limit_and_deadlines_hold(open_engine) -> None:
    engine = open_engine(max_queue=2, max_running=2)
    Emulator().set("reboot_ms", 3000)
    expected = [answer.outcome for answer in run(engine, "", 2)]
    running = [Collector(), Collector()]
    Emulator().set("faults", "device=offline@60")
    handles = engine.submit_all(requests(2), running)
    while engine.state != "recovering":
        time.sleep(0.01)
    waiting = [Collector(), Collector()]
    queued = [engine.submit(request, answer) for request, answer in zip(requests(2), waiting, strict=True)]
    with pytest.raises(CardRecovering, match="being brought back; 2 requests wait"):
        engine.submit(requests()[0], Collector())
    handles[0].cancel()
    queued[0].cancel()
    for answer in (running[0], waiting[0]):
        assert answer.wait().reason == "cancelled" and engine.state == "recovering"
    assert [a.wait().outcome for a in (running[1], waiting[1])] == [expected[1], expected[1]]


@pytest.mark.parametrize("faults", [f"{CALL}@10+=block", "device=offline@30", f"{CALL}@10+=hang"])
def test_closing_ends_a_recovery_within_its_bound(open_engine, faults: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "CLOSE_SECONDS", 8.0)
    engine = open_engine()
    Emulator().set("reboot_ms", 60000)
    Emulator().set("faults", faults)
    answers = [Collector() for _ in range(3)]
    engine.submit_all(requests(), answers)
    while engine.state != "recovering":
        time.sleep(0.01)
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join(30)
    assert not closer.is_alive() and engine.state == "closed"
    assert {a.wait().reason for a in answers} == {"cancelled"}


def test_a_card_that_is_lost_while_nobody_asks_is_brought_back(open_engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_loop, "IDLE_SECONDS", 0.2)
    engine = open_engine()
    Emulator().set("faults", "device=offline@1")
    until = time.monotonic() + 60
    while not engine.ladder.rungs:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert dict(engine.ladder.faults) == {"card_lost": 1}


def test_exits_are_counted_on_disk_so_that_nothing_loops(open_engine, tmp_path) -> None:
    wanted = []
    for _ in range(4):
        engine = open_engine(state_dir=tmp_path)
        run(engine, "device=dead@20", 1)
        while engine.state != "failed":
            time.sleep(0.01)
        wanted.append(engine.exit_wanted)
        Emulator().set("faults", "")
        engine.close()
    assert wanted == [True, True, True, False]


LOAD_FAULTS = {
    "axclrtEngineLoadFromFile@2=fail:0x8030070c": ["reopen"],
    "axclrtSetDevice@1=fail:0x80300186; axclrtSetDevice@2=fail:0x80300186": ["reopen", "reboot"],
    "axclrtMalloc@5=fail:0x80300501": ["reopen"],
    **{
        f"axclrtEngineGet{what}@1=fail:0x8030070c": ["reopen"]  # they tell 0 or nothing, which is no code
        for what in ("NumInputs", "OutputNameByIndex", "OutputSizeByIndex")
    },
}


@pytest.mark.parametrize("faults", LOAD_FAULTS)
def test_a_card_that_fails_while_the_model_is_loaded_is_tried_again(open_engine, tmp_path, faults: str) -> None:
    Emulator().set("faults", faults)
    engine = open_engine(state_dir=tmp_path)
    assert ask(engine, max_tokens=3).num_tokens == 3
    tried = [name for name, _ in json.loads((tmp_path / "recovery.json").read_text())["attempts"]]
    assert tried == LOAD_FAULTS[faults]


def test_a_card_that_never_loads_is_given_up(open_engine, tmp_path) -> None:
    Emulator().set("faults", "axclrtEngineLoadFromFile@1+=fail:0x8030070c")
    wanted = []
    for _ in range(4):
        with pytest.raises(CardBeyondHelp, match="0x8030070c") as given_up:
            open_engine(state_dir=tmp_path)
        wanted.append(given_up.value.exit_wanted)
    assert wanted == [True, True, True, False]


def test_a_load_that_hangs_is_ended_by_a_reboot(open_engine, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_watch, "LOAD_SECONDS", 1.0)
    Emulator().set("faults", "axclrtEngineLoadFromFile@2=block")
    engine = open_engine(state_dir=tmp_path)
    assert ask(engine, max_tokens=3).num_tokens == 3
    tried = [name for name, _ in json.loads((tmp_path / "recovery.json").read_text())["attempts"]]
    assert tried == ["reboot"]  # nothing can be opened beside a call that does not return


def test_a_load_that_hangs_for_ever_is_given_up(open_engine, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_watch, "LOAD_SECONDS", 0.2)
    Emulator().set("faults", "axclrtEngineLoadFromFile@2=block:3000; axclrtRebootDevice@1+=fail:0x80300187")
    with pytest.raises(CardBeyondHelp, match="does not answer: loading") as given_up:
        open_engine(state_dir=tmp_path, recovery=replace(QUICK, settle=0.1))
    assert given_up.value.exit_wanted and given_up.value.kind is FailureKind.CARD_HUNG
    until = time.monotonic() + 60
    while any("loading the model" in thread.name for thread in threading.enumerate()):  # frees the card in the end
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("running", [False, True])
def test_trouble_that_somebody_else_saw_starts_a_recovery(open_engine, running: bool) -> None:
    engine = open_engine()
    expected = [answer.outcome for answer in run(engine, "")]
    report = lambda n: engine.report_trouble(FailureKind.CARD_LOST, "it is not listed") if n == 5 else None  # noqa: E731
    if running:
        answers = [Collector(report if i == 0 else None) for i in range(3)]
        engine.submit_all(requests(), answers)
        assert [answer.wait().outcome for answer in answers] == expected
    else:
        report(5)
    until = time.monotonic() + 60
    while not engine.ladder.rungs or engine.state != "ready":
        assert time.monotonic() < until
        time.sleep(0.01)
    assert dict(engine.ladder.faults) == {"card_lost": 1} and dict(engine.ladder.rungs) == {"reopen": 1}
    assert run(engine, "")[0].outcome == expected[0] and engine.ladder.faults.total() == 1


def test_a_wait_that_hangs_is_noticed_where_calls_are_synchronous(open_engine) -> None:
    engine = open_engine(settings={"async": "0"})
    try:
        expected = [answer.outcome for answer in run(engine, "")]
        assert [answer.outcome for answer in run(engine, "axclrtEngineExecute@10=block")] == expected
        assert dict(engine.ladder.faults) == {"card_hung": 1}
    finally:
        engine.close()
        Emulator().set("async", 1)


def test_a_trace_that_cannot_be_written_costs_the_trace(open_engine, caplog: pytest.LogCaptureFixture) -> None:
    engine = open_engine()
    expected = [answer.outcome for answer in run(engine, "")]
    engine.close()
    engine = open_engine(trace=Path("/dev/full"))
    assert [answer.outcome for answer in run(engine, "")] == expected
    assert engine.state == "ready" and not engine.ladder.faults
    engine.close()
    told = [line for line in caplog.messages if "/dev/full" in line]
    assert len(told) == 1 and "No space left" in told[0]
