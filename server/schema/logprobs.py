"""Log-probabilities in answers, as chat completions, Responses and Ollama have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from axpress.core import request

from ..http.replies import closed
from ..serving.prepared_request import TokenBytes

Byte = Annotated[int, Field(ge=0, le=255)]
LogprobValue = Annotated[float, Field(ge=-9999, le=0)]


@closed
class Logprob(TypedDict):
    """A token that was likely at its place."""

    token: str
    logprob: LogprobValue
    bytes: list[Byte] | None


@closed
class TokenLogprob(Logprob):
    """A generated token, and what was likely in its place."""

    top_logprobs: list[Logprob]


def finite(logprob: float) -> float:
    """As JSON, which knows no infinity, and OpenAI have it."""
    return max(logprob, -9999.0)


def logprobs_content(logprobs: Iterable[request.TokenLogprob], token_bytes: TokenBytes) -> list[dict[str, Any]]:
    """OpenAI's logprobs.content: one entry per generated token."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        raw = token_bytes(token)
        return {"token": raw.decode("utf-8", "replace"), "logprob": finite(logprob), "bytes": list(raw)}

    return [{**entry(of.token, of.logprob), "top_logprobs": [entry(t, p) for t, p in of.top]} for of in logprobs]
