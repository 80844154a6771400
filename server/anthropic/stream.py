"""Anthropic's stream: events for an answer, for each of its blocks, and for the end."""

from __future__ import annotations

from typing import Any

import orjson

from axpress.core.request import Delta

from ..http.errors import HttpError
from ..serving.dialect import StreamWriter, Totals
from ..serving.output_parser import Piece, pieces
from ..serving.prepared_request import PreparedRequest
from .errors import error_body


def head(prepared: PreparedRequest) -> dict[str, Any]:
    """How every message begins."""
    return {"id": f"msg_{prepared.nonce}", "type": "message", "role": "assistant", "model": prepared.model}


def usage(totals: Totals) -> dict[str, int]:
    """Anthropic counts what was found in the cache apart."""
    return {
        "input_tokens": totals.prompt_tokens - totals.cached_tokens,
        "output_tokens": totals.completion_tokens,
        "cache_read_input_tokens": totals.cached_tokens,
        "cache_creation_input_tokens": 0,
    }


def stopped(last: Delta, prepared: PreparedRequest, totals: Totals) -> dict[str, str | None]:
    """Why an answer ended."""
    parser = prepared.parser(0)
    if last.finish_reason == "length":
        reached = totals.completion_tokens >= (prepared.spec.max_tokens or 0)
        reason = "max_tokens" if reached else "model_context_window_exceeded"
    elif parser is not None and parser.num_calls:
        reason = "tool_use"
    else:
        reason = "end_turn" if last.stop_string is None else "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": last.stop_string if reason == "stop_sequence" else None}


def _event(document: dict[str, Any]) -> bytes:
    return b"event: " + document["type"].encode() + b"\ndata: " + orjson.dumps(document) + b"\n\n"


class MessageStream(StreamWriter):
    """Blocks follow each other: one ends before the next begins."""

    def __init__(self, prepared: PreparedRequest) -> None:
        self._prepared, self._parser = prepared, prepared.parser(0)
        self._index = -1
        self._kind: str | None = None
        self._last: Delta | None = None

    def begin(self) -> bytes:
        totals = Totals(self._prepared.prompt_tokens, 0, 0, [])
        empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage(totals)}
        return _event({"type": "message_start", "message": head(self._prepared) | empty})

    def encode(self, index: int, deltas: list[Delta]) -> bytes:
        if deltas[-1].finish_reason is not None:
            self._last = deltas[-1]
        return b"".join([self._piece(piece) for piece in pieces(self._parser, deltas)])

    def _piece(self, piece: Piece) -> bytes:
        if piece.kind == "call":
            block = {"type": "tool_use", "id": self._prepared.call_id(0, piece.call), "name": piece.text, "input": {}}
            return self._start("call", block)
        if piece.kind == "arguments":
            return self._delta({"type": "input_json_delta", "partial_json": piece.text})
        if piece.kind == "reasoning":
            begun = self._start(piece.kind, {"type": "thinking", "thinking": "", "signature": ""})
            return begun + self._delta({"type": "thinking_delta", "thinking": piece.text})
        begun = self._start(piece.kind, {"type": "text", "text": ""})
        return begun + self._delta({"type": "text_delta", "text": piece.text})

    def _start(self, kind: str, block: dict[str, Any]) -> bytes:
        """Begins a block, unless one of this kind, but for calls, is open."""
        if kind == self._kind != "call":
            return b""
        ended = self._stop()
        self._kind, self._index = kind, self._index + 1
        return ended + _event({"type": "content_block_start", "index": self._index, "content_block": block})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _stop(self) -> bytes:
        if self._kind is None:
            return b""
        self._kind = None
        return _event({"type": "content_block_stop", "index": self._index})

    def end(self, totals: Totals) -> bytes:
        assert self._last is not None
        delta = stopped(self._last, self._prepared, totals)
        over = {"type": "message_delta", "delta": delta, "usage": usage(totals)}
        return self._stop() + _event(over) + _event({"type": "message_stop"})

    def fail(self, error: HttpError) -> bytes:
        return b"event: error\ndata: " + error_body(error) + b"\n\n"
