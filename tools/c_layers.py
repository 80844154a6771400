"""Checks who uses whom among the C files of csrc: `python tools/c_layers.py [ROOT]`, part of `make lint`.

1. A file includes headers, and uses functions and variables, only of its own room and of those below it (ROOMS).
2. No circle of uses among the .c files, and none of includes among the headers.
Every offence is named with the files and the symbols; the exit status is 1 if there is one.

It reads the sources, no objects: what is defined outside of functions and is not static belongs to its file, and
whoever names it uses it. It counts on the layout of this code (definitions begin in the first column, bodies are
indented) and does not see names that a macro pastes together; tests/tools/test_c_layers.py holds it against the
symbols of the library.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

ABI = "csrc/axcl_abi.h"  # the runtime's own declarations: the one header that both sides of them read
ROOMS = {  # folder: what its files may use besides each other, folders or single headers
    "csrc": [],
    "csrc/emu/arithmetic": [],
    "csrc/emu/machine": ["csrc/emu/arithmetic", ABI],
    "csrc/emu/api": ["csrc/emu/machine", "csrc/emu/arithmetic", ABI],
}

NOISE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
MACRO = re.compile(r"#[ \t]*define[ \t]+(\w+)(\([^)]*\))?(.*)", re.DOTALL)
PARAMETERS = r"\((?:[^;{}()]|\([^()]*\))*\)"
FUNCTION = re.compile(rf"^(?!static\b|typedef\b)[A-Za-z_][\w \t*]*?\b(\w+){PARAMETERS}\s*\{{", re.MULTILINE)
INLINE = re.compile(rf"^static inline[\w \t*]*?\b(\w+){PARAMETERS}\s*\{{([^\n]*\}}$|.*?^\}})", re.MULTILINE | re.DOTALL)
OTHER = r"static\b|extern\b|typedef\b|struct \w+;"  # declarations that define nothing for other files
VARIABLE = re.compile(rf"^(?!{OTHER})[A-Za-z_][\w \t*]*[ \t*](\w+)(?:\[[^\]]*\])*[ \t]*[=;]", re.MULTILINE)
NAME = re.compile(r"(?<![\w.])(?<!->)[A-Za-z_]\w*")


@dataclass
class Source:
    """One file: what it includes, what it defines for others, what it names.

    shortcuts: its macros and inline functions, and what each of them names.
    """

    path: str
    includes: list[str]
    defines: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    shortcuts: dict[str, set[str]] = field(default_factory=dict)

    @property
    def room(self) -> str:
        return self.path.rpartition("/")[0]


def read(path: str, text: str) -> Source:
    source = Source(path, INCLUDE.findall(text))
    text = NOISE.sub(lambda found: '""' if found[0][0] in "\"'" else " ", text)
    words: dict[str, str] = {}  # macros without parameters: they may hide a `static` or the name of a function
    for macro in filter(None, map(MACRO.search, DIRECTIVE.findall(text))):
        name, parameters, body = macro.groups()
        if parameters == "(X)":
            continue  # a list of names, applied to something else
        source.shortcuts[name] = set(NAME.findall(body))
        if not parameters:
            words[name] = body
    text = DIRECTIVE.sub("", text)
    text = NAME.sub(lambda found: words.get(found[0], found[0]).strip(), text)
    source.defines = {*FUNCTION.findall(text), *VARIABLE.findall(text)}
    source.shortcuts |= {name: set(NAME.findall(body)) for name, body in INLINE.findall(text)}
    source.names = set(NAME.findall(text))
    return source


def find(path: str, included: str, sources: dict[str, Source]) -> str | None:
    """The file that `#include "included"` means in `path`: beside it, or below csrc (-Icsrc)."""
    for base in (path.rpartition("/")[0], "csrc"):
        parts: list[str] = []
        for part in f"{base}/{included}".split("/"):
            if part == "..":
                parts.pop()
            else:
                parts.append(part)
        if (found := "/".join(parts)) in sources:
            return found
    return None


def allowed(room: str, path: str) -> bool:
    return path.rpartition("/")[0] in (room, *ROOMS[room]) or path in ROOMS[room]


def names_used(source: Source, sources: dict[str, Source]) -> set[str]:
    """Everything a .c file names, through macros and inline functions of others, too."""
    shortcuts = {name: uses for other in sources.values() for name, uses in other.shortcuts.items()}
    used: set[str] = set()
    waiting = [source.names]
    while waiting:
        fresh = waiting.pop() - used
        used |= fresh
        waiting += [shortcuts[name] for name in fresh if name in shortcuts]
    return used


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The files of one circle, each using the next, from the first by name and back to it; empty if there is none."""
    done: set[str] = set()

    def walk(path: str, trail: list[str]) -> list[str]:
        if path in trail:
            round_trip = trail[trail.index(path) :]
            first = round_trip.index(min(round_trip))
            return [*round_trip[first:], *round_trip[: first + 1]]
        if path in done:
            return []
        for target in sorted(edges.get(path, ())):
            if found := walk(target, [*trail, path]):
                return found
        done.add(path)
        return []

    return next((found for path in sorted(edges) if (found := walk(path, []))), [])


def check(sources: dict[str, Source]) -> Iterator[str]:
    """A sentence for each offence."""
    includes: dict[str, set[str]] = {}
    owners = {name: path for path, source in sources.items() if path.endswith(".c") for name in source.defines}
    uses: dict[str, dict[str, set[str]]] = {}
    for path, source in sorted(sources.items()):
        if source.room not in ROOMS:
            yield f"{path} lies in no room: tools/c_layers.py lists them"
            continue
        for name in source.includes:
            if (target := find(path, name, sources)) is None:
                yield f'{path} includes "{name}", which is not in csrc'
            elif not allowed(source.room, target):
                yield f"{path} includes {target}: {source.room} must not use it"
            else:
                includes.setdefault(path, set()).add(target)
        for name in names_used(source, sources) if path.endswith(".c") else ():
            if (owner := owners.get(name, path)) != path:
                uses.setdefault(path, {}).setdefault(owner, set()).add(name)
    for path, targets in sorted(uses.items()):
        for owner, names in sorted(targets.items()):
            if not allowed(sources[path].room, owner):
                yield f"{path} uses {', '.join(sorted(names))} of {owner}: {sources[path].room} must not use it"
    if way := circle(includes):
        yield "a circle of includes: " + " -> ".join(way)
    if way := circle({path: set(targets) for path, targets in uses.items()}):
        steps = (f"{a} uses {', '.join(sorted(uses[a][b]))} of {b}" for a, b in pairwise(way))
        yield "a circle of uses: " + "; ".join(steps)


def load(root: Path) -> dict[str, Source]:
    paths = sorted(path for path in (root / "csrc").rglob("*") if path.suffix in (".c", ".h", ".inc"))
    return {path.relative_to(root).as_posix(): read(path.relative_to(root).as_posix(), whole(path)) for path in paths}


def whole(path: Path) -> str:
    """The text of a file with the pieces (.inc) that it includes."""
    text = path.read_text()
    pieces = [path.parent / name for name in INCLUDE.findall(text) if name.endswith(".inc")]
    return "\n".join([text, *(piece.read_text() for piece in pieces if piece.exists())])


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent
    offences = list(check(load(root)))
    for offence in offences:
        print(offence, file=sys.stderr)
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
