"""Circles and imports upwards are found, also where only Cython sees them; there are none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

TOOL = ROOT / "tools" / "import_circles.py"
CONTRACT = """
[[tool.importlinter.contracts]]
type = "layers"
containers = ["axpress.core"]
layers = ["high", "left | right", "low"]
"""


def run(root: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, str(TOOL), str(root)], capture_output=True, text=True, timeout=60)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def tree(root: Path, files: dict[str, str]) -> Path:
    (root / "pyproject.toml").write_text(CONTRACT)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_there_is_none_here() -> None:
    code, said = run(ROOT)
    assert code == 0 and said.endswith("no circle, no import upwards\n")
    assert int(said.split()[0]) > 100 and int(said.split(" files, ")[1].split()[0]) >= 6


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"core/high/a.py": "from ..low import b", "core/low/b.py": "def f():\n    from ..high.a import x"},
            "core.high.a -> core.low.b -> core.high.a",
        ),
        (
            {
                "core/low/a.pyx": "from .b cimport (\n    x,\n    y)\n",
                "core/low/b.pxd": "",
                "core/low/b.pyx": "from . import a\n",
            },
            "core.low.a -> core.low.b -> core.low.a",
        ),
        (
            {"core/low/a.py": "import axpress.server.b", "server/b.py": "if True:\n    from axpress.core.low import a"},
            "core.low.a -> server.b -> core.low.a",
        ),
        (
            {"core/low/a.pxd": "from ..high.b cimport Thing  # for its size\n", "core/high/b.pyx": ""},
            "core.low.a imports core.high.b, which does not lie below it",
        ),
        (
            {"core/left/a.pyx": "from ..right.b import thing\n", "core/right/b.py": ""},
            "core.left.a imports core.right.b, which does not lie below it",
        ),
    ],
    ids=["in a function", "cimport", "across packages", "upwards", "beside"],
)
def test_offences_are_named(tmp_path: Path, files: dict[str, str], said: str) -> None:
    code, printed = run(tree(tmp_path, files))
    assert code == 1 and said in printed


def test_what_goes_down_is_fine(tmp_path: Path) -> None:
    files = {
        "core/high/a.pyx": "from ..left.b cimport x\nfrom libc.stdlib cimport free\nfrom .c import y as z\n",
        "core/high/c.py": "from axpress.core.low import d\n",
        "core/left/b.pxd": "",
        "core/low/d.py": "import os",
    }
    assert run(tree(tmp_path, files)) == (0, "4 files, 2 of them Cython's: no circle, no import upwards\n")
