"""A step as runtime calls."""

from libc.stdint cimport int32_t, uint16_t

from .call_stream cimport CallStream
from .head_pass cimport HeadPass
from .image_rows cimport ImageRows
from .kv_buffers cimport KVBuffers
from .pass_buffers cimport PassBuffers, group_io
from .runtime cimport Card, axclError
from .state_layers cimport StateLayers
from .step cimport Step


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
    cdef readonly int num_states        # slots for states of recurrent layers; 0: all layers have attention
    cdef readonly int logits_slots
    cdef readonly int bank_rows
    cdef readonly bint in_place_decode
    cdef readonly bint closed
    cdef readonly int first_layer       # of the model, which this block begins with
    cdef readonly bint first            # whether it begins with the embedding, not with another block's hidden state
    cdef readonly bint last             # whether it ends with the head, not with a hidden state for another block

    cdef CallStream stream
    cdef public object encoder          # VisionEncoder of a model with eyes, closed with the program; else None
    cdef ImageRows images               # of the step that is run; None: it has none
    cdef int32_t limit                  # milliseconds that it may wait
    cdef int num_queries                # of it
    cdef KVBuffers kv
    cdef PassBuffers buffers
    cdef HeadPass head                  # None: another block has it
    cdef StateLayers states             # None: no layer is recurrent
    cdef char *recurrent                # of each layer, whether it is
    cdef readonly object table          # of embeddings
    cdef const uint16_t[:, ::1] embedding
    cdef bint rounds                    # rows are to be asked for first: the table is not of bf16
    cdef readonly tuple windows         # of each layer, its sliding window in positions; 0: it sees everything
    cdef int window                     # that of those that have one; 0: none has
    cdef int32_t[:, ::1] positions      # [bank, row]: of the tokens in the cache
    cdef readonly int vocab_size
    cdef readonly bint embeds
    cdef readonly object token_ids      # of a trimmed head's logits, or None
    cdef size_t row_bytes
    cdef size_t hidden_bytes
    cdef row_run *row_runs              # where the K and V of the step go
    cdef int num_row_runs
    cdef group_io *last_group           # of the step run last, whose hidden state is still on the card
    cdef int last_queries

    cdef int _require_open(self) except -1
    cdef int _run(self, Step step, int32_t timeout_ms, uint16_t[:, ::1] hidden) except -1
    cdef int _prepare(self, Step step, uint16_t[:, ::1] given) except -1
    cdef void _fill_window_mask(self, Step step, group_io *group) noexcept
    cdef void _add_row(self, size_t query, size_t row) noexcept
    cdef axclError _upload(self, group_io *group) noexcept nogil
    cdef axclError _submit(self, Step step, group_io *group) noexcept nogil
    cdef axclError _submit_layers(self, group_io *group, int bank, bint in_place) noexcept nogil
    cdef axclError _add_images(self, group_io *group, int layer) noexcept nogil
    cdef axclError _store_rows(self, group_io *group, int cell) noexcept nogil
    cdef axclError _submit_heads(self, group_io *group, int count) noexcept nogil
