"""Chat completion objects as bytes: whole answers, and stream chunks built around a prefix made once per answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from axpress.core.request import Delta, TokenLogprob

from ..http.errors import HttpError, error_body
from ..serving.dialect import Answer, StreamWriter, Totals
from ..serving.output_parser import OutputParser, Piece
from ..serving.prepared_request import PreparedRequest, TokenBytes

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


def logprobs_content(logprobs: Iterable[TokenLogprob], token_bytes: TokenBytes) -> list[dict[str, Any]]:
    """OpenAI's logprobs.content: one entry per generated token."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        raw = token_bytes(token)
        return {"token": raw.decode("utf-8", "replace"), "logprob": max(logprob, -9999.0), "bytes": list(raw)}

    return [{**entry(one.token, one.logprob), "top_logprobs": [entry(t, p) for t, p in one.top]} for one in logprobs]


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What every object of one answer says of it. `service_tier` None: the request named none, the answer tells
    none."""

    answer_id: str
    created: int
    model: str
    fingerprint: str
    service_tier: str | None = None

    def fields(self, kind: str) -> dict[str, Any]:
        """The first fields of an object of this kind."""
        fields: dict[str, Any] = {
            "id": self.answer_id, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": self.fingerprint,
        }  # fmt: skip
        return fields if self.service_tier is None else {**fields, "service_tier": self.service_tier}


def choice(index: int, answer: Answer, prepared: PreparedRequest, old_calls: bool = False) -> dict[str, Any]:
    """One choice of a whole answer. `old_calls`: a call is told as `function_call`."""
    parser, finish = prepared.parser(index), answer.finish_reason
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if parser is not None:
        message |= _parts(parser.read(answer.deltas), prepared, index, old_calls)
        finish = finish_reason(finish, parser, old_calls)
    logprobs = None
    if prepared.token_bytes is not None:
        logprobs = {"content": logprobs_content(answer.logprobs, prepared.token_bytes), "refusal": None}
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def finish_reason(reason: str, parser: OutputParser | None, old_calls: bool = False) -> str:
    """ "tool_calls" (in the old form "function_call") where an answer that came to its end has called something.

    An answer that a stop string cut in the middle of a call has not.
    """
    called = reason == "stop" and parser is not None and parser.num_calls and not parser.call_open
    return ("function_call" if old_calls else "tool_calls") if called else reason


def _parts(pieces: list[Piece], prepared: PreparedRequest, index: int, old_calls: bool) -> dict[str, Any]:
    """The message's fields that an answer's pieces make."""
    joined = {kind: "".join([p.text for p in pieces if p.kind == kind]) for kind in ("content", "reasoning")}
    calls = [
        {
            "id": prepared.call_id(index, call.call),
            "type": "function",
            "function": {
                "name": call.text,
                "arguments": "".join([p.text for p in pieces if p.kind == "arguments" and p.call == call.call]),
            },
        }
        for call in pieces
        if call.kind == "call"
    ]
    fields: dict[str, Any] = {"content": joined["content"] or (None if calls else "")}
    if any(p.kind == "reasoning" for p in pieces):
        fields["reasoning_content"] = joined["reasoning"]
    if calls and old_calls:
        fields["function_call"] = calls[0]["function"]
    elif calls:
        fields["tool_calls"] = calls
    return fields


def completion(
    head: AnswerHead, choices: list[dict[str, Any]], used: dict[str, Any], timed: dict[str, Any] | None
) -> bytes:
    """A whole chat.completion object."""
    extra = {} if timed is None else {"timings": timed}
    return orjson.dumps({**head.fields("chat.completion"), "choices": choices, "usage": used, **extra})


class Chunks(StreamWriter):
    """What the streams of OpenAI's completions have in common: server-sent chunks, which begin with `start`, and their
    end."""

    def __init__(self, head: AnswerHead, kind: str, prepared: PreparedRequest, include_usage: bool) -> None:
        self._include_usage, self._timings, self._emulated = (
            include_usage,
            prepared.spec.timings,
            prepared.engine.info.emulated,
        )
        self.start = b"data: " + orjson.dumps(head.fields(kind))[:-1]
        self.tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def end(self, totals: Totals) -> bytes:
        if not (self._include_usage or self._timings):
            return DONE
        used = orjson.dumps(usage(totals) if self._include_usage else None)
        timed = b',"timings":' + orjson.dumps(timings(totals, self._emulated)) if self._timings else b""
        return self.start + b',"choices":[],"usage":' + used + timed + b"}\n\n" + DONE

    def fail(self, error: HttpError) -> bytes:
        return error_event(error) + DONE


class ChatStream(Chunks):
    """The chunks of a chat completion. Per token of plain content: one JSON string between two constants."""

    def __init__(
        self, head: AnswerHead, prepared: PreparedRequest, include_usage: bool, old_calls: bool = False
    ) -> None:
        super().__init__(head, "chat.completion.chunk", prepared, include_usage)
        self._choices = [
            _Choice(self.start, self.tail, index, prepared, old_calls) for index in range(len(prepared.requests))
        ]

    def begin(self) -> bytes:
        return b"".join([one.role() for one in self._choices])

    def encode(self, index: int, deltas: list[Delta]) -> bytes:
        one, last = self._choices[index], deltas[-1]
        data = one.text(deltas)
        return data + one.finish(last.finish_reason) if last.finish_reason in ("stop", "length") else data


class _Choice:
    """The chunks of one choice."""

    def __init__(self, start: bytes, tail: bytes, index: int, prepared: PreparedRequest, old_calls: bool) -> None:
        self._tail, self._old_calls = tail, old_calls
        self._head = start + b',"choices":[{"index":%d,"delta":' % index
        self._text_head = self._head + b'{"content":'
        self._text_tail = b'},"logprobs":null,"finish_reason":null}]' + self._tail
        self._job, self._index = prepared, index
        self._token_bytes = prepared.token_bytes
        self._reader = prepared.parser(index)

    def role(self) -> bytes:
        """The first chunk."""
        return self._chunk(b'{"role":"assistant","content":""}')

    def _chunk(self, delta: bytes, logprobs: bytes = b"null", reason: bytes = b"null") -> bytes:
        return self._head + delta + b',"logprobs":' + logprobs + b',"finish_reason":' + reason + b"}]" + self._tail

    def text(self, deltas: list[Delta]) -> bytes:
        """One chunk per delta that has something to say, all in one piece of bytes."""
        if self._reader is not None or self._token_bytes is not None:
            return b"".join([self._chunks(delta) for delta in deltas])
        head, tail, dumps = self._text_head, self._text_tail, orjson.dumps
        return b"".join([head + dumps(d.text) + tail for d in deltas if d.text])

    def _chunks(self, delta: Delta) -> bytes:
        """The chunks of one delta: a piece each; log-probabilities go with the first."""
        pieces = (
            self._reader.read([delta])
            if self._reader is not None
            else [Piece("content", delta.text)]
            if delta.text
            else []
        )
        made = [self._piece(piece) for piece in pieces]
        logprobs = b"null"
        if delta.logprobs and self._token_bytes is not None:
            logprobs = orjson.dumps({"content": logprobs_content(delta.logprobs, self._token_bytes), "refusal": None})
            made = made or [b'{"content":""}']
        return b"".join([self._chunk(one, b"null" if i else logprobs) for i, one in enumerate(made)])

    def _piece(self, piece: Piece) -> bytes:
        """The `delta` object of a piece."""
        if piece.kind in ("content", "reasoning"):
            return orjson.dumps({"content" if piece.kind == "content" else "reasoning_content": piece.text})
        function = {"name": piece.text, "arguments": ""} if piece.kind == "call" else {"arguments": piece.text}
        if self._old_calls:
            return orjson.dumps({"function_call": function})
        call: dict[str, Any] = {"index": piece.call}
        if piece.kind == "call":
            call |= {"id": self._job.call_id(self._index, piece.call), "type": "function"}
        return orjson.dumps({"tool_calls": [{**call, "function": function}]})

    def finish(self, reason: str) -> bytes:
        """The chunk that carries the finish reason."""
        return self._chunk(b"{}", reason=orjson.dumps(finish_reason(reason, self._reader, self._old_calls)))


def error_event(error: HttpError) -> bytes:
    """An error inside a stream: clients raise it."""
    return b"data: " + error_body(error.status, str(error), error.param, error.code) + b"\n\n"
