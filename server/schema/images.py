"""Pictures in messages, as several dialects have them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from axpress.core.errors import RequestError

from ..serving.generation_spec import ImageSource
from .fields import Text

ImageDetail = Literal["auto", "low", "high", "original"]
PictureText = Annotated[Text, Field(min_length=1)]
"""A URL or base64: megabytes, whose bounds are the server's."""


def image_source(field: str, url: str | None, encoded: str = "", detail: ImageDetail | None = None) -> ImageSource:
    """In neutral form; "original" looks as closely as "high" does."""
    return ImageSource(field, url, encoded, "high" if detail == "original" else detail or "auto")


def only_of_user(field: str) -> RequestError:
    """For pictures in what others said."""
    text = f"'{field}': only messages of the user have pictures."
    return RequestError(text, field, "invalid_value")


def parts_or_text(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Content for chat templates: a text where there are no pictures."""
    if all(part["type"] == "text" for part in parts):
        return "".join([part["text"] for part in parts])
    return parts
