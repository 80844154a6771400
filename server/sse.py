"""Chat completion objects as bytes: whole answers, and stream chunks built around a prefix made once per answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from axpress.core.request import Delta, Spent, TokenLogprob

TokenBytes = Callable[[int], bytes]
DONE = b"data: [DONE]\n\n"


def usage(prompt_tokens: int, completion_tokens: int, spent: Sequence[Spent]) -> dict[str, Any]:
    """OpenAI's usage object of an answer's choices.

    The prompt counts once; `cached_tokens` of it were found in the cache by every choice, so none of them cost anything anew.
    Rejected prediction tokens were tried and thrown away: unlike OpenAI's, they are not among the completion's tokens.
    """
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": min((s.cached_tokens for s in spent), default=0)},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "accepted_prediction_tokens": sum(s.accepted_prediction_tokens for s in spent),
            "rejected_prediction_tokens": sum(s.rejected_prediction_tokens for s in spent),
        },
    }


def logprobs_content(logprobs: Iterable[TokenLogprob], token_bytes: TokenBytes) -> list[dict[str, Any]]:
    """OpenAI's logprobs.content: one entry per generated token."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        raw = token_bytes(token)
        return {"token": raw.decode("utf-8", "replace"), "logprob": max(logprob, -9999.0), "bytes": list(raw)}

    return [{**entry(one.token, one.logprob), "top_logprobs": [entry(t, p) for t, p in one.top]} for one in logprobs]


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What every object of one answer says of it. `service_tier` None: the request named none, the answer tells none."""

    answer_id: str
    created: int
    model: str
    service_tier: str | None = None

    def fields(self, kind: str) -> dict[str, Any]:
        """The first fields of an object of this kind."""
        fields: dict[str, Any] = {"id": self.answer_id, "object": kind, "created": self.created, "model": self.model}
        return fields if self.service_tier is None else {**fields, "service_tier": self.service_tier}


def choice(index: int, text: str, finish_reason: str, logprobs: list[dict[str, Any]] | None) -> dict[str, Any]:
    """One choice of a whole answer."""
    return {
        "index": index,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None if logprobs is None else {"content": logprobs, "refusal": None},
        "finish_reason": finish_reason,
    }


def completion(head: AnswerHead, choices: list[dict[str, Any]], used: dict[str, Any]) -> bytes:
    """A whole chat.completion object."""
    return orjson.dumps({**head.fields("chat.completion"), "choices": choices, "usage": used})


class ChunkWriter:
    """Serialises the deltas of one choice of a streamed answer. Per token: one JSON string between two constants."""

    def __init__(self, answer: AnswerHead, index: int, include_usage: bool, token_bytes: TokenBytes | None) -> None:
        head = orjson.dumps(answer.fields("chat.completion.chunk"))[:-1]
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._head = b"data: " + head + b',"choices":[{"index":%d,"delta":' % index
        self._text_head = self._head + b'{"content":'
        self._text_tail = b'},"logprobs":null,"finish_reason":null}]' + self._tail
        self._usage_head = b"data: " + head + b',"choices":[],"usage":'
        self._token_bytes = token_bytes

    def role(self) -> bytes:
        """The first chunk."""
        return self._head + b'{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]' + self._tail

    def text(self, deltas: list[Delta]) -> bytes:
        """One chunk per delta that has something to say, all in one piece of bytes."""
        if self._token_bytes is not None:
            return b"".join([self._with_logprobs(d, self._token_bytes) for d in deltas if d.text or d.logprobs])
        head, tail, dumps = self._text_head, self._text_tail, orjson.dumps
        return b"".join([head + dumps(d.text) + tail for d in deltas if d.text])

    def _with_logprobs(self, delta: Delta, token_bytes: TokenBytes) -> bytes:
        content = orjson.dumps({"content": logprobs_content(delta.logprobs, token_bytes), "refusal": None})
        text = orjson.dumps(delta.text)
        return self._text_head + text + b'},"logprobs":' + content + b',"finish_reason":null}]' + self._tail

    def finish(self, reason: str) -> bytes:
        """The chunk that carries the finish reason."""
        return self._head + b'{},"logprobs":null,"finish_reason":' + orjson.dumps(reason) + b"}]" + self._tail

    def usage(self, used: dict[str, Any]) -> bytes:
        """The chunk with empty choices that ends a stream whose client asked for usage."""
        return self._usage_head + orjson.dumps(used) + b"}\n\n"


def error_event(body: bytes) -> bytes:
    """An error inside a stream: clients raise it."""
    return b"data: " + body + b"\n\n"
