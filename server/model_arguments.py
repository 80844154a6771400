"""Models by name on the command line: pull, list, show and rm, and the MODEL of other commands.

What the commands do is imported when they run: `axpress --help` needs none of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMANDS = {
    "pull": "fetch a model by name, verify it, and look it over",
    "list": "models that are here, and names that can be pulled",
    "show": "where a model came from, its licence, and what `axpress check` says of it",
    "rm": "remove a model that was pulled",
}


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Defines the subcommands."""
    for command, text in COMMANDS.items():
        parser = add(command, help=text)
        if command != "list":
            parser.add_argument(
                "name", metavar="NAME", help="a name of the catalogue, or ORG/NAME of the Hugging Face hub"
            )
        if command == "pull":
            parser.add_argument(
                "--revision", metavar="REV", help="branch, tag or commit of the hub (default: main, now)"
            )
        if command == "list":
            names = parser.add_mutually_exclusive_group()
            names.add_argument("--names", action="store_true", help="names only of what is here, one a line")
            names.add_argument("--known", action="store_true", help="names only of what can be pulled")
        parser.add_argument("--json", action="store_true", help="print it for programs")
        parser.set_defaults(run=_command(command))


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        if name == "list" and (arguments.names or arguments.known):
            return _list_names(arguments.known)
        from . import models_command as commands

        run_it = {"pull": commands.pull_model, "list": commands.list_models, "show": commands.show_model,
                  "rm": commands.remove_model}[name]  # fmt: skip
        return run_it(arguments)

    return run


def _list_names(known: bool) -> int:
    """`axpress list --names` and --known, of which shells ask at each Tab: no model is looked into."""
    from axpress.core.model_store import ModelStore, known_names

    print(*(known_names() if known else [model.name for model in ModelStore().models()]), sep="\n")
    return 0


def find_model(options: dict[str, Any]) -> None:
    """Puts the directory of the model in place of its name among the options of a server, and its names among the
    aliases; without a model the default one. Left as they are: the toy is served. OSError: there is no such model."""
    from .models_command import default_directory, model_directory

    given = options["model_dir"]
    found = default_directory() if given is None else model_directory(given)
    if found is not None:
        options["model_dir"], names = found
        options["aliases"] += names


def known_directory(given: Path) -> Path:
    """The directory of a model that was pulled, or the path as it was given."""
    from axpress.core.model_store import ModelStore

    found = None if given.exists() else ModelStore().find(str(given))
    return found.directory if found else given
