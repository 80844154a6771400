"""Load-time probes: what this card can be trusted with, and what each group costs on it.

Every probe compares what two ways of doing the same passes left behind, in every group they concern (probe_passes.py).
An inconclusive one chooses the conservative way: it costs time, never a wrong token."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from ..errors import FailureKind, RuntimeCallError
from .backend import Costs, Modes
from .probe_passes import MIN_ROWS, Deadline, Left, ProbePasses
from .probe_states import probe_state_chunks
from .program import Program
from .split_program import SplitProgram

log = logging.getLogger(__name__)

ALIGNMENT = 2048  # bytes: the offsets at which outputs inside a cache were seen to work on cards
TIMINGS = 3  # of each figure, the shortest counts: the host may be busy, and a pause of its own doubles one
NOTICEABLE = 0.5  # share of a chunk's time that an empty one must save to be believed: cards save nothing
CLOSE = 0.05  # of the largest value: how far a chunk's K, V and logits may be from decode's


def probe(program: Program | SplitProgram, deadline: Deadline) -> tuple[Modes, Costs]:
    """Probes the modes, sets them on the program, measures costs and logs both. The bank's rows hold garbage
    afterwards: finite, and nobody sees a row before it is written.

    StepTimeout says during which probe the card did not answer."""
    modes = _probe_modes(program, deadline)
    program.set_modes(use_async=modes.use_async, in_place_decode=modes.in_place_decode)
    log.info(
        "probes: async %s, decode rows %s, prompts %s",
        "honoured" if modes.use_async else "not usable, synchronous calls instead",
        "written in place" if modes.in_place_decode else "copied into the cache",
        "token by token"
        if not modes.chunks
        else "in full chunks"
        if program.num_states and not modes.padding
        else "in chunks",
    )
    costs = measure(program, deadline)
    _log_costs(program, modes, costs)
    return modes, costs


def _probe_modes(program: Program | SplitProgram, deadline: Deadline) -> Modes:
    if program.groups[0].history < MIN_ROWS:
        log.warning("caches of %d rows are too small for probes: everything is done the slow way", program.bank_rows)
        return Modes()
    passes = ProbePasses(program, deadline)
    first = passes.begin()
    decodes, chunks = _groups(program)
    plain = {g: passes.decode(g, Modes()) for g in decodes}
    if not all(left.says_something() for left in (first, *plain.values())):
        log.warning("decoding left K, V or logits that are all zero, not finite, or equal for different tokens: probes"
                    " prove nothing with this model, everything is done the slow way")  # fmt: skip
        return Modes()
    if chunks:
        plain[chunks[-1]] = passes.chunk(chunks[-1], Modes())
    modes = Modes(use_async=_probe_async(passes, plain))
    if not isinstance(program, Program) or not program.num_states:
        modes = replace(modes, chunks=_probe_chunks(passes, modes, plain[decodes[-1]], first))
        return replace(modes, in_place_decode=_probe_in_place(passes, plain, modes))
    modes = replace(modes, in_place_decode=_probe_in_place(passes, plain, modes))
    passes.set_modes(modes)
    usable, padding = probe_state_chunks(program, deadline, CLOSE)  # last: it leaves other rows than the passes above
    return replace(modes, chunks=usable, padding=padding)


def _groups(program: Program | SplitProgram) -> tuple[range, range]:
    """Numbers of the decode groups and of the chunk groups."""
    return range(len(program.shape.decode)), range(len(program.shape.decode), len(program.groups))


def _log_costs(program: Program | SplitProgram, modes: Modes, costs: Costs) -> None:
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


def measure(program: Program | SplitProgram, deadline: Deadline) -> Costs:
    """Times the first layers of every group, the head, and a row's move."""

    def layers(group: int, num_tokens: int) -> float:
        with deadline(f"the timing of group {group}"):
            seconds = min(program.time_layers(group, num_tokens, deadline.timeout_ms) for _ in range(TIMINGS))
        return seconds * program.num_attention

    states = [_time_states(program, deadline, number) for number in (0, len(program.groups) - 1)]
    own = [states[0] if group.width == 1 else states[1] for group in program.groups]
    groups = [layers(number, group.width) + own[number] for number, group in enumerate(program.groups)]
    empty = 0.0
    for chunk in _groups(program)[1][:1]:
        saved = groups[chunk] - own[chunk] - layers(chunk, 1)
        if saved > NOTICEABLE * groups[chunk]:
            empty = saved / (program.groups[chunk].width - 1)
    with deadline("the timing of the head"):
        head = min(program.time_head(deadline.timeout_ms) for _ in range(TIMINGS))
    with deadline("the timing of a row's move"):
        copy = min(_time_move(program, deadline.timeout_ms) for _ in range(TIMINGS))
    return Costs(tuple(groups), head, copy, empty, *states)


def _time_states(program: Program | SplitProgram, deadline: Deadline, group: int) -> float:
    """Seconds that one text's recurrent layers take of a pass of this group."""
    if not isinstance(program, Program) or not program.num_states:
        return 0.0
    width = program.groups[group].width
    with deadline(f"the timing of recurrent layers in group {group}"):
        seconds = min(program.time_layers(group, width, deadline.timeout_ms, True) for _ in range(TIMINGS))
    return seconds * (program.num_layers - program.num_attention)


def _time_move(program: Program | SplitProgram, timeout_ms: int) -> float:
    start = time.perf_counter()
    program.move_rows(0, np.array([0], np.int32), np.array([1], np.int32), timeout_ms)
    return time.perf_counter() - start


@contextmanager
def _refusal(what: str) -> Iterator[None]:
    """Lets errors pass that say no more than that the card does not do this; others end the loading."""
    try:
        yield
    except RuntimeCallError as error:
        if error.kind is not FailureKind.CARD_FAILED:
            raise
        log.warning("the runtime does not take %s (%s)", what, error)


def _probe_async(passes: ProbePasses, plain: dict[int, Left]) -> bool:
    """Whether passes submitted to the stream leave the bytes of the same passes run call by call: in the groups of
    `plain`, which are decode's and the deepest of chunks. The other chunks are compared with decode afterwards."""
    if not passes.program.card.has_async:
        return False
    for group, expected in plain.items():
        left = None
        with _refusal("asynchronous work"):
            left = _run(passes, group, Modes(use_async=True))
        if left is None or not left.equals(expected):
            return False
    return True


def _probe_in_place(passes: ProbePasses, plain: dict[int, Left], modes: Modes) -> bool:
    """Whether K/V outputs bound into the cache leave there what a copy does, and nothing beside it, in every decode
    group. Not asked where rows are no multiple of what is known to work on cards."""
    program = passes.program
    nbytes = 2 * program.shape.kv_dim
    if nbytes % ALIGNMENT:
        log.info("rows of %d bytes are no multiple of %d: copied, not written in place", nbytes, ALIGNMENT)
        return False
    for group in _groups(program)[0]:
        left = None
        with _refusal("K/V outputs inside the cache"):
            left = passes.decode(group, replace(modes, in_place_decode=True))
        if left is None or not left.equals(plain[group]):
            return False
    return True


def _probe_chunks(passes: ProbePasses, modes: Modes, decoded: Left, first: Left) -> bool:
    """Whether every chunk group gives what decode gives, but for rounding: some narrow ones leave their hidden state
    unwritten. `decoded` is the reference over history, `first` that without. False where there is no chunk group."""
    program = passes.program
    chunks = _groups(program)[1]
    exact = True
    for group in chunks:
        distance = (decoded if passes.has_history(group) else first).distance(passes.chunk(group, modes))
        width, history = program.groups[group].width, program.groups[group].history
        if not distance <= CLOSE:
            log.warning("chunks of %d tokens over %d rows give another result than decode on this card (a difference of"
                        " %.3g of the largest value): prompts go token by token", width, history, distance)  # fmt: skip
            return False
        exact = exact and distance == 0
    if not exact:
        log.warning("chunks and decode differ in the last bits on this card: answers may depend on how a prompt was"
                    " split")  # fmt: skip
    return bool(chunks)


def _run(passes: ProbePasses, group: int, modes: Modes) -> Left:
    run = passes.decode if passes.program.groups[group].width == 1 else passes.chunk
    return run(group, modes)
