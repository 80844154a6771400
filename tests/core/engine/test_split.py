"""A model whose layers are split over several cards gives what it gives on one, and keeps all of them at work. The
cards are emulated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from collecting import GREEDY, Collector, ask
from tiny_models import Tiny, convert_tiny

from axpress.core.device.emulator import Emulator
from axpress.core.device.model_loader import open_model
from axpress.core.device.split_program import SplitProgram
from axpress.core.device.step import Step
from axpress.core.engine import engine_loop, pass_runner
from axpress.core.engine.engine import Engine
from axpress.core.errors import PackageError, RuntimeUnavailable
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.layer_blocks import even_blocks
from axpress.core.recovery.ladder import RecoveryPolicy
from axpress.core.request import GenerationRequest, SamplingParams

ROWS, CHUNK, HISTORY = 255, 16, [0, 16, 32, 48, 64]
QUICK = RecoveryPolicy(backoff=0.01, max_backoff=0.01, settle=5, check=5)


@pytest.fixture(autouse=True)
def one_card_afterwards() -> Iterator[None]:
    yield
    Emulator().set("devices", 1)


@pytest.fixture(scope="module", params=["qwen3", "gemma3_text"])
def package(request, tmp_path_factory) -> Path:
    return convert_tiny(
        tmp_path_factory.mktemp("split"),
        Tiny(request.param, layers=5, window=12, layer_types=("sliding_attention",) * 3 + ("full_attention",) * 2),
        rows=ROWS, chunk=CHUNK, history=HISTORY,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """Of three layers."""
    return convert_tiny(tmp_path_factory.mktemp("plain"), Tiny("qwen3", layers=3), rows=ROWS, chunk=CHUNK,
                        history=HISTORY)  # fmt: skip


@pytest.fixture(autouse=True)
def one_card_again() -> Iterator[None]:
    """How many cards there are stays with the library; put back what it was."""
    yield
    Emulator().set("devices", 1)


@pytest.fixture
def open_engine() -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def open_one(package: Path, **options) -> Engine:
        engines.append(Engine.open(package, "emu", "none", recovery=QUICK, **options))
        return engines[-1]

    yield open_one
    Emulator().set("faults", "")
    for engine in engines:
        engine.close()
        assert not engine.card_left
    assert Emulator().report()["memory"]["device_used"] == 0
    assert Emulator().report()["leaks"] == []


def test_blocks_are_contiguous_and_as_even_as_can_be() -> None:
    assert even_blocks([1] * 7, 0, 2) == [slice(0, 4), slice(4, 7)]
    assert even_blocks([1] * 7, 0, 3) == [slice(0, 2), slice(2, 5), slice(5, 7)]
    assert even_blocks([101] * 36, 389, 2) == [slice(0, 20), slice(20, 36)]
    assert even_blocks([1] * 3, 50, 3) == [slice(0, 1), slice(1, 2), slice(2, 3)]  # a head larger than all layers
    with pytest.raises(PackageError, match="2 layers cannot be split over 3 cards"):
        even_blocks([1, 1], 0, 3)


def logits_of(package: Path, **options) -> list[np.ndarray]:
    """Of a prompt in chunks, of guesses in a chunk, and of single tokens, whatever the modes."""
    model = open_model(package, "emu", "none", banks=2, logits_slots=3, **options)
    program, step, given = model.program, Step(CHUNK), []
    chunk = next(i for i, group in enumerate(program.groups) if group.width > 1)
    for bank in (1, 0):
        step.reset(chunk, bank)
        step.add_chain(list(range(20 + bank, 20 + bank + CHUNK)), 0, 0, step.add_view(0, 0), True)
        program.run(step)
        given.append(program.logits(0).copy())
        step.reset(chunk + 1, bank)
        view = step.add_view(0, CHUNK)
        last = step.add(30, CHUNK, CHUNK, -1, view, True)
        step.add(31, CHUNK + 1, CHUNK + 3, last, view, True)
        program.run(step)
        given += [program.logits(0).copy(), program.logits(1).copy()]
        program.more_logits([1, 0])
        given += [program.logits(0).copy(), program.logits(1).copy()]
        program.move_rows(bank, np.array([0, 1], np.int32), np.array([100, 101], np.int32))
        for position in (CHUNK + 2, CHUNK + 3):
            step.reset(0, bank)
            view = step.add_view(2, CHUNK + 1)
            step.extend_view(CHUNK + 3, CHUNK + 3 + position - CHUNK - 1)
            step.extend_view(100, 102)
            step.add(40 + position, position, CHUNK + 2 + position - CHUNK, -1, view, True)
            program.run(step)
            given.append(program.logits(0).copy())
    model.close()
    return given


@pytest.mark.parametrize("split", [(0, 1), (2, 0, 1)])
@pytest.mark.parametrize("settings", [{}, {"async": "0"}], ids=["async", "sync"])
def test_steps_give_the_same_logits(package: Path, split: tuple[int, ...], settings: dict[str, str]) -> None:
    try:
        expected = logits_of(package)
        given = logits_of(package, split=split, settings=settings)
    finally:
        Emulator().set("async", 1)
    assert len(given) == len(expected) and all(np.array_equal(a, b) for a, b in zip(given, expected, strict=True))


def crowd(engine: Engine, count: int, num_tokens: int = 12) -> list[tuple]:
    answers = []
    for i in range(count):
        params = SamplingParams(temperature=(i % 2) * 0.9, seed=i, logprobs=2)
        prompt = [*range(40, 60), *range(70 + i, 75 + i)] if i % 3 else [90 + i] * 20
        answers.append(Collector())
        engine.submit(GenerationRequest(prompt, params, num_tokens, ignore_eos=True), answers[-1])
    return [answer.wait().outcome for answer in answers]


def test_both_cards_work_at_a_time_and_clients_are_spread(plain: Path, open_engine: Callable[..., Engine]) -> None:
    engine = open_engine(plain, banks=2)
    expected = crowd(engine, 4)
    engine.close()
    engine = open_engine(plain, banks=2, split=(0, 1))
    program = engine.model.pipeline
    assert isinstance(program, SplitProgram) and engine.info.device == "emulated cards 1 and 2"
    assert [block.num_layers for block in program.blocks] == [2, 1]
    under_way: list[set[int]] = []
    begin = program.begin

    def noted(step: Step, timeout_ms: int = -1):
        begun = begin(step, timeout_ms)
        under_way.append({other.step.bank for other in program._under_way})
        return begun

    program.begin = noted  # type: ignore[method-assign]
    assert crowd(engine, 2) == expected[:2]
    assert sum(banks == {0, 1} for banks in under_way) > len(under_way) / 2
    assert crowd(engine, 4) == expected
    ask(engine, max_tokens=8)
    assert under_way[-1] in ({0}, {1})
    assert engine.stats()["rows_by_bank"][0] and engine.stats()["rows_by_bank"][1]


@pytest.mark.parametrize("at", [3, 6, 9, 12])  # executes: four a pass, the third and the head on the second card
def test_a_fault_of_either_card_changes_nothing(plain: Path, open_engine: Callable[..., Engine], at: int) -> None:
    engine = open_engine(plain, banks=2, split=(0, 1))
    expected = crowd(engine, 3)
    for fault in ("axclrtEngineExecuteAsync@{}=later:0x8030070c", "device=offline@{}", "nan@layer:{}"):
        opened = engine.shared.opening
        Emulator().set("faults", fault.format(at))
        assert crowd(engine, 3) == expected, fault
        assert engine.shared.opening > opened or "nan" in fault
    assert engine.state == "ready" and engine.stats()["repeated_passes"]


def test_cards_that_fail_again_while_they_are_opened_are_closed_first(
    plain: Path, open_engine: Callable[..., Engine]
) -> None:
    """In the test after loading: the program that is there by then is not in the way of the next try."""
    engine, outcomes = open_engine(plain, split=(0, 1), banks=2, threaded=False), set()
    for at in range(1, 5):
        engine.submit(GenerationRequest(list(range(40, 60)), GREEDY, 5, ignore_eos=True), answer := Collector())
        call = "axclrtEngineExecuteAsync@{}=fail:0x8030070c"
        Emulator().set("faults", f"{call.format(1)}; {call.format(1 + at)}")
        while engine.step():
            pass
        outcomes.add((answer.text, answer.reason))
    assert len(outcomes) == 1 and answer.reason == "length"


def test_a_call_that_hangs_is_left_behind(
    plain: Path, open_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FLOOR_SECONDS", "HOST_FLOOR_SECONDS", "GRACE_SECONDS"):
        monkeypatch.setattr(pass_runner, name, 0.3)
    monkeypatch.setattr(engine_loop, "ASK_SECONDS", 2.0)
    engine = open_engine(plain, banks=2, split=(0, 1))
    expected = crowd(engine, 2)
    Emulator().set("faults", "axclrtEngineExecuteAsync@23=block:3000")
    assert crowd(engine, 2) == expected
    assert engine.ladder.faults["card_hung"] == 1
    Emulator().set("hang_ms", 60000)


def test_a_spare_takes_the_place_of_the_one_that_died(plain: Path, open_engine: Callable[..., Engine]) -> None:
    engine = open_engine(plain, banks=2, split=(0, 1), settings={"devices": "3"})
    expected = crowd(engine, 2)
    Emulator().set("faults", "device=dead@40")
    assert crowd(engine, 2) == expected
    assert engine.ladder.rungs["spare"] == 1
    assert sorted(engine.model.card.devices) in ([1, 3], [2, 3])
    Emulator().set("faults", "")


def test_memory_is_given_back_between_passes(plain: Path, open_engine: Callable[..., Engine]) -> None:
    engine = open_engine(plain, banks=3, split=(0, 1))
    answers = [Collector() for _ in range(3)]
    expected = crowd(engine, 3, 40)
    used = Emulator().report()["memory"]["device_used"]
    for i, answer in enumerate(answers):
        prompt = [*range(40, 60), *range(70 + i, 75 + i)] if i % 3 else [90 + i] * 20
        params = SamplingParams(temperature=(i % 2) * 0.9, seed=i, logprobs=2)
        engine.submit(GenerationRequest(prompt, params, 40, ignore_eos=True), answer)
    assert engine.give_up_memory()
    assert [answer.wait().outcome for answer in answers] == expected
    assert engine.info.num_banks == 2 and Emulator().report()["memory"]["device_used"] < used


def test_too_few_cards_and_several_models_are_refused(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeUnavailable, match="two different ones"):
        open_model(plain, "emu", "none", split=(1, 1))
    with pytest.raises(PackageError, match="3 layers cannot be split over 4 cards"):
        open_model(plain, "emu", "none", split=(0, 1, 2, 3))
    with pytest.raises(RuntimeUnavailable, match="name one model"):
        Engine.open_several([plain, plain], "emu", "none", split=(0, 1))
    monkeypatch.setenv("AXPRESS_EMU_DEVICES", "1")
    Emulator().set("devices", 1)  # the variable is read once a process
    with pytest.raises(RuntimeUnavailable, match=r"card 1 was asked for, but the runtime .* sees 1 card"):
        open_model(plain, "emu", "none", split=(0, 1))


def test_the_packages_own_word_is_obeyed(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "own"
    shutil.copytree(plain, own)
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"devices": [0, 1]}))
    model = open_model(own, "emu", "none", banks=1)
    assert model.num_blocks == 2
    model.close()
    monkeypatch.setenv("AXPRESS_EMU_DEVICES", "1")  # it says where it would like to be, nobody else does
    Emulator().set("devices", 1)
    model = open_model(own, "emu", "none", banks=1)
    assert model.num_blocks == 1 and "meant for cards [0, 1], and this machine has fewer" in caplog.text
    model.close()
    monkeypatch.delenv("AXPRESS_EMU_DEVICES")
    monkeypatch.setenv("AXLLM_DEVICES", "0")
    model = open_model(own, "emu", "none", banks=1)
    assert model.num_blocks == 1
    model.close()
    monkeypatch.setenv("AXLLM_DEVICES", "0,x")
    with pytest.raises(PackageError, match=r"AXLLM_DEVICES.*'0,x' is no list of different cards"):
        open_model(own, "emu", "none")
    monkeypatch.delenv("AXLLM_DEVICES")
    (own / "config.json").write_text(json.dumps(config | {"devices": "both"}))
    with pytest.raises(PackageError, match="devices = 'both' is no list"):
        open_model(own, "emu", "none")


def test_what_one_card_cannot_hold_two_can(tmp_path: Path) -> None:
    directory = hollow("qwen3-0.6b-int4-pi5", tmp_path / "model")
    small = {"memory_mib": "1200", "load_time": "0"}
    try:
        with pytest.raises(PackageError, match="split the model over several cards"):
            open_model(directory, "emu", "none", small, banks=1)
        model = open_model(directory, "emu", "none", small, banks=1, split=(0, 1))
        assert model.info.num_layers == 28 and model.num_blocks == 2
        free = [told["free_cmm"] for told in model.card.properties()["cards"]]
        assert all(0 < left < 500 << 20 for left in free)
        model.close()
        with pytest.raises(PackageError, match="layers 0 to 15 on card 1"):
            open_model(directory, "emu", "none", small | {"memory_mib": "600"}, banks=1, split=(0, 1))
    finally:
        Emulator().set("memory_mib", 0)
        Emulator().set("load_time", 1)
