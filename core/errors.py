"""Typed errors for everything that comes from outside: the card, model files, requests."""

from __future__ import annotations

from enum import Enum


class FailureKind(Enum):
    """What went wrong, in one word: goes with an error from the runtime to the status and the event that a client
    gets."""

    CARD_LOST = "card_lost"  # it is not there any more, or lets nobody in
    CARD_HUNG = "card_hung"  # it did not answer before a deadline
    CARD_FAILED = "card_failed"  # it answered a call with an error
    BAD_OUTPUT = "bad_output"  # it answered with nonsense
    OUT_OF_MEMORY = "out_of_memory"
    REQUEST = "request"  # what was asked for cannot be done, now or ever
    CLOSED = "closed"  # the engine takes, or finishes, no requests
    INTERNAL = "internal"  # a fault of ours


class AxpressError(Exception):
    """Base of every error that axpress raises on purpose; its text is one sentence a person can act on."""

    kind = FailureKind.INTERNAL


class RuntimeUnavailable(AxpressError):
    """The AXCL runtime library, or a symbol that it must export, is missing."""

    kind = FailureKind.CARD_LOST


_NO_MEMORY, _TIMEOUT = 0x07, 0x05  # ids of every sub module (csrc/axcl_abi.h)
_DEVICE = 0x01  # the sub module whose own ids, from 0x80 on, say that a device is not there


class RuntimeCallError(AxpressError):
    """A call into the AXCL runtime returned an error value.

    `call` is the function's name, `code` the runtime's 32-bit value as an unsigned int.
    """

    def __init__(self, call: str, code: int, meaning: str, detail: str = "") -> None:
        self.call = call
        self.code = code & 0xFFFFFFFF
        self.meaning = meaning
        self.kind = self._kind((self.code >> 8) & 0xFF, self.code & 0xFF)
        text = f"{call} failed with 0x{self.code:08x} ({meaning})"
        super().__init__(f"{text}: {detail}" if detail else text)

    def _kind(self, module: int, ident: int) -> FailureKind:
        if ident == _NO_MEMORY:
            return FailureKind.OUT_OF_MEMORY
        if module == _DEVICE and ident >= 0x80:
            return FailureKind.CARD_LOST
        return FailureKind.CARD_HUNG if ident == _TIMEOUT else FailureKind.CARD_FAILED


class StepTimeout(RuntimeCallError):
    """A step did not finish before its deadline: the card hangs or is gone."""

    def _kind(self, module: int, ident: int) -> FailureKind:
        return FailureKind.CARD_HUNG


class LogitsError(AxpressError):
    """No token can be chosen from these logits: NaN or +inf among them (a broken result of the card), or every token
    excluded."""

    kind = FailureKind.BAD_OUTPUT


class PackageError(AxpressError):
    """A model directory cannot be served; the text names the file, what is wrong with it and what to do."""


class RequestError(AxpressError):
    """A request that can never be served as sent. `param` is the field, `code` OpenAI's error code or None."""

    kind = FailureKind.REQUEST

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ContextOverflow(RequestError):
    """The prompt (plus the asked-for answer) does not fit into the model's context."""

    def __init__(self, message: str, param: str | None = "messages") -> None:
        super().__init__(message, param, "context_length_exceeded")


class QueueFull(AxpressError):
    """More requests are waiting than the queue holds. `retry_after` is an estimate in seconds."""

    kind = FailureKind.REQUEST

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineClosed(AxpressError):
    """The engine is not taking requests: loading, draining, failed or closed."""

    kind = FailureKind.CLOSED


class CardTrouble(AxpressError):
    """Something about the card, of a `kind`, that no call of a pass has shown."""

    def __init__(self, message: str, kind: FailureKind) -> None:
        super().__init__(message)
        self.kind = kind


class CardBeyondHelp(AxpressError):
    """Nothing that this process can do brought the card back from a failure of `kind`. `exit_wanted`: one that is
    started anew may do better; else only cutting the power helps."""

    def __init__(self, message: str, kind: FailureKind, exit_wanted: bool) -> None:
        super().__init__(message)
        self.kind, self.exit_wanted = kind, exit_wanted


class CardRecovering(EngineClosed):
    """The card is being brought back, and as many requests wait for it as may."""


class EngineFailed(EngineClosed):
    """The engine will not take requests before somebody has done something: asking again soon is in vain."""


def failure_kind(error: BaseException) -> FailureKind:
    """The kind of any exception; INTERNAL for those that are not ours."""
    if isinstance(error, AxpressError):
        return error.kind
    return FailureKind.OUT_OF_MEMORY if isinstance(error, MemoryError) else FailureKind.INTERNAL
