"""Asking an engine and waiting for what it says."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from axpress.core.engine.engine import Engine, Generation
from axpress.core.request import Delta, GenerationRequest, SamplingParams

GREEDY = SamplingParams(temperature=0)


class Collector:
    """A sink that keeps what came and says when it is over."""

    def __init__(self, at_token=None) -> None:
        self.deltas: list[Delta] = []
        self.done = threading.Event()
        self.began = threading.Event()
        self._at_token = at_token

    def __call__(self, delta: Delta) -> None:
        self.deltas.append(delta)
        self.began.set()
        if self._at_token:
            self._at_token(len(self.deltas))
        if delta.finish_reason:
            self.done.set()

    def wait(self) -> Collector:
        assert self.done.wait(60), "no end"
        return self

    @property
    def text(self) -> str:
        return "".join(d.text for d in self.deltas)

    @property
    def reason(self) -> str | None:
        return self.deltas[-1].finish_reason

    @property
    def num_tokens(self) -> int:
        return sum(d.num_tokens for d in self.deltas)


def ask(engine: Engine, prompt=range(40, 60), **fields) -> Collector:
    collector = Collector()
    fields = {"params": GREEDY, "max_tokens": 20, "ignore_eos": True, **fields}
    engine.submit(GenerationRequest(list(prompt), **fields), collector)
    return collector.wait()


@dataclass
class Answer:
    """A sink that keeps what came."""

    request: GenerationRequest
    text: str = ""
    reason: str | None = None
    error: str | None = None
    num_tokens: int = 0
    logprobs: list = field(default_factory=list)
    generation: Generation | None = None
    spent: object = None

    def __call__(self, delta: Delta) -> None:
        assert self.reason is None, "something came after the end"
        self.text += delta.text
        self.num_tokens += delta.num_tokens
        self.logprobs += delta.logprobs
        self.reason, self.error, self.spent = delta.finish_reason, delta.error, delta.spent

    @property
    def outcome(self) -> tuple:
        return self.text, self.reason, self.num_tokens, self.logprobs
