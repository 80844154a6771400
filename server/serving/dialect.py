"""What a dialect of the API has to say: how a request is read, and how its answer is written, streamed or whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from axpress.core.errors import AxpressError
from axpress.core.request import Delta, Spent, TokenLogprob

from ..http.errors import HttpError, error_body
from .generation_spec import GenerationSpec
from .model_names import ModelNames
from .output_parser import OutputParser
from .prepared_request import PreparedRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Answer:
    """One finished answer: all its deltas, the last of which has the finish reason and what it cost."""

    deltas: list[Delta]

    @property
    def text(self) -> str:
        """All its text, tags of reasoning and calls included."""
        return "".join([delta.text for delta in self.deltas])

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """Of all its tokens, where they were wanted."""
        return [logprob for delta in self.deltas for logprob in delta.logprobs]

    @property
    def embedding(self) -> NDArray[np.float32]:
        """The vector that was asked for."""
        vector = self.deltas[-1].embedding
        assert vector is not None
        return vector

    @property
    def logits(self) -> NDArray[np.float32]:
        """Those of the tokens that were asked for."""
        values = self.deltas[-1].logits
        assert values is not None
        return values

    @property
    def finish_reason(self) -> str:
        """ "stop" or "length"."""
        return self.deltas[-1].finish_reason or "stop"


@dataclass(frozen=True, slots=True)
class Totals:
    """What a whole request came to: tokens of all its answers, and what each of them cost.

    A prompt counts once, however many answers it gets; `cached_tokens` of it were found in the cache by every one of
    them."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    spent: list[Spent]
    parsers: Sequence[OutputParser] = ()

    @property
    def reasoning_tokens(self) -> int:
        """Of all answers; ask once they are read."""
        return sum(parser.reasoning_tokens for parser in self.parsers)


class StreamWriter(ABC):
    """Writes one request's streamed answers. Every method gives the bytes to send, which may be none."""

    content_type = "text/event-stream; charset=utf-8"
    keep_alive = b": waiting\n\n"
    """What may be sent when there has been nothing to tell for a while, so that nobody between gives up: a comment."""

    @abstractmethod
    def begin(self) -> bytes:
        """Before the first token."""

    @abstractmethod
    def encode(self, index: int, deltas: list[Delta]) -> bytes:
        """What arrived of answer `index`; where the last delta has a finish reason ("stop", "length"), the end of that
        answer too."""

    @abstractmethod
    def end(self, totals: Totals) -> bytes:
        """After the last answer's end."""

    @abstractmethod
    def fail(self, error: HttpError) -> bytes:
        """Instead of `end`, where something broke: an error that clients raise."""


class Dialect(ABC):
    """One request in one API's spelling."""

    spec: GenerationSpec
    waiting: ClassVar[bytes] = b": the model is being loaded\n\n"
    """What a stream that has not begun is told now and then, while its model is loaded: a comment of server-sent
    events. b"": nothing, where clients read every line."""

    def not_begun(self, error: HttpError) -> bytes:
        """The end of a stream that was told so, where nothing comes after it."""
        return b"data: " + error_body(error) + b"\n\n"

    @classmethod
    @abstractmethod
    def read(cls, document: Any, names: ModelNames) -> Dialect:
        """Checks the parsed JSON body; `names`: the model's. Raises RequestError, naming the field, HttpError, or
        NothingToGenerate."""

    def pictures_taken(self) -> None:
        """The pictures of the request are with the model: lets their data go, megabytes that nobody needs any more."""
        self.spec = self.spec.without_sources()

    def stream(self, prepared: PreparedRequest) -> StreamWriter:
        """The writer for `spec.stream`; a dialect that has none reads no such request."""
        raise AssertionError(f"{type(self).__name__} is never streamed")

    @abstractmethod
    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        """The JSON of the whole answer."""


class NothingToGenerate(AxpressError):
    """A request that is answered without the model. `reply`: the JSON of the answer. Where models come and go it wants
    the model to be there, and to stay for `keep_alive` seconds (None: not said); with 0 it may go."""

    def __init__(self, reply: bytes, keep_alive: float | None = None) -> None:
        super().__init__("nothing is to be generated")
        self.reply, self.keep_alive = reply, keep_alive
