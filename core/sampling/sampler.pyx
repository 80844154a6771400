"""Choosing the next token from the logits, exactly: Python's side of csrc/sampler.c, which documents every step."""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport free, malloc

import math
import os

from ..errors import LogitsError, RequestError
from ..request import TokenLogprob

MAX_LOGPROBS = AX_SAMPLER_MAX_LOGPROBS
"""The most best tokens whose log-probabilities can be asked for."""


cdef class Scratch:
    """Working memory for samplers of one vocabulary, for one call at a time: one for each thread that samples."""

    def __cinit__(self, vocab_size: int):
        if not 0 < vocab_size < 2**31:
            raise ValueError(f"a vocabulary has 1 to 2^31 - 1 tokens, not {vocab_size}")
        self.vocab_size = vocab_size
        self.scratch = ax_sampler_scratch_create(vocab_size)
        if self.scratch == NULL:
            raise MemoryError(f"no memory for a sampler's scratch of {vocab_size} tokens")

    def __dealloc__(self):
        ax_sampler_scratch_destroy(self.scratch)


cdef class Sampler:
    """Chooses the tokens of one answer.

    `params` is a SamplingParams, `prompt_ids` the prompt's token ids (they count for the repetition penalty). `seed`
    overrides `params.seed`; where both are None the system's random numbers choose one, readable as `.seed`. `scratch`
    is shared by the samplers of a thread; None makes one for this sampler alone. RequestError names a field out of
    range.
    """

    def __cinit__(
            self, vocab_size: int, params, prompt_ids=(), seed: int | None = None, scratch: Scratch | None = None):
        self.vocab_size = vocab_size
        self.use(Scratch(vocab_size) if scratch is None else scratch)
        check_params(params, vocab_size)
        self.params = params
        self.want_logprobs = params.logprobs is not None
        self.seed = seed_bits(params.seed if seed is None else seed)
        self.create(prompt_ids)

    cdef int create(self, prompt_ids) except -1:
        cdef ax_sampler_params p
        cdef int error = 0
        prompt_ids, logit_bias = tuple(prompt_ids), tuple(self.params.logit_bias.items())  # copies: their lengths stay
        cdef size_t num_prompt = len(prompt_ids), num_bias = len(logit_bias)
        cdef uint32_t *prompt = <uint32_t *>malloc((num_prompt + num_bias + 1) * sizeof(uint32_t))
        cdef double *bias = <double *>malloc((num_bias + 1) * sizeof(double))
        try:
            if prompt == NULL or bias == NULL:
                raise MemoryError(f"no memory for a sampler with a prompt of {num_prompt} tokens")
            for i, token in enumerate(prompt_ids):
                prompt[i] = self.token_id(token, "a token of the prompt")
            for i, (token, value) in enumerate(logit_bias):
                prompt[num_prompt + i] = token
                bias[i] = value
            self.fill(&p)
            p.num_bias = num_bias
            p.bias_ids = prompt + num_prompt
            p.bias_values = bias
            self.sampler = ax_sampler_create(self.vocab_size, &p, prompt, num_prompt, &error)
            if self.sampler == NULL:
                self.raise_error(error, NULL, 0)
            return 0
        finally:
            free(prompt)
            free(bias)

    cdef int fill(self, ax_sampler_params *p) except -1:
        params = self.params
        p.temperature = params.temperature
        p.top_p = params.top_p
        p.min_p = params.min_p
        p.repetition_penalty = params.repetition_penalty
        p.presence_penalty = params.presence_penalty
        p.frequency_penalty = params.frequency_penalty
        p.top_k = min(params.top_k, self.vocab_size)
        p.penalty_window = params.penalty_window
        p.num_logprobs = -1 if params.logprobs is None else params.logprobs
        p.seed = self.seed
        return 0

    def __dealloc__(self):
        ax_sampler_destroy(self.sampler)

    cdef int sample_at(self, const void *logits, bint is_float32, uint64_t index, ax_sample *out) noexcept nogil:
        """Token `index` of the answer from `vocab_size` logits (bf16 or float32): AX_SAMPLER_OK or an error."""
        if is_float32:
            return ax_sampler_sample_f32(self.sampler, self.scratch.scratch, <const float *>logits, index, out)
        return ax_sampler_sample(self.sampler, self.scratch.scratch, <const uint16_t *>logits, index, out)

    def use(self, Scratch scratch not None) -> None:
        """From now on another thread samples, whose working memory this is."""
        if scratch.vocab_size != self.vocab_size:
            raise ValueError(f"the scratch is for {scratch.vocab_size} tokens, the sampler for {self.vocab_size}")
        self.scratch = scratch

    def sample(self, logits, index: int):
        """Token `index` (from 0) of the answer, and its TokenLogprob or None: (token, logprob).

        `logits` is a C-contiguous buffer of `vocab_size` uint16 (the bits of bf16) or float32 values; it is only read,
        in place. The sampler does not change: `accept` what the answer goes on with. LogitsError: NaN or +inf among the
        logits, no token left to choose, or logits that change during the call.
        """
        cdef Py_buffer view
        cdef ax_sample out
        cdef uint64_t number = index
        cdef int error
        cdef bint is_float32
        PyObject_GetBuffer(logits, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        try:
            is_float32 = view.itemsize == 4 and view.format[0] == c"f"
            if not is_float32 and not (view.itemsize == 2 and view.format[0] == c"H"):
                raise TypeError(f"logits are uint16 (bf16 bits) or float32, not '{view.format.decode()}'")
            if view.len != <Py_ssize_t>self.vocab_size * view.itemsize:
                raise ValueError(f"{view.len // view.itemsize} logits for a vocabulary of {self.vocab_size}")
            with nogil:
                error = self.sample_at(view.buf, is_float32, number, &out)
        finally:
            PyBuffer_Release(&view)
        if error != AX_SAMPLER_OK:
            self.raise_error(error, &out, number)
        return out.token, self.logprob_of(&out)

    cdef object logprob_of(self, ax_sample *out):
        """The TokenLogprob of `out`, or None where the request wants none."""
        if not self.want_logprobs:
            return None
        top = tuple([(out.top_token[i], out.top_logprob[i]) for i in range(out.num_top)])
        return TokenLogprob(out.token, out.logprob, top)

    def accept(self, token: int) -> None:
        """The answer goes on with `token`: count it for the penalties."""
        self.raise_error(ax_sampler_accept(self.sampler, self.token_id(token, "an accepted token")), NULL, 0)

    def allow(self, words) -> None:
        """From now on only tokens whose bit is set: bit (token % 32) of `words[token // 32]`, uint32. None: all tokens.

        The memory is read at every sample, so a grammar may change it in place between two samples.
        """
        if words is None:
            ax_sampler_allow(self.sampler, NULL)
            self.allowed = None
            return
        cdef const uint32_t[::1] bits = words
        if bits.shape[0] * 32 < <Py_ssize_t>self.vocab_size:
            raise ValueError(f"{bits.shape[0]} words of 32 bits do not cover a vocabulary of {self.vocab_size}")
        ax_sampler_allow(self.sampler, &bits[0])
        self.allowed = bits

    cdef uint32_t token_id(self, token, str what) except? 0:
        if not 0 <= token < self.vocab_size:
            raise RequestError(f"{what} is {token}; the model's tokens are 0 to {self.vocab_size - 1}")
        return token

    cdef int raise_error(self, int error, ax_sample *out, uint64_t index) except -1:
        """Raises what `error` of the C calls means; returns if it is AX_SAMPLER_OK."""
        if error == AX_SAMPLER_OK:
            return 0
        text = ax_sampler_strerror(error).decode()
        if error == AX_SAMPLER_INVALID_LOGITS:
            raise LogitsError(
                f"{text} (first at token {out.token}, for token {index} of the answer): the card's result is broken")
        if error == AX_SAMPLER_NO_TOKEN or error == AX_SAMPLER_CHANGED_LOGITS:
            raise LogitsError(f"no token can be chosen for token {index} of the answer: {text}")
        if error == AX_SAMPLER_NO_MEMORY:
            raise MemoryError("no memory for a sampler's state")
        raise RequestError(f"the sampler cannot work with these parameters: {text}")


def seed_bits(seed: int | None) -> int:
    """The 64 bits of `seed`; random ones for None. Negative seeds down to -2^63 are two's complement."""
    if seed is None:
        return int.from_bytes(os.urandom(8), "little")
    if not -(2**63) <= seed < 2**64:
        raise RequestError(f"seed is {seed}; it must fit 64 bits", "seed")
    return seed & (2**64 - 1)


def check_params(params, vocab_size: int) -> None:
    """RequestError, naming the field, unless a Sampler can work with `params` (a SamplingParams)."""
    limit = 1e30
    ranges = (
        ("temperature", 0, 1e300), ("top_p", 0, 1), ("min_p", 0, 1), ("top_k", 0, 2**32 - 1),
        ("penalty_window", 0, 2**32 - 1), ("repetition_penalty", 1 / limit, limit),
        ("presence_penalty", -limit, limit), ("frequency_penalty", -limit, limit),
    )
    for name, low, high in ranges:
        value = getattr(params, name)
        if not low <= value <= high:  # also refuses NaN
            raise RequestError(f"{name} is {value}; it must be between {low} and {high}", name)
    if params.logprobs is not None and not 0 <= params.logprobs <= MAX_LOGPROBS:
        raise RequestError(f"logprobs is {params.logprobs}; it must be between 0 and {MAX_LOGPROBS}", "logprobs")
    for token, value in params.logit_bias.items():
        if not 0 <= token < vocab_size:
            raise RequestError(
                f"logit_bias names token {token}; the model's tokens are 0 to {vocab_size - 1}", "logit_bias")
        if not (-limit <= value <= limit or value == -math.inf):
            raise RequestError(
                f"logit_bias of token {token} is {value}; it must be a number up to {limit}, or -inf", "logit_bias")
