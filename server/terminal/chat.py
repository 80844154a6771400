"""`axpress chat` and the talking part of `axpress run`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

from .commands import Commands, Leave
from .connection import ServerError
from .conversation import Conversation, Piece
from .line_editor import keys_wait, line_editor, message_of
from .screens import PlainScreen, RawScreen, Screen
from .text import visible

TRIES = 3
"""Times that a question is asked which a server refuses because it loads, or lost its card."""


def chat(conversation: Conversation, question: str = "", plain: bool = False) -> int:
    """Answers `question`, with all of stdin behind it where that is no terminal; without either, talks until Ctrl-D.

    `plain`: no Markdown. Returns the exit code; raises ServerError, in a conversation before it begins only."""
    with keys_wait():
        health = _ready(conversation)
        if sys.stdin.isatty() and not question:
            return _talk(conversation, health, plain)
        if not sys.stdin.isatty():
            piped = sys.stdin.buffer.read().decode(errors="replace").strip()
            question = "\n\n".join(part for part in (question, piped) if part)
        if not question:
            raise ServerError("nothing was asked: give a question, or pipe one in")
        if not _answer(conversation, question, plain):
            raise KeyboardInterrupt
        return 0


def _talk(conversation: Conversation, health: dict[str, Any], plain: bool) -> int:
    where, note = conversation.models.connection.url, health.get("note")
    print(f"{health.get('model') or 'a model'} at {where}" + (f" ({note})" if note else "") + ". /help, Ctrl-D leaves")
    commands = Commands(conversation, _say)
    editor = line_editor(commands.complete)
    while True:
        try:
            text = editor.read()
            if text.strip() and not commands.obey(text):
                _answer(conversation, message_of(text), plain)
        except KeyboardInterrupt:
            print()
        except (EOFError, Leave):
            print()
            return 0
        except ServerError as error:
            _say(f"! {error}")


def _say(text: str) -> None:
    print(visible(text), flush=True)


def _ready(conversation: Conversation) -> dict[str, Any]:
    """/health, once the model is loaded and the card is there; until then it is said why not."""
    with _spinner() as tell:
        return conversation.models.connection.wait(lambda reason: tell(f"waiting: {visible(reason)}"))


@contextmanager
def _spinner(first: str = "") -> Iterator[Callable[[str], object]]:
    """Says what is waited for: beside something that turns on a terminal, else a line a reason."""
    if fancy := sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        try:
            from rich.console import Console
            from rich.markup import escape
        except ImportError:
            fancy = False
    if not fancy:
        yield lambda reason: print(reason, file=sys.stderr, flush=True)
        return
    status = Console(stderr=True).status(first)
    if first:
        status.start()

    def tell(reason: str) -> None:
        status.update(escape(reason))
        status.start()

    try:
        yield tell
    finally:
        status.stop()


def _screen(plain: bool) -> Screen:
    if not sys.stdout.isatty():
        return RawScreen(sys.stdout)
    if not plain and os.environ.get("TERM") != "dumb":
        try:
            from .markdown_screen import MarkdownScreen

            return MarkdownScreen(sys.stdout)
        except ImportError:
            pass
    return PlainScreen(sys.stdout)


def _answer(conversation: Conversation, question: str, plain: bool) -> bool:
    """Asks and shows the answer; where it is refused for a moment, waits and asks again. False: it was stopped. Raises
    ServerError."""
    for tries in range(TRIES):
        _ready(conversation)
        try:
            return _show(conversation, question, _screen(plain))
        except ServerError as error:
            if error.status != 503 or tries == TRIES - 1:
                raise
    return True


def _show(conversation: Conversation, question: str, screen: Screen) -> bool:
    answer, stop, first = conversation.ask(question), _Stop(), None
    with stop:
        pieces = stop.heeding(answer)
        try:
            first = _first_piece(conversation, pieces)
            for kind, piece in chain([first] if first else [], pieces):
                if kind == "text":
                    screen.text(piece)
                elif kind == "thought":
                    screen.thought(piece)
                elif trouble := _trouble(conversation):
                    screen.note(trouble)
        finally:
            answer.close()
            if first or stop.asked:
                screen.end("stopped" if stop.asked else "")
    return not stop.asked


def _first_piece(conversation: Conversation, pieces: Iterator[Piece]) -> Piece | None:
    with _spinner("reading") as tell:
        for kind, piece in pieces:
            if kind != "pause":
                return kind, piece
            if trouble := _trouble(conversation):
                tell(trouble)
    return None


def _trouble(conversation: Conversation) -> str:
    """Why nothing comes, as far as the server knows."""
    health = conversation.models.connection.health()
    return "" if health.get("status", "ready") == "ready" else visible(str(health.get("reason") or health["status"]))


class _Stop:
    """Within it Ctrl-C breaks off nothing but a wait for the server: no block is half drawn."""

    def __init__(self) -> None:
        self.asked = self._waits = False

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, self._ask)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, *_: object) -> None:
        self.asked = True
        if self._waits:
            raise KeyboardInterrupt

    def heeding(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """The pieces, until Ctrl-C."""
        while not self.asked:
            try:
                self._waits = True
                piece = next(pieces, None)
                self._waits = False
            except KeyboardInterrupt:
                return
            finally:
                self._waits = False
            if piece is None:
                return
            yield piece
