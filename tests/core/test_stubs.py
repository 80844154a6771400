"""Stubs of the compiled modules say what is compiled: every name, every parameter, every default."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

STUBS = sorted(ROOT.glob("core/*/*.pyi"))


def module_of(stub: Path) -> str:
    return f"axpress.{'.'.join(stub.relative_to(ROOT).with_suffix('').parts)}"


MADE_BY_CYTHON = r"""
.*\.__(reduce|setstate)_cython__
.*\.__test__
"""


def test_stubs_say_what_is_compiled(tmp_path: Path) -> None:
    modules = [module_of(stub) for stub in STUBS]
    assert "axpress.core.device.program" in modules
    (tmp_path / "allowed").write_text(MADE_BY_CYTHON)
    command = [
        sys.executable, "-m", "mypy.stubtest", "--concise", "--ignore-disjoint-bases", "--ignore-unused-allowlist",
        "--allowlist", str(tmp_path / "allowed"), "--mypy-config-file", str(ROOT / "pyproject.toml"), *modules,
    ]  # fmt: skip
    environment = dict(os.environ, MYPYPATH=str(ROOT / "build" / "pxd"))
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def documented(node: Any, thing: object, name: str) -> Iterator[tuple[str, str, str]]:
    """Name, docstring in the stub, docstring of the compiled thing (which begins with its signature)."""
    compiled = getattr(thing, "__doc__", None) or ""
    if re.match(rf"([\w.]+\.)?{name.rpartition('.')[2]}\(", compiled):
        compiled = compiled.partition("\n")[2]
    if "help(type(self))" not in compiled:  # what every __init__ says that has nothing to say
        yield name, ast.get_docstring(node) or "", inspect.cleandoc(compiled).strip()
    for child in node.body if not isinstance(node, ast.FunctionDef) else ():
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and child.name != "__new__":
            yield from documented(child, getattr(thing, child.name), f"{name}.{child.name}")


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.stem)
def test_editors_show_what_the_source_says(stub: Path) -> None:
    """Shapes, dtypes, units and errors of a compiled module: an editor has them from the stub alone."""
    module = importlib.import_module(module_of(stub))
    found = list(documented(ast.parse(stub.read_text()), module, stub.stem))
    assert len([one for one in found if one[2]]) > 3
    for name, shown, written in found:
        assert shown == written, f"{stub.name} and {stub.stem}.pyx have different docstrings of {name}"
