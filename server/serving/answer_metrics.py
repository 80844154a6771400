"""What answers came to, in numbers that only grow: counted once an answer, never once a token."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from axpress.core.request import Delta

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
_GAPS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
_TOKENS = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_REASONS = {"stop": "stop", "length": "length", "cancelled": "abort", "error": "error"}


class Histogram:
    """Counts of values by upper bound, as Prometheus adds them up."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """`times` values of `value`."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def buckets(self) -> list[tuple[str, int]]:
        """Upper bounds and how many values are not above them."""
        names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


class AnswerMetrics:
    """Of all answers since the start, by the name of their model. Written and read on the event loop."""

    def __init__(self) -> None:
        self.models: dict[str, ModelAnswers] = {}
        self.responses: Counter[tuple[str, int]] = Counter()
        """Responses by route and status."""

    def of(self, model: str) -> ModelAnswers:
        """Those of this model; it is one that is served."""
        return self.models.setdefault(model, ModelAnswers())

    @property
    def failures(self) -> Counter[str]:
        """How many failed, by kind."""
        return sum((answers.failures for answers in self.models.values()), Counter())


class ModelAnswers:
    """Of all answers of one model."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter(dict.fromkeys(_REASONS.values(), 0))
        self.failures: Counter[str] = Counter()
        self.first_token = Histogram(_SECONDS)
        self.token_gap = Histogram(_GAPS)
        self.whole = Histogram(_SECONDS)
        self.queue = Histogram(_SECONDS)
        self.prompt_tokens = Histogram(_TOKENS)
        self.generated_tokens = Histogram(_TOKENS)

    def add(self, last: Delta | None) -> None:
        """An answer ended with this; None: its client left before its end."""
        reason = None if last is None else last.finish_reason
        self.reasons[_REASONS.get(reason or "cancelled", "abort")] += 1
        if last is None:
            return
        if last.failure is not None:
            self.failures[last.failure.value] += 1
        spent = last.spent
        if spent is None or reason not in ("stop", "length"):
            return
        self.queue.observe(spent.queue_s)
        self.first_token.observe(spent.first_token_s)
        self.whole.observe(spent.total_s)
        self.prompt_tokens.observe(spent.prompt_tokens)
        self.generated_tokens.observe(spent.completion_tokens)
        if spent.completion_tokens > 1:
            gaps = spent.completion_tokens - 1
            self.token_gap.observe(max(0.0, spent.total_s - spent.first_token_s) / gaps, gaps)
