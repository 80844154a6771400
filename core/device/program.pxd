"""A step as runtime calls."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from .buffer cimport DeviceBuffer
from .runtime cimport Card, axclError, axclrtEngineIO
from .step cimport Step


cdef struct group_plan:
    uint32_t index          # the shape group's number on the card
    int32_t width
    int32_t history
    size_t mask_bytes
    void *mask
    void *indices
    void *hidden[2]         # layers alternate between these
    void *k_rows            # K and V of this pass, where they are not written in place
    void *v_rows
    axclrtEngineIO *io      # one for each bank and layer


cdef struct layer_handle:
    uint64_t model
    uint64_t context


cdef struct head_plan:
    uint32_t index          # the head's shape group on the card
    int rows                # hidden rows it takes at once
    void *input
    void *output
    axclrtEngineIO io


cdef struct row_run:
    size_t source           # byte offset in k_rows/v_rows
    size_t target           # byte offset in the bank
    size_t nbytes


cdef class Program:
    cdef readonly Card card
    cdef readonly object shape
    cdef readonly tuple groups
    cdef readonly int num_layers
    cdef readonly int num_banks
    cdef readonly int hidden_size
    cdef readonly int vocab_size
    cdef readonly int logits_slots
    cdef readonly str logits_dtype
    cdef readonly bint use_async
    cdef readonly bint in_place_decode
    cdef readonly bint in_place_chunk
    cdef readonly int bank_rows
    cdef readonly str failed_call
    cdef readonly bint closed

    cdef object layers
    cdef object head
    cdef object embedding
    cdef const uint16_t[:, ::1] embedding_rows
    cdef dict device            # buffers shared by groups, by role and size
    cdef list banks             # [bank][layer] = (K, V)
    cdef list bindings          # keeps the IO objects alive
    cdef object pinned_mask
    cdef object pinned_indices
    cdef object pinned_hidden
    cdef object pinned_logits
    cdef list logits_views

    cdef group_plan *plans
    cdef layer_handle *handles
    cdef void **k_bank          # [bank * num_layers + layer]
    cdef void **v_bank
    cdef row_run *row_runs
    cdef int num_row_runs
    cdef size_t row_bytes
    cdef size_t hidden_bytes
    cdef size_t logits_bytes
    cdef uint32_t k_out
    cdef uint32_t v_out
    cdef layer_handle head_handle
    cdef head_plan *heads               # by growing number of rows
    cdef int num_heads
    cdef axclrtEngineIO head_direct     # of the one-row group: its input is the hidden buffer that decode's last layer writes
    cdef uint16_t *mask_host
    cdef uint32_t *indices_host
    cdef uint16_t *hidden_host
    cdef char *logits_host
    cdef int failed

    cdef group_plan *last_plan          # of the step run last, whose hidden state is still on the card
    cdef int last_queries
    cdef int32_t *wanted                # queries whose logits are wanted, by slot

    cdef axclrtEngineIO _head_binding(self, int group, int x, int y, DeviceBuffer source, DeviceBuffer out) except NULL
    cdef int _require_open(self) except -1
    cdef int _prepare(self, Step step) except -1
    cdef axclError _wait(self, int32_t limit) noexcept nogil
    cdef int _give_up(self, axclError code) except -1
    cdef void _add_row(self, size_t query, size_t row) noexcept
    cdef axclError _copy(self, void *dst, const void *src, size_t n, int kind) noexcept nogil
    cdef axclError _execute(self, layer_handle *handle, uint32_t group, axclrtEngineIO io) noexcept nogil
    cdef axclError _submit(self, Step step, group_plan *plan) noexcept nogil
    cdef axclError _submit_layers(self, group_plan *plan, int bank, bint in_place, size_t first_row) noexcept nogil
    cdef axclError _bind_rows(self, group_plan *plan, int bank, bint in_place, size_t first_row) noexcept nogil
    cdef axclError _submit_heads(self, group_plan *plan, int count) noexcept nogil
    cdef axclError _submit_head(self, group_plan *plan, head_plan *head, int slot, int count) noexcept nogil
