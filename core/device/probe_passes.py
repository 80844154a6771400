"""The passes that probes compare: several tokens over a history of several others, and what each pass leaves behind.

Where rows lie:

    rows                    hold
    0, 1, an odd one in     K and V of the four tokens that are compared; they and those beside them are zeroed before
    the middle, the last    each pass. The last is the bank's last row
    2 to 5                  the history: four other tokens, computed once; a pass reads the last of them from the far
                            end of what its group reads, to where it was moved
    6 to 8                  nothing: the zeros
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..model_files.embedding_file import EmbeddingTable
from .backend import Modes
from .program import Program
from .split_program import SplitProgram
from .step import Step

HISTORY = range(2, 6)
BLANK = range(6, 9)
NUM_TOKENS = 4  # compared in each pass, and as many in its history
MIN_ROWS = 32  # of the smallest decode group: the rows above are then different ones
MIN_HISTORY = BLANK[-1] + 4  # rows: there is then a far end
TRIES = 1024  # tokens looked at for rows that are not zero


class Deadline(Protocol):
    """Makes what runs inside it end, or be told of, in time: see load_watch.py."""

    timeout_ms: int

    def __call__(self, what: str) -> AbstractContextManager[None]:
        """`what` for people, as in "the card did not answer during ..."."""


@dataclass(frozen=True)
class Left:
    """What a pass left behind, as bf16 bits. `rows` uint16 [K and V of first, middle and last layer, token, D];
    `around` the same with the rows beside each; `logits` of the last token, in the head's dtype."""

    rows: NDArray[np.uint16]
    around: NDArray[np.uint16]
    logits: NDArray[Any]

    def says_something(self) -> bool:
        """Whether tokens left finite rows that are not zero and differ, and logits: else equality proves nothing."""
        finite = (self.rows & 0x7F80 != 0x7F80).all()
        told = (self.rows & 0x7FFF).any(axis=-1).all() and np.isfinite(_floats(self.logits)[self.logits != 0]).any()
        pairs = itertools.combinations(range(self.rows.shape[1]), 2)
        return bool(finite and told and all((self.rows[:, a] != self.rows[:, b]).any(axis=-1).all() for a, b in pairs))

    def equals(self, other: Left) -> bool:
        """Bit for bit, the rows beside included."""
        return np.array_equal(self.around, other.around) and np.array_equal(self.logits, other.logits)

    def distance(self, other: Left) -> float:
        """The largest difference of `other`, as a part of the largest value; the worst of K, V and logits. Infinite
        where `other` is not finite. `other` may have fewer tokens; logits count where it has them all."""
        count = other.rows.shape[1]
        pairs = list(zip(self.rows[:, :count], other.rows, strict=True))
        if count == self.rows.shape[1]:
            pairs.append((self.logits, other.logits))
        return max(difference(mine, its) for mine, its in pairs)


def _floats(values: NDArray[Any]) -> NDArray[np.float32]:
    return (values.astype(np.uint32) << 16).view(np.float32) if values.dtype == np.uint16 else values


def difference(mine: NDArray[Any], its: NDArray[Any]) -> float:
    """The largest difference of values (uint16: bf16 bits), as a part of the largest of `mine`; infinite where `its`
    are not finite."""
    a, b = _floats(mine), _floats(its)
    told = ~(np.isneginf(a) & np.isneginf(b))  # the logits that a trimmed head has not
    a, b = a[told], b[told]
    if not np.isfinite(b).all():
        return float("inf")
    return float(np.abs(a - b).max() / max(np.abs(a).max(), np.finfo(np.float32).tiny))


def choose_tokens(table: EmbeddingTable, count: int) -> list[int]:
    """Ids from all over the vocabulary whose embedding rows are finite, not zero and all different, as far as `TRIES`
    looks find such; then any others."""
    vocab = len(table)
    spread = dict.fromkeys(int(i * 0.6180339887 % 1 * vocab) for i in range(1, TRIES))
    found: dict[bytes, int] = {}
    for token in spread:
        row = table[token]
        if (row & 0x7FFF).any() and (row & 0x7F80 != 0x7F80).all():
            found.setdefault(row.tobytes(), token)
        if len(found) == count:
            break
    chosen = list(found.values())
    others = (token for token in itertools.cycle(range(vocab)) if token not in chosen or vocab < count)
    return chosen + list(itertools.islice(others, count - len(chosen)))


class ProbePasses:
    """Passes of bank 0. Each begins in the conservative modes, in which it lays out its rows, and runs in `modes`."""

    def __init__(self, program: Program | SplitProgram, deadline: Deadline) -> None:
        self.program, self._deadline = program, deadline
        tokens = choose_tokens(program.table, 2 * NUM_TOKENS)
        self._history, self._tokens = tokens[:NUM_TOKENS], tokens[NUM_TOKENS:]
        self._step = Step(max(group.width for group in program.groups))
        layers = sorted({0, program.num_attention // 2, program.num_attention - 1})
        self._kv = [buffer for layer in layers for buffer in program.kv_buffers(0, layer)]

    def begin(self) -> Left:
        """Computes the history, and returns what it left: the reference for passes without a history."""
        self.set_modes(Modes())
        for i, token in enumerate(self._history):
            self._decode(len(self.program.shape.decode) - 1, token, i, HISTORY[i], [(HISTORY[0], HISTORY[i])])
        return self._read(HISTORY)

    def decode(self, group: int, modes: Modes) -> Left:
        """The tokens one by one, over the history and each other, in a decode group."""
        rows = self.program.groups[group].history
        targets = self._targets(rows)
        view = self._lay_out(rows, targets)
        self.set_modes(modes)
        for i, (token, row) in enumerate(zip(self._tokens, targets, strict=True)):
            self._decode(group, token, NUM_TOKENS + i, row, view)
            if row < rows:
                view.append((row, row + 1))
        return self._read(targets)

    def has_history(self, group: int) -> bool:
        """Whether a chunk group reads enough rows for one; without, its tokens are those of the history."""
        return self.program.groups[group].history > MIN_HISTORY

    def chunk(self, group: int, modes: Modes) -> Left:
        """As many of the tokens as fit, in a chunk: in its first, its last and two slots between, as a chain. In the
        slots between are others, which have no rows and which nobody sees."""
        width, history = self.program.groups[group].width, self.program.groups[group].history
        targets = self._targets(self.program.bank_rows)
        view = self._lay_out(history, targets)
        targets = targets[:width]
        tokens, position = (self._tokens, NUM_TOKENS) if view else (self._history, 0)
        self.set_modes(modes)
        slots = {round(i * (width - 1) / max(len(targets) - 1, 1)): i for i in range(len(targets))}
        parent = self._begin_step(group, view)
        for slot in range(width):
            i = slots.get(slot)
            if i is None:
                self._step.add(tokens[slot % len(targets)], 0, -1, -1, 0, False)
            else:
                parent = self._step.add(tokens[i], position + i, targets[i], parent, 0, i == len(targets) - 1)
        self._run(group)
        return self._read(targets)

    def set_modes(self, modes: Modes) -> None:
        """Sets them on the program."""
        self.program.set_modes(use_async=modes.use_async, in_place_decode=modes.in_place_decode)

    def _targets(self, rows: int) -> list[int]:
        return [0, 1, rows // 2 | 1, self.program.bank_rows - 1]

    def _lay_out(self, history: int, targets: Sequence[int]) -> list[tuple[int, int]]:
        """Zeroes the targets and those beside them, moves the history's last row to the far end, and returns the
        history as runs."""
        self.set_modes(Modes())
        last = self.program.bank_rows - 1
        runs = [range(2), range(targets[2] - 1, targets[2] + 2), range(last - 2, last + 1)]
        zeroed = [row for run in runs for row in run]
        self._move([BLANK[i] for run in runs for i in range(len(run))], zeroed)
        if history <= MIN_HISTORY:
            return []
        far = next(row for row in range(history - 1, BLANK[-1], -1) if row not in zeroed)
        self._move([HISTORY[-1]], [far])
        return [(HISTORY[0], HISTORY[-1]), (far, far + 1)]

    def _move(self, old: Sequence[int], new: Sequence[int]) -> None:
        with self._deadline("moving rows"):
            self.program.move_rows(0, np.array(old, np.int32), np.array(new, np.int32), self._deadline.timeout_ms)

    def _decode(self, group: int, token: int, position: int, row: int, view: list[tuple[int, int]]) -> None:
        self._begin_step(group, view)
        self._step.add(token, position, row, -1, 0, True)
        self._run(group)

    def _begin_step(self, group: int, view: list[tuple[int, int]]) -> int:
        self._step.reset(group)
        self._step.add_view(0, 0)
        for run in view:
            self._step.extend_view(*run)
        return -1

    def _run(self, group: int) -> None:
        about = self.program.groups[group]
        how = "asynchronous" if self.program.use_async else "synchronous"
        kind = "decode" if about.width == 1 else f"chunk of {about.width}"
        self.program.clear_logits(0)
        with self._deadline(f"the probe of {how} calls, {kind} over {about.history} rows"):
            self.program.run(self._step, self._deadline.timeout_ms)

    def _read(self, rows: Sequence[int]) -> Left:
        """K and V of these rows, and of one row on each side or two on one."""
        kv_dim = self.program.shape.kv_dim
        starts = np.clip(np.array(rows) - 1, 0, self.program.bank_rows - 3)
        with self._deadline("reading K and V back"):
            read = [
                buffer.read("uint16", 3 * kv_dim, int(start) * 2 * kv_dim) for buffer in self._kv for start in starts
            ]
        around = np.array(read).reshape(len(self._kv), len(rows), 3, kv_dim)
        mine = around[:, np.arange(len(rows)), np.array(rows) - starts]
        return Left(mine, around, self.program.logits(0).copy())
