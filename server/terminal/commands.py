"""What begins with a slash is said to the chat, not to the model."""

from __future__ import annotations

import argparse
import difflib
import glob
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from axpress.core.errors import AxpressError

from .conversation import Conversation
from .settings import SETTINGS

_COMMAND = re.compile(r"/([a-z?]+)(?:[ \t]+(.*))?", re.IGNORECASE)
HELP = {
    "/help": "this list, also /?",
    "/set": "what is set;  /set NAME VALUE  sets it, default puts it back:",
    "/system": "the system message;  /system TEXT  sets it, none removes it",
    "/model": "the models that are there;  /model NAME  switches, and keeps the conversation",
    "/clear": "forgets the conversation, also /new; what is set stays",
    "/save": "/save FILE  keeps the conversation in a new file",
    "/load": "/load FILE  goes on with one, also of those that the page exports",
    "/bye": "leaves, also /quit, /exit and Ctrl-D",
}
KEYS = (
    'Ctrl-C stops an answer. Several lines are one message when they are pasted, between two """, or with Alt-Enter.\n'
    "Tab completes. A message that begins with a slash: type a space before it."
)


class Leave(Exception):
    """The person is done."""


class Commands:
    """Obeys what begins with a slash. `say` shows a person a line or more."""

    def __init__(self, conversation: Conversation, say: Callable[[str], object]) -> None:
        self._conversation, self._say = conversation, say
        self._own_files: set[Path] = set()
        self._known: dict[str, Callable[[str], None]] = {
            "help": self._help, "?": self._help, "set": self._set, "system": self._system, "model": self._model,
            "clear": self._clear, "new": self._clear, "save": self._save, "load": self._load,
            "bye": self._leave, "quit": self._leave, "exit": self._leave,
        }  # fmt: skip

    def obey(self, text: str) -> bool:
        """False: `text` is no command but a message. What goes wrong is said. Raises Leave."""
        found = _COMMAND.fullmatch(text.rstrip())
        if found is None:
            return False
        name, rest = found[1].lower(), (found[2] or "").strip()
        if name not in self._known:
            close = difflib.get_close_matches(name, self._known, n=1)
            meant = f"; did you mean /{close[0]}?" if close else ":"
            self._say(f"/{name} is no command{meant} /help lists them, a message may begin with a space")
            return True
        try:
            self._known[name](rest)
        except (AxpressError, OSError, ValueError) as error:
            self._say(f"! {error}")
        return True

    def complete(self, text: str) -> tuple[str, list[str]]:
        """The end of `text` that can be completed, and by what."""
        words = text.split(" ")
        end, before = words[-1], words[:-1]
        found: list[str] = []
        if not before and end.startswith("/"):
            found = [f"/{name}" for name in self._known]
        elif before == ["/set"]:
            found = list(SETTINGS)
        elif before == ["/model"]:
            with suppress(AxpressError):
                found = self._conversation.models.names()
        elif before in (["/save"], ["/load"]):
            paths = glob.glob(glob.escape(str(Path(end).expanduser()) if end.startswith("~") else end) + "*")
            return end, [f"{path}/" if Path(path).is_dir() else path for path in sorted(paths)]
        return end, [candidate for candidate in found if candidate.startswith(end)]

    def _help(self, _: str) -> None:
        for name, text in HELP.items():
            self._say(f"{name:<9}{text}")
            if name == "/set":
                for setting, about in SETTINGS.items():
                    self._say(f"    {setting + ' ' + about.sign:<22}{about.text}")
        self._say(KEYS)

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        settings, value = self._conversation.settings, value.strip()
        if not name:
            for known in SETTINGS:
                self._say(f"{known:<20}{settings.get(known, 'default')}")
            self._system("")
            return
        if name == "system":
            self._system(value)
            return
        if name not in SETTINGS:
            close = difflib.get_close_matches(name, SETTINGS, n=1)
            raise ValueError(f"there is no {name} to set" + (f"; did you mean {close[0]}?" if close else ": see /help"))
        if value == "default":
            settings.pop(name, None)
        elif value:
            try:
                settings[name] = SETTINGS[name].parse(value)
            except argparse.ArgumentTypeError as error:
                raise ValueError(f"{name}: {error}, or default") from None
        self._say(f"{name} {settings.get(name, 'default')}")

    def _system(self, rest: str) -> None:
        if rest:
            self._conversation.system = "" if rest == "none" else rest
        self._say(f"system: {self._conversation.system or 'none'}")

    def _model(self, rest: str) -> None:
        models = self._conversation.models
        if rest:
            models.switch(rest, self._say)
        now = models.model if models.model != "default" else models.connection.health().get("model") or "default"
        for name in dict.fromkeys((now, *models.names())):
            self._say(f"{'*' if name == now else ' '} {name}")

    def _clear(self, _: str) -> None:
        self._conversation.messages.clear()
        self._say("a new conversation")

    def _save(self, rest: str) -> None:
        file = self._file(rest)
        if file.exists() and file.resolve() not in self._own_files:
            raise ValueError(f"{file} is there already: choose another name")
        self._conversation.save(file)
        self._own_files.add(file.resolve())
        self._say(f"{len(self._conversation.messages)} messages are in {file}")

    def _load(self, rest: str) -> None:
        file = self._file(rest)
        self._conversation.load(file)
        self._own_files.add(file.resolve())
        self._say(f"{len(self._conversation.messages)} messages of {file}")
        for message in self._conversation.messages[-2:]:
            self._say(f"{'> ' if message['role'] == 'user' else ''}{message['content']}")

    @staticmethod
    def _file(rest: str) -> Path:
        if not rest:
            raise ValueError("say which file")
        return Path(rest).expanduser()

    def _leave(self, _: str) -> None:
        raise Leave
