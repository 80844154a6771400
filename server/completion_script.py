"""`axpress completion SHELL`: what a shell reads to complete our commands, made from the parser itself by shtab."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
        if (completed := _completed(command, action)) is not None:
            action.complete = completed  # type: ignore[attr-defined]  # shtab reads it there
    return shtab.complete(parser, shell)


def _completed(command: str, action: argparse.Action) -> dict[str, Any] | None:
    """What an argument is completed with, in shtab's words; None: with nothing, or its choices."""
    if action.metavar in ("MODEL", "MODEL_DIR"):
        return MODEL
    if action.dest == "name" and command in ("pull", "show", "rm"):
        return KNOWN if command == "pull" else PULLED
    if action.type is Path:
        return shtab.DIRECTORY if "DIR" in str(action.metavar) and "|" not in str(action.metavar) else shtab.FILE
    return None


def _actions(parser: argparse.ArgumentParser, command: str = "") -> Iterator[tuple[str, argparse.Action]]:
    """All arguments, with the command that takes them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _actions(inner, name)
        else:
            yield command, action
