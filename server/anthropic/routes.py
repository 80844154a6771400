"""Anthropic's rows of the route table."""

from __future__ import annotations

from typing import Any

from ..http.routing import Handler, Route, Stream
from ..serving.handler import answers
from . import replies
from .dialect import MessagesDialect, count_tokens
from .errors import ANTHROPIC_ERRORS
from .requests import CountRequest, MessagesRequest

QUESTION = {"model": "default", "messages": [{"role": "user", "content": "What is 7 + 5?"}]}


def _anthropic(path: str, handler: Handler, summary: str, **fields: Any) -> Route:
    return Route(
        method="POST", path=path, handler=handler, group="Anthropic", summary=summary, error=ANTHROPIC_ERRORS,
        not_found="The model that the request names is not served here.", query=("beta",), **fields,
    )  # fmt: skip


ROUTES: tuple[Route, ...] = (
    _anthropic(
        "/v1/messages", answers(MessagesDialect.read), "Answer a conversation", request=MessagesRequest,
        reply=replies.AnthropicMessage, stream=Stream(replies.Event), example={**QUESTION, "max_tokens": 32},
    ),
    _anthropic(
        "/v1/messages/count_tokens", count_tokens, "Tokens that a conversation takes", request=CountRequest,
        reply=replies.TokenCount, example=QUESTION,
    ),
)  # fmt: skip
