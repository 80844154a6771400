"""Ollama's answers as bytes: lines of a stream, and whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from axpress.core.request import Delta

from ..http.errors import HttpError
from ..schema.logprobs import logprobs_content
from ..serving.dialect import Answer, StreamWriter, Totals
from ..serving.output_parser import pieces
from ..serving.prepared_request import PreparedRequest
from .errors import error_body

DoneReason = Literal["stop", "length", "load", "unload"]
_BREAKS = {b"\xc2\x85": b"\\u0085", b"\xe2\x80\xa8": b"\\u2028", b"\xe2\x80\xa9": b"\\u2029"}
"""What some clients take for the end of a line, httpx among them: only ever sent as an escape."""


def timestamp(at: datetime) -> str:
    """RFC 3339, with microseconds."""
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Part:
    """What one object says of an answer. `calls`: as tool_calls has them."""

    content: str = ""
    thinking: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ReplyFormat:
    """How objects of one request look: /api/chat has a message, /api/generate a response. `model`: as the request named
    it."""

    model: str
    chat: bool

    def write(self, part: Part, last: dict[str, Any] | None = None) -> bytes:
        """One object, on one line. `last`: what the last one has."""
        document: dict[str, Any] = {"model": self.model, "created_at": timestamp(datetime.now(UTC))}
        thinking = {"thinking": part.thinking} if part.thinking else {}
        if self.chat:
            calls = {"tool_calls": part.calls} if part.calls else {}
            document["message"] = {"role": "assistant", "content": part.content, **thinking, **calls}
        else:
            document |= {"response": part.content, **thinking}
        if part.logprobs:
            document["logprobs"] = part.logprobs
        document |= {"done": last is not None, **(last or {})}
        return one_line(orjson.dumps(document))


def one_line(document: bytes) -> bytes:
    """JSON without anything in it that a client may take for the end of a line."""
    if document.isascii():
        return document
    for character, escape in _BREAKS.items():
        document = document.replace(character, escape)
    return document


def durations(reason: str, totals: Totals) -> dict[str, Any]:
    """The fields of an answer's last object; times in nanoseconds. The time that was spent waiting for others is in the
    total only."""
    spent = totals.spent[0]
    first_s = min(spent.first_token_s, spent.total_s)
    return {
        "done_reason": reason,
        "total_duration": _ns(spent.total_s),
        "load_duration": 0,
        "prompt_eval_count": totals.prompt_tokens,
        "prompt_eval_duration": _ns(first_s - spent.queue_s),
        "eval_count": totals.completion_tokens,
        "eval_duration": _ns(spent.total_s - first_s),
    }


def _ns(seconds: float) -> int:
    return max(0, round(1e9 * seconds))


class Gathering:
    """Puts the pieces of one answer together: text goes on as it comes, calls when they are whole."""

    def __init__(self, prepared: PreparedRequest) -> None:
        self._prepared = prepared
        self._parser = prepared.parser(0)
        self._token_bytes = prepared.token_bytes
        self._name: str | None = None
        self._arguments: list[str] = []
        self._call = 0

    def take(self, deltas: Sequence[Delta]) -> list[Part]:
        """What these deltas bring, in order, in as few parts as their kinds allow; log-probabilities go with the first.

        A call is whole when something else follows or the answer is over. One that was cut off is never told.
        """
        parts: list[Part] = []
        for piece in pieces(self._parser, deltas):
            if piece.kind == "arguments":
                self._arguments.append(piece.text)
                continue
            self._end_call(parts)
            if piece.kind == "call":
                self._name, self._call = piece.text, piece.call
            elif piece.kind == "reasoning":
                parts.append(Part(thinking=piece.text))
            else:
                parts.append(Part(content=piece.text))
        if deltas[-1].finish_reason is not None:
            self._end_call(parts)
        if self._token_bytes is not None and (logprobs := [each for delta in deltas for each in delta.logprobs]):
            parts = parts or [Part()]
            parts[0].logprobs = logprobs_content(logprobs, self._token_bytes)
        return parts

    def _end_call(self, parts: list[Part]) -> None:
        """The call that has been gathered, if there is one, as a part of its own, or with the call before it."""
        name, arguments = self._name, "".join(self._arguments)
        self._name, self._arguments = None, []
        if name is None or not _is_object(arguments):
            return
        # As the model wrote them: no number loses digits on the way. A line break can only be between two tokens of
        # JSON.
        written = orjson.Fragment(arguments.replace("\r", " ").replace("\n", " "))
        call = {
            "id": self._prepared.call_id(0, self._call),
            "function": {"index": self._call, "name": name, "arguments": written},
        }
        if parts and parts[-1].calls:
            parts[-1].calls.append(call)
        else:
            parts.append(Part(calls=[call]))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


class OllamaStream(StreamWriter):
    """Lines of JSON, the last of which has `done`: true."""

    content_type = "application/x-ndjson"
    keep_alive = b""  # its clients read every line as JSON

    def __init__(self, shape: ReplyFormat, prepared: PreparedRequest) -> None:
        self._shape, self._gathering = shape, Gathering(prepared)
        self._reason = "stop"

    def begin(self) -> bytes:
        return b""

    def encode(self, index: int, deltas: list[Delta]) -> bytes:
        self._reason = deltas[-1].finish_reason or self._reason
        return b"".join([self._shape.write(part) + b"\n" for part in self._gathering.take(deltas)])

    def end(self, totals: Totals) -> bytes:
        return self._shape.write(Part(), durations(self._reason, totals)) + b"\n"

    def fail(self, error: HttpError) -> bytes:
        return one_line(error_body(error)) + b"\n"


def whole(shape: ReplyFormat, prepared: PreparedRequest, answer: Answer, totals: Totals) -> bytes:
    """A whole answer in one object."""
    parts = Gathering(prepared).take(answer.deltas)
    joined = Part(
        "".join([part.content for part in parts]),
        "".join([part.thinking for part in parts]),
        [call for part in parts for call in part.calls],
        [logprob for part in parts for logprob in part.logprobs],
    )
    return shape.write(joined, durations(answer.finish_reason, totals))
