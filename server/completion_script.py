"""`axpress completion SHELL`: what a shell reads to complete our commands, made from the parser itself by shtab."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

_BASH = """
_axpress_models() {
  compgen -W "$(axpress list --names 2>/dev/null)" -- "$1"
  compgen -d -- "$1"
}"""
_ZSH = """
_axpress_models() {
  _alternative "models:model:($(axpress list --names 2>/dev/null))" "directories:directory:_files -/"
}"""
MODEL = {
    "bash": "_axpress_models",
    "zsh": "_axpress_models",
    "fish": "(axpress list --names 2>/dev/null; __fish_complete_directories)",
    "preamble": {"bash": _BASH, "zsh": _ZSH},
}
PULLED = shtab.cmd("axpress list --names 2>/dev/null")
KNOWN = shtab.cmd("axpress list --known 2>/dev/null")


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for bash, zsh or fish."""
    for command, action in _actions(parser):
        if action.metavar in ("MODEL", "MODEL_DIR"):
            action.complete = MODEL  # type: ignore[attr-defined]
        elif command == "pull" and action.dest == "name":
            action.complete = KNOWN  # type: ignore[attr-defined]
        elif command in ("show", "rm") and action.dest == "name":
            action.complete = PULLED  # type: ignore[attr-defined]
        elif action.type is Path:
            directory = "DIR" in str(action.metavar) and "|" not in str(action.metavar)
            action.complete = shtab.DIRECTORY if directory else shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser, command: str = "") -> Iterator[tuple[str, argparse.Action]]:
    """All arguments, with the command that takes them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _actions(inner, name)
        else:
            yield command, action
