"""A step as runtime calls: three uploads, the layers, the heads, one wait; no Python between the first and the last.

    uploads   masks, indices, embeddings      from pinned memory, once a step, shared by all layers
    layers    L executes                      hidden state alternates between two buffers
    rows      K and V of the new tokens       decode's written straight into their cache row where the card allows it
                                              (probed at load), else copied there on the card, run by run, in the stream
    heads     one execute and one download for each query that wants logits
    pictures  where a step has tokens of pictures and the encoder gave more than rows (deepstack): after first layers
              the hidden state comes down, is added to, and goes up again
    border    instead of heads, where the layers are a block of a model that goes on on another card: the hidden state
              comes down, to be uploaded there in place of embeddings
    wait      with a deadline

What the calls work on is made and bound in pass_buffers.pyx and kv_buffers.pyx; the head in head_pass.pyx, recurrent
layers, which go from one state of a text to the next instead of reading rows, in state_layers.pyx."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model_files.embedding_file import EmbeddingTable
from .axmodel import LoadedModel
from .runtime import Card
from .shape_groups import CommonShape, Group, LayerShape
from .step import Step
from .vision_encoder import VisionEncoder

class Program:
    """Runs steps of one model on one card.

    `groups` lists the shape groups that `Step.group` counts: decode groups by growing cache, then chunks by growing
    history. `logits(slot)` is a zero-copy view of pinned memory, overwritten by the next step."""

    card: Card
    shape: LayerShape
    groups: tuple[Group, ...]
    num_layers: int
    num_attention: int
    windows: tuple[int, ...]
    num_banks: int
    num_states: int
    logits_slots: int
    bank_rows: int
    table: EmbeddingTable
    in_place_decode: bool
    closed: bool
    first_layer: int
    first: bool
    last: bool
    encoder: VisionEncoder | None
    vocab_size: int
    embeds: bool
    token_ids: NDArray[np.int32] | None
    use_async: bool
    def __init__(
        self,
        card: Card,
        layers: list[LoadedModel],
        head: LoadedModel | None,
        embedding: EmbeddingTable,
        *,
        num_banks: int = 1,
        logits_slots: int = 1,
        token_ids: NDArray[np.int32] | None = None,
        embeds: bool = False,
        windows: tuple[int, ...] = ...,
        first_layer: int = 0,
        common: CommonShape | None = ...,
        encoder: VisionEncoder | None = None,
        num_states: int = ...,
    ) -> None:
        """`layers` and `head` are loaded; `embedding` is an EmbeddingTable [V, H], kept, not copied. `token_ids` int32:
        which token each of a trimmed head's logits is; None: logit i is token i, and what a padded head gives beyond V
        is no token. `embeds`: queries get their normed hidden state [H] in place of logits. `windows`: of each layer,
        how many positions it sees, its own included (0: all; empty: no layer has a sliding window).

        Of a model whose layers lie on several cards these are one block, from `first_layer` on, the last with the head,
        the others with None; `common`: the CommonShape of all its layers, as far as it is about these. `num_states`:
        slots for states of recurrent layers, where there are any. `encoder`: the VisionEncoder of a model with eyes,
        which is closed with the program.

        Raises PackageError where the models do not fit each other, RuntimeCallError where the card refuses."""
    def set_modes(self, *, use_async: bool, in_place_decode: bool) -> None:
        """What this card can be trusted with (see probe.py); the conservative choice is False, False."""
    def time_layers(self, group: int, num_tokens: int, timeout_ms: int = -1, recurrent: bool = False) -> float:
        """Seconds that one layer of this group takes with so many tokens in it, from the first few layers with
        attention, or that are `recurrent`. What it computes is thrown away. Errors as for `run`."""

    def time_head(self, timeout_ms: int = -1) -> float:
        """Seconds that one head takes, download of the logits included. Errors as for `run`."""
    def kv_buffers(self, bank: int, layer: int) -> tuple[Any, Any]:
        """The bank's (K, V) DeviceBuffers of one of the layers with attention, counted without others, for probes and
        tests."""
    def state_buffers(self, slot: int, layer: int) -> tuple[Any, Any]:
        """The (K, V) DeviceBuffers of a state, of one of the recurrent layers, counted without others, for tests."""
    def run(self, step: Step, timeout_ms: int = -1) -> None:
        """Runs one step and waits for it.

        ValueError: the step does not fit the model; the card was not touched. StepTimeout: not done after `timeout_ms`
        (-1: no limit). RuntimeCallError: the card refused or failed; what the step wrote is then undefined."""
    def run_block(self, step: Step, timeout_ms: int, hidden: NDArray[np.uint16]) -> None:
        """The same of a block of a model's layers. `hidden` [queries of the step or more, H]: the hidden state of each
        query, which a block that is not the first takes from there, and one that is not the last puts there."""
    def more_logits(self, queries: Sequence[int], timeout_ms: int = -1) -> None:
        """Logits of further queries (by index) of the step run last, into slots 0 and up; the layers do not run again.

        ValueError: no such query, or more than there are slots. Other errors as for `run`."""
    def logits(self, slot: int = 0) -> NDArray[Any]:
        """What the head gave the last step's query with this slot, logits or a hidden state: uint16 (bf16 bits) or
        float32 [vocab_size or hidden], zero-copy but for trimmed heads."""
    def bad_logits(self, count: int) -> list[int]:
        """Which of the first `count` slots hold what cannot be believed: NaN, +inf, or the same for every token."""
    def clear_logits(self, slot: int = 0) -> None:
        """Zeros in a slot, so that what is there afterwards was written since."""
    def move_rows(self, bank: int, old: NDArray[np.int32], new: NDArray[np.int32], timeout_ms: int = -1) -> None:
        """Copies K and V of rows `old` to rows `new` (int32) of a bank in every layer, on the card, and waits. The rows
        may not overlap.

        ValueError: no such bank or row; nothing was moved. Other errors as for `run`."""
    def clear_rows(self, bank: int, rows: NDArray[np.int32]) -> None:
        """Zeros in K and V of rows (int32) of a bank in every layer: a NaN there survives every mask. For rows that a
        failed pass wrote; slow. RuntimeCallError where the card fails."""
    def clear_bank(self, bank: int) -> None:
        """Zeros in K and V of all of a bank's rows. RuntimeCallError where the card fails."""
    def clear_states(self) -> None:
        """Zeros in all states of recurrent layers. RuntimeCallError where the card fails."""
    def drop_bank(self) -> None:
        """Gives the memory of the last bank, which nobody uses any more, back to the card. ValueError for the only one;
        RuntimeCallError."""
    def abandon(self) -> None:
        """Somebody hangs in a call of a step and is not waited for: should he come back, he makes no further call."""
    def check_closable(self) -> None:
        """BufferError while somebody else holds a view of the logits."""
    def close(self) -> None:
        """Drops the views and frees buffers and bindings. BufferError while somebody holds a view of the logits."""
