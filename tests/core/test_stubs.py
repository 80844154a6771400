"""Stubs of the compiled modules say what is compiled: every name, every parameter, every default."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from repository import ROOT

MADE_BY_CYTHON = r"""
.*\.__(reduce|setstate)_cython__
.*\.__test__
"""


def test_stubs_say_what_is_compiled(tmp_path: Path) -> None:
    modules = [f"axpress.{'.'.join(p.relative_to(ROOT).with_suffix('').parts)}" for p in ROOT.glob("core/*/*.pyi")]
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
