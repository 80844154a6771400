"""Checks who imports whom where import-linter does not look: in Cython's files.

`python tools/import_circles.py [ROOT]`, part of `make lint`:

1. No circle of imports among the files of core and server, .py, .pyx and .pxd together. A .pyx and its .pxd are one
   file. Imports inside functions and under TYPE_CHECKING count; that a package's __init__ runs first does not.
2. What a .pyx or .pxd imports lies below it, by the `layers` contracts in pyproject.toml.
Every offence is named with its files; the exit status is 1 if there is one.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGES = ("core", "server")
CYTHON_IMPORT = re.compile(r"^[ \t]*from[ \t]+(\.*)([\w.]*)[ \t]+c?import[ \t]+(?:\(([^)]*)\)|([^\n#]*))", re.MULTILINE)

Graph = dict[str, set[str]]


def imports(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(dots, module, names) of each `from ... import ...`; `import module` has no names."""
    text = path.read_text()
    if path.suffix != ".py":
        for dots, module, several, one in CYTHON_IMPORT.findall(text):
            yield len(dots), module, re.findall(r"\w+", re.sub(r"\bas\s+\w+", "", several or one))
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((0, alias.name, []) for alias in node.names)


def read(root: Path) -> tuple[Graph, set[str]]:
    """Who imports whom, by names like core.engine.engine, and which of them are Cython's."""
    files: dict[str, list[Path]] = {}
    for path in sorted(one for package in PACKAGES for one in (root / package).rglob("*.p*")):
        if path.suffix in (".py", ".pyx", ".pxd"):
            files.setdefault(".".join(path.relative_to(root).with_suffix("").parts), []).append(path)
    graph: Graph = {name: set() for name in files}
    for name, paths in files.items():
        for dots, module, names in (found for path in paths for found in imports(path)):
            base = name.split(".")[:-dots] if dots else []
            whole = [*base, *module.removeprefix("axpress.").split(".")] if module else base
            for target in [".".join([*whole, one]) for one in names] + [".".join(whole)]:
                graph[name] |= {target} & files.keys()
    return graph, {name for name, paths in files.items() if any(path.suffix != ".py" for path in paths)}


def circle(graph: Graph) -> list[str]:
    """The files of one circle, the first of them again at the end; empty where there is none."""
    done: set[str] = set()

    def follow(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph[name]):
            if found := follow(target, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := follow(name, []))), [])


def upward(graph: Graph, names: set[str], contracts: list[dict]) -> Iterator[tuple[str, str]]:
    """Imports of `names` into a layer above their own, or into another room of it."""
    for contract in contracts:
        for container in contract.get("containers", []) if contract["type"] == "layers" else []:
            parent = container.removeprefix("axpress.")
            level = {
                f"{parent}.{one.strip()}": i for i, line in enumerate(contract["layers"]) for one in line.split("|")
            }
            for name, target in ((one, other) for one in sorted(names) for other in sorted(graph[one])):
                mine, theirs = (room_of(one, level) for one in (name, target))
                if mine and theirs and mine != theirs and level[mine] >= level[theirs]:
                    yield name, target


def room_of(name: str, rooms: Iterable[str]) -> str | None:
    """Which of the rooms a file lies in."""
    return next((room for room in rooms if f"{name}.".startswith(f"{room}.")), None)


def main(root: Path) -> int:
    """Prints what is wrong; the number of offences."""
    graph, cython = read(root)
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    offences = [
        f"{name} imports {target}, which does not lie below it" for name, target in upward(graph, cython, contracts)
    ]
    if way := circle(graph):
        offences.append("a circle of imports: " + " -> ".join(way))
    print("\n".join(offences) or f"{len(graph)} files, {len(cython)} of them Cython's: no circle, no import upwards")
    return len(offences)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent) > 0)
