"""Which exception becomes which status, and the shapes of errors: OpenAI's here, others' in their dialects' rooms."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from sanic.exceptions import RequestCancelled, SanicException
from sanic.handlers import ErrorHandler
from sanic.request import Request
from sanic.response import HTTPResponse

from axpress.core.errors import AxpressError, EngineFailed, FailureKind, QueueFull, RequestError, failure_kind

from .replies import Error

log = logging.getLogger("axpress.server")


class HttpError(AxpressError):
    """An error with the status and the OpenAI fields it is answered with."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = headers or {}


def error_type(status: int) -> str:
    """OpenAI's `type` of an error with this HTTP status."""
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def error_body(error: HttpError) -> bytes:
    """The JSON of an error as OpenAI's clients read it."""
    details = {"message": clean(str(error)), "type": error_type(error.status), "param": clean(error.param)}
    return orjson.dumps({"error": {**details, "code": error.code}})


def clean(text: Any) -> Any:
    """Lone surrogates that came in with a request are replaced, never sent back."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else text


class _Failure(NamedTuple):
    status: int
    code: str
    text: str
    """Where the failure came without words."""
    headers: dict[str, str] | None = None


_CARD_FAILED = "The card failed during this answer."
FAILURES = {
    FailureKind.CARD_LOST: _Failure(500, "card_lost", _CARD_FAILED),
    FailureKind.CARD_HUNG: _Failure(500, "card_hung", _CARD_FAILED),
    FailureKind.CARD_FAILED: _Failure(500, "card_failed", _CARD_FAILED),
    FailureKind.BAD_OUTPUT: _Failure(500, "bad_output", _CARD_FAILED),
    FailureKind.OUT_OF_MEMORY: _Failure(500, "out_of_memory", "There was not enough memory for this answer."),
    FailureKind.REQUEST: _Failure(400, "invalid_value", "The answer cannot go on as this request demands."),
    FailureKind.CLOSED: _Failure(503, "unavailable", "The server is shutting down.", {"x-should-retry": "true"}),
    FailureKind.INTERNAL: _Failure(500, "internal_error", "The server failed on this request; its log says why."),
}
"""What each kind of failure is told as, whether it stands in a status or in a stream."""


def failure_error(kind: FailureKind, text: str | None = None, code: str | None = None) -> HttpError:
    """A failure of this kind; `text` and `code`: where more is known of it."""
    failure = FAILURES[kind]
    return HttpError(failure.status, text or failure.text, code=code or failure.code, headers=failure.headers)


def translate(exc: BaseException) -> HttpError:
    """Any exception as the HttpError to answer with. Unknown ones are logged with their trace and told as 500 only."""
    if isinstance(exc, HttpError):
        return exc
    if isinstance(exc, QueueFull):
        # not all that were refused together come again together
        seconds = max(1, math.ceil(exc.retry_after * random.uniform(1.0, 1.5)))
        return HttpError(429, str(exc), code="rate_limit_exceeded", headers={"retry-after": str(seconds)})
    if isinstance(exc, RequestError):
        return HttpError(400, str(exc), param=exc.param, code=exc.code)
    if isinstance(exc, SanicException):
        return _from_sanic(exc)
    if isinstance(exc, RequestCancelled):  # the client left: nobody reads this
        return HttpError(503, "The request was cancelled.", code="unavailable")
    kind = failure_kind(exc)
    if kind is FailureKind.CLOSED:
        lasting = isinstance(exc, EngineFailed)
        headers = {"x-should-retry": "false"} if lasting else {"retry-after": str(random.randint(3, 8))}
        return HttpError(503, str(exc), code=FAILURES[kind].code, headers=headers)
    log.error("unexpected %s while answering a request", type(exc).__name__, exc_info=exc)
    return failure_error(FailureKind.INTERNAL)


_SANIC_TEXT = {
    404: ("There is no such path here; try /v1/chat/completions, /v1/models or /health.", "not_found"),
    405: ("This path does not take this method.", "method_not_allowed"),
    408: ("The request was not sent completely in time.", "request_timeout"),
    413: ("The request is larger than this server accepts.", "request_too_large"),
    417: ("Only Expect: 100-continue is supported.", "expectation_failed"),
}


def _from_sanic(exc: SanicException) -> HttpError:
    status = exc.status_code
    if status >= 500:
        if status == 500:
            log.error("unexpected %s from the HTTP layer", type(exc).__name__, exc_info=exc)
        return HttpError(status, "The server could not answer this request.", code="unavailable")
    text, code = _SANIC_TEXT.get(status, ("This is not a well-formed HTTP request.", "bad_request"))
    headers = {k.lower(): v for k, v in (exc.headers or {}).items() if k.lower() == "allow"}
    if "allow" in headers:
        text = f"This path does not take this method; it takes {headers['allow']}."
    return HttpError(status, text, code=code, headers=headers)


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """How a dialect tells its clients of errors. `reply`: type of the JSON that `body` writes. `prefix`: paths that
    begin with it get errors of this shape, also where they lead nowhere or the request is refused before it is
    routed."""

    reply: Any
    body: Callable[[HttpError], bytes]
    prefix: bytes = b""

    def response(self, exc: BaseException) -> HTTPResponse:
        """The whole HTTP answer for an exception."""
        error = translate(exc)
        return HTTPResponse(self.body(error), error.status, headers=error.headers, content_type="application/json")


OPENAI_ERRORS = ErrorShape(Error, error_body)
"""For OpenAI's clients, and for all paths that no dialect claims."""


class ShapedErrors(ErrorHandler):
    """Makes every error that leaves Sanic, its own ones included, one of the shape that its path's dialect has."""

    def __init__(self, shapes: Iterable[ErrorShape]) -> None:
        super().__init__()
        self._shapes = [shape for shape in dict.fromkeys(shapes) if shape.prefix]

    def default(self, request: Request, exception: BaseException) -> HTTPResponse:
        """Answer `exception`; called by Sanic for everything that no other handler took."""
        claimed = (shape for shape in self._shapes if request.raw_url.startswith(shape.prefix))
        error = translate(exception)
        request.ctx.code = error.code  # for the log
        return next(claimed, OPENAI_ERRORS).response(error)
