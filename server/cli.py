"""The command line: axpress serve | chat | convert | hollow | plan."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from axpress.core.errors import AxpressError

from . import version

MAX_RUNNING = 256
"""Each answer at a time holds a row of logits in pinned memory, and no pass of a published model carries more than
128."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code. An error a person can act on is one line on stderr and exit code 1."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (AxpressError, OSError) as exc:
        print(f"axpress: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "axpress",
        description=(
            "Language models on an AXERA AX650 card, or an emulated one, for clients of OpenAI, Azure and Ollama."
        ),
    )
    parser.add_argument("--version", action="version", version=f"axpress {version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="serve a model over HTTP"))
    _add_chat(commands.add_parser("chat", help="talk to a server in the terminal (its key: AXPRESS_API_KEY)"))
    _add_convert(commands.add_parser("convert", help="make a simulated package from a Hugging Face checkpoint"))
    _add_hollow(commands.add_parser("hollow", help="make a full-size package of shapes and timings only"))
    _add_plan(
        commands.add_parser("plan", help="what fits on the card and how fast it should be, on paper, without a card")
    )
    return parser


def _device(text: str) -> str | int:
    if text in ("auto", "emu", "axengine"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError("use auto, emu, axengine, or a card's index such as 0")


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError("use a number from 0 (any free port) to 65535")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e7:
        raise argparse.ArgumentTypeError("use a number of seconds above 0")
    return value


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 10**6:
        return int(text)
    raise argparse.ArgumentTypeError("use a whole number above 0")


def _running(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) <= MAX_RUNNING:
        return int(text)
    raise argparse.ArgumentTypeError(f"use a whole number from 1 to {MAX_RUNNING}")


def _origin(text: str) -> str:
    from .http.addresses import ANY, parse_origin

    try:
        if text != ANY:
            parse_origin(text)
        return text
    except ValueError:
        raise argparse.ArgumentTypeError(
            "use scheme://host or scheme://host:port, as a browser's address bar begins, or *"
        ) from None


def _host_name(text: str) -> str:
    from .http.addresses import parse_authority

    try:
        return parse_authority(text).host
    except ValueError:
        raise argparse.ArgumentTypeError("use a host name, such as models.example.org") from None


class _NoKey(argparse.Action):
    """Refuses a key on the command line without repeating it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(
            "a key is not taken here, since every process of the machine can read it; use --api-keys FILE or"
            " AXPRESS_API_KEYS"
        )


def _rows(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError("use whole numbers with commas, such as 0,128,256") from None


def _add_serve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "model_dir",
        nargs="?",
        type=Path,
        metavar="MODEL_DIR",
        help="model directory; without it the demo model, emulated",
    )
    add(
        "--device",
        type=_device,
        default="auto",
        help="auto (default), emu, a card's index, or axengine (through PyAXEngine: slow)",
    )
    add(
        "--emu-profile",
        metavar="NAME",
        help=(
            "pace the emulated card like a published one: a profile of core/profiles, or a path "
            "with a /; none: as fast as the CPU goes (default: the package's own, if it has one)"
        ),
    )
    add("--emu-speed", type=_seconds, metavar="X", help="run modelled time X times faster (default 1)")
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    add("--port", type=_port, default=8000, help="port to listen on, 0 for any (default 8000)")
    add("--model-name", metavar="NAME", help="name of the model in the API (default: the package's)")
    add("--max-running", type=_running, default=16, metavar="N", help="answers generated at a time (default 16)")
    add(
        "--banks", type=_count, metavar="N", help="caches on the card, each of the model's context (default: what pays)"
    )
    add("--exact", action="store_true", help="single decodes only: the same last bit whatever runs beside, slower")
    add(
        "--no-drafts",
        action="store_true",
        help="do not guess tokens from the conversation (guesses never change an answer)",
    )
    add(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write every pass as Chrome trace JSON, for chrome://tracing or ui.perfetto.dev",
    )
    add(
        "--max-queue",
        type=_count,
        default=32,
        metavar="N",
        help="requests that may wait; more are answered 429 (default 32)",
    )
    add("--request-timeout", type=_seconds, default=600.0, metavar="S", help="total time of one request (default 600)")
    add("--read-timeout", type=_seconds, default=20.0, metavar="S", help="total time to send one request (default 20)")
    add("--stall-timeout", type=_seconds, default=30.0, metavar="S", help="how long a client may not read (default 30)")
    add(
        "--drain-timeout",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="time for running answers after SIGTERM (default 30)",
    )
    add("--max-body", type=_count, default=4096, metavar="KIB", help="largest request body in KiB (default 4096)")
    add("--max-connections", type=_count, default=256, metavar="N", help="open connections at a time (default 256)")
    _add_access(parser)
    add(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="least weight of what is logged (default info)",
    )
    parser.set_defaults(run=_serve)


def _add_access(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("who may ask").add_argument
    add(
        "--api-keys",
        type=Path,
        metavar="FILE",
        help="API keys, one a line, KEY or NAME:KEY; also AXPRESS_API_KEYS=KEY,KEY",
    )
    add("--api-key", action=_NoKey, nargs="?", help=argparse.SUPPRESS)
    add("--key-concurrency", type=_count, metavar="N", help="answers at a time for one key; more are answered 429")
    add("--separate-keys", action="store_true", help="no cached prompt of one key is used for another")
    add(
        "--allow-origin",
        type=_origin,
        action="append",
        metavar="ORIGIN",
        help="a page that may use it from a browser (repeatable)",
    )
    add(
        "--allow-host",
        type=_host_name,
        action="append",
        metavar="NAME",
        help="another name of this server (repeatable)",
    )


def _serve(arguments: argparse.Namespace) -> int:
    from .app import serve
    from .http import logs
    from .settings import Settings

    if arguments.model_dir is not None and not arguments.model_dir.is_dir():
        raise OSError(f"there is no model directory {arguments.model_dir}")
    if arguments.trace is not None and not arguments.trace.parent.is_dir():
        raise OSError(f"there is no directory {arguments.trace.parent} for the trace")
    if arguments.model_dir is None and arguments.device not in ("auto", "emu"):
        raise OSError("give MODEL_DIR: without one the demo model is served, and that runs on the emulated card only")
    logs.configure(arguments.log_level)
    settings = Settings(
        model_dir=arguments.model_dir,
        device=arguments.device,
        profile=arguments.emu_profile,
        emu_speed=arguments.emu_speed,
        model_name=arguments.model_name,
        host=arguments.host,
        port=arguments.port,
        max_queue=arguments.max_queue,
        max_running=arguments.max_running,
        banks=arguments.banks,
        exact=arguments.exact,
        drafts=not arguments.no_drafts,
        trace=arguments.trace,
        request_timeout=arguments.request_timeout,
        read_timeout=arguments.read_timeout,
        stall_timeout=arguments.stall_timeout,
        drain_timeout=arguments.drain_timeout,
        max_body=arguments.max_body * 1024,
        max_connections=arguments.max_connections,
        log_level=arguments.log_level,
        api_keys=arguments.api_keys,
        key_concurrency=arguments.key_concurrency,
        separate_keys=arguments.separate_keys,
        allow_origins=tuple(arguments.allow_origin or ()),
        allow_hosts=tuple(arguments.allow_host or ()),
    )
    return serve(settings)


def _add_chat(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8000", help="the server (default http://127.0.0.1:8000)")
    add("--model", default="default", help="model name (default: the served one)")
    add("--system", metavar="TEXT", help="system message")
    parser.description = (
        "Ctrl-C stops an answer, Ctrl-D leaves, /new starts over. The server's key is read from AXPRESS_API_KEY."
    )
    add = parser.add_argument_group(
        "sampling", "where nothing is said, as the server's model package says"
    ).add_argument
    add("--temperature", type=float, metavar="X")
    add("--top-p", type=float, metavar="X")
    add("--top-k", type=int, metavar="N")
    add("--min-p", type=float, metavar="X")
    add("--repetition-penalty", type=float, metavar="X")
    add("--seed", type=int, metavar="N")
    add("--max-tokens", type=int, metavar="N")
    parser.set_defaults(run=_chat)


def _chat(arguments: argparse.Namespace) -> int:
    from .terminal_chat import SAMPLING, run

    sampling = {name: value for name in SAMPLING if (value := getattr(arguments, name)) is not None}
    return run(arguments.url, arguments.model, arguments.system, sampling)


def _add_convert(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="HF_DIR", help="Hugging Face checkpoint directory (safetensors)")
    add(
        "out",
        type=Path,
        metavar="OUT_DIR",
        help="directory to make; axpress serve OUT_DIR runs it on the emulated card",
    )
    add("--rows", type=_count, default=2047, help="cache rows of the decode graph (default 2047)")
    add("--chunk", type=int, default=128, help="tokens of a prompt chunk, 0 for none (default 128)")
    add("--history", type=_rows, metavar="0,128,...", help="history rows of each chunk graph")
    parser.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    from axpress.core.model_files.convert import convert

    convert(arguments.checkpoint, arguments.out, rows=arguments.rows, chunk=arguments.chunk, history=arguments.history)
    return 0


def _add_hollow(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A published model's shapes, memory and modelled times, without its weights: for measuring; its text is noise."
    )
    parser.add_argument(
        "profile",
        metavar="PROFILE",
        help="name of a timing profile (a wrong name lists them), or the path of a TOML file",
    )
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT_DIR",
        help="directory to make; axpress serve OUT_DIR runs it on the emulated card",
    )
    parser.set_defaults(run=_hollow)


def _hollow(arguments: argparse.Namespace) -> int:
    from axpress.core.model_files.hollow import hollow

    made = hollow(arguments.profile, arguments.out)
    own = ["--emu-profile", arguments.profile] if "/" in arguments.profile else []
    print(f"now: {shlex.join(['axpress', 'serve', str(made), *own])}    (emulated; its text is noise)")
    return 0


def _add_plan(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model_dir", type=Path, metavar="MODEL_DIR", help="model directory, published or simulated")
    add(
        "--profile",
        metavar="NAME",
        help="timing profile, or the path of a TOML file (default: the one a simulated package names)",
    )
    add("--clients", type=_count, default=1, metavar="N", help="clients at once (default 1)")
    add("--context", type=_count, metavar="T", help="tokens of each prompt (default: 250, or what the cache holds)")
    add("--shared", type=_count, default=0, metavar="T", help="of them the same for all clients (default none)")
    add("--target-tokens", type=_count, default=100, metavar="N", help="tokens of an answer (default 100)")
    add(
        "--target-seconds",
        type=_seconds,
        default=3.0,
        metavar="S",
        help="seconds it may take, prompt included (default 3)",
    )
    parser.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    from axpress.core.capacity.report import plan

    made = plan(
        arguments.model_dir, arguments.profile, arguments.clients, arguments.context, arguments.target_tokens,
        arguments.target_seconds, shared=arguments.shared,
    )  # fmt: skip
    print(made.render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
