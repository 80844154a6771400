"""Installs clients that other people wrote, each in a folder of its own, and lets them talk to a served model.

    python tools/clients/run.py                       # all of them against the built-in toy
    python tools/clients/run.py litellm_sdk aider_command --model MODEL_DIR

Needs the network (PyPI, npm) and some GB of disk in build/clients; takes many minutes the first time. Not part of CI.
Each program beside this one says in its first lines what it tries and which packages it needs; it ends with an error
unless what came back is right. What came of a client against the toy, last, is kept in build/clients/outcomes.json, and
docs/clients.md is written from that."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import tomllib
import venv
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDERS = ROOT / "build" / "clients"
OUTCOMES = FOLDERS / "outcomes.json"
PAGE = ROOT / "docs" / "clients.md"
INTRODUCTION = """# Clients that were tried

Written by `python tools/clients/run.py`, which installs each client from its registry, in its newest version that
installs beside its own needs, and runs a small program of `tools/clients` with it against the built-in toy model on the
emulated card. Each program checks what came back; the column says what.

"""
sys.path.insert(0, str(ROOT / "tests" / "support"))

from server_process import RunningServer  # noqa: E402


@dataclass(frozen=True)
class Client:
    """A program and the packages it needs, the client itself first."""

    program: Path
    packages: list[str]
    tries: str

    @property
    def folder(self) -> Path:
        return FOLDERS / self.program.stem

    @property
    def is_node(self) -> bool:
        return self.program.suffix == ".mjs"


@dataclass(frozen=True)
class Outcome:
    """`error`: empty where it worked, else the last line that the program wrote."""

    version: str
    tries: str
    error: str
    date: str


def read_client(program: Path) -> Client:
    """A program's own words on what it tries and needs."""
    text = program.read_text()
    if program.suffix == ".mjs":
        tries, needs, *_ = (line.removeprefix("//").strip() for line in text.splitlines())
        return Client(program, needs.removeprefix("dependencies:").split(), tries)
    block = re.search(r"^# /// script\n(.*?)^# ///", text, re.MULTILINE | re.DOTALL)
    assert block, f"{program} does not say what it needs"
    needs = tomllib.loads(re.sub("^# ?", "", block[1], flags=re.MULTILINE))["dependencies"]
    return Client(program, needs, text.partition('"""')[2].partition('"""')[0])


def install(client: Client) -> str:
    """Brings the packages into the client's folder; the client's version."""
    client.folder.mkdir(parents=True, exist_ok=True)
    first = client.packages[0].partition("[")[0]
    if client.is_node:
        call(["npm", "install", "--silent", "--no-fund", "--no-audit", *client.packages], client.folder)
        about = json.loads((client.folder / "node_modules" / first / "package.json").read_text())
        return f"{first} (npm) {about['version']}"
    python = client.folder / "bin" / "python"
    if not python.exists():
        venv.create(client.folder, with_pip=True)
    call([str(python), "-m", "pip", "install", "--quiet", "--upgrade", *client.packages], client.folder)
    asked = f"import importlib.metadata as about; print(about.version({first!r}))"
    return f"{first} {call([str(python), '-c', asked], client.folder).strip()}"


def call(command: list[str], folder: Path, **environment: str) -> str:
    """What a command prints; CalledProcessError with what it complained of."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=1800
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout


def last_line(error: subprocess.CalledProcessError) -> str:
    lines = [line for line in f"{error.stdout}\n{error.stderr}".splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else f"exit code {error.returncode}"


def try_client(client: Client, url: str) -> Outcome:
    """Installs and runs one client."""
    version = client.packages[0]
    try:
        version = install(client)
        program = client.program
        if client.is_node:  # it looks for its packages beside itself
            program = client.folder / client.program.name
            program.write_text(client.program.read_text())
        runner = "node" if client.is_node else str(client.folder / "bin" / "python")
        call([runner, str(program)], client.folder, AXPRESS_URL=url)
    except subprocess.CalledProcessError as error:
        (client.folder / "error.txt").write_text(f"{error.stdout}\n{error.stderr}")
        return Outcome(version, client.tries, last_line(error), time.strftime("%Y-%m-%d"))
    return Outcome(version, client.tries, "", time.strftime("%Y-%m-%d"))


def keep(name: str, outcome: Outcome) -> None:
    """Writes the page anew with this outcome."""
    outcomes = json.loads(OUTCOMES.read_text()) if OUTCOMES.exists() else {}
    outcomes[name] = asdict(outcome)
    OUTCOMES.write_text(json.dumps(outcomes, indent=1))
    lines = ["| client | what was tried | | tried |", "| --- | --- | --- | --- |"]
    for _, one in sorted(outcomes.items()):
        said = "works" if not one["error"] else "**fails**: " + one["error"].replace("|", "\\|")
        lines.append(f"| {one['version']} | {one['tries']} | {said} | {one['date']} |")
    PAGE.write_text(INTRODUCTION + "\n".join(lines) + "\n")


def main() -> int:
    """Command line; 1 where a client failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="programs of tools/clients (default: all)")
    parser.add_argument("--model", type=Path, help="model directory (default: the built-in toy)")
    arguments = parser.parse_args()
    programs = sorted(path for path in HERE.iterdir() if path.suffix in (".py", ".mjs") and path.name != "run.py")
    wanted = [path for path in programs if not arguments.names or path.stem in arguments.names]
    os.environ["AXPRESS_MODELS"] = os.devnull  # without --model always the toy
    failed = False
    with RunningServer(*([arguments.model] if arguments.model else []), check=False) as server:
        for client in map(read_client, wanted):
            outcome = try_client(client, server.url)
            failed |= bool(outcome.error)
            print(f"{outcome.version}: {outcome.error or 'works'}", flush=True)
            if not arguments.model:
                keep(client.program.stem, outcome)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
