"""Typed errors for everything that comes from outside: the card, model files, requests."""

from __future__ import annotations


class AxpressError(Exception):
    """Base of every error that axpress raises on purpose; its text is one sentence a person can act on."""


class RuntimeUnavailable(AxpressError):
    """The AXCL runtime library, or a symbol that it must export, is missing."""


class RuntimeCallError(AxpressError):
    """A call into the AXCL runtime returned an error value.

    `call` is the function's name, `code` the runtime's 32-bit value as an unsigned int.
    """

    def __init__(self, call: str, code: int, meaning: str, detail: str = "") -> None:
        self.call = call
        self.code = code & 0xFFFFFFFF
        self.meaning = meaning
        text = f"{call} failed with 0x{self.code:08x} ({meaning})"
        super().__init__(f"{text}: {detail}" if detail else text)


class StepTimeout(RuntimeCallError):
    """A step did not finish before its deadline: the card hangs or is gone."""


class LogitsError(AxpressError):
    """No token can be chosen from these logits: NaN or +inf among them (a broken result of the card), or every token
    excluded."""


class PackageError(AxpressError):
    """A model directory cannot be served; the text names the file, what is wrong with it and what to do."""


class RequestError(AxpressError):
    """A request that can never be served as sent. `param` is the field, `code` OpenAI's error code or None."""

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

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineClosed(AxpressError):
    """The engine is not taking requests: loading, draining, failed or closed."""
