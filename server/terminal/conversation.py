"""One conversation: what was said, what each answer is to be like, and who answers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import quote

from .connection import Connection, ServerError
from .settings import SETTINGS, request_fields

PAGE_FORMAT = "axpress-chats"
Piece = tuple[Literal["text", "thought", "pause"], str]
"""Of an answer: its text, what the model thinks before it, or nothing, for a while."""


class Models(Protocol):
    """Who answers, and who else could. `model`: what requests call it."""

    connection: Connection
    model: str

    def names(self) -> list[str]:
        """Models that could be switched to, the present one too. ServerError."""

    def switch(self, name: str, tell: Callable[[str], object]) -> None:
        """Another model from now on; `tell` gets what is waited for. AxpressError or OSError: it stays as it is."""


class ServedModels:
    """The models of a server that is there already."""

    def __init__(self, connection: Connection, model: str = "default") -> None:
        self.connection, self.model = connection, model

    def names(self) -> list[str]:
        return [str(card["id"]) for card in self.connection.get("/v1/models").get("data", ())]

    def switch(self, name: str, tell: Callable[[str], object]) -> None:
        self.model = str(self.connection.get(f"/v1/models/{quote(name, safe='')}")["id"])


@dataclass
class Conversation:
    """`settings`: by their names in SETTINGS. `messages`: of user and assistant, in turn."""

    models: Models
    system: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, str]] = field(default_factory=list)

    def everything(self) -> list[dict[str, str]]:
        """The messages as requests have them, with the system message."""
        return [*([{"role": "system", "content": self.system}] if self.system else ()), *self.messages]

    def ask(self, text: str) -> Generator[Piece, None, None]:
        """Send `text` and yield what comes. The answer's text as far as it was yielded is remembered, also when the
        caller stops early. Raises ServerError."""
        self.messages.append({"role": "user", "content": text})
        said: list[str] = []
        try:
            for delta in self._deltas():
                if delta is None:
                    yield "pause", ""
                elif delta.get("reasoning_content"):
                    yield "thought", delta["reasoning_content"]
                elif delta.get("content"):
                    said.append(delta["content"])
                    yield "text", delta["content"]
        finally:
            if said:
                self.messages.append({"role": "assistant", "content": "".join(said)})
            else:
                self.messages.pop()

    def _deltas(self) -> Iterator[dict[str, Any] | None]:
        request = {"model": self.models.model, "stream": True, **request_fields(self.settings)}
        request["messages"] = self.everything()
        for event in self.models.connection.events("/v1/chat/completions", request):
            if event is None:
                yield None
                continue
            if event.get("error"):
                raise ServerError(str(event["error"].get("message")))
            for choice in event.get("choices", ()):
                yield choice["delta"]

    def save(self, file: Path) -> None:
        """As JSON that the page and `load` can read, in a new file or in place of an old one. OSError."""
        document = {"model": self.models.model, "settings": self.settings, "messages": self.everything()}
        file.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def load(self, file: Path) -> None:
        """Takes the place of the conversation: what `save` wrote, a list of messages, or the first conversation of
        what the page exports. OSError or ValueError: it stays as it is."""
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            settings, messages = _read(document)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, argparse.ArgumentTypeError):
            raise ValueError(f"{file} holds no conversation that /save or the page wrote") from None
        self.system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        self.messages = [message for message in messages if message["role"] != "system"]
        self.settings = settings


def _read(document: Any) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Settings and messages of a file. Raises what json and wrong types raise."""
    settings: dict[str, Any] = {}
    if isinstance(document, dict) and document.get("format") == PAGE_FORMAT:
        said = _branch(document["chats"][0])
    elif isinstance(document, dict):
        said, given = document["messages"], document.get("settings", {})
        settings = {name: SETTINGS[name].parse(str(value)) for name, value in given.items()}
    else:
        said = document
    messages = [{"role": message["role"], "content": message["content"]} for message in said]
    if not all(m["role"] in ("system", "user", "assistant") and isinstance(m["content"], str) for m in messages):
        raise ValueError
    return settings, messages


def _branch(chat: dict[str, Any]) -> list[dict[str, str]]:
    """The messages that the page shows of a conversation."""
    found: list[dict[str, str]] = []
    nodes, at = chat["nodes"], chat["leaf"]
    while at is not None and len(found) <= len(nodes):
        found.append(nodes[at])
        at = nodes[at]["parent"]
    system = chat["settings"].get("system")
    return [*([{"role": "system", "content": system}] if system else ()), *reversed(found)]
