"""Does what a page of docs/ tells its reader to do, literally, as somebody new with an empty home.

    python tools/follow_page.py docs/on-your-pi.md FOLDER      # FOLDER: made, holds the home and a clone of this source

Runs every block of commands in its order, in one shell, from the clone. Left out: sections whose heading has a mark in
brackets, as [card], and blocks whose paragraph begins with a mark in bold. An `axpress serve` at the end of a block is
left running, as the page says, until all is done. Ends with an error at the first command that fails. Minutes, and the
network; not part of CI."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START = """
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
command -v sudo >/dev/null || sudo() { "$@"; }  # root of a container
step() { printf '\\n=== %s\\n' "$1"; }
until_ready() {
    for _ in $(seq 300); do curl -sf "http://127.0.0.1:$1/readyz" >/dev/null && return; sleep 1; done
    return 1
}
"""


def blocks(text: str) -> list[str]:
    """The blocks of commands that need neither card nor anything else that is marked."""
    found: list[str] = []
    marked_section = marked = inside = False
    before = "\n"
    for line in text.splitlines(keepends=True):
        if line.startswith("```"):
            inside = not inside
            if inside and not marked:
                found.append("")
        elif inside:
            if not marked:
                found[-1] += line
        elif line.startswith("## "):
            marked = marked_section = line.rstrip().endswith("]")
        elif not before.strip() or before.startswith(("```", "## ")):  # a paragraph begins
            marked = marked_section or line.startswith("**[")
        before = line
    return found


def script(commands: list[str]) -> str:
    """All blocks as one program of the shell."""
    parts = [START]
    for block in commands:
        parts.append(f"step {block.splitlines()[0]!r}")
        last = block.strip().splitlines()[-1]
        if last.startswith("axpress serve"):
            port = re.search(r"--port (\d+)", last)
            parts += [block.strip() + " &", f"until_ready {port[1] if port else 8000}"]
        else:
            parts.append(block)
    return "\n".join(parts)


def main() -> int:
    """Command line; the exit code is the shell's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    home, clone = (arguments.folder.resolve() / name for name in ("home", "source"))
    home.mkdir(parents=True)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = {
        name: value for name, value in os.environ.items() if name.startswith("PIP_") or "PROXY" in name.upper()
    }
    environment |= {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
    commands = script(blocks(arguments.page.read_text()))
    return subprocess.run(["bash", "-c", commands], cwd=clone, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
