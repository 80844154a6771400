"""What whole answers and streams of OpenAI's completions consist of: heads, usage, timings, finish reasons; and what
their streams have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from ..http.errors import HttpError, error_body
from ..serving.dialect import StreamWriter, Totals
from ..serving.output_parser import OutputParser
from ..serving.prepared_request import PreparedRequest
from .common_request import CompletionFields

DONE = b"data: [DONE]\n\n"


def usage(totals: Totals) -> dict[str, Any]:
    """OpenAI's usage object of a request's answers.

    Rejected prediction tokens were tried and thrown away: unlike OpenAI's, they are not among the completion's tokens.
    """
    return {
        "prompt_tokens": totals.prompt_tokens,
        "completion_tokens": totals.completion_tokens,
        "total_tokens": totals.prompt_tokens + totals.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": totals.cached_tokens},
        "completion_tokens_details": {
            "reasoning_tokens": totals.reasoning_tokens,
            "accepted_prediction_tokens": sum(s.accepted_prediction_tokens for s in totals.spent),
            "rejected_prediction_tokens": sum(s.rejected_prediction_tokens for s in totals.spent),
        },
    }


def timings(totals: Totals, emulated: bool) -> dict[str, Any]:
    """The `timings` object of llama.cpp's server: how many tokens and milliseconds prompt and answer took, queueing
    left out.

    Of several choices, which run together, the one that took longest. Times of an emulated card say that they are of
    one."""
    prompt_s = max((s.first_token_s - s.queue_s for s in totals.spent), default=0.0)
    predicted_s = max((s.total_s - s.first_token_s for s in totals.spent), default=0.0)
    prompt_n, predicted_n = totals.prompt_tokens - totals.cached_tokens, totals.completion_tokens
    return {
        "cache_n": totals.cached_tokens,
        "prompt_n": prompt_n,
        "prompt_ms": round(1e3 * prompt_s, 3),
        "prompt_per_second": round(prompt_n / prompt_s, 3) if prompt_s > 0 else None,
        "predicted_n": predicted_n,
        "predicted_ms": round(1e3 * predicted_s, 3),
        "predicted_per_second": round(predicted_n / predicted_s, 3) if predicted_s > 0 else None,
        **({"emulated": True} if emulated else {}),
    }


def finish_reason(reason: str, parser: OutputParser | None, old_calls: bool = False) -> str:
    """ "tool_calls" (in the old form "function_call") where an answer that came to its end has called something.

    An answer that a stop string cut in the middle of a call has not.
    """
    called = reason == "stop" and parser is not None and parser.num_calls and not parser.call_open
    return ("function_call" if old_calls else "tool_calls") if called else reason


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What every object of one answer says of it. `service_tier` None: the request named none, the answer tells
    none."""

    answer_id: str
    created: int
    model: str
    fingerprint: str
    service_tier: str | None = None

    @classmethod
    def of(cls, prefix: str, prepared: PreparedRequest, service_tier: str | None = None) -> AnswerHead:
        """The head of a request's answer; `prefix`: how its id begins."""
        answer_id = prefix + prepared.nonce
        return cls(answer_id, prepared.created, prepared.model, prepared.fingerprint, service_tier)

    def fields(self, kind: str) -> dict[str, Any]:
        """The first fields of an object of this kind."""
        fields: dict[str, Any] = {
            "id": self.answer_id, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": self.fingerprint,
        }  # fmt: skip
        return fields if self.service_tier is None else {**fields, "service_tier": self.service_tier}

    def whole(
        self, kind: str, choices: list[dict[str, Any]], totals: Totals, prepared: PreparedRequest, timed: bool
    ) -> bytes:
        """A whole answer of this kind; `timed`: with timings."""
        extra = {"timings": timings(totals, prepared.engine.info.emulated)} if timed else {}
        return orjson.dumps({**self.fields(kind), "choices": choices, "usage": usage(totals), **extra})


class Chunks(StreamWriter):
    """What the streams of OpenAI's completions have in common: server-sent chunks, which begin with `start`, and their
    end."""

    def __init__(self, head: AnswerHead, kind: str, prepared: PreparedRequest, request: CompletionFields) -> None:
        self._include_usage, self._timings = request.include_usage, bool(request.timings)
        self._emulated = prepared.engine.info.emulated
        self.start = b"data: " + orjson.dumps(head.fields(kind))[:-1]
        self.tail = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"

    def end(self, totals: Totals) -> bytes:
        if not (self._include_usage or self._timings):
            return DONE
        used = orjson.dumps(usage(totals) if self._include_usage else None)
        timed = b',"timings":' + orjson.dumps(timings(totals, self._emulated)) if self._timings else b""
        return self.start + b',"choices":[],"usage":' + used + timed + b"}\n\n" + DONE

    def fail(self, error: HttpError) -> bytes:
        return b"data: " + error_body(error) + b"\n\n" + DONE
