"""Load-time probes: what this card can be trusted with, and what each group costs on it.

Every probe compares bytes that two ways of doing the same step left behind. An inconclusive one chooses the
conservative way: it costs time, never a wrong token."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import numpy as np

from ..errors import RuntimeCallError
from .backend import Costs, Modes
from .program import Program
from .step import Step

log = logging.getLogger(__name__)


def probe(program: Program) -> tuple[Modes, Costs]:
    """Probes the modes, sets them on the program, measures costs and logs both. The bank's rows hold garbage
    afterwards: finite, and nobody sees a row before it is written."""
    modes = Modes()
    _set(program, modes)
    modes = replace(modes, use_async=_probe_async(program))
    _set(program, modes)
    modes = replace(modes, in_place_decode=_probe_in_place(program, modes))
    if program.shape.chunks and program.bank_rows >= 2 * program.shape.chunks[0].width:
        modes = replace(modes, chunks=_probe_chunk(program))
    _set(program, modes)
    log.info(
        "probes: async %s, decode rows %s, prompts %s",
        "honoured" if modes.use_async else "not usable, synchronous calls instead",
        "written in place" if modes.in_place_decode else "copied into the cache",
        "in chunks" if modes.chunks else "token by token",
    )
    costs = measure(program)
    _log_costs(program, modes, costs)
    return modes, costs


def _log_costs(program: Program, modes: Modes, costs: Costs) -> None:
    """One line for everybody, each group for who looks closer."""
    for group, seconds in zip(program.groups, costs.groups, strict=True):
        log.debug(
            "cost: group %d, %d wide over %d rows: %.2f ms", group.index, group.width, group.history, seconds * 1e3
        )
    log.debug("cost: moving a row %.2f ms", costs.copy * 1e3)
    decode = len(program.shape.decode) - 1  # the deepest
    parts = [f"decode {costs.groups[decode] * 1e3:.2f} ms over {program.groups[decode].history} rows"]
    if modes.chunks:
        first, last = costs.groups[decode + 1] * 1e3, costs.groups[-1] * 1e3
        parts.append(f"chunks of {program.groups[-1].width} {first:.1f} to {last:.1f} ms")
    parts.append(f"head {costs.head * 1e3:.2f} ms")
    log.info("%s: %s", "emulated card" if program.card.emulated else "measured", ", ".join(parts))


def measure(program: Program) -> Costs:
    """Times the first layers of every group, the head, and a row's move."""
    groups = tuple(program.time_layers(i) * program.num_layers for i in range(len(program.groups)))
    head, start = program.time_head(), time.perf_counter()
    program.move_rows(0, np.array([0], np.int32), np.array([1], np.int32))
    return Costs(groups, head, time.perf_counter() - start)


def _set(program: Program, modes: Modes) -> None:
    program.set_modes(use_async=modes.use_async, in_place_decode=modes.in_place_decode)


def _probe_async(program: Program) -> bool:
    """Whether a step submitted to the stream gives the bytes of the same step run call by call."""
    if not program.card.has_async:
        return False
    program.run(_decode_step(row=0))
    expected = program.logits(0).tobytes()
    _set(program, Modes(use_async=True))
    program.clear_logits(0)
    try:
        program.run(_decode_step(row=1))
    except RuntimeCallError as error:
        log.warning("the runtime does not take asynchronous work (%s)", error)
        return False
    return program.logits(0).tobytes() == expected


def _probe_in_place(program: Program, modes: Modes) -> bool:
    """Whether K/V outputs bound into the cache leave the same row there as a copy does, in every layer.

    Tried at row 1: where rows are no multiples of what the card aligns to, row 0 would say nothing."""
    program.run(_decode_step(row=0))
    copied = _row(program, 0)
    _erase(program, 1)
    _set(program, replace(modes, in_place_decode=True))
    try:
        program.run(_decode_step(row=1))
        written = _row(program, 1)
    except RuntimeCallError as error:
        log.info("the runtime refuses K/V outputs inside the cache (%s)", error)
        written = b""
    finally:
        _set(program, modes)
    return written == copied and any(copied)


def _probe_chunk(program: Program) -> bool:
    """Whether a chunk's hidden state is worth anything: some narrow groups leave it unwritten. Compares the last
    layer's K and V of one token with those that decode gives."""
    width = program.shape.chunks[0].width
    program.run(_decode_step(row=width))
    program.run(_chunk_step(program))
    alone, chunk = _row(program, width), _row(program, 0)
    if alone == chunk:
        return True
    a, b = (np.frombuffer(x, np.uint16).astype(np.uint32) << 16 for x in (alone, chunk))
    a, b = a.view(np.float32), b.view(np.float32)
    close = bool(np.isfinite(b).all() and np.abs(a - b).max() <= 0.05 * np.abs(a).max())
    if close:
        log.warning(
            "chunks and decode differ in the last bits on this card: answers may depend on how a prompt was split"
        )
    else:
        log.warning(
            "chunk groups of %d tokens give a wrong hidden state on this card: prompts go token by token", width
        )
    return close


def _decode_step(row: int) -> Step:
    step = Step(1)
    step.reset(0)
    step.add(0, 0, row, -1, step.add_view(0, 0), True)
    return step


def _chunk_step(program: Program) -> Step:
    group = len(program.shape.decode)
    width = program.groups[group].width
    step = Step(width)
    step.reset(group)
    step.add_chain(range(width), 0, 0, step.add_view(0, 0))
    return step


def _row(program: Program, row: int) -> bytes:
    """K and V of one row of the first and the last layer."""
    nbytes = 2 * program.shape.kv_dim
    parts = [
        buffer.read("uint8", nbytes, row * nbytes)
        for layer in {0, program.num_layers - 1}
        for buffer in program.kv_buffers(0, layer)
    ]
    return b"".join(p.tobytes() for p in parts)


def _erase(program: Program, row: int) -> None:
    nbytes = 2 * program.shape.kv_dim
    for layer in range(program.num_layers):
        for buffer in program.kv_buffers(0, layer):
            buffer.write(np.zeros(nbytes, np.uint8), row * nbytes)
