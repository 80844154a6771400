"""What the engine did so far: numbers that only ever grow, written by its thread and read by any."""

from __future__ import annotations

import time
from collections import deque

from .sequence import Sequence

_ANSWERS = ("prompt_tokens", "cached_tokens", "generated_tokens", "finished", "cancelled")
_PASSES = ("decode_passes", "chunk_passes", "chunk_queries", "heads")
_OTHERS = ("encoded_images", "preemptions", "repeated_passes", "drafted_tokens", "accepted_draft_tokens")


class Counters:
    """`totals` by name; `seconds` of passes and of what lies between them, by kind; `widths`: (queries, sequences) of
    the latest passes; `mean_seconds` of an answer, lately."""

    def __init__(self) -> None:
        self.totals = dict.fromkeys((*_ANSWERS, *_PASSES, *_OTHERS), 0)
        self.seconds = {"decode": 0.0, "chunk": 0.0, "plan": 0.0, "move": 0.0, "encode": 0.0}
        self.widths: deque[tuple[int, int]] = deque(maxlen=48)
        self.last_progress = time.monotonic()
        self.mean_seconds = 1.0

    def add_answer(self, sequence: Sequence) -> None:
        """An answer ended."""
        totals = self.totals
        totals["cancelled" if sequence.finish == "cancelled" else "finished"] += 1
        if sequence.generation.first_pass is None and not sequence.num_generated:
            return  # it never ran
        totals["prompt_tokens"] += sequence.num_prompt
        totals["cached_tokens"] += min(sequence.cached_tokens, sequence.num_prompt)
        totals["generated_tokens"] += sequence.num_generated
        self.mean_seconds += 0.2 * (time.monotonic() - sequence.generation.created - self.mean_seconds)

    def add_pass(self, kind: str, seconds: float, num_queries: int, num_sequences: int) -> None:
        """A pass of `kind` ("decode" or "chunk") took so long."""
        self.last_progress = time.monotonic()
        self.widths.append((num_queries, num_sequences))
        self.seconds[kind] += seconds
        self.totals[f"{kind}_passes"] += 1
        if kind == "chunk":
            self.totals["chunk_queries"] += num_queries

    def add_image(self, seconds: float) -> None:
        """A run of the vision encoder took so long."""
        self.last_progress = time.monotonic()
        self.seconds["encode"] += seconds
        self.totals["encoded_images"] += 1
