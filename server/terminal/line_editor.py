"""How a person types a message: prompt_toolkit where it is installed, else readline."""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from .history import History

PROMPT, MORE = "> ", ". "
BLOCK = '"""'
"""Between two of them a message may have any number of lines."""
Complete = Callable[[str], tuple[str, list[str]]]
"""Of the text before the cursor: its end that is to be completed, and by what that could be replaced."""


class LineEditor(Protocol):
    """Reads one message after the other from the terminal."""

    def read(self) -> str:
        """The next message as it was typed. EOFError: Ctrl-D; KeyboardInterrupt: Ctrl-C."""


def line_editor(complete: Complete) -> LineEditor:
    """The best one that is there. `complete` is asked when Tab is pressed."""
    history = History()
    if os.environ.get("TERM") != "dumb" and sys.stdout.isatty():
        try:
            return _ToolkitEditor(history, complete)
        except ImportError:
            pass
    return _ReadlineEditor(history, complete)


def is_open(text: str) -> bool:
    """True for a block that has no end yet."""
    return text.lstrip().startswith(BLOCK) and text.count(BLOCK) < 2


def message_of(text: str) -> str:
    """What is meant by what was typed: a block without its marks."""
    bare = text.strip()
    if bare.startswith(BLOCK) and bare.endswith(BLOCK) and len(bare) >= 2 * len(BLOCK):
        return bare[len(BLOCK) : -len(BLOCK)].strip("\n")
    return text


class _ToolkitEditor:
    """Several lines can be edited; what is pasted is one message, whatever is in it."""

    def __init__(self, history: History, complete: Complete) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import Completer, Completion
        from prompt_toolkit.document import Document
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.history import InMemoryHistory
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

        class Words(Completer):
            def get_completions(self, document: Document, _: Any) -> Iterable[Completion]:
                end, candidates = complete(document.text_before_cursor)
                return [Completion(candidate, -len(end)) for candidate in candidates]

        keys = KeyBindings()

        @keys.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        self._history = history
        self._session: PromptSession[str] = PromptSession(
            PROMPT, completer=Words(), complete_while_typing=False, history=InMemoryHistory(history.lines),
            multiline=Condition(lambda: is_open(self._session.default_buffer.text)), key_bindings=keys,
            prompt_continuation=MORE,
        )  # fmt: skip

    def read(self) -> str:
        text = self._session.prompt()
        if text.strip():
            self._history.add(text)
        return text


class _ReadlineEditor:
    """One line, or what is pasted where readline knows bracketed paste."""

    def __init__(self, history: History, complete: Complete) -> None:
        import readline

        self._history, self._remember = history, readline.add_history

        def candidate(_: str, number: int) -> str | None:
            found = complete(readline.get_line_buffer()[: readline.get_endidx()])[1]
            return found[number] if number < len(found) else None

        readline.set_completer(candidate)
        readline.set_completer_delims(" ")
        readline.parse_and_bind("tab: complete")
        paste = "off" if os.environ.get("TERM") == "dumb" else "on"
        readline.parse_and_bind(f"set enable-bracketed-paste {paste}")
        readline.set_auto_history(False)
        for line in history.lines:
            readline.add_history(line)

    def read(self) -> str:
        with _terminal_mode(termios.ECHO, 0):  # readline shows nothing where a terminal does not
            text = input(PROMPT)
            while is_open(text):
                text += "\n" + input(MORE)
        if text.strip():
            self._history.add(text)
            self._remember(text)
        return text


@contextmanager
def keys_wait() -> Iterator[None]:
    """What is typed inside is shown by whoever reads it only, and waits for that; Ctrl-C does not wait."""
    if not sys.stdin.isatty():
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)  # the terminal is to be left as it was
    try:
        with _terminal_mode(0, termios.ECHO | termios.ICANON):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def _terminal_mode(on: int, off: int) -> Iterator[None]:
    """Local modes of the terminal, as termios has them."""
    before = termios.tcgetattr(sys.stdin)
    inside = [*before]
    inside[3] = (inside[3] | on) & ~off
    termios.tcsetattr(sys.stdin, termios.TCSANOW, inside)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
