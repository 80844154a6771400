"""Errors as Ollama's clients read them: one sentence."""

from __future__ import annotations

import orjson

from ..http.errors import ErrorShape, HttpError, clean
from .replies import OllamaError


def error_body(error: HttpError) -> bytes:
    """The JSON of an error. Where there is only a sentence, it has to name the field."""
    text = str(error)
    if error.param is not None and error.param not in text:
        text = f"'{error.param}': {text}"
    return orjson.dumps({"error": clean(text)})


OLLAMA_ERRORS = ErrorShape(OllamaError, error_body, prefix=b"/api/")
