"""`python tools/reference_pages.py` writes the pages of docs/ that are made from the code: cli.md from the parsers of
the command line, metrics.md from what a server of the toy model exposes. compat.md: axpress.server.docs.field_table."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "tests" / "support"))

from server_process import RunningServer, chat  # noqa: E402

from axpress.server import cli  # noqa: E402
from axpress.server.monitor import metrics  # noqa: E402

COMMAND = "python tools/reference_pages.py"
CLI = f"""# Command line

Written by `{COMMAND}` from the parsers themselves; do not edit. `axpress COMMAND --help` prints the same.
[Exit codes](errors.md#exit-codes).
"""
METRICS = f"""# Metrics

Written by `{COMMAND}` from what `/metrics` answers; do not edit. Names that begin with `vllm:` mean what they mean
there. A label or a metric appears once there is something to tell, and where there is who tells it: an open card, a
Raspberry Pi.

| name | kind | labels | what it says |
| --- | --- | --- | --- |
"""


# ---- command line ----


def cli_page() -> str:
    """docs/cli.md."""
    return "\n".join([CLI, *_command(cli._parser())])


def _command(parser: argparse.ArgumentParser, level: int = 1) -> Iterator[str]:
    """A command's section, and those of its own commands."""
    if level > 1:
        yield f"{'#' * level} {parser.prog}\n"
    if parser.description:
        yield f"{_text(parser.description)}\n"
    plain = [action for action in parser._actions if action.help != argparse.SUPPRESS and action.dest != "help"]
    below = [action for action in plain if isinstance(action, argparse._SubParsersAction)]
    rows = [_row(parser, action) for action in plain if action not in below]
    if rows:
        yield "\n".join(["| argument | |", "| --- | --- |", *rows]) + "\n"
    for action in below:
        helps = {choice.dest: choice.help for choice in action._choices_actions}
        for name, command in action.choices.items():
            command.description = ". ".join(filter(None, (helps.get(name), command.description)))
            yield from _command(command, level + 1)


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    takes = "" if action.nargs == 0 else f" {value}"
    names = ", ".join(f"`{name}{takes}`" for name in action.option_strings) or f"`{value}`"
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    return f"| {names.replace('|', chr(92) + '|')} | {_text(text)} |"


def _text(text: str) -> str:
    """Help as Markdown takes it."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


# ---- metrics ----


def metrics_page(exposed: str) -> str:
    """docs/metrics.md of what /metrics answered."""
    labels: dict[str, dict[str, None]] = {}
    for name, inside in re.findall(r"^([\w:]+)\{(.*)\} ", exposed, re.MULTILINE):
        labels.setdefault(re.sub("_bucket$", "", name), {}).update(dict.fromkeys(re.findall(r'(\w+)="', inside)))
    found = re.findall(r"^# HELP (\S+) (.*)\n# TYPE \1 (\w+)$", exposed, re.MULTILINE)
    told = {name: (text, kind) for name, text, kind in found}
    lines = []
    for name, (text, kind) in sorted((_not_everywhere() | told).items()):
        shown = ", ".join(f"`{label}`" for label in labels.get(name, ()) if label != "le")
        lines.append(f"| `{name}` | {kind} | {shown} | {_text(text)} |\n")
    return METRICS + "".join(lines)


def _not_everywhere() -> dict[str, tuple[str, str]]:
    """Text and kind of the metrics in the tables of server/monitor/metrics.py, by name: some need a certain card or
    board, and the page is to be the same wherever it is made."""
    tables = [value for name, value in vars(metrics).items() if name.startswith("_") and isinstance(value, tuple)]
    return {
        name: (text, "counter" if name.endswith("_total") else "gauge") for table in tables for name, *_, text in table
    }


def exposed_by(server: RunningServer) -> str:
    """What a server's /metrics says once it has answered something and looked at its card."""
    server.post(chat(max_tokens=4))
    server.wait(lambda: "card" in server.health()[1], 60, "told of the card")
    return server.request("GET", "/metrics")[2].decode()


def main() -> int:
    """Writes the pages."""
    (DOCS / "cli.md").write_text(cli_page())
    with RunningServer("--emu-profile", "none", check=False) as server:
        (DOCS / "metrics.md").write_text(metrics_page(exposed_by(server)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
