"""Chat completions as streams: chunks built around a beginning and an end that are made once per choice."""

from __future__ import annotations

from typing import Any

import orjson

from axpress.core.request import Delta

from ..schema.logprobs import logprobs_content
from ..serving.output_parser import Piece, pieces
from ..serving.prepared_request import PreparedRequest
from .chat_request import ChatRequest
from .reply_parts import AnswerHead, Chunks, finish_reason


class ChatStream(Chunks):
    """The chunks of a chat completion. Per token of plain content: one JSON string between two constants."""

    def __init__(self, head: AnswerHead, prepared: PreparedRequest, request: ChatRequest) -> None:
        super().__init__(head, "chat.completion.chunk", prepared, request)
        old_calls = bool(request.functions)
        self._choices = [
            _Choice(self.start, self.tail, index, prepared, old_calls) for index in range(len(prepared.requests))
        ]

    def begin(self) -> bytes:
        return b"".join([choice.role() for choice in self._choices])

    def encode(self, index: int, deltas: list[Delta]) -> bytes:
        choice, last = self._choices[index], deltas[-1]
        data = choice.text(deltas)
        return data + choice.finish(last.finish_reason) if last.finish_reason in ("stop", "length") else data


class _Choice:
    """The chunks of one choice."""

    def __init__(self, start: bytes, tail: bytes, index: int, prepared: PreparedRequest, old_calls: bool) -> None:
        self._tail, self._old_calls = tail, old_calls
        self._head = start + b',"choices":[{"index":%d,"delta":' % index
        self._text_head = self._head + b'{"content":'
        self._text_tail = b'},"logprobs":null,"finish_reason":null}]' + self._tail
        self._prepared, self._index = prepared, index
        self._token_bytes = prepared.token_bytes
        self._parser = prepared.parser(index)

    def role(self) -> bytes:
        """The first chunk."""
        return self._chunk(b'{"role":"assistant","content":""}')

    def _chunk(self, delta: bytes, logprobs: bytes = b"null", reason: bytes = b"null") -> bytes:
        return self._head + delta + b',"logprobs":' + logprobs + b',"finish_reason":' + reason + b"}]" + self._tail

    def text(self, deltas: list[Delta]) -> bytes:
        """One chunk per delta that has something to say, all in one piece of bytes."""
        if self._parser is not None or self._token_bytes is not None:
            return b"".join([self._chunks(delta) for delta in deltas])
        head, tail, dumps = self._text_head, self._text_tail, orjson.dumps
        return b"".join([head + dumps(d.text) + tail for d in deltas if d.text])

    def _chunks(self, delta: Delta) -> bytes:
        """The chunks of one delta: a piece each; log-probabilities go with the first."""
        parts = [self._piece(piece) for piece in pieces(self._parser, [delta])]
        logprobs = b"null"
        if delta.logprobs and self._token_bytes is not None:
            logprobs = orjson.dumps({"content": logprobs_content(delta.logprobs, self._token_bytes), "refusal": None})
            parts = parts or [b'{"content":""}']
        return b"".join([self._chunk(part, b"null" if i else logprobs) for i, part in enumerate(parts)])

    def _piece(self, piece: Piece) -> bytes:
        """The `delta` object of a piece."""
        if piece.kind in ("content", "reasoning"):
            return orjson.dumps({"content" if piece.kind == "content" else "reasoning_content": piece.text})
        function = {"name": piece.text, "arguments": ""} if piece.kind == "call" else {"arguments": piece.text}
        if self._old_calls:
            return orjson.dumps({"function_call": function})
        call: dict[str, Any] = {"index": piece.call}
        if piece.kind == "call":
            call |= {"id": self._prepared.call_id(self._index, piece.call), "type": "function"}
        return orjson.dumps({"tool_calls": [{**call, "function": function}]})

    def finish(self, reason: str) -> bytes:
        """The chunk that carries the finish reason."""
        return self._chunk(b"{}", reason=orjson.dumps(finish_reason(reason, self._parser, self._old_calls)))
