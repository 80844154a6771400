"""What every room's replies are described with, and the JSON of errors: types for the OpenAPI document and the tests.

NotRequired: a field that is absent where it has nothing to say. Every object is closed: what is not listed is never
sent."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

closed = with_config(ConfigDict(extra="forbid", use_attribute_docstrings=True))
"""For each TypedDict of a reply: no other fields, and its attributes' docstrings are descriptions."""

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


@closed
class ErrorDetails(TypedDict):
    """What was wrong."""

    message: str
    """What was wrong, where, and what to do."""
    type: Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]
    param: str | None
    """The field, spelled like `messages[2].content`."""
    code: str | None


@closed
class Error(TypedDict):
    """An error in OpenAI's shape, as an answer of its own or as the last event of a stream."""

    error: ErrorDetails
