"""What a request is inside axpress, and what comes back: the nouns that server and engine share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .errors import FailureKind, RequestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen from the logits. The defaults change nothing: plain sampling from the model.

    temperature 0 is greedy. top_k 0, top_p 1 and min_p 0 are off. `penalty_window` is how many of the latest tokens
    (prompt and answer) the repetition penalty looks at; 0 means all of them. Presence and frequency penalties count
    generated tokens only, as OpenAI's API defines them. `logprobs` None: none; n: the chosen token's and the n best
    ones'."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    penalty_window: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    seed: int | None = None
    logprobs: int | None = None


class Constraint(Protocol):
    """One answer's rules. Made when its answer begins, used on the engine's thread only. Tokens are told to it once
    each, in order.

    An AxpressError raised by any of these ends the answer with that error; other answers are not touched.
    """

    def mask(self) -> Any:
        """uint32 words for `Sampler.allow`: token t is allowed if bit t % 32 of words[t // 32] is set. None: any token.

        The same memory may be used again by the next call. End tokens are allowed only where the answer may end.
        """

    def accept(self, token: int) -> None:
        """The answer goes on with `token`, whether sampled or forced. End tokens are not told: the answer is over."""

    def forced(self) -> list[int]:
        """Tokens that must come next, whatever the model thinks; may be empty. All of them are taken, in order."""

    def check(self, tokens: tuple[int, ...]) -> int:
        """How many of these guessed tokens could come next: only saves guesses that would fail."""

    @property
    def done(self) -> bool:
        """Whether nothing may follow: the answer is complete, and no pass is spent on an end token."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageInput:
    """One run of the vision encoder, and where what it sees stands in a prompt.

    `start`: index in `prompt_ids` of the first of its `num_tokens` placeholder tokens, which stand side by side.
    `grid`: rows and columns of these tokens (three-axis positions; num_tokens == rows * columns there). `pixels`: the
    encoder's input, dtype and shape as its file says (with or without a leading 1). `digest`: 16 bytes or more, of the
    pixels and of the encoder's settings."""

    start: int
    num_tokens: int
    grid: tuple[int, int]
    pixels: NDArray[np.generic]
    digest: bytes


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to generate. `prompt_ids` are token ids; `stop` strings end the answer and are not part of it.

    `prediction`: token ids of text that the answer is expected to repeat; it saves time where it does and changes
    nothing else. `constraint`: makes the rules that the answer obeys token by token; called once, on the engine's
    thread, when the answer begins. With one, an end token always ends the answer, also under `ignore_eos`: it is only
    allowed where the rules let the answer end. `stop_after`: stop strings are looked for only after the first
    occurrence of this text in the answer; with `stop_after_begin`, that is so for an answer only that begins, blanks
    aside, with that other text. `cache_salt` separates tenants: prefixes are shared among equal salts only.
    `low_priority` requests come after all others and do not push their prefixes out of the cache. `client`: who asks;
    of those that wait, the next place is for a client that has fewest. `dimensions` not 0: nothing is generated, the
    one Delta has the embedding of the prompt, its first so many values; of the other fields those about the answer are
    not looked at. `scored` not empty: nothing is generated either, the one Delta has the logits of these tokens after
    the prompt. `images`: what the placeholder tokens of the prompt stand for, in order of `start`."""

    prompt_ids: list[int]
    params: SamplingParams = SamplingParams()
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    prediction: tuple[int, ...] = ()
    constraint: Callable[[], Constraint] | None = None
    stop_after: str = ""
    stop_after_begin: str = ""
    cache_salt: bytes = b""
    low_priority: bool = False
    client: bytes = b""
    dimensions: int = 0
    scored: tuple[int, ...] = ()
    images: tuple[ImageInput, ...] = ()

    @property
    def generates(self) -> bool:
        """Whether tokens are to come of it."""
        return not (self.dimensions or self.scored)


@dataclass(frozen=True, slots=True)
class Spent:
    """What an answer cost, with its last Delta. Times in seconds.

    `cached_tokens` of the prompt were found in the cache. Of the request's `prediction`, `accepted_prediction_tokens`
    were guessed and came true, `rejected_prediction_tokens` were guessed in vain. `queue_s` until its first pass,
    `first_token_s` (of those that the model chose) and `total_s` since it was submitted."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    queue_s: float = 0.0
    first_token_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of `token` under the model's own distribution (before temperature), and the n best."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer: whole characters only. `text` may be empty while a character or stop string is undecided.

    `num_tokens` tokens were generated for this piece. The last piece has `finish_reason`; with "error", `error` says
    why and `failure` of what kind that is; `error_code` is set where it is the request's own fault. `stop_string`: the
    one that ended the answer. `embedding`: float32 [dimensions] of length 1, `logits`: float32 [scored], the
    model's own, where they were asked for."""

    text: str
    num_tokens: int
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    error: str | None = None
    spent: Spent | None = None
    error_code: str | None = None
    failure: FailureKind | None = None
    stop_string: str | None = None
    embedding: NDArray[np.float32] | None = None
    logits: NDArray[np.float32] | None = None


Sink = Callable[[Delta], None]
"""Called on the engine's thread, in order, once per step of this answer; must return at once and never raise."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What is being served, and on what. `emulated` is True when no real card is involved. `embedding_size`: values of
    a text's embedding; 0: a model that generates text. `vision_kind`: the family of its vision encoder; None: it has no
    eyes."""

    model: str
    device: str
    emulated: bool
    profile: str | None
    num_layers: int
    vocab_size: int
    context_length: int
    runtime_version: str
    num_banks: int = 1
    embedding_size: int = 0
    vision_kind: str | None = None

    def check_kind(self, *, embeds: bool) -> None:
        """Raises RequestError where the model does not do what is asked for: embed texts, or generate some."""
        if embeds == bool(self.embedding_size):
            return
        text = (
            "This model makes no embeddings: it generates text. Ask an embedding model for them (Qwen3-Embedding)."
            if embeds
            else "This model generates no text: it is an embedding model. Ask it for embeddings (/v1/embeddings,"
            " /api/embed)."
        )
        raise RequestError(text, "model", "unsupported")


def choice_seed(seed: int, choice: int) -> int:
    """The seed of choice `choice` (from 0) of a request with `seed`: choice 0 is the request itself."""
    return (seed + choice * 0x9E3779B97F4A7C15) & (2**64 - 1)
