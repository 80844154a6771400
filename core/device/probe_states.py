"""Probes of recurrent layers: whether a chunk leaves the state that its tokens leave one by one, also a chunk that is
not full."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backend import FIRST_STATE_SLOT
from .probe_passes import Deadline, choose_tokens, difference
from .program import Program
from .step import Step

log = logging.getLogger(__name__)

BEFORE = 4  # tokens of a text, one by one, before the chunk
PADDED = 4  # tokens of a chunk that is not full


@dataclass(frozen=True)
class Told:
    """What passes of one text left: K and V of all its tokens in all layers with attention, and what the head gives of
    the last, which the state decides."""

    rows: NDArray[np.uint16]
    logits: NDArray[Any]

    def distance(self, other: Told) -> float:
        """The largest difference of `other`, as a part of the largest value; infinite where it is not finite."""
        return max(difference(self.rows, other.rows), difference(self.logits, other.logits))


def probe_state_chunks(program: Program, deadline: Deadline, close: float) -> tuple[bool, bool]:
    """Whether chunks can be used at all, and whether also those that are not full: results no further apart than
    `close` from those of tokens one by one, in every chunk group."""
    passes = _Texts(program, deadline)
    chunks = range(len(program.shape.decode), len(program.groups))
    if not chunks or program.num_states < FIRST_STATE_SLOT + 2:
        return False, False
    if all(passes.agrees(group, PADDED, close) for group in chunks):
        return True, True
    log.warning("a chunk that is not full spoils the state of recurrent layers on this card: only full ones are used,"
                " and the rest of a prompt goes token by token")  # fmt: skip
    if all(passes.agrees(group, program.groups[group].width, close) for group in chunks):
        return True, False
    log.warning("chunks leave another state than their tokens one by one on this card: prompts go token by token")
    return False, False


class _Texts:
    """Passes of one text after another in bank 0, from its first row on."""

    def __init__(self, program: Program, deadline: Deadline) -> None:
        self._program, self._deadline = program, deadline
        self._step = Step(max(group.width for group in program.groups))
        self._expected: dict[int, Told] = {}

    def agrees(self, group: int, count: int, close: float) -> bool:
        """Whether a chunk of so many tokens tells what they tell one by one."""
        program = self._program
        before = BEFORE if program.groups[group].history >= BEFORE else 0
        length = before + count + 1
        if length > program.shape.decode[0].history:
            return False
        if length not in self._expected:
            self._expected[length] = self._run([(0, 1)] * length)
        told = self._run([(0, 1)] * before + [(group, count), (0, 1)])
        distance = self._expected[length].distance(told)
        log.debug("chunk group %d with %d tokens: %.3g from one by one", group, count, distance)
        return distance <= close

    def _run(self, passes: list[tuple[int, int]]) -> Told:
        """Passes of (group, number of tokens); each continues the state that the one before it left."""
        program, step = self._program, self._step
        tokens = choose_tokens(program.table, sum(count for _, count in passes))
        done, slot, other = 0, 0, FIRST_STATE_SLOT
        for group, count in passes:
            step.reset(group)
            step.add_chain(tokens[done : done + count], done, done, step.add_view(0, done), True)
            step.add_part(0, count, slot, other)
            with self._deadline(f"the probe of states, {count} tokens in group {group}"):
                program.run(step, self._deadline.timeout_ms)
            done, slot, other = done + count, other, 2 * FIRST_STATE_SLOT + 1 - other
        size = done * program.shape.kv_dim
        with self._deadline("reading K and V back"):
            rows = [b.read("uint16", size) for i in range(program.num_attention) for b in program.kv_buffers(0, i)]
        return Told(np.array(rows), program.logits(0).copy())
