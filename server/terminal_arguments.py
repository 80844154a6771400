"""The commands for people at a terminal: run, chat, ps, top, completion.

What they do is imported when they run: `axpress --help` needs none of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axpress.core.errors import AxpressError

from .argument_parser import ArgumentParser
from .terminal.settings import SETTINGS

if TYPE_CHECKING:
    from .terminal.connection import Connection

NEEDS = "needs the extra `terminal`: pip install 'axpress[terminal]'"


def add_commands(
    add: Callable[..., ArgumentParser], device: Callable[[str], Any], whole: Callable[[], ArgumentParser]
) -> None:
    """Defines the subcommands. `device` reads the value of --device; `whole` makes the parser of all commands."""
    run = add("run", help="serve a model for this terminal only, and talk to it")
    run.add_argument("model", nargs="?", type=Path, metavar="MODEL", help="as for axpress serve")
    run.add_argument("--device", type=device, default="auto", help="auto (default), emu, a card's index, or axengine")
    _add_conversation(run, "leaves and ends the server")
    run.set_defaults(run=_run)
    chat = add("chat", help="talk to a server in the terminal")
    _add_server(chat)
    chat.add_argument("--model", default="default", metavar="NAME", help="the model (default: the served one)")
    _add_conversation(chat, "leaves")
    chat.set_defaults(run=_chat)
    ps = add("ps", help="what runs on a server: model, memory, answers")
    _add_server(ps)
    ps.add_argument("--json", action="store_true", help="print it for programs")
    ps.set_defaults(run=_ps)
    top = add("top", help="the card of a server, live: speed, queue, rows, temperature")
    _add_server(top)
    top.add_argument("--once", action="store_true", help="print one picture, for scripts")
    top.set_defaults(run=_top)
    completion = add("completion", help="print what lets a shell complete commands, options and names of models")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    completion.set_defaults(run=lambda arguments: _completion(arguments.shell, whole()))


def _add_server(parser: argparse.ArgumentParser) -> None:
    url = "http://127.0.0.1:8000"
    parser.add_argument("--url", default=url, metavar="URL", help=f"the server (default {url})")
    parser.add_argument(
        "--api-key", metavar="KEY", help="the server's key; better in AXPRESS_API_KEY, where other users cannot see it"
    )


def _add_conversation(parser: ArgumentParser, end: str) -> None:
    parser.description = (
        f"Without a question it talks until Ctrl-D, which {end}; /help tells the rest. With one, or with something"
        " piped in, it answers that and ends: what is piped in is one message, behind the question."
    )
    parser.add_argument("question", nargs="*", metavar="QUESTION", help="answered at once, instead of a conversation")
    parser.rest = "question"
    parser.add_argument("--system", default="", metavar="TEXT", help="system message")
    parser.add_argument("--plain", action="store_true", help="no Markdown: the text as the model writes it")
    group = parser.add_argument_group("sampling", "where nothing is said, as the server's model package says")
    for name, setting in SETTINGS.items():
        option = f"--{name.replace('_', '-')}"
        group.add_argument(option, type=setting.parse, metavar=setting.sign, help=setting.text)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name in SETTINGS if (value := getattr(arguments, name)) is not None}


def _run(arguments: argparse.Namespace) -> int:
    from .models_command import default_directory, model_directory
    from .run_command import OwnServer
    from .terminal.chat import chat
    from .terminal.conversation import Conversation

    found = default_directory() if arguments.model is None else model_directory(arguments.model)
    with OwnServer(found[0] if found else None, ["--device", str(arguments.device)]) as server:
        conversation = Conversation(server, arguments.system, _settings(arguments))
        return chat(conversation, " ".join(arguments.question), arguments.plain)


def _chat(arguments: argparse.Namespace) -> int:
    from .terminal.chat import chat
    from .terminal.conversation import Conversation, ServedModels

    models = ServedModels(_connection(arguments), arguments.model)
    conversation = Conversation(models, arguments.system, _settings(arguments))
    return chat(conversation, " ".join(arguments.question), arguments.plain)


def _connection(arguments: argparse.Namespace) -> Connection:
    from .terminal.connection import Connection

    return Connection(arguments.url, arguments.api_key)


def _ps(arguments: argparse.Namespace) -> int:
    from .terminal.ps import ps

    return ps(_connection(arguments), arguments.json)


def _top(arguments: argparse.Namespace) -> int:
    try:
        from .terminal.top import top
    except ImportError as error:
        raise AxpressError(f"`axpress top` {NEEDS}") from error
    return top(_connection(arguments), arguments.once)


def _completion(shell: str, parser: ArgumentParser) -> int:
    try:
        from .completion_script import completion_script
    except ImportError as error:
        raise AxpressError(f"`axpress completion` {NEEDS}") from error
    print(completion_script(parser, shell))
    return 0
