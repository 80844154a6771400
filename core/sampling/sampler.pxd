"""Choosing the next token from the logits."""

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t


cdef extern from "sampler.h" nogil:
    enum:
        AX_SAMPLER_OK
        AX_SAMPLER_INVALID_LOGITS
        AX_SAMPLER_NO_TOKEN
        AX_SAMPLER_NO_MEMORY
        AX_SAMPLER_BAD_ARGUMENT
        AX_SAMPLER_CHANGED_LOGITS
        AX_SAMPLER_MAX_LOGPROBS

    ctypedef struct ax_sampler_params:
        double temperature
        double top_p
        double min_p
        double repetition_penalty
        double presence_penalty
        double frequency_penalty
        uint32_t top_k
        uint32_t penalty_window
        int32_t num_logprobs
        uint32_t num_bias
        const uint32_t *bias_ids
        const double *bias_values
        uint64_t seed

    ctypedef struct ax_sample:
        uint32_t token
        uint32_t num_top
        double logprob
        uint32_t *top_token
        double *top_logprob

    ctypedef struct ax_sampler:
        pass
    ctypedef struct ax_sampler_scratch:
        pass

    ax_sampler_scratch *ax_sampler_scratch_create(uint32_t)
    void ax_sampler_scratch_destroy(ax_sampler_scratch *)
    ax_sampler *ax_sampler_create(uint32_t, const ax_sampler_params *, const uint32_t *, size_t, int *)
    void ax_sampler_destroy(ax_sampler *)
    int ax_sampler_reset(ax_sampler *, uint64_t, const uint32_t *, size_t)
    int ax_sampler_sample(ax_sampler *, ax_sampler_scratch *, const uint16_t *, uint64_t, ax_sample *)
    int ax_sampler_sample_f32(ax_sampler *, ax_sampler_scratch *, const float *, uint64_t, ax_sample *)
    int ax_sampler_accept(ax_sampler *, uint32_t)
    void ax_sampler_allow(ax_sampler *, const uint32_t *)
    const char *ax_sampler_strerror(int)


cdef class Scratch:
    cdef ax_sampler_scratch *scratch
    cdef readonly uint32_t vocab_size


cdef class Sampler:
    cdef ax_sampler *sampler
    cdef readonly Scratch scratch
    cdef readonly uint32_t vocab_size
    cdef readonly uint64_t seed
    cdef readonly object params
    cdef const uint32_t[::1] allowed    # holds the memory that the C side reads
    cdef bint want_logprobs

    cdef int create(self, prompt_ids) except -1
    cdef int fill(self, ax_sampler_params *p) except -1
    cdef uint32_t token_id(self, token, str what) except? 0
    cdef int sample_at(self, const void *logits, bint is_float32, uint64_t index, ax_sample *out) noexcept nogil
    cdef object logprob_of(self, ax_sample *out)
    cdef int raise_error(self, int error, ax_sample *out, uint64_t index) except -1
