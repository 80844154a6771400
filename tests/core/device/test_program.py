"""Steps on the emulated card: call and byte counts, where rows go, wrong steps, views and their owner."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from tiny_models import Tiny, convert_tiny

from axpress.core.device.backend import Modes
from axpress.core.device.emulator import Emulator
from axpress.core.device.model_loader import Model, open_model
from axpress.core.device.step import Step

ROWS, CHUNK = 255, 64


@pytest.fixture(scope="module", params=[4, 28])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    tiny = Tiny("qwen3", layers=request.param, hidden=64, ffn=96)
    package = convert_tiny(folder, tiny, rows=ROWS, chunk=CHUNK, history=[0, 64, 128])
    model = open_model(package, "emu", "none", settings={"inplace_unaligned": "1"})
    model.program.set_modes(use_async=True, in_place_decode=True)  # not chosen for rows of this size
    yield model
    model.close()
    Emulator().set("inplace_unaligned", 0)  # it stays with the process


def decode(model: Model, token: int, at: int, runs: list[tuple[int, int]], row: int, logits: bool = True) -> bytes:
    """One decode step; returns its logits."""
    step = Step(1)
    step.reset(0)
    view = step.add_view(0, 0)
    for run in runs:
        step.extend_view(*run)
    step.add(token, at, row, -1, view, logits)
    model.program.run(step)
    return model.program.logits(0).tobytes()


def chunk(model: Model, tokens: list[int], at: int, slot: int, *, logits: bool = False) -> bytes:
    step = Step(CHUNK)
    step.reset(slot)
    step.add_chain(tokens, at, at, step.add_view(0, at), logits)
    model.program.run(step)
    return model.program.logits(0).tobytes()


def counted(work) -> dict:
    emulator = Emulator()
    emulator.reset_counters()
    work()
    return emulator.report()


def test_a_decode_token_is_l_plus_5_submissions_and_one_wait(model: Model) -> None:
    decode(model, 3, 0, [], 0)
    report = counted(lambda: decode(model, 4, 1, [(0, 1)], 1))
    layers, hidden = model.program.num_layers, model.program.shape.hidden
    assert report["submissions"] == layers + 5  # 3 uploads, the layers, the head, the download
    assert report["waits"] == 1
    assert report["executes"] == {"layer_decode": layers, "layer_chunk": 0, "head": 1, "vision": 0}
    assert report["bytes"]["h2d"] == 2 * (ROWS + 1) + 4 + 2 * hidden
    assert report["bytes"]["d2h"] == 2 * model.program.vocab_size
    assert report["bytes"]["d2d"] == 0


def test_a_chunk_uploads_once_whatever_the_layers(model: Model) -> None:
    report = counted(lambda: chunk(model, list(range(5, 55)), 0, 1))
    layers, hidden, kv = model.program.num_layers, model.program.shape.hidden, model.program.shape.kv_dim
    assert report["copies"]["h2d"] == 3
    assert report["bytes"]["h2d"] == CHUNK * (2 * CHUNK + 4 + 2 * hidden)
    assert report["copies"]["d2d"] == 2 * layers  # K and V rows of each layer into the cache, one run each
    assert report["bytes"]["d2d"] == 2 * layers * 50 * 2 * kv
    assert report["executes"] == {"layer_decode": 0, "layer_chunk": layers, "head": 0, "vision": 0}
    assert report["waits"] == 1


def test_chunked_prompt_equals_token_by_token_bit_for_bit(model: Model) -> None:
    tokens = [int(t) for t in np.random.default_rng(1).integers(0, 300, 150)]
    for i, token in enumerate(tokens):
        alone = decode(model, token, i, [(0, i)], i)
    kv = [b.read().tobytes() for b in model.program.kv_buffers(0, model.program.num_layers - 1)]
    for b in model.program.kv_buffers(0, model.program.num_layers - 1):
        b.fill(0)
    chunk(model, tokens[:64], 0, 1)
    chunk(model, tokens[64:128], 64, 2)
    together = chunk(model, tokens[128:], 128, 3, logits=True)
    assert together == alone
    rows = len(tokens) * 2 * model.program.shape.kv_dim
    assert [b.read().tobytes()[:rows] for b in model.program.kv_buffers(0, model.program.num_layers - 1)] == [
        x[:rows] for x in kv
    ]


def test_a_token_may_live_in_any_row(model: Model) -> None:
    tokens = [int(t) for t in np.random.default_rng(2).integers(0, 300, 12)]
    straight = b""
    for i, token in enumerate(tokens):
        straight = decode(model, token, i, [(0, i)], i)
    rows = [200, 3, 254, 77, 78, 10, 9, 8, 120, 60, 61, 0]
    scattered = b""
    for i, token in enumerate(tokens):
        scattered = decode(model, token, i, [(r, r + 1) for r in rows[:i]], rows[i])
    assert scattered == straight


def test_hidden_rows_do_not_matter_however_large(model: Model) -> None:
    before = [decode(model, 9, i, [(0, i)], i) for i in range(3)][-1]
    for layer in range(model.program.num_layers):
        for buffer in model.program.kv_buffers(0, layer):
            nbytes = 2 * model.program.shape.kv_dim
            buffer.write(np.full((ROWS - 2) * nbytes // 2, 0x7F00, np.uint16), 2 * nbytes)  # 1.7e38
    assert decode(model, 9, 2, [(0, 2)], 2) == before


@pytest.mark.parametrize(
    ("modes", "extra"),
    [
        (Modes(use_async=True, in_place_decode=False), 2),  # K and V of each layer copied into the cache
        (Modes(use_async=False, in_place_decode=True), 0),
        (Modes(use_async=False, in_place_decode=False), 2),
    ],
)
def test_fallbacks_give_the_same_bytes(model: Model, modes: Modes, extra: int) -> None:
    program, found = model.program, model.modes
    expected = [decode(model, 30 + i, i, [(0, i)], i) for i in range(4)]
    program.set_modes(use_async=modes.use_async, in_place_decode=modes.in_place_decode)
    try:
        assert [decode(model, 30 + i, i, [(0, i)], i) for i in range(4)] == expected
        report = counted(lambda: decode(model, 34, 4, [(0, 4)], 4))
        assert report["submissions"] == program.num_layers * (1 + extra) + 5
    finally:
        program.set_modes(use_async=found.use_async, in_place_decode=found.in_place_decode)


def test_rows_move_on_the_card_and_tokens_still_see_them(model: Model) -> None:
    program = model.program
    expected = [decode(model, 30 + i, i, [(0, i)], i) for i in range(8)][-1]
    old, new = np.arange(7, dtype=np.int32), np.array([200, 201, 202, 90, 91, 60, 10], np.int32)
    report = counted(lambda: program.move_rows(0, old, new))
    assert (report["copies"]["d2d"], report["waits"]) == (4 * 2 * program.num_layers, 1)
    for layer in range(program.num_layers):
        for buffer in program.kv_buffers(0, layer):
            buffer.write(np.full(7 * program.shape.kv_dim, 0x7F00, np.uint16))  # where they were
    assert decode(model, 37, 7, [(r, r + 1) for r in sorted(new.tolist())], 7) == expected
    for wrong in ((0, [0], [ROWS]), (0, [-1], [5]), (program.num_banks, [0], [5]), (0, [0, 1], [5])):
        with pytest.raises(ValueError):
            program.move_rows(wrong[0], np.array(wrong[1], np.int32), np.array(wrong[2], np.int32))


def test_wrong_steps_are_refused_before_the_card_sees_them(model: Model) -> None:
    def attempt(slot: int = 0, bank: int = 0, token: int = 1, row: int = 0, view: tuple[int, int] = (0, 0)) -> None:
        step = Step(CHUNK)
        step.reset(slot, bank)
        step.add(token, 0, row, -1, step.add_view(*view), True)
        model.program.run(step)

    attempt()
    for wrong in (
        {"slot": 9},
        {"slot": -1},
        {"bank": model.program.num_banks},
        {"token": -1},
        {"token": 10**6},
        {"row": ROWS},
        {"view": (0, ROWS + 1)},
    ):

        def refused(wrong: dict = wrong) -> None:
            with pytest.raises(ValueError):
                attempt(**wrong)

        report = counted(refused)
        assert report["submissions"] == 0, wrong
    with pytest.raises(ValueError, match="queries"):
        model.program.run(Step(1))
    attempt()


def test_a_view_keeps_pinned_memory_alive(model: Model) -> None:
    from axpress.core.device.buffer import PinnedBuffer

    buffer = PinnedBuffer(model.card, 64)
    view = buffer.view(np.uint16)
    view[:] = 7
    with pytest.raises(BufferError, match="view"):
        buffer.close()
    with pytest.raises(BufferError, match="view"):
        model.card.close()
    del buffer
    gc.collect()
    assert view.tolist() == [7] * 32
    again = np.frombuffer(view.base, np.uint8) if view.base is not None else view
    del view, again
    gc.collect()


def test_device_buffers_check_their_bounds(model: Model) -> None:
    from axpress.core.device.buffer import DeviceBuffer

    buffer = DeviceBuffer(model.card, 32)
    buffer.fill(3)
    assert buffer.read("uint8").tolist() == [3] * 32
    with pytest.raises(ValueError, match="do not fit"):
        buffer.write(bytes(33))
    with pytest.raises(ValueError, match="do not fit"):
        buffer.read("uint8", 4, 30)
    buffer.close()
    buffer.close()
    with pytest.raises(ValueError, match="closed"):
        buffer.fill(0)


@pytest.mark.parametrize("count", [1, 34, CHUNK])
def test_a_chunk_computes_only_the_tokens_that_it_holds(model: Model, count: int) -> None:
    slot = len(model.program.shape.decode)
    report = counted(lambda: chunk(model, list(range(5, 5 + count)), 0, slot))
    assert report["layer_rows"] == count * model.program.num_layers
    assert report["int8_executes"] == 0
