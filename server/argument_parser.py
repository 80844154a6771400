"""Errors of the command line as people read them: the reason first, what was probably meant, where to look."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

MODELS = (
    "models for the card are on Hugging Face under AXERA-TECH (`axpress pull AXERA-TECH/Qwen3-0.6B`); `axpress convert`"
    " makes one for the emulated card"
)


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, but a wrong argument is answered by one sentence instead of a page of usage."""

    rest: str | None = None
    """The argument, a list, that takes words which come behind options."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse does; a command refuses itself what it does not know, so that its own options are proposed."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if self.rest and not any(word.startswith("-") for word in unknown):
            getattr(namespace, self.rest).extend(unknown)
            unknown = []
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong and what to do, and ends with exit code 2."""
        if invalid := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            message += did_you_mean(invalid[1], re.findall(r"[\w-]+", invalid[2]))
        elif message.startswith("unrecognized arguments: "):
            unknown = message.removeprefix("unrecognized arguments: ").split()
            message += did_you_mean(unknown[0].split("=")[0], self._options())
        print(f"{self.prog}: {message}\n{self.prog}: `{self.prog} --help` lists what it takes", file=sys.stderr)
        raise SystemExit(2)

    def _options(self) -> Iterator[str]:
        """Options of this parser and of its commands."""
        for action in self._actions:
            yield from action.option_strings
            for command in action.choices.values() if isinstance(action, argparse._SubParsersAction) else ():
                yield from command._options()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to append to an error, or nothing."""
    close = difflib.get_close_matches(word, sorted(set(known)), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def no_such_model(path: Path) -> str:
    """What to say where a model directory is not there."""
    parent = path.parent
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    by_case = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(path.name.casefold(), by_case, n=1, cutoff=0.5)
    if close:
        return f"there is no model directory {path}; did you mean {parent / by_case[close[0]]}?"
    return f"there is no model directory {path}: {MODELS}"
