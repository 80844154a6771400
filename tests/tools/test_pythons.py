"""tools/pythons.py: a Python is found past one that is broken, and only in its own version."""

from __future__ import annotations

import os
import runpy
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

VERSION = sysconfig.get_python_version()


@pytest.fixture
def pythons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The tool, where PATH has a broken Python of this version, a venv's, and the one that runs this, which also goes
    by the name of another version."""
    base = sys._base_executable  # type: ignore[attr-defined]
    programs = {"broken": "exit 1", "venv": f'exec {sys.executable} "$@"', "real": f'exec {base} "$@"'}
    for name, program in programs.items():
        (tmp_path / name).mkdir()
        for version in (VERSION, "3.99"):
            file = tmp_path / name / f"python{version}"
            file.write_text(f"#!/bin/sh\n{program}\n")
            file.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name) for name in programs))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    return runpy.run_path(str(ROOT / "tools" / "pythons.py"))


def test_the_first_that_works_is_taken(pythons: dict[str, Any], tmp_path: Path) -> None:
    found = pythons["find_python"](VERSION)
    in_venv = sys.prefix != sys.base_prefix
    assert found == str(tmp_path / ("real" if in_venv else "venv") / f"python{VERSION}")


def test_another_version_is_not_taken(pythons: dict[str, Any]) -> None:
    assert pythons["find_python"]("3.99") is None
