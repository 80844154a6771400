"""Two engines on one card, a chat model and an embedding model: each as if it were alone there, also when the card
fails, one of them ends, or another model comes. The card is emulated."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from collecting import GREEDY, Collector, Held, ask
from embedding_models import TINY, embedding_package
from tiny_models import Tiny, convert_tiny

from axpress.core.device.card_models import Loads
from axpress.core.device.emulator import Emulator
from axpress.core.device.model_loader import Model, runtime_of, want
from axpress.core.engine import pass_runner
from axpress.core.engine.engine import Engine
from axpress.core.errors import AxpressError, RuntimeCallError
from axpress.core.recovery.ladder import RecoveryPolicy
from axpress.core.request import GenerationRequest

QUICK = RecoveryPolicy(backoff=0.01, max_backoff=0.01, settle=5, check=5)
CALL = "axclrtEngineExecuteAsync"


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shared")
    ladder = {"rows": 255, "chunk": 64, "history": [0, 64, 128]}
    chat = convert_tiny(folder / "chat", Tiny("qwen3", layers=3), **ladder)
    other = convert_tiny(folder / "other", Tiny("qwen2", layers=2), **ladder)
    return [chat, embedding_package(folder / "embedding", TINY, rows=255, chunk=64), other]


@pytest.fixture
def opened(packages, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Engine]]]:
    """Opens the packages of these numbers; in the end the card is well again and closed."""
    monkeypatch.setattr(pass_runner, "FLOOR_SECONDS", 0.5)
    monkeypatch.setattr(pass_runner, "HOST_FLOOR_SECONDS", 0.5)
    monkeypatch.setattr(pass_runner, "GRACE_SECONDS", 0.5)
    engines: list[Engine] = []

    def open_some(*numbers: int) -> list[Engine]:
        engines.extend(Engine.open_several([packages[i] for i in numbers], "emu", "none", banks=2, recovery=QUICK))
        return engines[-len(numbers) :]

    yield open_some
    Emulator().set("faults", "")
    for engine in engines:
        engine.close()
        assert not engine.card_left
    assert Emulator().report()["memory"]["device_used"] == 0


def work(chat: Engine | None, embedding: Engine | None, faults: str = "") -> tuple[list, list]:
    """What three long answers and a batch of texts come to, together; at the fifth token the faults are set."""
    set_faults = lambda n: Emulator().set("faults", faults) if n == 5 else None  # noqa: E731
    answers = [Collector(set_faults if i == 0 else None) for i in range(3)]
    vectors = [Collector() for _ in range(12)]
    if chat:
        requests = [GenerationRequest([7] * 9 + [20 + i], GREEDY, 80, ignore_eos=True) for i in range(3)]
        chat.submit_all(requests, answers)
    if embedding:
        texts = [[30 + j % (50 + i) for j in range(100 + 9 * i)] for i in range(len(vectors))]
        embedding.submit_all([GenerationRequest(text, dimensions=TINY.hidden) for text in texts], vectors)
    return (
        [answer.wait().outcome for answer in answers] if chat else [],
        [v.wait().deltas[-1].embedding for v in vectors] if embedding else [],
    )


@pytest.fixture(scope="module")
def alone(packages) -> tuple[list, list]:
    """What each says with the card to itself."""
    expected = []
    for package, number in ((packages[0], 0), (packages[1], 1)):
        engine = Engine.open(package, "emu", "none", banks=2)
        expected.append(work(engine, None)[0] if number == 0 else work(None, engine)[1])
        engine.close()
    return expected[0], expected[1]


def check(found: tuple[list, list], alone: tuple[list, list]) -> None:
    assert found[0] == alone[0]
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(found[1], alone[1], strict=True))


CURABLE = {
    "": [],
    f"{CALL}@10=fail:0x8030070c": ["reopen"],
    f"{CALL}@10=block": ["reopen"],
    "device=offline@30": ["reboot"],
    "nan@head:3; nan@head:4": ["clear"],
}


@pytest.mark.parametrize("faults", CURABLE)
def test_each_says_what_it_says_alone_also_where_the_card_fails(opened, alone, faults: str) -> None:
    chat, embedding = opened(0, 1)
    check(work(chat, embedding, faults), alone)
    Emulator().set("faults", "")
    assert list(chat.ladder.rungs) in (CURABLE[faults], [] if "nan" in faults else CURABLE[faults])  # or repeated
    assert chat.ladder is embedding.ladder
    assert [e.state for e in (chat, embedding)] == ["ready", "ready"]
    chat.scheduler.check_integrity()
    embedding.scheduler.check_integrity()


def test_a_card_beyond_help_ends_both(opened) -> None:
    chat, embedding = opened(0, 1)
    Emulator().set("faults", "device=dead")
    assert ask(chat).reason == "error"
    embedding._thread.join(30)  # type: ignore[union-attr]
    assert chat.state == embedding.state == "failed" and "0x80300181" in (embedding.reason or "")


@pytest.mark.parametrize("leaves", [0, 1])
def test_one_that_ends_gives_its_memory_back_and_the_other_goes_on(opened, alone, leaves: int) -> None:
    engines = opened(0, 1)
    used = Emulator().report()["memory"]["device_used"]
    own = engines[leaves].model.card_bytes
    engines[leaves].close()
    left = Emulator().report()["memory"]["device_used"]
    assert abs(used - left - own) <= 4096  # files, caches and buffers; the model is measured in KiB
    other = 1 - leaves
    found = work(engines[0], None) if other == 0 else work(None, engines[1])
    assert (found[0] == alone[0]) if other == 0 else np.array_equal(found[1], alone[1])


def test_a_model_that_comes_later_interrupts_the_others_and_changes_nothing(opened, alone, packages) -> None:
    chat, embedding = opened(0, 1)
    wanted = want(packages[2], 1, 16)
    answer, added = Held(5), list[Model]()
    chat.submit(GenerationRequest([7] * 9 + [20], GREEDY, 80, ignore_eos=True), answer)
    answer.wait_held()

    def add() -> None:
        added.append(chat.shared.add(wanted, lambda: runtime_of(wanted.package, "emu")))

    adding = threading.Thread(target=add)
    adding.start()
    while not chat.shared.turns.waiting:
        time.sleep(0.001)
    answer.go.set()
    adding.join()
    assert answer.wait().outcome == alone[0][0]
    third = Engine(added[0], shared=chat.shared, max_running=16)
    assert ask(third).num_tokens == 20
    check(work(chat, embedding), alone)
    assert not chat.ladder.rungs
    third.close()
    check(work(chat, embedding), alone)


def test_a_card_whose_last_model_left_is_brought_back_for_the_next_one(opened, alone, packages) -> None:
    (chat,) = opened(0)
    shared, wanted = chat.shared, want(packages[0], 2, 16)
    chat.close()
    again = Engine(shared.add(wanted, lambda: runtime_of(wanted.package, "emu")), shared=shared, max_running=16)
    found = work(again, None, f"{CALL}@10=fail:0x8030070c")
    assert found[0] == alone[0] and dict(again.ladder.rungs) == {"reopen": 1}
    again.close()


@pytest.mark.parametrize("allowed", [True, False])
def test_a_model_that_is_loaded_beside_others_where_the_runtime_does_that(opened, alone, packages, allowed) -> None:
    chat, embedding = opened(0, 1)
    emulator, wanted = Emulator(), want(packages[2], 1, 16)
    emulator.set("late_load", allowed)
    emulator.set("head_first", not allowed)
    answer = Held(5)
    chat.submit(GenerationRequest([7] * 9 + [20], GREEDY, 80, ignore_eos=True), answer)
    answer.wait_held()
    emulator.reset_counters()
    added, refused = list[Model](), list[RuntimeCallError]()

    def add() -> None:
        try:
            added.append(chat.shared.add_beside(wanted))
        except RuntimeCallError as error:
            refused.append(error)

    adding = threading.Thread(target=add)
    adding.start()
    answer.go.set()
    check(work(chat, embedding), alone)
    adding.join()
    assert answer.wait().outcome == alone[0][0]
    assert emulator.report()["calls"]["axclrtEngineLoadFromFile"] == (3 if allowed else 1)
    if allowed:
        third = Engine(added[0], shared=chat.shared, max_running=16)
        assert ask(third).num_tokens == 20
        third.close()
    else:
        assert "after the first execute" in str(refused[0])
    check(work(chat, embedding), alone)
    assert not chat.ladder.faults and chat.shared.opening == 0
    emulator.set("late_load", 0)
    emulator.set("head_first", 1)


def test_a_model_that_does_not_come_leaves_the_others_as_they_were(opened, alone, packages, tmp_path) -> None:
    chat, embedding = opened(0, 1)
    wanted = want(shutil.copytree(packages[2], tmp_path / "package"), 1, 16)
    wanted.package.layer_files[1].unlink()
    with pytest.raises((AxpressError, OSError)):
        chat.shared.add(wanted, lambda: runtime_of(chat.package, "emu"))
    check(work(chat, embedding), alone)
    assert len(chat.shared.on_card.models) == 2


def test_what_was_loaded_of_a_model_that_does_not_come_is_freed_when_nobody_computes(
    opened, alone, packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, embedding = opened(0, 1)
    used, undo, in_turn = Emulator().report()["memory"]["device_used"], Loads.undo, []

    def watched(loads: Loads) -> None:
        in_turn.append(chat.shared.turns.holder is not None)
        undo(loads)

    monkeypatch.setattr(Loads, "undo", watched)
    for key, value in {"late_load": 1, "head_first": 0, "faults": "axclrtEngineLoadFromFile@3=fail:0x80300701"}.items():
        Emulator().set(key, value)
    with pytest.raises(RuntimeCallError):
        chat.shared.add_beside(want(packages[2], 1, 16))
    assert in_turn == [True] and Emulator().report()["memory"]["device_used"] == used
    check(work(chat, embedding), alone)
    for key, value in {"late_load": 0, "head_first": 1}.items():
        Emulator().set(key, value)
