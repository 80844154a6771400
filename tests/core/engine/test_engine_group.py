"""Several cards as one engine: requests are placed, those that wait move, and what a card was computing when it failed
goes on elsewhere with the tokens that it would have had. The cards are emulated."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterator

import pytest
from collecting import GREEDY, Collector, Held, ask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from repository import PATIENCE
from tiny_models import RECURRENT, Tiny, convert_tiny

from axpress.core.device.emulator import Emulator, EmulatorError
from axpress.core.engine import engine_group, pass_runner
from axpress.core.engine.engine import Engine
from axpress.core.engine.engine_group import EngineGroup
from axpress.core.engine.pass_costs import PassCosts
from axpress.core.engine.router import CacheImage
from axpress.core.errors import CardBeyondHelp, EngineClosed, FailureKind, QueueFull
from axpress.core.recovery.ladder import RecoveryPolicy
from axpress.core.request import GenerationRequest, SamplingParams

QUICK = RecoveryPolicy(backoff=0.01, max_backoff=0.01, settle=5, check=5)
CALL = "axclrtEngineExecuteAsync"


@pytest.fixture(scope="module", params=[Tiny("qwen3", layers=3), RECURRENT], ids=lambda tiny: tiny.family)
def package(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    return convert_tiny(folder, request.param, rows=255, chunk=64, history=[0, 64, 128])


@pytest.fixture
def open_group(package, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., EngineGroup]]:
    """Opens the package on two cards of as many as there are; in the end all are well again and closed."""
    monkeypatch.setattr(pass_runner, "FLOOR_SECONDS", 1.0)
    monkeypatch.setattr(pass_runner, "HOST_FLOOR_SECONDS", 1.0)
    monkeypatch.setattr(pass_runner, "GRACE_SECONDS", 0.5)
    groups: list[EngineGroup] = []

    def open_one(num_cards: int = 2, **options) -> EngineGroup:
        Emulator().set("devices", num_cards)
        options = {"recovery": QUICK, "banks": 1, **options}
        groups.append(EngineGroup.open(package, ["emu:0", "emu:1"], **{"profile": "none", **options}))
        return groups[-1]

    yield open_one
    well()
    for group in groups:
        group.close()
        assert not group.card_left
    assert Emulator().report()["memory"]["device_used"] == 0
    Emulator().set("devices", 1)


def well() -> None:
    Emulator().set("faults", "")
    Emulator().set("reboot_ms", 0)


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds * PATIENCE
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def requests() -> list[GenerationRequest]:
    """Greedy and random, with penalties and log-probabilities; some begin alike."""
    sampled = SamplingParams(temperature=0.9, top_p=0.95, seed=7, frequency_penalty=0.3, logprobs=2)
    params = [GREEDY, sampled, SamplingParams(seed=3, repetition_penalty=1.2)]
    return [GenerationRequest([7] * 9 + [20 + i], params[i % 3], 60, ignore_eos=True) for i in range(6)]


@pytest.fixture(scope="module")
def alone(package) -> list[tuple]:
    """What each says on one card, by itself."""
    engine = Engine.open(package, "emu", "none", banks=1, drafts=False, max_running=1)
    answers = [Collector() for _ in requests()]
    for request, answer in zip(requests(), answers, strict=True):
        engine.submit(request, answer)
        answer.wait()
    engine.close()
    return [answer.outcome for answer in answers]


def run(group: EngineGroup, faults: str, at: int = 5) -> list[tuple]:
    """What they say together; at the `at`-th piece of the first the faults are set."""
    set_faults = lambda n: Emulator().set("faults", faults) if n == at else None  # noqa: E731
    answers = [Collector(set_faults if i == 0 else None) for i in range(6)]
    for request, answer in zip(requests(), answers, strict=True):
        group.submit(request, answer)
    outcomes = [answer.wait().outcome for answer in answers]
    until(lambda: not group.stats()["num_running"])  # counted a moment after they ended
    return outcomes


def test_requests_spread_over_the_cards_and_say_what_they_say_alone(open_group, alone) -> None:
    group = open_group()
    assert run(group, "") == alone
    finished = [engine.stats()["finished"] for engine in group.engines]
    assert sum(finished) == 6 and min(finished) >= 1
    stats = group.stats()
    assert stats["finished"] == 6 and stats["rows"] == 2 * 255 and len(stats["rows_by_bank"]) == 2
    assert [engine.model.card.device for engine in group.engines] == [1, 2]


FAULTS = {
    "{}:device=offline@30": "reboot",
    "{}:device=dead@30": "",
    "{}:axclrtEngineExecuteAsync@10=fail:0x8030070c": "reopen",
    "{}:nan@head:3; {}:nan@head:4": "clear",
    "{}:axclrtEngineExecuteAsync@10=block": "reopen",  # the last one for one card alone: it takes seconds
}


@pytest.mark.parametrize(("faults", "card"), [(faults, card) for faults in FAULTS for card in (1, 2)][:-1])
def test_what_a_failing_card_was_computing_goes_on_with_the_same_tokens(open_group, alone, faults: str, card) -> None:
    group = open_group()
    assert run(group, faults.format(card, card)) == alone
    failing = group.engines[card - 1]
    rung = FAULTS[faults]
    until(lambda: failing.state == ("ready" if rung else "failed"))
    assert list(failing.ladder.rungs) == ([rung] if rung else [])
    assert not group.engines[2 - card].ladder.faults
    assert group.state == "ready" and bool(group.degraded) == (not rung)
    well()
    assert run(group, "") == alone
    for engine in group.engines:
        engine.scheduler.check_integrity()


def test_a_card_that_comes_back_takes_part_again(open_group, alone) -> None:
    group = open_group()
    Emulator().set("reboot_ms", 1000)
    assert run(group, "1:device=offline@20") == alone
    first, second = group.engines
    assert second.stats()["finished"] == 6 and first.state == "recovering"
    assert "card 0 is being brought back" in group.degraded and group.state == "ready"
    until(lambda: first.state == "ready")
    assert run(group, "") == alone and first.stats()["finished"] and not group.degraded


def test_where_all_cards_fail_everybody_waits_for_the_first_that_comes_back(open_group, alone) -> None:
    group = open_group()
    Emulator().set("reboot_ms", 300)
    assert run(group, "1:device=offline@40; 2:device=offline@40") == alone
    until(lambda: all(engine.state == "ready" for engine in group.engines))


def test_where_all_cards_are_dead_everybody_is_told_once(open_group) -> None:
    told = threading.Event()
    group = open_group(on_failure=told.set)
    outcomes = run(group, "1:device=dead@30; 2:device=dead@30")
    assert {reason for _, reason, *_ in outcomes} == {"error"}
    assert told.wait(60) and group.state == "failed" and group.exit_wanted
    assert group.failure is FailureKind.CARD_LOST
    with pytest.raises(EngineClosed, match="0x80300181"):
        group.submit(requests()[0], Collector())


def test_a_card_in_use_is_no_spare_and_one_that_is_not_is_one(open_group, alone) -> None:
    group = open_group(num_cards=3)
    assert run(group, "1:device=dead@30; 1:axclrtRebootDevice@1+=fail:0x80300187") == alone
    first, second = group.engines
    until(lambda: first.state != "recovering")
    assert list(first.ladder.rungs) == ["spare"] and first.model.card.device == 3
    assert second.model.card.device == 2


def test_who_waits_for_a_place_moves_to_a_card_that_gets_one(open_group, alone, monkeypatch) -> None:
    monkeypatch.setattr(engine_group, "GAIN", 100.0)  # what a CPU's passes cost is not to be relied on
    group = open_group(max_running=1)
    held = [Held(2), Held(2)]
    for request, answer in zip(requests(), held, strict=False):
        group.submit(request, answer)
    for answer in held:
        answer.wait_held()
    waiting = [Collector() for _ in range(4)]
    for request, answer in zip(requests()[2:], waiting, strict=True):
        group.submit(request, answer)
    queues = [engine.stats()["num_waiting"] for engine in group.engines]
    assert sum(queues) == 4
    held[1].go.set()  # the other card goes on holding its answer
    assert [answer.wait().outcome for answer in waiting] == alone[2:]
    held[0].go.set()
    assert [answer.wait().outcome for answer in held] == alone[:2]


def test_a_conversation_goes_on_where_it_is_cached(open_group, monkeypatch) -> None:
    monkeypatch.setattr(PassCosts, "observe", lambda *_: None)
    group = open_group(max_running=4)
    for engine in group.engines:  # passes cost the same on both, however busy this machine is
        engine.scheduler.costs.set(group.engines[0].model.costs)
    talks = [[30 + 3 * i + j % 5 for j in range(60)] for i in range(4)]
    for talk in talks:
        ask(group, talk, max_tokens=4)
    before = group.stats()["cached_tokens"]
    for talk in talks * 2:
        ask(group, [*talk, 99], max_tokens=4)
    assert group.stats()["cached_tokens"] - before >= 8 * 60
    assert all(engine.stats()["finished"] for engine in group.engines)


def test_one_that_is_cancelled_after_it_moved_ends(open_group) -> None:
    group = open_group()
    Emulator().set("reboot_ms", 2000)
    answer = Collector(lambda n: Emulator().set("faults", "1:device=offline@1; 2:device=offline@1") if n == 3 else None)
    generation = group.submit(GenerationRequest([7] * 20, GREEDY, 200, ignore_eos=True), answer)
    until(lambda: len(answer.deltas) > 3 or group.state == "recovering")
    generation.cancel()
    assert answer.wait().reason == "cancelled"


def test_a_card_that_is_too_hot_is_sent_nothing(open_group, alone) -> None:
    group = open_group()
    group.engines[0].throttle.set(1.0, True)
    assert run(group, "") == alone
    assert [engine.stats()["finished"] for engine in group.engines] == [0, 6]


def test_a_full_queue_is_full_where_all_are(open_group) -> None:
    group = open_group(max_running=1, max_queue=1)
    held = [Held(2), Held(2)]
    for request, answer in zip(requests(), held, strict=False):
        group.submit(request, answer)
    for answer in held:
        answer.wait_held()
    waiting = [Collector(), Collector()]
    for request, answer in zip(requests()[2:], waiting, strict=False):
        group.submit(request, answer)
    with pytest.raises(QueueFull):
        group.submit(requests()[4], Collector())
    for answer in held:
        answer.go.set()
    assert all(answer.wait().reason == "length" for answer in (*held, *waiting))


def test_a_card_that_does_not_load_is_done_without_but_not_the_last(open_group, alone) -> None:
    Emulator().set("faults", "2:device=dead")
    group = open_group()
    assert len(group.engines) == 1 and "card 1 could not be used" in group.degraded
    assert run(group, "2:device=dead") == alone
    group.close()
    Emulator().set("faults", "axclrtEngineLoadFromFile@1+=fail:0x8030070c")
    with pytest.raises(CardBeyondHelp):
        open_group()


def test_a_picture_shows_all_cards(open_group) -> None:
    group = open_group()
    held = [Held(3), Held(3)]
    for request, answer in zip(requests(), held, strict=False):
        group.submit(request, answer)
    for answer in held:
        answer.wait_held()
    asked = group.live.ask()
    for answer in held:
        answer.go.set()
    picture = asked.result(30)
    assert [(share.name, share.device) for share in picture.cards] == [
        ("0", "emulated card 1"), ("1", "emulated card 2"),
    ]  # fmt: skip
    assert [share.num_banks for share in picture.cards] == [1, 1] and len(picture.banks) == 2
    assert sorted(one.bank for one in picture.running) == [0, 1]
    for answer in held:
        answer.wait()


def test_the_image_of_a_cache_keeps_what_was_used_last() -> None:
    image, talks = CacheImage(100), [array("i", range(40 * i, 40 * i + 40)) for i in range(4)]
    image.add(talks[0], b"")
    image.add(talks[1], b"")
    assert image.num_cached(talks[0], b"") == 40 and image.num_cached(talks[0], b"salt") == 0
    image.add(talks[0], b"")  # used again
    image.add(talks[2], b"")
    assert [image.num_cached(talk, b"") for talk in talks] == [40, 20, 40, 0]
    image.add(array("i", range(1000)), b"")
    assert image.num_free == 0


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_failure_of_any_card_at_any_time_changes_an_answer(open_group, alone, data) -> None:
    group = open_group(max_running=3)
    for _ in range(3):
        card = data.draw(st.sampled_from([1, 2]), "card")
        faults = ["device=offline", f"{CALL}@3=fail:0x8030070c", f"{CALL}@5=later:0x8030070c", "nan@any:2"]
        fault = data.draw(st.sampled_from(faults), "fault")
        assert run(group, f"{card}:{fault}", data.draw(st.integers(1, 40), "piece")) == alone
    for engine in group.engines:
        until(lambda engine=engine: engine.state == "ready")
        engine.scheduler.check_integrity()
    well()
    group.close()


def test_a_card_that_fails_while_it_is_loaded_is_brought_back_without_touching_the_others(open_group, alone) -> None:
    Emulator().set("reboot_ms", 200)
    Emulator().set("faults", "1:device=offline@60")
    Emulator().reset_counters()
    group = open_group()
    assert Emulator().report()["calls"]["axclrtRebootDevice"] == 1 and Emulator().report()["faults"]["offline"] == 1
    assert [engine.model.card.device for engine in group.engines] == [1, 2] and not group.degraded
    assert run(group, "") == alone


@pytest.mark.parametrize("rule", ["2:memory=100", "2:driver=missing", "2:leak=5", "x:device=dead", "2device=dead"])
def test_what_is_so_for_all_cards_or_for_none_is_no_fault_of_one(rule: str) -> None:
    with pytest.raises(EmulatorError):
        Emulator().set("faults", rule)
