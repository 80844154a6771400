"""Asking an engine and waiting for what it says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

from repository import PATIENCE

from axpress.core.engine.engine import Engine
from axpress.core.request import Delta, GenerationRequest, SamplingParams, TokenLogprob

GREEDY = SamplingParams(temperature=0)


class Collector:
    """A sink that keeps what came and says when it is over. `at_token(n)` is called with the n-th delta."""

    def __init__(self, at_token: Callable[[int], object] | None = None) -> None:
        self.deltas: list[Delta] = []
        self.began, self.done = threading.Event(), threading.Event()
        self._at_token = at_token

    def __call__(self, delta: Delta) -> None:
        assert self.reason is None, "something came after the end"
        self.deltas.append(delta)
        self.began.set()
        if self._at_token:
            self._at_token(len(self.deltas))
        if delta.finish_reason:
            self.done.set()

    def wait(self) -> Self:
        assert self.done.wait(60 * PATIENCE), "no end"
        return self

    @property
    def text(self) -> str:
        return "".join(d.text for d in self.deltas)

    @property
    def reason(self) -> str | None:
        return self.deltas[-1].finish_reason if self.deltas else None

    @property
    def error(self) -> str:
        return self.deltas[-1].error or ""

    @property
    def num_tokens(self) -> int:
        return sum(d.num_tokens for d in self.deltas)

    @property
    def logprobs(self) -> list[TokenLogprob]:
        return [p for d in self.deltas for p in d.logprobs]

    @property
    def outcome(self) -> tuple:
        """All that must not depend on who else is there."""
        return self.text, self.reason, self.num_tokens, self.logprobs


class Held(Collector):
    """One that holds the engine's thread at its `at`-th delta until `go` is set."""

    def __init__(self, at: int) -> None:
        super().__init__(self._hold)
        self._at = at
        self.held, self.go = threading.Event(), threading.Event()

    def _hold(self, count: int) -> None:
        if count == self._at:
            self.held.set()
            assert self.go.wait(60 * PATIENCE), "nobody let the engine go on"

    def wait_held(self) -> None:
        assert self.held.wait(60 * PATIENCE), f"delta {self._at} did not come"


def ask(engine: Engine, prompt=range(40, 60), **fields) -> Collector:
    collector = Collector()
    fields = {"params": GREEDY, "max_tokens": 20, "ignore_eos": True, **fields}
    engine.submit(GenerationRequest(list(prompt), **fields), collector)
    return collector.wait()
