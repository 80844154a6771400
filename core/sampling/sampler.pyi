"""Choosing the next token from the logits, exactly: Python's side of csrc/sampler.c, which documents every step."""

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from ..request import SamplingParams, TokenLogprob

MAX_LOGPROBS: int

def seed_bits(seed: int | None) -> int:
    """The 64 bits of `seed`; random ones for None. Negative seeds down to -2^63 are two's complement."""

def check_params(params: SamplingParams, vocab_size: int) -> None:
    """RequestError, naming the field, unless a Sampler can work with `params` (a SamplingParams)."""

class Scratch:
    """Working memory for samplers of one vocabulary, for one call at a time: one for each thread that samples."""

    vocab_size: int
    def __new__(cls, vocab_size: int) -> Scratch: ...

class Sampler:
    """Chooses the tokens of one answer.

    `params` is a SamplingParams, `prompt_ids` the prompt's token ids (they count for the repetition penalty). `seed`
    overrides `params.seed`; where both are None the system's random numbers choose one, readable as `.seed`. `scratch`
    is shared by the samplers of a thread; None makes one for this sampler alone. RequestError names a field out of
    range."""

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
    def use(self, scratch: Scratch) -> None:
        """From now on another thread samples, whose working memory this is."""
    def sample(self, logits: NDArray[Any], index: int) -> tuple[int, TokenLogprob | None]:
        """Token `index` (from 0) of the answer, and its TokenLogprob or None: (token, logprob).

        `logits` is a C-contiguous buffer of `vocab_size` uint16 (the bits of bf16) or float32 values; it is only read,
        in place. The sampler does not change: `accept` what the answer goes on with. LogitsError: NaN or +inf among the
        logits, no token left to choose, or logits that change during the call."""
    def accept(self, token: int) -> None:
        """The answer goes on with `token`: count it for the penalties."""
    def allow(self, words: NDArray[Any] | None) -> None:
        """From now on only tokens whose bit is set: bit (token % 32) of `words[token // 32]`, uint32. None: all tokens.

        The memory is read at every sample, so a grammar may change it in place between two samples."""
