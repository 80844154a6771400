from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from ..request import SamplingParams, TokenLogprob

MAX_LOGPROBS: int

def seed_bits(seed: int | None) -> int: ...
def check_params(params: SamplingParams, vocab_size: int) -> None: ...

class Scratch:
    vocab_size: int
    def __new__(cls, vocab_size: int) -> Scratch: ...

class Sampler:
    scratch: Scratch
    vocab_size: int
    seed: int
    params: SamplingParams
    def __new__(
        cls,
        vocab_size: int,
        params: SamplingParams,
        prompt_ids: Iterable[int] = (),
        seed: int | None = None,
        scratch: Scratch | None = None,
    ) -> Sampler: ...
    def sample(self, logits: NDArray[Any], index: int) -> tuple[int, TokenLogprob | None]: ...
    def accept(self, token: int) -> None: ...
    def allow(self, words: NDArray[Any] | None) -> None: ...
