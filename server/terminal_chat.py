"""A terminal client for an OpenAI-compatible server: streaming, history, standard library only."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

from axpress.core.errors import AxpressError

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens")
POLL_SECONDS = 1.0
"""Between two looks at a server that loads."""
HELP = "Ctrl-C stops an answer, Ctrl-D leaves, /new starts over."


class ChatError(AxpressError):
    """What the server, or the way to it, said instead of an answer."""


class ChatClient:
    """One conversation with the server at `url` (with or without /v1 at its end)."""

    def __init__(self, url: str, model: str, system: str | None, sampling: dict[str, Any]) -> None:
        try:
            parts = urlsplit(url if "//" in url else "http://" + url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https"):
            raise ChatError(f"'{url}' is not the address of a server; one looks like http://127.0.0.1:8000")
        self._connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = host, port or self._connect.default_port
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._fields = {"model": model, "stream": True, **sampling}
        self._system = [{"role": "system", "content": system}] if system else []
        self.messages: list[dict[str, str]] = list(self._system)

    def reset(self) -> None:
        """Forget the conversation, keep the system message."""
        self.messages = list(self._system)

    def health(self) -> dict[str, Any]:
        """The server's /health; empty where it has none that we could read."""
        with self._request("GET", "/health", None, timeout=10) as (_, response), suppress(ValueError):
            document = json.loads(response.read())
            return document if isinstance(document, dict) else {}
        return {}

    def wait(self, tell: Callable[[str], object]) -> dict[str, Any]:
        """/health once the server has loaded its model; `tell` gets each new reason why it has not."""
        told = None
        while (health := self.health()).get("status") == "loading":
            reason = str(health.get("reason") or "the server loads its model")
            if reason != told:
                tell(reason)
            told = reason
            time.sleep(POLL_SECONDS)
        return health

    def ask(self, text: str, reasoning: Callable[[str], object] | None = None) -> Iterator[str]:
        """Send `text` and yield the answer's pieces. What was yielded is remembered even when the caller stops early.

        `reasoning` is called with each piece of what the model thinks before it answers. Raises ChatError.
        """
        self.messages.append({"role": "user", "content": text})
        pieces: list[str] = []
        try:
            for piece in self._stream(reasoning):
                pieces.append(piece)
                yield piece
        finally:
            if pieces:
                self.messages.append({"role": "assistant", "content": "".join(pieces)})
            else:
                self.messages.pop()

    def _stream(self, reasoning: Callable[[str], object] | None) -> Iterator[str]:
        for delta in self._deltas():
            if reasoning is not None and delta.get("reasoning_content"):
                reasoning(delta["reasoning_content"])
            if delta.get("content"):
                yield delta["content"]

    def _deltas(self) -> Iterator[dict[str, Any]]:
        body = json.dumps({**self._fields, "messages": self.messages}).encode()
        with self._request("POST", "/v1/chat/completions", body, timeout=None) as (_, response):
            if response.status != 200:
                raise ChatError(_error_text(response.read(), response.status))
            for event in _events(response):
                if event.get("error"):
                    raise ChatError(str(event["error"].get("message")))
                for choice in event.get("choices", ()):
                    yield choice["delta"]

    def _request(self, method: str, path: str, body: bytes | None, timeout: float | None) -> _Exchange:
        connection = self._connect(self._host, self._port, timeout=timeout)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if key := os.environ.get("AXPRESS_API_KEY", "").strip():
            headers["Authorization"] = f"Bearer {key}"
        try:
            connection.request(method, self._path + path, body, headers)
            return _Exchange(connection, connection.getresponse())
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            where = f"{self._host}:{self._port}"
            if isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLCertVerificationError):
                raise ChatError(f"{where} does not speak https; try --url http://{where}") from exc
            raise ChatError(f"cannot reach {where}: {exc or type(exc).__name__}") from exc


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The events of a stream. Raises ChatError where it breaks off."""
    try:
        for raw in response:
            line = raw.strip()
            if line.startswith(b"data:") and line != b"data: [DONE]":
                yield json.loads(line[5:])
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise ChatError(f"the answer broke off: {exc or type(exc).__name__}") from exc


class _Exchange:
    """A request and its response; leaving it closes the connection, which is how an answer is stopped."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._pair = (connection, response)

    def __enter__(self) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        return self._pair

    def __exit__(self, *_: object) -> None:
        connection, response = self._pair
        response.close()
        connection.close()


def _error_text(body: bytes, status: int) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["error"]["message"])
    return f"the server answered {status}"


_DRIVES_TERMINALS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """`text` without control characters other than newline and tab, and without overrides of the writing direction."""
    return _DRIVES_TERMINALS.sub("", text)


def _history() -> Path | None:
    """Load the line history of earlier chats into readline; returns where to save it."""
    try:
        import readline
    except ImportError:
        return None
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    file = state / "axpress" / "chat_history"
    with suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(1000)
    return file


def _save_history(file: Path | None) -> None:
    if file is None:
        return
    import readline

    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600, exist_ok=True)
        readline.write_history_file(file)


class Printer:
    """Writes an answer as it comes, and on terminals the reasoning before it: dimmed, or with a word where nothing can
    be dimmed."""

    def __init__(self, out: TextIO, plain: bool = False) -> None:
        self._out, self._shows = out, out.isatty()
        self._begin, self._end = ("(thinking) ", "\n\n") if plain else ("\x1b[2m", "\x1b[22m\n\n")
        self._reasons = False

    def reasoning(self, text: str) -> None:
        """A piece of what the model thinks."""
        if self._shows:
            self._out.write(visible(text) if self._reasons else self._begin + visible(text))
            self._out.flush()
            self._reasons = True

    def text(self, text: str) -> None:
        """A piece of the answer, or what comes instead of more."""
        self._out.write(self._end + text if self._reasons else text)
        self._out.flush()
        self._reasons = False


def _print_answer(client: ChatClient, text: str, printer: Printer) -> None:
    answer = client.ask(text, printer.reasoning)
    try:
        for piece in answer:
            printer.text(visible(piece))
        printer.text("\n")
    except KeyboardInterrupt:
        answer.close()  # type: ignore[attr-defined]
        printer.text("\n(stopped)\n")


def run(url: str, model: str, system: str | None, sampling: dict[str, Any]) -> int:
    """Talk until Ctrl-D. With stdin not a terminal, each line is one message, nothing is prompted for, and ChatError
    ends it."""
    client = ChatClient(url, model, system, sampling)
    printer = Printer(sys.stdout, plain="NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb")
    interactive = sys.stdin.isatty()
    health = client.wait(lambda reason: print(f"waiting: {visible(reason)}", file=sys.stderr, flush=True))
    if interactive:
        note = health.get("note")
        print(f"{health.get('model') or 'a model'} at {url}" + (f" ({note})" if note else "") + f". {HELP}")
    file = _history() if interactive else None
    try:
        while True:
            try:
                line = input("> " if interactive else "")
            except KeyboardInterrupt:
                print()
                continue
            except EOFError:
                return 0
            if line.strip() == "/new":
                client.reset()
            elif line.strip():
                try:
                    _print_answer(client, line, printer)
                except ChatError as exc:
                    if not interactive:
                        raise ChatError(visible(str(exc))) from exc
                    printer.text(f"\n! {visible(str(exc))}\n")
    finally:
        _save_history(file)
        if interactive:
            print()
