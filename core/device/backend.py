"""What the engine may know of what runs its passes, and what it was found to do at load.

Two things do: `Program` on the card, real or emulated, and `AxengineProgram` through the vendor's sessions. Both are
reached through `Backend` alone, and so can be a third."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .shape_groups import Group, LayerShape
from .step import Step
from .vision_encoder import VisionEncoder

FIRST_STATE_SLOT = 2  # of the states of recurrent layers: those before are the program's own, see state_layers.pyx


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of a whole pass by group (index as in `Backend.groups`, all layers, full, no head), of one head, and of
    moving one row to another place in all layers. `empty`: what a chunk saves for each token that it lacks; cards
    save nothing, the emulated one's arithmetic does. `state_decode` and `state_chunk`: what a text's recurrent layers
    take of a decode and of a chunk; a chunk of several texts takes it for each."""

    groups: tuple[float, ...]
    head: float
    copy: float = 0.0
    empty: float = 0.0
    state_decode: float = 0.0
    state_chunk: float = 0.0


@dataclass(frozen=True, slots=True)
class Modes:
    """What can be trusted. All False is the conservative fallback: synchronous calls, rows copied on the card, and
    prompts computed token by token. `padding`: a chunk with fewer tokens than it takes leaves a recurrent layer's state
    as if it had no others; else such chunks are full, or none."""

    use_async: bool = False
    in_place_decode: bool = False
    chunks: bool = False
    padding: bool = False


class CardHandle(Protocol):
    """The card that a backend runs on, opened and closed once. `device` is its number, of several that serve one model
    the first one's, `devices` those of all; `library` the runtime's path."""

    library: str
    closed: bool
    device: int
    devices: tuple[int, ...]
    emulated: bool

    def version(self) -> str:
        """Version of the runtime, in words."""

    def properties(self) -> dict[str, Any]:
        """What the card says of itself (see Card.properties); empty where it cannot be asked."""

    def bind_thread(self) -> None:
        """To be called once by each thread that uses the card."""

    def begin_close(self, settle_ms: int = 5000) -> None:
        """From here on failures do not stop the closing. Waits so long for what still runs."""

    def close(self) -> None:
        """Frees everything."""


class Backend(Protocol):
    """Runs steps of one model over `num_banks` caches of `bank_rows` rows.

    `groups` are what `Step.group` counts: decode groups by growing cache, then chunks by growing history. At most
    `logits_slots` queries of a step want logits, `vocab_size` each; with `embeds` the head gives a normed hidden state
    in their place. `token_ids`: the tokens that a trimmed head gives logits of; None: all. `num_states`: slots for
    states of recurrent layers, see Step.add_part; 0: it has none. `encoder`: that of a model with eyes."""

    shape: LayerShape
    groups: tuple[Group, ...]
    num_layers: int
    num_banks: int
    num_states: int
    bank_rows: int
    vocab_size: int
    embeds: bool
    token_ids: NDArray[np.int32] | None
    logits_slots: int
    encoder: VisionEncoder | None

    def run(self, step: Step, timeout_ms: int = -1) -> None:
        """Runs one step and waits, at most `timeout_ms` (-1: no limit). ValueError: it does not fit the model, nothing
        was run. StepTimeout, RuntimeCallError: what it wrote is undefined."""

    def more_logits(self, queries: Sequence[int], timeout_ms: int = -1) -> None:
        """Logits of these queries of the last step, into slots 0 and up. Errors as for `run`."""

    def logits(self, slot: int = 0) -> NDArray[Any]:
        """What the last step's query with this slot got: uint16 (bf16 bits) or float32 [vocab_size], or with
        `embeds` [shape.hidden]. The next step writes over it."""

    def bad_logits(self, count: int) -> list[int]:
        """Which of the first `count` slots hold what cannot be believed: NaN, +inf, or the same for every token."""

    def clear_rows(self, bank: int, rows: NDArray[np.int32]) -> None:
        """Zeros in K and V of rows of a bank in every layer: a NaN there survives every mask. RuntimeCallError."""

    def clear_bank(self, bank: int) -> None:
        """The same in all rows of a bank."""

    def clear_states(self) -> None:
        """The same in all states."""

    def drop_bank(self) -> None:
        """Gives the memory of the last bank, which nobody uses any more, back to the card. ValueError for the only one;
        RuntimeCallError."""

    def abandon(self) -> None:
        """Somebody hangs in a call of a step and is not waited for: should he come back, he makes no further call."""

    def move_rows(self, bank: int, old: NDArray[np.int32], new: NDArray[np.int32], timeout_ms: int = -1) -> None:
        """Copies K and V of rows `old` to rows `new` of a bank in every layer. The rows may not overlap. Errors as for
        `run`."""

    def check_closable(self) -> None:
        """BufferError while somebody holds a view of the logits."""

    def close(self) -> None:
        """Frees what the program holds. BufferError as above."""
