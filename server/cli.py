"""The command line: axpress serve | run | chat | ps | top | pull | list | show | rm | check | convert | hollow | plan |
service | doctor | completion."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from axpress.core.errors import AxpressError, PackageError

from . import argument_types as read
from . import doctor_command, service_command, version
from .argument_parser import ArgumentParser
from .exit_codes import CONFIGURATION
from .model_arguments import add_commands as add_model_commands
from .model_arguments import find_model, known_directory
from .settings import Settings
from .terminal_arguments import add_commands as add_terminal_commands

DEFAULTS = Settings()
MAX_HISTORY = 1 << 24  # tokens: 400 MB
MOST_CARDS = 8  # that a runtime is known to drive
MAX_RUNNING = 256
"""Each answer at a time holds a row of logits in pinned memory, and no pass of a published model carries more than
128."""

OUT_DIR = "directory to make; axpress serve OUT_DIR runs it on the emulated card"
P0_WIDTH: dict[str, Any] = {
    "choices": ("hidden", "kv"),
    "default": "hidden",
    "help": "width of the cache row that chunk graphs without history take; published packages have both",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code. An error a person can act on is one line on stderr and exit code 1."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except BrokenPipeError:  # as in `axpress top | head -3`; what is not written yet is not wanted either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (AxpressError, OSError) as exc:
        print(f"axpress: {exc}", file=sys.stderr)
        return CONFIGURATION if isinstance(exc, PackageError) and arguments.run is _serve else 1
    except KeyboardInterrupt:
        return 130


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "axpress",
        description=(
            "Language models on an AXERA AX650 card, or an emulated one, for clients of OpenAI, Azure and Ollama."
        ),
    )
    parser.add_argument("--version", action="version", version=f"axpress {version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="serve a model over HTTP", argument_default=argparse.SUPPRESS))
    add_terminal_commands(commands.add_parser, read.device, _parser)
    add_model_commands(commands.add_parser)
    _add_check(commands.add_parser("check", help="whether a model directory opens, and what is in it, without a card"))
    _add_convert(commands.add_parser("convert", help="make a simulated package from a checkpoint or a GGUF file"))
    _add_hollow(commands.add_parser("hollow", help="make a full-size package of shapes and timings only"))
    _add_plan(
        commands.add_parser("plan", help="what fits on the card and how fast it should be, on paper, without a card")
    )
    service = commands.add_parser("service", help="install the server as a service of systemd")
    service_command.add_arguments(service, lambda arguments: _parser().parse_args(["serve", *arguments]))
    doctor = commands.add_parser("doctor", help="what is wrong with card, driver or model, and what to do about it")
    doctor_command.add_arguments(doctor, read.device, read.seconds)
    return parser


class _NoKey(argparse.Action):
    """Refuses a key on the command line without repeating it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(
            "a key is not taken here, since every process of the machine can read it; use --api-keys FILE or"
            " AXPRESS_API_KEYS"
        )


def _add_serve(parser: argparse.ArgumentParser) -> None:
    """Each option is a field of Settings, which has the defaults."""
    add = parser.add_argument
    add("model_dir", nargs="*", default=[], type=Path, metavar="MODEL",
        help="model directory, or the name of a pulled model; several are served together on one card, each by its "
        "name; without any the default model, or else a toy, emulated")  # fmt: skip
    add("--models", dest="on_demand", action="store_true",
        help="serve all models of the models directory, too: each is loaded when it is asked for, as far as the card's"
        " memory allows")  # fmt: skip
    add(
        "--pin",
        dest="pinned",
        action="append",
        metavar="NAME",
        help="with --models: one that is loaded from the start and stays, as a MODEL does (repeatable)",
    )
    add("--load-later", action="store_true",
        help="with --models, for runtimes that load models once something ran: one that comes does not interrupt the "
        "others; elsewhere the card may drop out")  # fmt: skip
    add("--keep-loaded", type=read.seconds, metavar="S",
        help="with --models: how long an idle model stays on the card (default "
        f"{DEFAULTS.keep_loaded:g}; Ollama's keep_alive wins)")  # fmt: skip
    _add_card(add)
    _add_limits(add)
    _add_access(parser.add_argument_group("who may ask").add_argument)
    add("--lenient", action="store_true",
        help="ignore unknown fields (each is logged once) and cut max_tokens to the context, as other servers do, "
        "instead of refusing")  # fmt: skip
    add("--store-responses", type=Path, metavar="FILE",
        help="keep what /v1/responses answers in this file (SQLite), unless a request says store false, so that "
        "previous_response_id works; without it nothing is ever stored")  # fmt: skip
    add("--store-limit", type=read.store_limit, metavar="N[,MIB]",
        help="responses kept, and their size; the oldest go (default 10000,256)")  # fmt: skip
    add("--state-dir", type=Path, metavar="DIR",
        help="where restarts and reboots of a card are counted (default: the service's, or user's)")  # fmt: skip
    levels = ("debug", "info", "warning", "error")
    add("--log-level", choices=levels, help=f"least weight of what is logged (default {DEFAULTS.log_level})")
    add("--log-format", choices=("text", "json", "journal"),
        help="lines for people (default), JSON objects, or lines for systemd's journal")  # fmt: skip
    parser.set_defaults(run=_serve)


# fmt: off
def _add_card(add: Callable[..., Any]) -> None:
    add("--device", type=read.devices, metavar="CARD",
        help="auto (default), emu, a card's index, or axengine (through PyAXEngine: slow); 0,1 or all: the model on"
        " each of several cards, which share the requests and stand in for each other (emulated: emu:0,1)")
    add("--split", type=read.cards, metavar="A,B",
        help="a model too large for one card over several: a block of its layers on each of these, by index; clients in"
        " different caches keep them all at work (default: `devices` of the model's config.json)")
    add("--emu-profile", dest="profile", metavar="NAME",
        help="pace the emulated card like a published one: a profile of core/profiles, or a path with a /; none: as"
        " fast as the CPU goes (default: the package's own, if it has one)")
    add("--emu-speed", type=read.seconds, metavar="X", help="run modelled time X times faster (default 1)")
    add("--host", help=f"address to listen on (default {DEFAULTS.host})")
    add("--port", type=read.port, help=f"port to listen on, 0 for any (default {DEFAULTS.port})")
    add("--model-name", metavar="NAME", help="name of the model in the API (default: the package's)")
    add("--alias", dest="aliases", action="append", metavar="NAME",
        help="another name that requests may call the model by, besides those that its package goes by (repeatable)")
    add("--reranker", action="store_true",
        help="the model ranks documents, too (/v1/rerank), though its package does not say so: one of Qwen3-Reranker's"
        " type")
    add("--max-running", type=partial(read.count, most=MAX_RUNNING), metavar="N",
        help=f"answers generated at a time, on each card (default {DEFAULTS.max_running})")
    add("--banks", type=read.count, metavar="N",
        help="caches on the card, each of the model's context (default: what pays)")
    add("--exact", action="store_true", help="single decodes only: the same last bit whatever runs beside, slower")
    add("--no-drafts", dest="drafts", action="store_false",
        help="do not guess tokens from the conversation (guesses never change an answer)")
    add("--draft-history", type=partial(read.count, least=0, most=MAX_HISTORY), metavar="N",
        help="tokens of past answers kept in memory to guess later ones from, those of the same tenant only"
        f" (--separate-keys, prompt_cache_key); 0: none (default {DEFAULTS.draft_history})")
    add("--heat", type=read.heat, metavar="W,T,P",
        help="degrees of the card from which on it is warned of, works less, and pauses (default 75,80,85)")
    add("--trace", type=Path, metavar="FILE",
        help="write every pass as Chrome trace JSON, for chrome://tracing or ui.perfetto.dev")


def _add_limits(add: Callable[..., Any]) -> None:
    add("--max-queue", type=read.count, metavar="N",
        help=f"requests that may wait, for each card; more are answered 429 (default {DEFAULTS.max_queue})")
    for name, text in (
        ("request", "total time of one request"),
        ("read", "total time to send one request"),
        ("stall", "how long a client may not read"),
        ("drain", "time for running answers after SIGTERM"),
    ):
        default = f"default {getattr(DEFAULTS, f'{name}_timeout'):g}"
        add(f"--{name}-timeout", type=read.seconds, metavar="S", help=f"{text} ({default})")
    add("--max-body", type=read.kib, metavar="KIB",
        help=f"largest request body in KiB (default {DEFAULTS.max_body // 1024})")
    _add_pictures(add)
    add("--max-connections", type=read.count, metavar="N",
        help=f"open connections at a time (default {DEFAULTS.max_connections})")


def _add_pictures(add: Callable[..., Any]) -> None:
    """For models with eyes."""
    add("--max-image-bytes", type=partial(read.count, most=1 << 30), metavar="N",
        help=f"largest picture file that a model with eyes takes (default {DEFAULTS.max_image_bytes})")
    add("--max-image-pixels", type=partial(read.count, most=1 << 30), metavar="N",
        help=f"most pixels of a picture; 3 to 8 bytes of memory each (default {DEFAULTS.max_image_pixels})")
    add("--max-images", type=read.count, metavar="N", help=f"pictures of one request (default {DEFAULTS.max_images})")
    add("--allow-image-host", dest="allow_image_hosts", type=read.image_host, action="append", metavar="HOST",
        help="a host, or HOST:PORT, from which pictures are fetched that requests name by URL (repeatable); never from "
        "private addresses. Without it pictures come as data: URLs only")


def _add_access(add: Callable[..., Any]) -> None:
    add("--api-keys", type=Path, metavar="FILE",
        help="API keys, one a line, KEY or NAME:KEY; also AXPRESS_API_KEYS=KEY,KEY")
    add("--api-key", action=_NoKey, nargs="?", help=argparse.SUPPRESS)
    add("--key-concurrency", type=read.count, metavar="N", help="answers at a time for one key; more are answered 429")
    add("--rate", type=read.rate, metavar="N[,T]",
        help="requests, and tokens of prompts and answers, a minute for one key, or without keys for one address; "
        "0: any number")
    add("--separate-keys", action="store_true", help="no cached prompt of one key is used for another")
    add("--allow-origin", dest="allow_origins", type=read.origin, action="append", metavar="ORIGIN",
        help="a page that may use it from a browser (repeatable)")
    add("--allow-host", dest="allow_hosts", type=read.host_name, action="append", metavar="NAME",
        help="another name of this server (repeatable)")
# fmt: on


def _serve(arguments: argparse.Namespace) -> int:
    from axpress.core.model_files.model_package import open_package
    from axpress.core.model_files.rerank_models import FLAG, check_kind

    from .app import serve
    from .http import logs

    options: dict[str, Any] = {f.name: getattr(arguments, f.name) for f in fields(Settings) if f.name in arguments}
    for repeatable in ("aliases", "allow_origins", "allow_hosts", "allow_image_hosts", "pinned"):
        options[repeatable] = tuple(options.get(repeatable, ()))
    for flag, field in (("--pin", "pinned"), ("--keep-loaded", "keep_loaded"), ("--load-later", "load_later")):
        if options.get(field) and not options.get("on_demand"):
            raise OSError(f"{flag} is about models that come and go: give --models")
    options["model_dir"], *more = options["model_dir"] or [None]
    if more and options.get("device") == "axengine":
        raise OSError("PyAXEngine's sessions serve one model: give one MODEL, or another --device")
    if options.get("reranker") and (more or options.get("on_demand") or options["model_dir"] is None):
        raise OSError(f'--reranker is about one MODEL: give one, or write "{FLAG}": true into its config.json')
    several = Settings(device=options.get("device", "auto")).several_cards
    if several and (more or options.get("on_demand")):
        raise OSError("several models go on one card, and several cards have one model: give one MODEL or one --device")
    if options.get("split"):
        if more or options.get("on_demand"):
            raise OSError("a model that is split over several cards has them to itself: give one MODEL, or no --split")
        if options.get("device", "auto") not in ("auto", "emu"):
            raise OSError("--split names the cards: leave out --device, or give --device emu for emulated ones")
    if options["model_dir"] is None and not str(options.get("device", "auto")).startswith(("auto", "emu")):
        raise OSError("give MODEL: without one a model is served that runs on the emulated card only")
    if "store_limit" in options and "store_responses" not in options:
        raise OSError("--store-limit bounds stored responses and none are stored: give --store-responses FILE")
    if options["model_dir"] is not None or not options.get("on_demand"):
        find_model(options)
    options["more_models"] = tuple(known_directory(path) for path in more)
    settings = Settings(**options)
    if settings.trace is not None and not settings.trace.parent.is_dir():
        raise OSError(f"there is no directory {settings.trace.parent} for the trace")
    if settings.model_dir is not None or not settings.on_demand:
        # what is wrong with the files is said before anybody is told where to connect
        package = open_package(settings.directory)
        if settings.reranker:
            check_kind(package.family, package.embeds, package.directory)
    logs.configure(settings.log_level, settings.log_format)
    return serve(settings)


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.description = "The exit code is 0 if the directory opens, 1 if not."
    parser.add_argument("model_dir", type=Path, metavar="MODEL_DIR", help="model directory, published or simulated")
    parser.add_argument("--json", action="store_true", help="print it for programs")
    parser.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    from .check_command import check

    return check(known_directory(arguments.model_dir), arguments.json)


# fmt: off
def _add_convert(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="HF_DIR|FILE.gguf",
        help="Hugging Face checkpoint directory (safetensors), or a GGUF file (needs axpress[gguf])")
    add("out", type=Path, metavar="OUT_DIR", help=OUT_DIR)
    add("--rows", type=read.rows, default=[2047], help="cache rows of the decode graph, or of several (default 2047)")
    add("--chunk", type=int, default=128, help="tokens of a prompt chunk, 0 for none (default 128)")
    add("--history", type=read.rows, metavar="0,128,...", help="history rows of each chunk graph")
    add("--p0-width", **P0_WIDTH)
    add("--weights", choices=("bf16", "int8"), default="bf16", help="int8: half the size, as published packages are")
    add("--reranker", action="store_true",
        help="it is one of Qwen3-Reranker's type, which ranks documents, though no file beside it says so")
    add("--image-size", type=int, metavar="PIXELS",
        help="of a model with eyes, the side of the pictures that its encoder takes (default: as published)")
    add("--image-input", choices=("uint8", "float32"), default="uint8",
        help="what its encoder takes: InternVL3's are published with both")
    parser.set_defaults(run=_convert)
# fmt: on


def _convert(arguments: argparse.Namespace) -> int:
    from axpress.core.model_files.convert import convert

    names = ("rows", "chunk", "history", "p0_width", "weights", "reranker", "image_size", "image_input")
    options = {name: getattr(arguments, name) for name in names}
    convert(arguments.checkpoint, arguments.out, **options)
    return 0


def _add_hollow(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A published model's shapes, memory and modelled times, without its weights: for measuring; its text is noise."
    )
    profile = "name of a timing profile (a wrong name lists them), or the path of a TOML file"
    parser.add_argument("profile", metavar="PROFILE", help=profile)
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help=OUT_DIR)
    parser.add_argument("--p0-width", **P0_WIDTH)
    parser.set_defaults(run=_hollow)


def _hollow(arguments: argparse.Namespace) -> int:
    from axpress.core.model_files.hollow import hollow

    package = hollow(arguments.profile, arguments.out, p0_width=arguments.p0_width)
    own = ["--emu-profile", arguments.profile] if "/" in arguments.profile else []
    print(f"now: {shlex.join(['axpress', 'serve', str(package), *own])}    (emulated; its text is noise)")
    return 0


# fmt: off
def _add_plan(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model_dir", type=Path, metavar="MODEL_DIR", help="model directory, published or simulated")
    add("--profile", metavar="NAME",
        help="timing profile, or the path of a TOML file (default: the one a simulated package names)")
    add("--clients", type=read.count, default=1, metavar="N", help="clients at once (default 1)")
    add("--context", type=read.count, metavar="T", help="tokens of each prompt (default: 250, or what the cache holds)")
    add("--shared", type=read.count, default=0, metavar="T", help="of them the same for all clients (default none)")
    add("--cards", type=partial(read.count, most=MOST_CARDS), default=1, metavar="N",
        help="cards over which its layers are split (default 1)")
    add("--target-tokens", type=read.count, default=100, metavar="N", help="tokens of an answer (default 100)")
    add("--target-seconds", type=read.seconds, default=3.0, metavar="S",
        help="seconds it may take, prompt included (default 3)")
    parser.set_defaults(run=_plan)
# fmt: on


def _plan(arguments: argparse.Namespace) -> int:
    from axpress.core.capacity.report import plan

    report = plan(
        known_directory(arguments.model_dir), arguments.profile, arguments.clients, arguments.context,
        arguments.target_tokens, arguments.target_seconds, shared=arguments.shared, cards=arguments.cards,
    )  # fmt: skip
    print(report.render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
