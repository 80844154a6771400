"""Models with recurrent layers (Qwen3.5): the same tokens in any company, and conversations that go on from a state."""

from __future__ import annotations

from pathlib import Path

import pytest
from collecting import GREEDY, Collector
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from schedules import AT_ONCE, CHUNK, EXAMPLES, HISTORY, ROWS, Schedule, answers_alone, crowd, fail
from tiny_models import RECURRENT, convert_tiny, special_ids, with_states

from axpress.core.device import card_memory
from axpress.core.device.backend import Costs
from axpress.core.device.emulator import Emulator
from axpress.core.engine import bank_selection
from axpress.core.engine.engine import Engine
from axpress.core.errors import PackageError
from axpress.core.request import GenerationRequest

STATES = [{}, {"padding": "spoils", "p0_state": "ignores", "state_dtype": "fp32"}]
END = special_ids(RECURRENT.vocab)["<|im_end|>"]


@pytest.fixture(scope="module", params=STATES, ids=lambda states: states.get("padding", "exact"))
def package(request, tmp_path_factory) -> Path:
    out = convert_tiny(tmp_path_factory.mktemp("hybrid"), RECURRENT, rows=ROWS, chunk=CHUNK, history=HISTORY)
    return with_states(out, **request.param)


@pytest.mark.parametrize("config", [{"banks": 2}, {"banks": 1, "settings": {"async": "0"}}], ids=str)
def test_any_schedule_gives_what_each_request_gets_alone(
    package: Path, config: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_selection, "HEADROOM", 2)  # so that rows do run out
    monkeypatch.setattr(card_memory, "STATE_SLOTS", 16)  # and states
    alone = answers_alone(package)
    engine = Engine.open(package, "emu", "none", max_queue=1000, max_running=6, threaded=False, recovery=AT_ONCE,
                         **config)  # fmt: skip
    engine.scheduler.costs.observe = lambda *measured: None  # the machine decides what a pass seems to cost
    try:
        machine = type("Machine", (Schedule,), {"engine": engine, "alone": alone})
        run_state_machine_as_test(
            machine, settings=settings(max_examples=max(1, EXAMPLES // 8), stateful_step_count=40, deadline=None)
        )
        crowd(engine, alone)
        fail(engine, alone)
        stats = engine.stats()
        assert stats["preemptions"] and stats["chunk_passes"] and stats["decode_passes"] and stats["cached_tokens"]
        assert stats["drafted_tokens"] == 0
        assert engine.ladder.rungs["clear"] and engine.ladder.rungs["reopen"] and engine.ladder.rungs["reboot"]
    finally:
        engine.close()
        Emulator().set("async", "1")


class Talk:
    """Turns of one conversation, each asked for when the one before is answered."""

    def __init__(self, package: Path, **options: object) -> None:
        self.engine = Engine.open(package, "emu", "none", max_running=4, threaded=False, **options)
        costs = self.engine.scheduler.costs
        costs.observe = lambda *measured: None
        costs.set(Costs(tuple(1.0 if group.width == 1 else 1.5 for group in costs.groups), 0.1))
        self.tokens: list[int] = []

    def turn(self, *new: int, max_tokens: int = 4) -> Collector:
        """The answer to `new` tokens after all that was said."""
        self.tokens += new
        answer = Collector()
        self.engine.submit(GenerationRequest(list(self.tokens), GREEDY, max_tokens, ignore_eos=True), answer)
        (sequence,) = self.engine.scheduler.waiting
        while self.engine.step():
            self.engine.scheduler.check_integrity()
        assert answer.reason == "length", answer.error
        self.tokens = sequence.tokens.tolist()
        return answer

    def passes(self) -> tuple[int, int]:
        """Chunks and decodes so far."""
        stats = self.engine.stats()
        return stats["chunk_passes"], stats["decode_passes"]


@pytest.fixture(scope="module")
def exact_package(tmp_path_factory) -> Path:
    return convert_tiny(tmp_path_factory.mktemp("talk"), RECURRENT, rows=ROWS, chunk=CHUNK, history=HISTORY)


def test_the_next_turn_computes_only_its_own_tokens(exact_package: Path) -> None:
    talk = Talk(exact_package)
    talk.turn(*range(5, 45))
    answer = talk.turn(*range(50, 60))
    said = 40 + 4
    assert answer.deltas[-1].spent.cached_tokens == said - 1  # the last token of the answer was never computed
    assert talk.passes()[0] == 3 + 1
    talk.engine.close()


def test_a_turn_that_says_the_answer_otherwise_goes_on_from_the_end_of_the_message(exact_package: Path) -> None:
    """As templates do that leave out what a model thought: of the last prompt only the part up to the end of its
    message is as it was."""
    talk = Talk(exact_package)
    message = [*range(5, 40), END]
    talk.turn(*message, 70, 71, 72)
    talk.tokens = list(message)
    answer = talk.turn(80, 81, 82)
    assert answer.deltas[-1].spent.cached_tokens == len(message)
    talk.engine.close()


def test_a_beginning_that_two_had_in_common_is_there_for_the_third(exact_package: Path) -> None:
    talk, system = Talk(exact_package), list(range(5, 28))
    cached = []
    for own in (100, 120, 140):
        talk.tokens = list(system)
        cached.append(talk.turn(*range(own, own + 12)).deltas[-1].spent.cached_tokens)
    # the second finds where the first one's chunk ended, within it
    assert cached == [0, CHUNK, len(system)]
    talk.engine.close()


def test_it_is_not_split_over_cards(exact_package: Path) -> None:
    with pytest.raises(PackageError, match="a hybrid model, with recurrent layers, is not split"):
        Engine.open(exact_package, "emu", "none", split=(0, 1))
    Emulator().set("devices", 1)


def test_a_token_by_itself_copies_no_state(exact_package: Path) -> None:
    """The copies of a decode: mask, indices, embedding and the recurrent layers' mask go up, logits come down. K and V
    go into their rows by themselves, states from slot to slot."""
    talk = Talk(exact_package)
    talk.engine.submit(GenerationRequest([5, 6, 7], GREEDY, 4, ignore_eos=True), Collector())
    assert talk.engine.step()
    Emulator().reset_counters()
    while talk.engine.step():
        pass
    report, decodes = Emulator().report(), talk.passes()[1]
    talk.engine.close()
    assert decodes == 3
    executes = {kind: count for kind, count in report["executes"].items() if count}
    assert executes == {"layer_decode": decodes * RECURRENT.layers, "head": decodes}
    assert report["copies"] == {"h2d": 4 * decodes, "d2h": decodes, "d2d": 0, "h2h": 0}, report
