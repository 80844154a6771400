"""Experiments that compare bytes: executes in a stream against single ones, chunks against decodes, rows in place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...errors import RuntimeCallError
from .bench import WAIT_MS, Bench, queue_us
from .layer_rig import UNWRITTEN, LayerRig, Shape, Written, decode, random_rows
from .models import some_layers

COMPARED = 16  # tokens of a chunk that are also decoded one by one
ALIGNMENT = 2048  # bytes: offsets that are known to work on a card are multiples


def queued_executes(bench: Bench) -> None:
    """Whether a decode that is submitted to the stream leaves the bytes of one that is waited for, and whether
    submitting comes back before the work is done."""
    with bench.card() as card:
        _, (layer,) = bench.load(card, 0)
        rig = LayerRig(card, layer)
        group, rows = rig.decode[-1], random_rows(1, rig.hidden)
        expected = rig.run(group, rows, 0, (0, 0))
        if not card.has_async:
            bench.found(executes_async="not exported")
            return
        rig.feed(group, rows, 0, (0, 0))
        for i in rig.out.values():
            rig.output(group, i).fill(UNWRITTEN)
        try:
            rig.binding(group).submit()
            card.wait(WAIT_MS)
        except RuntimeCallError as error:
            bench.found(executes_async=f"refused 0x{error.code:08x}")
            return
        bench.found(executes_async="works" if _same(rig.read(group, 1), expected) else "other bytes")
        slowest = rig.binding((rig.chunks or rig.decode)[-1])
        cost = queue_us(slowest.submit, lambda: card.wait(WAIT_MS), 1, 4)
        bench.found(submitting=_submitting(cost["submit_us"], cost["each_us"]))


def _submitting(held_us: float, each_us: float) -> str:
    """When a submission comes back, from how long the slowest group holds its caller and how long it takes."""
    if each_us < 500:
        return "unclear: too fast to tell"
    return "at once" if held_us < each_us / 3 else "when the work is done"


def _same(a: Written, b: Written) -> bool:
    return all(np.array_equal(x, y) for x, y in ((a.k, b.k), (a.v, b.v), (a.hidden, b.hidden)))


def chunks(bench: Bench) -> None:
    """Chunk groups against decodes of the same tokens, in the first, middle and last layer: without history, and over
    it. And decode groups against each other."""
    with bench.card() as card:
        numbers = some_layers(bench)
        _, layers = bench.load(card, *numbers)
        for number, layer in zip(numbers, layers, strict=True):
            bench.report.step(f"comparing layer {number}")
            bench.found(**{f"layer_{number}": _compare(LayerRig(card, layer))})


def _compare(rig: LayerRig) -> dict[str, Any]:
    found: dict[str, Any] = {"decode_groups": _decode_groups(rig)}
    if not rig.chunks:
        return found
    width = rig.chunks[0].width
    rows = random_rows(width + COMPARED, rig.hidden)
    first = [g for g in rig.chunks if g.history == 0][:1]
    later = [g for g in rig.chunks if g.history >= width and rig.rows >= width + COMPARED][:1]
    compared = min(COMPARED, width)
    alone = _decode_each(rig, rows[: width if later else compared], 0)
    if first:
        found["first_chunk"] = _difference(rig, rig.run(first[0], rows[:width], 0, (0, 0)), alone)
    if later:
        chunk = rig.run(later[0], rows[width:], width, (0, width))
        found["later_chunk"] = _difference(rig, chunk, _decode_each(rig, rows[width:], width))
    return found


def _decode_each(rig: LayerRig, rows: np.ndarray, start: int) -> list[Written]:
    """The rows one by one from position `start` on, each over all before it; K and V are stored where they belong."""
    group = rig.decode[-1]
    made = []
    for i, row in enumerate(rows):
        made.append(rig.run(group, row[None], start + i, (0, start + i)))
        rig.store(start + i, made[-1])
    return made


def _difference(rig: LayerRig, chunk: Written, alone: list[Written]) -> dict[str, Any]:
    """Of the first tokens: which share of bytes differ, the largest difference of the hidden state against its largest
    value, and whether the chunk has written it at all."""
    count = min(COMPARED, len(alone), len(chunk.k))
    found: dict[str, Any] = {}
    for name in ("k", "v", "hidden"):
        ours = getattr(chunk, name)[:count]
        theirs = np.concatenate([getattr(one, name) for one in alone[:count]])
        found[f"{name}_bytes_differ"] = round(float(np.mean(ours != theirs)), 4)
    dtype = rig.model.outputs[rig.out["output"]].dtype
    a, b = decode(chunk.hidden[:count], dtype), decode(np.concatenate([one.hidden for one in alone[:count]]), dtype)
    found["hidden_written"] = not bool((chunk.hidden[:count] == UNWRITTEN).all())
    with np.errstate(invalid="ignore", over="ignore"):
        difference = float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-9))
    found["hidden_difference"] = round(difference, 5) if np.isfinite(difference) else "not finite"
    return found


def _decode_groups(rig: LayerRig) -> dict[str, bool]:
    """Whether each decode group gives the same bytes as the one with the largest cache."""
    rows = random_rows(1, rig.hidden)
    expected = rig.run(rig.decode[-1], rows, 0, (0, 0))
    return {str(group.history): _same(rig.run(group, rows, 0, (0, 0)), expected) for group in rig.decode}


def in_place(bench: Bench) -> None:
    """K and V outputs bound into the cache: for each decode group rows 0, 1, 2, an odd one and the last, by how their
    offset is aligned; one offset between rows; a chunk's rows."""
    with bench.card() as card:
        _, (layer,) = bench.load(card, 0)
        rig = LayerRig(card, layer)
        found: dict[str, Any] = {"row_bytes": rig.row_bytes}
        aligned = ALIGNMENT // math.gcd(ALIGNMENT, rig.row_bytes)  # the first such row but row 0
        for group in rig.decode:
            last = group.history - 1
            found[f"decode_{group.history}"] = {
                str(row): {
                    "multiple_of_2k": row * rig.row_bytes % ALIGNMENT == 0,
                    "result": _row(bench, rig, group, row * rig.row_bytes),
                }
                for row in sorted({0, 1, 2, aligned, last // 2 | 1, last})
                if row <= last
            }
            bench.found(**found)
        between = rig.row_bytes + 64
        found["between_rows"] = {
            "multiple_of_2k": between % ALIGNMENT == 0,
            "result": _row(bench, rig, rig.decode[-1], between),
        }
        first = [g for g in rig.chunks if g.history == 0 and 2 * g.width <= rig.rows][:1]
        if first:
            found["chunk"] = {"result": _row(bench, rig, first[0], first[0].width * rig.row_bytes)}
        bench.found(**found)


def _row(bench: Bench, rig: LayerRig, group: Shape, offset: int) -> str:
    """ "works", "lost" (the cache holds what it held), "elsewhere" (other bytes of the cache changed), or "refused"."""
    bench.report.step(f"binding outputs at byte {offset} of the cache, group {group.index}")
    rows = random_rows(group.width, rig.hidden)
    rig.binding(group)
    rig.bind_rows(group, None)
    expected = rig.run(group, rows, 0, (0, 0))
    for cache in (rig.k, rig.v):
        cache.fill(UNWRITTEN)  # a finite number, in bf16 and in fp16
    before = rig.k.read("uint8"), rig.v.read("uint8")
    try:
        rig.bind_rows(group, offset)
        rig.feed(group, rows, 0, (0, 0))
        rig.binding(group).execute()
    except RuntimeCallError as error:
        return f"refused 0x{error.code:08x}"
    finally:
        rig.bind_rows(group, None)
    results = set()
    for cache, old, new in zip((rig.k, rig.v), before, (expected.k, expected.v), strict=True):
        wanted = old.copy()
        wanted[offset : offset + new.size] = new.reshape(-1)
        now = cache.read("uint8")
        results.add("works" if np.array_equal(now, wanted) else "lost" if np.array_equal(now, old) else "elsewhere")
    return results.pop() if len(results) == 1 else "K and V differ"
