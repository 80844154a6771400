"""Structured output: shapes of answers compiled with llguidance, and followed token by token.

JSON is written in one way only (", " and ": ", no other blanks), so much of it is certain and costs no pass of its own.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import numpy as np

from ..errors import RequestError
from ..request import Constraint
from ..tokenizer.tokenizer import Tokenizer
from . import grammar_text
from .constraint import ThinkingBudget
from .output_spec import Body, JsonObject, JsonSchema, Lark, OneOf, OutputSpec, Regex, Thinking, ToolFormat, ToolRule

__all__ = ["Body", "GrammarCompiler", "GrammarError", "JsonObject", "JsonSchema", "Lark", "OneOf", "Regex"]
__all__ += ["OutputSpec", "Thinking", "ToolFormat", "ToolRule"]

MAX_CACHED = 128  # compiled grammars that are kept
MAX_CACHED_TEXT = 1 << 19  # characters of their texts in all; a large one takes about 150 times its text in memory
COMPILE_STACK = 64 << 20  # bytes: the compiler goes down the schema within itself
MAX_LEXER_STATES = 20_000  # of one answer: about 1 to 2 KB each
MAX_ROW_ITEMS = 8_000  # what the parser follows at one time
MAX_STEP_ITEMS = 8_000  # and begins to follow within one call; each costs a look at all that it follows
MAX_SYMBOLS = 60_000  # of one grammar; the compiler counts them in 16 bits
# of the processor's for one answer: the engine's thread waits for it, and so do all others
MAX_SECONDS, MAX_SECONDS_PER_TOKEN = 2.0, 0.02


class GrammarError(RequestError):
    """An answer cannot go on as its grammar demands: too complex at this place, or a dead end. Known only once the
    answer is there."""

    def __init__(self, message: str) -> None:
        super().__init__(message, None, "invalid_grammar")


class GrammarConstraint:
    """One answer that follows a compiled grammar."""

    __slots__ = ("_address", "_matcher", "_seconds_left", "_words")

    def __init__(self, matcher: Any, num_words: int) -> None:
        self._matcher = matcher
        self._words = np.zeros(num_words, np.uint32)
        self._address = self._words.ctypes.data
        self._seconds_left = MAX_SECONDS

    def mask(self) -> np.ndarray:
        started = time.thread_time()
        self._matcher.unsafe_compute_mask_ptr(self._address, self._words.nbytes)  # without the GIL
        if self._matcher.is_stopped():  # also true after an error
            raise self._error("no token can follow here")
        self._spend(started)
        return self._words

    def accept(self, token: int) -> None:
        started = time.thread_time()
        if not self._matcher.consume_token(token):
            raise self._error(f"token {token} cannot follow here")
        self._seconds_left = min(self._seconds_left + MAX_SECONDS_PER_TOKEN, MAX_SECONDS)
        self._spend(started)

    def forced(self) -> list[int]:
        started = time.thread_time()
        tokens: list[int] = self._matcher.compute_ff_tokens()
        if self._matcher.is_error():
            raise self._error("what must follow cannot be told")
        self._spend(started)
        return tokens

    def check(self, tokens: tuple[int, ...]) -> int:
        return int(self._matcher.validate_tokens(list(tokens)))

    def _spend(self, started: float) -> None:
        """Counts the time since `started`. Raises GrammarError where this answer has kept all others waiting for long
        enough."""
        self._seconds_left -= time.thread_time() - started
        if self._seconds_left < 0:
            text = (
                "finding out what may follow takes too long; a grammar in which one text can be read in fewer ways is"
                " quicker"
            )
            raise GrammarError(f"the answer is ended where it is: {text}")

    @property
    def done(self) -> bool:
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def _error(self, text: str) -> GrammarError:
        return GrammarError(
            f"the answer cannot go on as its grammar demands: {text} ({_first_line(self._matcher.get_error())})"
        )


class GrammarCompiler:
    """Compiles shapes for one model; safe to use from several threads. The model's head has `vocab_size` logits.

    Grammars are kept by their text, the latest ones within a bound. `prepare`, or else the first use, builds the table
    of the model's tokens (half a second for 150,000, in which no other thread runs)."""

    def __init__(self, text: Tokenizer, vocab_size: int) -> None:
        self._text = text
        self._vocab_size = vocab_size
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._tokens: _Tokens | None = None
        self._cache: OrderedDict[str, Any] = OrderedDict()
        self._cached_text = 0

    def prepare(self) -> None:
        """Builds the table now; of a model that can have none the first use tells."""
        with suppress(RequestError):
            self._table()

    def compile(self, shape: OutputSpec, *, thinking_budget: int | None = None) -> Callable[[], Constraint] | None:
        """What makes the constraint of one answer of this shape; None where there is nothing to obey.

        `thinking_budget`: after so many tokens of thinking its end is forced. Takes milliseconds, for large schemas a
        second: not on the event loop. Raises RequestError that says why a shape cannot be guaranteed; its param is the
        field at fault."""
        make = self._follower(shape) if shape.body is not None or shape.tools else None
        thinking = shape.thinking
        if thinking is None or thinking_budget is None:
            return make
        closing = self._table().tokenize("\n" + thinking.end + grammar_text.AFTER_THINKING)
        data, begin, end = (
            self._text.pieces.data,
            b"" if thinking.open else thinking.begin.encode(),
            thinking.end.encode(),
        )
        return lambda: ThinkingBudget(make() if make else None, thinking_budget, closing, data, begin, end)

    def _follower(self, shape: OutputSpec) -> Callable[[], Constraint]:
        text = grammar_text.write(shape, self._text.added_tokens, self._text.lead)
        with self._lock:
            matcher = self._cache.get(text)
            if matcher is not None:
                self._cache.move_to_end(text)
        if matcher is None:
            try:
                matcher = self._table().compile(text)
            except ValueError as error:
                raise self._refusal(shape, str(error)) from None
            self._keep(text, matcher)
        num_words = (self._vocab_size + 31) // 32
        return lambda: GrammarConstraint(matcher.deep_copy(), num_words)

    def _keep(self, text: str, matcher: Any) -> None:
        with self._lock:
            if text not in self._cache:
                self._cached_text += len(text)
            self._cache[text] = matcher
            while len(self._cache) > MAX_CACHED or self._cached_text > MAX_CACHED_TEXT:
                old, _ = self._cache.popitem(last=False)
                self._cached_text -= len(old)

    def _refusal(self, shape: OutputSpec, reason: str) -> RequestError:
        """Which part of the shape the compiler does not like."""
        whole = grammar_text.parts(shape)
        for field, part in whole if len(whole) > 1 else ():
            try:
                self._table().compile(grammar_text.write(part, ()))
            except ValueError as error:
                return RequestError(f"'{field}' cannot be guaranteed: {error}.", field, "invalid_grammar")
        return RequestError(f"'{whole[0][0]}' cannot be guaranteed: {reason}.", whole[0][0], "invalid_grammar")

    def _table(self) -> _Tokens:
        with self._building:
            if self._tokens is None:
                self._tokens = _Tokens(self._text, self._vocab_size)
            return self._tokens


class _Tokens:
    """The model's tokens as llguidance sees them (its `TokenizerWrapper` interface), and the compiler that needs
    them."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, text: Tokenizer, vocab_size: int) -> None:
        import llguidance  # loads a library of 10 MB: only for those who need it

        if text.pieces.join is not None or not text.eos_ids:
            why = "its tokens are not simply strings of bytes" if text.eos_ids else "it has no end token"
            raise RequestError(f"this model's tokenizer cannot be used for structured output: {why}", "response_format")
        self._text = text
        self._added = text.added_tokens
        self._split = re.compile("|".join(map(re.escape, sorted(self._added, key=len, reverse=True))) or r"(?!)")
        self.eos_token_id = min(text.eos_ids)
        self.special_token_ids = sorted(text.special_ids | text.eos_ids)
        self.tokens = (text.pieces.data + [b""] * (vocab_size - len(text.pieces.data)))[:vocab_size]
        self._library = llguidance
        self._table = llguidance.LLTokenizer(cast(Any, self), eos_token=sorted(text.eos_ids))
        self._limits = llguidance.LLParserLimits(
            max_lexer_states=MAX_LEXER_STATES, max_items_in_row=MAX_ROW_ITEMS, step_max_items=MAX_STEP_ITEMS,
            max_grammar_size=MAX_SYMBOLS, verbose_errors=False,
        )  # fmt: skip

    def __call__(self, text: str) -> list[int]:
        """Tokens of a piece of an answer, as the model would write it. Never raises: llguidance calls it."""
        return self.tokenize(text)

    def tokenize(self, text: str) -> list[int]:
        """Ids whose bytes are exactly those of `text`; added tokens count wherever their text stands."""
        ids: list[int] = []
        at = 0
        for match in self._split.finditer(text):
            ids += self._plain(text[at : match.start()])
            ids.append(self._added[match.group()])
            at = match.end()
        return ids + self._plain(text[at:])

    def _plain(self, text: str) -> list[int]:
        if not text:
            return []
        data, wanted = self._text.pieces.data, text.encode()
        for attempt in (text, text[1:]):  # some tokenizers put a space first
            try:
                ids = self._text.encode(attempt) if attempt else []
            except RequestError:
                break
            if b"".join([data[i] for i in ids]) == wanted:
                return ids
        greedy: list[int] = self._table.greedy_tokenize(text)
        return greedy

    def compile(self, text: str) -> Any:
        """A matcher that has begun. Raises ValueError with a sentence."""
        box: list[Any] = []
        thread = threading.Thread(target=lambda: box.append(self._compile(text)), name="axpress-grammar")
        with _STACK_SIZE:
            before = threading.stack_size(COMPILE_STACK)
            try:
                thread.start()
            finally:
                threading.stack_size(before)
        thread.join()
        matcher = box[0] if box else None
        if matcher is None:
            raise ValueError("the compiler failed")
        if matcher.is_error():
            raise ValueError(_first_line(matcher.get_error()))
        good = not matcher.is_stopped() and self._has_tokens(matcher)
        if matcher.is_error():
            raise ValueError(_first_line(matcher.get_error()))
        if not good:
            raise ValueError(NO_TEXT)
        return matcher

    def _compile(self, text: str) -> Any:
        matcher = self._library.LLMatcher(self._table, text, log_level=0, limits=self._limits)
        if not matcher.is_error():
            matcher.compute_ff_tokens()  # what every answer begins with is found out once
        return matcher

    def _has_tokens(self, matcher: Any) -> bool:
        words = np.frombuffer(matcher.compute_bitmask(), np.uint32).copy()
        for token in self._text.eos_ids:
            words[token // 32] &= ~np.uint32(1 << token % 32)
        return bool(words.any()) and not matcher.is_error()


_STACK_SIZE = threading.Lock()
NO_TEXT = "no text but the empty one satisfies it, or none at all"


def _first_line(error: str) -> str:
    """llguidance's message without the grammar's text around it."""
    if error.strip().startswith("NoExtension"):
        return NO_TEXT
    if "coerce_one_of" in error:
        return "'oneOf' is supported where its alternatives cannot overlap; use 'anyOf'"
    lines = error.replace("<non-verbose/>", "").strip().split("\n")
    line = re.sub(r"^(at )?\d+\(\d+\): ", "", lines[0]).removeprefix("failed to compile JSON schema: ")
    found = next((one for one in lines[1:] if one.startswith("error: ")), "")
    return f"{line[:300]} {found[:200]}".strip() or "no reason given"
