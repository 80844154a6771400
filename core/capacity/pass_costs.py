"""What a pass should take, added up from what it submits (see program.py): uploads, the layers, rows copied on the
card, a head and its logits for each token that is chosen, one wait, and the host's share. On paper: times of a profile
or a model file, none measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..model_files.timing_profile import Cost

HOST_STEP_MS = 0.3  # assumed: planning a pass and filling its buffers
HOST_TOKEN_MS = 0.4  # assumed: choosing a token and handing its text on


@dataclass(frozen=True)
class ModelShape:
    """What a pass depends on: sizes in elements; times of one layer in ms by rows of the decode cache and of a chunk's
    history."""

    layers: int
    hidden: int
    kv_dim: int
    vocab: int
    chunk: int
    decode_ms: dict[int, float]
    chunk_ms: dict[int, float]
    head_ms: float

    @property
    def rows(self) -> int:
        """Rows of a bank."""
        return max(self.decode_ms)

    @property
    def row_bytes(self) -> int:
        """Bytes of one token's K and V in all layers."""
        return self.layers * 2 * self.kv_dim * 2


@dataclass(frozen=True)
class Passes:
    """Milliseconds of whole passes of one model with the calls and the bus of one profile."""

    shape: ModelShape
    cost: Cost

    def _bus(self, nbytes: float) -> float:
        return self.cost.transfer_us / 1e3 + nbytes / self.cost.bus_mb_s / 1e3

    def _on_card(self, nbytes: float) -> float:
        return self.cost.d2d_us / 1e3 + nbytes / self.cost.d2d_gb_s / 1e6

    @cached_property
    def logits(self) -> float:
        """Download of one token's logits (bf16)."""
        return self._bus(2 * self.shape.vocab)

    @cached_property
    def head(self) -> float:
        """One token chosen: its head, its logits, the host's part."""
        return self.shape.head_ms + self.logits + HOST_TOKEN_MS

    def uploads(self, width: int, history: int) -> float:
        """Mask, positions and embeddings of a pass."""
        return (
            self._bus(2 * width * (history + width)) + self._bus(4 * width) + self._bus(2 * width * self.shape.hidden)
        )

    def decode(self, rows: int) -> float:
        """One token of one sequence, `rows` rows back, its row written in place."""
        group = min(r for r in self.shape.decode_ms if r >= rows)
        layers = self.shape.layers * self.shape.decode_ms[group]
        return layers + self.head + self.uploads(1, group) + self.cost.sync_call_ms + HOST_STEP_MS

    def group(self, rows: int) -> int | None:
        """The history of the chunk group that reaches `rows` rows back; None: no group does."""
        return min((p for p in self.shape.chunk_ms if p >= rows), default=None)

    def chunk(self, rows: int, heads: int) -> float | None:
        """A chunk `rows` rows back that chooses `heads` tokens, its rows in one stretch; None: no group reaches back so
        far."""
        group = self.group(rows)
        if group is None:
            return None
        shape, width = self.shape, self.shape.chunk
        copies = 2 * shape.layers * self._on_card(2 * shape.kv_dim * width) + heads * self._on_card(2 * shape.hidden)
        calls = self.uploads(width, group) + self.cost.sync_call_ms + HOST_STEP_MS
        return shape.layers * shape.chunk_ms[group] + copies + heads * self.head + calls

    def round(self, clients: int, rows: int) -> float:
        """The next token of `clients` sequences whose bank holds `rows` rows: in one chunk or one by one, whichever is
        sooner."""
        singles = clients * self.decode(min(rows, self.shape.rows))
        together = self.chunk(rows, clients)
        return singles if together is None else min(singles, together)

    def prompt(self, tokens: int, cached: int = 0) -> tuple[float, list[str]]:
        """A prompt up to its first chosen token, and the terms it adds up from."""
        total, terms, at = 0.0, [], cached
        while at < tokens:
            take = min(self.shape.chunk or 1, tokens - at)
            last = at + take == tokens
            together = self.chunk(at, int(last)) if self.shape.chunk else None
            singles = take * (self.decode(at + take) - self.head) + last * self.head
            ms = singles if together is None else min(singles, together)
            terms.append(
                f"{ms:.0f}" + (f" (chunk, history {self.group(at)})" if ms == together else f" ({take} single passes)")
            )
            total, at = total + ms, at + take
        return total, terms
