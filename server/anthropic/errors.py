"""Errors as Anthropic's clients read them."""

from __future__ import annotations

import orjson

from ..http.errors import ErrorShape, HttpError, clean
from .replies import AnthropicError

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(error: HttpError) -> bytes:
    """The JSON of an error; its sentence names the field."""
    other = "api_error" if error.status >= 500 else "invalid_request_error"
    details = {"type": TYPES.get(error.status, other), "message": clean(str(error))}
    return orjson.dumps({"type": "error", "error": details})


ANTHROPIC_ERRORS = ErrorShape(AnthropicError, error_body, prefix=b"/v1/messages")
