"""Misuse of the native core that must end in an exception: calls after close, objects dropped anywhere, sequences that
lie."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from tiny_models import Tiny, convert_tiny

from axpress.core.device.axmodel import Binding, LoadedModel
from axpress.core.device.buffer import DeviceBuffer, PinnedBuffer
from axpress.core.device.emulator import Emulator, emulator_library
from axpress.core.device.model_loader import Model, open_model
from axpress.core.device.program import Program
from axpress.core.device.runtime import Card
from axpress.core.device.step import Step
from axpress.core.errors import RuntimeCallError, RuntimeUnavailable
from axpress.core.model_files.embedding_file import EmbeddingTable
from axpress.core.request import SamplingParams
from axpress.core.sampling.sampler import Sampler


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lifetime")
    return convert_tiny(folder, Tiny("qwen3", layers=2, hidden=64, ffn=96), rows=63, chunk=16, history=[0, 16])


@pytest.fixture
def model(package) -> Iterator[Model]:
    model = open_model(package, "emu", "none")
    yield model
    model.close()


@pytest.fixture
def card() -> Iterator[Card]:
    card = Card(emulator_library(), 0, {"profile": "none"})
    yield card
    card.close()


def used(what: str = "device_used") -> int:
    return Emulator().report()["memory"][what]


def test_a_closed_card_refuses_every_call(card: Card) -> None:
    card.close()
    calls: list[Callable[[], object]] = [
        card.version, card.properties, card.bind_thread,
        lambda: DeviceBuffer(card, 16), lambda: PinnedBuffer(card, 16), lambda: LoadedModel(card, "x"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(RuntimeUnavailable, match="closed"):
            call()
    with pytest.raises(RuntimeUnavailable, match="closed"):
        Card.__new__(Card).version()


def test_a_closed_program_and_its_bindings_refuse_every_call(package) -> None:
    model = open_model(package, "emu", "none")
    program = model.program
    step = Step(1)
    step.reset(0)
    step.add(1, 0, 0, -1, step.add_view(0, 0), True)
    program.run(step)
    layer = next(m for m in gc_of(LoadedModel) if m.card is model.card)  # others are another test's garbage
    binding, buffer = Binding(layer, 0), DeviceBuffer(model.card, 16)
    model.close()
    modes = {"use_async": True, "in_place_decode": False}
    calls: list[Callable[[], object]] = [
        lambda: program.run(step), lambda: program.more_logits([0]), lambda: program.time_layers(0, 1),
        program.time_head, lambda: program.set_modes(**modes), lambda: binding.set_input(0, buffer),
        lambda: Binding(layer, 0),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match=r"closed|unloaded"):
            call()


def gc_of(kind: type) -> list:
    return [thing for thing in gc.get_objects() if type(thing) is kind]


def test_a_group_that_is_none_is_not_timed(model: Model) -> None:
    for group in (-1, len(model.program.groups)):
        with pytest.raises(ValueError, match="group"):
            model.program.time_layers(group, 1)


def test_buffers_dropped_on_another_thread_are_freed(card: Card) -> None:
    before = used(), used("pinned_used")
    buffers = [DeviceBuffer(card, 1 << 16), PinnedBuffer(card, 1 << 16)]
    assert (used(), used("pinned_used")) > before
    thread = threading.Thread(target=buffers.clear)
    thread.start()
    thread.join()
    assert (used(), used("pinned_used")) == before


def test_bindings_that_are_dropped_leave_nothing_behind(package) -> None:
    """A program that fails while it is made has bound a part of its models."""
    model = open_model(package, "emu", "none")
    layers = [m for m in gc_of(LoadedModel) if m.card is model.card]  # others may still be in use by a fixture
    assert any(len(layer.inputs) == 5 for layer in layers)
    for layer in layers:
        Binding(layer, 0)
    with pytest.raises(ValueError, match="at least one byte"):
        Program(
            model.card, [x for x in layers if len(x.inputs) == 5], next(x for x in layers if len(x.inputs) == 1),
            EmbeddingTable(np.zeros((320, 64), np.uint16)), logits_slots=0,
        )  # fmt: skip
    gc.collect()
    model.close()
    assert Emulator().report()["leaks"] == []


@pytest.mark.parametrize("size", [2**64 - 1, 2**64 - 4096, 2**64 - 8192, 2**63, 2**43])
def test_absurd_sizes_are_out_of_memory(card: Card, size: int) -> None:
    before = used()
    with pytest.raises(RuntimeCallError, match="out of memory"):
        DeviceBuffer(card, size)
    assert used() == before


class Liar(list):
    """A sequence longer than it says."""

    def __len__(self) -> int:
        return 1


def test_a_sampler_counts_for_itself() -> None:
    params = SamplingParams(temperature=0.0, repetition_penalty=2.0)
    logits = np.zeros(50_000, np.float32)
    logits[7], logits[8] = 3.0, 2.0
    sampler = Sampler(50_000, params, Liar([9] * 40_000 + [7]))
    assert sampler.sample(logits, 0)[0] == 8  # token 7 was counted, too


def test_a_run_needs_a_view_and_a_chain_without_rows_stores_none() -> None:
    step = Step(4)
    with pytest.raises(ValueError, match="no view"):
        step.extend_view(0, 3)
    step.add_chain([1, 2, 3], 0, -1, step.add_view(0, 2))
    assert step.as_array()["row"].tolist() == [-1, -1, -1]
    assert (step.mask(4, 4)[0, :4] == 0).tolist() == [True, True, False, False]


def test_threads_may_be_set_while_the_card_executes(package) -> None:
    """An execute lays its memory out for a number of threads; a new number waits for its end."""
    model = open_model(package, "emu", "none")
    emulator, stop = Emulator(), threading.Event()

    def change() -> None:
        while not stop.is_set():
            emulator.set("threads", "1")
            emulator.set("threads", "16")

    step = Step(16)
    step.reset(len(model.program.shape.decode))
    step.add_chain(range(5, 21), 0, 0, step.add_view(0, 0), True)
    model.program.run(step)
    expected = model.program.logits(0).tobytes()
    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(100):
            model.program.run(step)
            assert model.program.logits(0).tobytes() == expected
    finally:
        stop.set()
        thread.join()
        emulator.set("threads", "0")
        model.close()
