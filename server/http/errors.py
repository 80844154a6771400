"""The shapes of errors, and which exception becomes which status. Nothing else in the server writes an error body."""

from __future__ import annotations

import logging
import math
from typing import Any

import orjson
from sanic.exceptions import RequestCancelled, SanicException
from sanic.handlers import ErrorHandler
from sanic.request import Request
from sanic.response import HTTPResponse

from axpress.core.errors import AxpressError, EngineClosed, QueueFull, RequestError

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


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    """The JSON body of an error. Lone surrogates that came in with a request are replaced, never re-emitted."""
    error = {"message": _clean(message), "type": error_type(status), "param": _clean(param), "code": code}
    return orjson.dumps({"error": error})


def _clean(text: Any) -> Any:
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else text


def translate(exc: BaseException) -> HttpError:
    """Any exception as the HttpError to answer with. Unknown ones are logged with their trace and told as 500 only."""
    if isinstance(exc, HttpError):
        return exc
    if isinstance(exc, QueueFull):
        seconds = max(1, math.ceil(exc.retry_after))
        return HttpError(429, str(exc), code="rate_limit_exceeded", headers={"retry-after": str(seconds)})
    if isinstance(exc, RequestError):
        return HttpError(400, str(exc), param=exc.param, code=exc.code)
    if isinstance(exc, EngineClosed):
        return HttpError(503, str(exc), code="unavailable", headers={"retry-after": "5"})
    if isinstance(exc, SanicException):
        return _from_sanic(exc)
    if isinstance(exc, RequestCancelled):  # the client left: nobody reads this
        return HttpError(503, "The request was cancelled.", code="unavailable")
    log.error("unexpected %s while answering a request", type(exc).__name__, exc_info=exc)
    return HttpError(500, "The server failed on this request; its log says why.", code="internal_error")


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


def error_response(exc: BaseException) -> HTTPResponse:
    """The whole HTTP answer for an exception."""
    error = translate(exc)
    body = error_body(error.status, str(error), error.param, error.code)
    return HTTPResponse(body, error.status, headers=error.headers, content_type="application/json")


def sentence_body(message: str) -> bytes:
    """The JSON body of an error as Ollama's clients read it."""
    return orjson.dumps({"error": _clean(message)})


def sentence_response(exc: BaseException) -> HTTPResponse:
    """The whole HTTP answer for an exception, for Ollama's clients."""
    error = translate(exc)
    text = str(error)
    if error.param is not None and error.param not in text:  # where there is only a sentence, it has to name the field
        text = f"'{error.param}': {text}"
    return HTTPResponse(sentence_body(text), error.status, headers=error.headers, content_type="application/json")


class OpenAIErrorHandler(ErrorHandler):
    """Makes every error that leaves Sanic, its own ones included, an OpenAI error, or one of Ollama's under /api/."""

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        """Answer `exception`; called by Sanic for everything that no other handler took."""
        return sentence_response(exception) if request.raw_url.startswith(b"/api/") else error_response(exception)
