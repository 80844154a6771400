"""A Responses answer put together item by item, and the events that tell of it on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import orjson

from axpress.core.request import Delta, TokenLogprob

from ..http.errors import HttpError, error_body
from ..schema.logprobs import logprobs_content
from ..serving.dialect import StreamWriter, Totals
from ..serving.output_parser import Piece, pieces
from ..serving.prepared_request import PreparedRequest

Fields = dict[str, Any]
Event = tuple[str, Fields]
"""Its type without "response.", and its fields without type and number."""


class _Item(ABC):
    """One item of the output, while it grows."""

    prefix: ClassVar[str]

    def __init__(self, output_index: int, nonce: str) -> None:
        self.item_id = f"{self.prefix}_{nonce}{output_index:02x}"
        self.output_index = output_index
        self.place = {"item_id": self.item_id, "output_index": output_index}
        self._text: list[str] = []

    @property
    def text(self) -> str:
        """All that came so far."""
        return "".join(self._text)

    @abstractmethod
    def document(self, status: str) -> Fields:
        """The item as it is now: in_progress, completed or incomplete."""

    def begin(self) -> list[Event]:
        """The events with which it opens."""
        return [("output_item.added", {"output_index": self.output_index, "item": self.document("in_progress")})]

    def end(self, status: str) -> list[Event]:
        """The events with which it closes."""
        return [("output_item.done", {"output_index": self.output_index, "item": self.document(status)})]

    @abstractmethod
    def more(self, text: str, logprobs: list[Fields]) -> Event:
        """The event that brings more of its text."""


class _Text(_Item):
    """What messages and reasoning have in common: one part of text."""

    part_type: ClassVar[str]

    @abstractmethod
    def part(self) -> Fields:
        """Its part as it is now."""

    def begin(self) -> list[Event]:
        return [*super().begin(), ("content_part.added", {**self.place, "content_index": 0, "part": self.part()})]

    def _rest(self) -> Fields:
        """What its own events have beside place and text."""
        return {}

    def more(self, text: str, logprobs: list[Fields]) -> Event:
        self._text.append(text)
        return f"{self.part_type}.delta", {**self.place, "content_index": 0, "delta": text, **self._rest()}

    def end(self, status: str) -> list[Event]:
        place = {**self.place, "content_index": 0}
        done = (f"{self.part_type}.done", {**place, "text": self.text, **self._rest()})
        return [done, ("content_part.done", {**place, "part": self.part()}), *super().end(status)]


class _Message(_Text):
    prefix, part_type = "msg", "output_text"

    def __init__(self, output_index: int, nonce: str) -> None:
        super().__init__(output_index, nonce)
        self._logprobs: list[Fields] = []

    def part(self) -> Fields:
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": self._logprobs}

    def _rest(self) -> Fields:
        return {"logprobs": self._logprobs}

    def more(self, text: str, logprobs: list[Fields]) -> Event:
        name, fields = super().more(text, logprobs)
        self._logprobs += logprobs
        return name, {**fields, "logprobs": logprobs}

    def document(self, status: str) -> Fields:
        content = [] if status == "in_progress" else [self.part()]
        return {"id": self.item_id, "type": "message", "status": status, "role": "assistant", "content": content}


class _Reasoning(_Text):
    prefix, part_type = "rs", "reasoning_text"

    def part(self) -> Fields:
        return {"type": "reasoning_text", "text": self.text}

    def document(self, status: str) -> Fields:
        content = [] if status == "in_progress" else [self.part()]
        return {"id": self.item_id, "type": "reasoning", "status": status, "summary": [], "content": content}


class _Call(_Item):
    prefix = "fc"

    def __init__(self, output_index: int, nonce: str, call_id: str, name: str) -> None:
        super().__init__(output_index, nonce)
        self._call = {"call_id": call_id, "name": name}

    def document(self, status: str) -> Fields:
        return {"id": self.item_id, "type": "function_call", "status": status, **self._call, "arguments": self.text}

    def more(self, text: str, logprobs: list[Fields]) -> Event:
        self._text.append(text)
        return "function_call_arguments.delta", {**self.place, "delta": text}

    def end(self, status: str) -> list[Event]:
        done = {**self.place, "name": self._call["name"], "arguments": self.text}
        return [("function_call_arguments.done", done), *super().end(status)]


class Output:
    """The items of one answer. What it gives as events on the way is what `items` has in the end."""

    def __init__(self, prepared: PreparedRequest) -> None:
        self.items: list[Fields] = []
        self._prepared, self._parser = prepared, prepared.parser(0)
        self._open: _Item | None = None
        self._logprobs: list[TokenLogprob] = []
        self._fresh: list[TokenLogprob] = []

    def take(self, deltas: Sequence[Delta]) -> Iterator[Event]:
        """The events of what arrived; where the answer ended, those of its last item too."""
        for delta in deltas:
            self._fresh = list(delta.logprobs)
            self._logprobs += self._fresh
            for piece in pieces(self._parser, [delta]):
                yield from self._piece(piece)
            if delta.finish_reason in ("stop", "length"):
                yield from self._finish(delta.finish_reason)

    def _piece(self, piece: Piece) -> Iterator[Event]:
        kind = {"content": _Message, "reasoning": _Reasoning}.get(piece.kind, _Call)
        if piece.kind == "call" or not isinstance(self._open, kind):
            yield from self._next(kind, piece)
        if piece.kind != "call" and self._open is not None:
            yield self._open.more(piece.text, self._taken() if kind is _Message else [])

    def _next(self, kind: type[_Item], piece: Piece | None) -> Iterator[Event]:
        """Close the open item and begin one of this kind."""
        yield from self._close("completed")
        index, nonce = len(self.items), self._prepared.nonce
        if kind is _Call and piece is not None:
            self._open = _Call(index, nonce, self._prepared.call_id(0, piece.call), piece.text)
        else:
            self._open = _Message(index, nonce) if kind is _Message else _Reasoning(index, nonce)
            # those before were of reasoning, calls or tags
            self._logprobs = self._fresh if self.items else self._logprobs
        yield from self._open.begin()

    def _taken(self) -> list[Fields]:
        """The log-probabilities of the tokens since the last piece of text."""
        if self._prepared.token_bytes is None:
            return []
        taken, self._logprobs = self._logprobs, []
        return logprobs_content(taken, self._prepared.token_bytes)

    def _close(self, status: str) -> Iterator[Event]:
        if self._open is not None:
            yield from self._open.end(status)
            self.items.append(self._open.document(status))
            self._open = None

    def _finish(self, reason: str) -> Iterator[Event]:
        """An answer of nothing is an empty message."""
        if self._open is None and not self.items:
            yield from self._next(_Message, None)
        yield from self._close("completed" if reason == "stop" else "incomplete")


class ResponseStream(StreamWriter):
    """The events of one answer. `response` gives the response object: status, output, and what else is to be said."""

    def __init__(
        self, prepared: PreparedRequest, response: Callable[..., Fields], finished: Callable[..., Fields]
    ) -> None:
        self._response, self._finished = response, finished
        self._output = Output(prepared)
        self._reason = "stop"
        self._number = 0

    def _event(self, name: str, fields: Fields) -> bytes:
        name = name if name == "error" else f"response.{name}"
        data = orjson.dumps({"type": name, "sequence_number": self._number, **fields})
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)

    def begin(self) -> bytes:
        response = self._response("in_progress", [])
        return self._event("created", {"response": response}) + self._event("in_progress", {"response": response})

    def encode(self, index: int, deltas: list[Delta]) -> bytes:
        self._reason = deltas[-1].finish_reason or "stop"
        return b"".join([self._event(name, fields) for name, fields in self._output.take(deltas)])

    def end(self, totals: Totals) -> bytes:
        status = "completed" if self._reason == "stop" else "incomplete"
        return self._event(status, {"response": self._finished(status, self._output.items, totals=totals)})

    def fail(self, error: HttpError) -> bytes:
        """An `error` event, which has the error twice: as its type says, and as clients look for it; then the failed
        response."""
        fields = {"code": error.code, "message": str(error), "param": error.param}
        reason = {"code": "server_error", "message": str(error)}
        failed = {"response": self._response("failed", self._output.items, error=reason)}
        return self._event("error", {**fields, **orjson.loads(error_body(error))}) + self._event("failed", failed)
