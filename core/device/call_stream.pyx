"""Calls into the card's one stream: submitted and waited for together where the card can be trusted with that, else one
by one. And what is raised when one fails."""

from .runtime cimport AXCL_ERR_STREAM_SYNC_TIMEOUT, Card, axclError, axclrtEngineIO, axclrtMemcpyKind

_NAMES = ("upload of mask, indices and embeddings", "axclrtEngineSetOutputBufferByIndex", "execution of a layer",
          "copy of K/V rows into the cache", "execution of the head", "download of logits",
          "download of the hidden state for the next card", "adding of pictures to the hidden state",
          "axclrtSynchronizeStreamWithTimeout")

cdef enum:
    SETTLE_MS = 1500  # how long a step that failed half way may take to end


cdef class CallStream:
    """Where a step's calls go. Whoever calls says before in `kind` what it is about to do."""

    def __init__(self, card: Card):
        self.card = card
        self.use_async = card.has_async

    cdef axclError copy(self, void *target, const void *source, size_t nbytes, axclrtMemcpyKind way) noexcept nogil:
        if self.abandoned:
            return AXCL_ERR_STREAM_SYNC_TIMEOUT
        if self.use_async:
            return self.card.api.axclrtMemcpyAsync(target, source, nbytes, way, self.card.stream)
        return self.card.api.axclrtMemcpy(target, source, nbytes, way)

    cdef axclError execute(self, const model_handle *handle, uint32_t group, axclrtEngineIO io) noexcept nogil:
        if self.abandoned:
            return AXCL_ERR_STREAM_SYNC_TIMEOUT
        if self.use_async:
            return self.card.api.axclrtEngineExecuteAsync(handle.model, handle.context, group, io, self.card.stream)
        return self.card.api.axclrtEngineExecute(handle.model, handle.context, group, io)

    cdef axclError wait(self, int32_t timeout_ms) noexcept nogil:
        """Until all that was submitted is done (-1: however long)."""
        self.kind = CALL_WAIT
        if self.abandoned:
            return AXCL_ERR_STREAM_SYNC_TIMEOUT
        if not self.use_async:
            return 0
        return self.card.api.axclrtSynchronizeStreamWithTimeout(self.card.stream, timeout_ms)

    cdef int give_up(self, axclError code) except -1:
        """Raises what failed, once the part of the step that was accepted is done: until then its buffers are used."""
        cdef str call = _NAMES[self.kind]
        if self.kind != CALL_WAIT and self.use_async and not self.abandoned:
            with nogil:
                self.card.api.axclrtSynchronizeStreamWithTimeout(self.card.stream, SETTLE_MS)
        return self.card.check(call, code)
