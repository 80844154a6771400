"""Pictures on their way through the engine: encoded once, in turns with others' passes, found again in the cache, and
what happens when the card fails, rows run out or lie too high, or a request is nonsense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from collecting import Collector
from hypothesis import given
from hypothesis import strategies as st
from image_requests import CHUNK, ROWS, Seeing, pool
from schedules import AT_ONCE, POOL
from tiny_vision_models import TinyVision

from axpress.core.device import card_models
from axpress.core.device.axmodel import LoadedModel
from axpress.core.device.backend import Costs
from axpress.core.device.card_memory import expected_bytes
from axpress.core.device.emulator import Emulator
from axpress.core.device.image_rows import ImageRows
from axpress.core.device.runtime import Card
from axpress.core.device.step import Step
from axpress.core.device.vision_encoder import Encoding, VisionEncoder
from axpress.core.engine import bank_selection, image_runner
from axpress.core.engine.engine import Engine
from axpress.core.engine.engine_group import EngineGroup
from axpress.core.engine.image_runner import Encodings
from axpress.core.engine.sequence_images import axis_positions, keyed_tokens
from axpress.core.errors import ContextOverflow, RequestError
from axpress.core.kv_cache.row_placement import Moves
from axpress.core.model_files.model_package import open_package
from axpress.core.request import GenerationRequest, ImageInput

pytest.importorskip("torch", reason="tiny models are made with torch and transformers")

TEXT = [40, 41, 42, 43]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory) -> Seeing:
    """Qwen3-VL: three axes, and deepstack."""
    return Seeing.make(tmp_path_factory.mktemp("images"), TinyVision("qwen3_vl", image_size=64))


@pytest.fixture
def open_engine(seeing: Seeing) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def open_one(**options) -> Engine:
        """In place of the one before."""
        for engine in engines:
            engine.close()
        options = {"banks": 1, "threaded": False, "recovery": AT_ONCE, **options}
        engines.append(Engine.open(seeing.package, "emu", "none", **options))
        return engines[-1]

    yield open_one
    Emulator().set("faults", "")
    for engine in engines:
        engine.close()
    Emulator().set("devices", 1)


def begin(engine: Engine, request: GenerationRequest) -> Collector:
    engine.submit(request, collector := Collector())
    return collector


def run(engine: Engine, *requests: GenerationRequest) -> list[Collector]:
    answers = [begin(engine, request) for request in requests]
    finish(engine)
    return answers


def finish(engine: Engine) -> None:
    while engine.step():
        engine.scheduler.check_integrity()


# ---- encoded once, found again ----


def test_the_same_picture_is_encoded_once_and_its_prefix_computed_once(seeing: Seeing, open_engine) -> None:
    engine = open_engine()
    requests = [seeing.request([5, 6], 1, [7 + i]) for i in range(3)]
    answers = run(engine, *requests)
    stats = engine.stats()
    assert stats["encoded_images"] == 1
    shared = 2 + 1 + seeing.num_tokens + 1
    assert [a.deltas[-1].spent.cached_tokens for a in answers] == [0, shared, shared]
    run(engine, seeing.request([5, 6], 1, [99]))  # of the cache, nothing is encoded
    run(engine, seeing.request([6, 5], 1, [7]))  # another beginning: of the encodings that are kept
    assert engine.stats()["encoded_images"] == 1
    (other,) = run(engine, seeing.request([5, 6], 1, [7], cache_salt=b"another tenant"))
    assert engine.stats()["encoded_images"] == 2 and other.outcome == answers[0].outcome


def test_nothing_is_shared_with_another_picture(seeing: Seeing, open_engine) -> None:
    engine = open_engine()
    first, second = run(engine, seeing.request([5, 6], 1, TEXT), seeing.request([5, 6], 2, TEXT))
    assert engine.stats()["encoded_images"] == 2
    assert second.deltas[-1].spent.cached_tokens <= 3  # the text before it, and the mark of a picture
    assert first.outcome != second.outcome
    (again,) = run(open_engine(), seeing.request([5, 6], 2, TEXT))
    assert again.outcome == second.outcome


def test_encodings_are_kept_within_a_budget(seeing: Seeing, open_engine) -> None:
    engine = open_engine()
    kept = engine.scheduler._images.encodings
    run(engine, seeing.request(1, TEXT))
    one = kept.nbytes
    kept.budget = 2 * one
    run(engine, *(seeing.request([9, number], number, TEXT) for number in (1, 2, 3)))
    assert kept.nbytes == 2 * one and engine.stats()["encoded_images"] == 3
    run(engine, seeing.request([7], 3, TEXT))
    assert engine.stats()["encoded_images"] == 3
    run(engine, seeing.request([7], 1, TEXT))
    assert engine.stats()["encoded_images"] == 4
    kept.budget = 0  # whoever needs one holds it meanwhile
    (answer,) = run(engine, seeing.request([8], 1, 2, TEXT))
    assert answer.reason == "length" and kept.nbytes <= 2 * one


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 8)), max_size=30), st.integers(0, 300))
def test_the_latest_encodings_are_kept(uses: list[tuple[int, int]], budget: int) -> None:
    kept, model = Encodings(budget), {}
    for name, size in uses:
        key = b"", bytes([name]) * 16
        found = kept.get(key)
        assert (found is None) == (name not in model)
        if found is None:
            made = Encoding(np.zeros((size, 4), np.uint16), np.zeros((0, size, 4), np.float32))
            kept.put(key, made)
            model[name] = made.nbytes
        else:
            model[name] = model.pop(name)
        while sum(model.values()) > budget:
            del model[name if model[name] > budget else next(iter(model))]
        assert kept.nbytes == sum(model.values())


# ---- in turns ----


def test_pictures_and_passes_of_others_take_turns(seeing: Seeing, open_engine) -> None:
    engine = open_engine()
    stream = begin(engine, seeing.request(TEXT, max_tokens=60))
    while stream.num_tokens < 3:
        engine.step()
    pictures = begin(engine, seeing.request([5], 1, 2, 3, TEXT, max_tokens=2))
    last = None
    while pictures.reason is None:
        before = engine.stats()
        engine.step()
        after = engine.stats()
        encoded, passes = after["encoded_images"] - before["encoded_images"], after["steps"] - before["steps"]
        assert encoded + passes == 1
        assert not (encoded and last == "encode" and stream.reason is None), (
            "two pictures in a row while somebody waits for his next token"
        )
        last = "encode" if encoded else "pass"
    assert engine.stats()["encoded_images"] == 3
    finish(engine)
    assert stream.reason == "length"


def test_alone_all_its_pictures_come_as_their_tokens_do(seeing: Seeing, open_engine) -> None:
    engine = open_engine()
    begin(engine, seeing.request([5] * 20, 1, 2, TEXT))
    engine.step()
    assert engine.stats()["encoded_images"] == 0, "the first chunk has no token of a picture"
    finish(engine)
    assert engine.stats()["encoded_images"] == 2


# ---- on the card ----


def test_without_pictures_passes_cost_what_they_cost_anyway(seeing: Seeing, open_engine) -> None:
    program = open_engine().model.program
    layers, hidden = program.num_layers, program.shape.hidden

    def report(token: int) -> dict:
        step = Step(CHUNK)
        step.reset(1)
        step.add_tokens([5, token], 0, [0, 1], step.add_view(0, 0))
        if token < 0:
            row = np.ones((1, hidden), np.uint16)
            step.images = ImageRows(np.array([1], np.int32), row, np.ones((3, 1, hidden), np.float32))
        Emulator().reset_counters()
        program.run(step)
        return Emulator().report()

    text, image = report(6), report(-6)
    assert text["submissions"] == 3 + layers + 2 * layers and text["waits"] == 1
    assert text["bytes"]["h2d"] == CHUNK * (2 * CHUNK + 4 * 3 + 2 * hidden)
    assert image["submissions"] == text["submissions"] + 2 * 3 and image["waits"] == 1 + 3
    assert image["bytes"]["d2h"] - text["bytes"]["d2h"] == 3 * 2 * 2 * hidden


def test_the_encoder_is_loaded_first_and_counted(seeing: Seeing, open_engine, monkeypatch) -> None:
    package, loaded = open_package(seeing.package), []

    def load(card: Card, path: Path) -> LoadedModel:
        loaded.append(path)
        return LoadedModel(card, path)

    monkeypatch.setattr(card_models, "LoadedModel", load)
    open_engine()
    assert loaded == [package.vision.encoder, package.head_file, *package.layer_files]
    files = (*package.layer_files, package.head_file, package.vision.encoder)
    assert package.device_bytes == sum(path.stat().st_size for path in files)
    assert expected_bytes(package, 1)[0] > package.device_bytes


@pytest.mark.parametrize("call", ["axclrtEngineExecute@1=fail:0x8030070c", "axclrtMemset@1=fail:0x80300501",
                                  "axclrtMemcpy@1=fail:0x80300501", "device=offline@1"])  # fmt: skip
def test_a_card_that_fails_in_the_encoder(seeing: Seeing, open_engine, call: str) -> None:
    request = seeing.request([5], 1, TEXT)
    (expected,) = run(open_engine(), request)
    engine = open_engine()
    answer = begin(engine, request)
    Emulator().set("faults", call)
    finish(engine)
    assert answer.outcome == expected.outcome and sum(engine.ladder.rungs.values()) == 1
    (again,) = run(engine, seeing.request([5], 2, TEXT))
    assert again.reason == "length"


def test_nonsense_of_the_encoder_is_asked_for_again(seeing: Seeing, open_engine) -> None:
    request = seeing.request([5], 1, TEXT)
    (expected,) = run(open_engine(), request)
    engine = open_engine()
    for faults, rungs in (("nan@any:1", 0), ("nan@any:1; nan@any:2", 1)):
        engine.scheduler._images.encodings.clear()
        engine.scheduler.set_bank_rows(1, engine.info.context_length)
        answer = begin(engine, request)
        Emulator().set("faults", faults)
        finish(engine)
        assert answer.outcome == expected.outcome and sum(engine.ladder.rungs.values()) == rungs
    assert engine.stats()["repeated_passes"] == 3


def test_a_picture_of_which_nothing_but_nonsense_comes(seeing: Seeing, open_engine, monkeypatch) -> None:
    engine = open_engine()
    bad, good = begin(engine, seeing.request([5], 1, TEXT)), begin(engine, seeing.request(TEXT))
    original, nan = VisionEncoder.encode, np.full((16, 64), 0x7FC0, np.uint16)
    monkeypatch.setattr(VisionEncoder, "encode", lambda self, pixels: replace(original(self, pixels), rows=nan))
    finish(engine)
    assert bad.reason == "error" and "NaN" in bad.error and good.reason == "length"


def test_a_call_of_the_encoder_that_never_returns(seeing: Seeing, open_engine, monkeypatch) -> None:
    for name in ("FIRST_SECONDS", "HOST_FLOOR_SECONDS"):
        monkeypatch.setattr(image_runner, name, 0.5)
    request = seeing.request([5], 1, TEXT)
    (expected,) = run(open_engine(), request)
    engine = open_engine(threaded=True)
    Emulator().set("faults", "axclrtEngineExecute@1=block")
    assert begin(engine, request).wait().outcome == expected.outcome
    assert engine.ladder.rungs["reopen"] == 1
    Emulator().set("faults", "")  # lets the thread that hangs go


def test_rows_that_lie_too_high_come_down(seeing: Seeing, open_engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no chunk reaches, pictures on three axes cannot be placed."""
    request = seeing.request([5, 6], 1, TEXT, max_tokens=3)
    (expected,) = run(open_engine(), request)
    engine = open_engine(drafts=False)
    (bank,), reach = engine.scheduler.banks, engine.scheduler.costs.reach
    monkeypatch.setattr(engine.scheduler._compactors[0], "pack", lambda planned: False)  # nobody comes down by himself
    monkeypatch.setattr(image_runner.ImageRunner, "others_first", False)
    stream = begin(engine, seeing.request([50] * 10, max_tokens=60))
    while not stream.num_tokens:
        engine.step()
    begun = begin(engine, request)
    while not (seen := [s for s in bank.sequences if s.images is not None and s.num_cached]):
        engine.step()
    (seen,) = seen
    free = np.flatnonzero(~bank.pool.held)
    high = free[-len(seen.rows) :].astype(np.int32)
    bank.relocate([Moves(np.sort(np.array(seen.rows, np.int32)), high)])
    assert seen.needs_chunk and seen.high > reach
    finish(engine)
    assert begun.outcome == expected.outcome and stream.reason == "length"
    assert engine.stats()["moved_rows"] >= 2 * len(high)


def test_a_background_picture_alone_among_others_prefixes_ends(seeing: Seeing, open_engine, monkeypatch) -> None:
    """It may push nothing out that others may go on from; but nobody is to wait for ever."""
    monkeypatch.setattr(bank_selection, "HEADROOM", 2)
    monkeypatch.setattr(image_runner.ImageRunner, "others_first", True)
    engine = open_engine(max_running=6)
    monkeypatch.setattr(engine.scheduler.costs, "observe", lambda *measured: None)
    costs = engine.scheduler.costs
    costs.set(Costs(tuple(1.0 if g.width == 1 else 1 + g.history / 100 for g in costs.groups), 0.1, costs.copy))
    requests = pool(seeing, POOL, ROWS)
    requests[4] = replace(requests[4], low_priority=True)
    answers = run(engine, *(requests[i] for i in (2, 0, 4, 11)))
    assert [answer.reason for answer in answers] == ["length"] * 4


# ---- several cards ----


def test_over_two_cards_and_on_either_of_two(seeing: Seeing, open_engine) -> None:
    requests = [seeing.request([5], 1, TEXT), seeing.request([5], 2, TEXT), seeing.request(TEXT)]
    expected = [answer.outcome for answer in run(open_engine(), *requests)]
    split = open_engine(split=(0, 1), banks=2)
    assert [answer.outcome for answer in run(split, *requests)] == expected and split.stats()["encoded_images"] == 2
    takes = split.encoder_input
    split.close()
    group = EngineGroup.open(seeing.package, ["emu:0", "emu:1"], "none", settings={"devices": "2"}, banks=1)
    try:
        assert group.encoder_input == takes
        answers = [begin(group, request) for request in requests]
        assert [answer.wait().outcome for answer in answers] == expected
    finally:
        group.close()


# ---- what is refused ----

WRONG = {
    "pixels of another dtype": (lambda i: {"pixels": i.pixels.astype(np.float32)}, r"image 1 of 1: pixels .*float32"),
    "pixels of another size": (
        lambda i: {"pixels": i.pixels[:-1]},
        r"pixels \[63, 128, 3\] of uint8; .*\[64, 128, 3\]",
    ),
    "too few tokens": (lambda i: {"num_tokens": 15}, "15 tokens as 4 x 4; the vision encoder gives 16"),
    "another grid": (lambda i: {"grid": (3, 5)}, "a grid of 3 x 5 is not one of 16 tokens"),
    "no grid": (lambda i: {"grid": (0, 16)}, "16 tokens as 0 x 16"),
    "before the prompt": (lambda i: {"start": -1}, "start -1"),
    "behind the prompt": (lambda i: {"start": 9}, "the prompt ends with an image, at token 25 of 23"),
    "at its end": (lambda i: {"start": 7}, "the prompt ends with an image, at token 23 of 23"),
    "a short digest": (lambda i: {"digest": b"short"}, "a digest of 5 bytes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_picture_that_does_not_fit_is_refused_by_name(seeing: Seeing, open_engine, case: str) -> None:
    engine, request = open_engine(), seeing.request(1, [*TEXT, 44])
    changes, said = WRONG[case]
    (image,) = request.images
    with pytest.raises(RequestError, match=said):
        begin(engine, replace(request, images=(replace(image, **changes(image)),)))


def test_pictures_that_overlap_or_come_too_late_are_refused(seeing: Seeing, open_engine) -> None:
    engine, request = open_engine(), seeing.request(1, 2, TEXT)
    first, second = request.images
    for images in ((first, replace(second, start=first.start + 5)), (second, first)):
        with pytest.raises(RequestError, match=r"image 2 begins at token .*: they overlap"):
            begin(engine, replace(request, images=images))
    with pytest.raises(ContextOverflow, match="this model takes them up to token 81"):
        begin(engine, seeing.request([5] * 70, 1, TEXT, max_tokens=1))


def test_models_without_eyes_and_cards_without_chunks_take_none(seeing: Seeing, open_engine, tmp_path) -> None:
    with pytest.raises(RequestError, match="--exact"):
        begin(open_engine(exact=True), seeing.request(1, TEXT))
    engine = open_engine()
    engine.model.program.encoder, encoder = None, engine.model.program.encoder
    with pytest.raises(RequestError, match="takes no images"):
        begin(engine, seeing.request(1, TEXT))
    engine.model.program.encoder = encoder


# ---- ids and positions ----


@given(st.data())
def test_positions_on_three_axes(data) -> None:
    """As transformers' get_rope_index, said anew: token by token."""
    parts = data.draw(
        st.lists(st.one_of(st.integers(1, 5), st.tuples(st.integers(1, 4), st.integers(1, 4))), max_size=6)
    )
    images, expected, index, base = [], [], 0, 0
    for part in parts:
        if isinstance(part, int):
            expected += [(base + i,) * 3 for i in range(part)]
            index, base = index + part, base + part
            continue
        rows, columns = part
        images.append(ImageInput(index, rows * columns, part, np.zeros(1, np.uint8), b""))
        expected += [(base, base + r, base + c) for r in range(rows) for c in range(columns)]
        index, base = index + rows * columns, base + max(part)
    expected.append((base,) * 3)
    assert axis_positions(index, images).T.tolist() == [list(each) for each in expected]


def test_ids_of_pictures_tell_them_apart(seeing: Seeing) -> None:
    request = seeing.request([5], 1, TEXT)
    tokens = keyed_tokens(request)
    (image,) = request.images
    ids = tokens[image.start : image.start + 16]
    assert max(ids) < 0 and len(set(ids)) == 16 and keyed_tokens(seeing.request(1, TEXT))[1:17] == ids
    assert [t for t in tokens if t >= 0] == [5, 301, 302, *TEXT]
    for change in ({"digest": b"1" * 16}, {"grid": (2, 8)}):
        other = keyed_tokens(replace(request, images=(replace(image, **change),)))
        assert not set(other) & set(ids)
