"""Finds Pythons of this machine by version: on PATH, of pyenv, of uv; and gets packages for those of other machines.

For tools/wheels.py, tools/deb.py and tools/aarch64.py."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13")
"""Those that pyproject.toml names."""


def candidates(version: str) -> Iterator[str]:
    """Programs that may be it, the likeliest first; pyenv's shims on PATH may refuse."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        yield os.path.join(folder, f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    newest = sorted(pyenv.glob(f"{version}.*/bin/python"), key=lambda path: path.parts[-3].split("."), reverse=True)
    yield from map(str, newest)
    if uv := shutil.which("uv"):
        command = [uv, "python", "find", "--no-python-downloads", version]
        yield subprocess.run(command, capture_output=True, text=True).stdout.strip()


def find_python(version: str) -> str | None:
    """A Python of that minor version, outside any venv, that has pip's and the C headers' needs; None: not here."""
    check = f"""import os, sys, sysconfig, venv, ensurepip
assert sys.version.startswith("{version}.") and sys.prefix == sys.base_prefix
assert os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))"""
    for candidate in candidates(version):
        if candidate and os.access(candidate, os.X_OK):
            run = subprocess.run([candidate, "-c", check], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            if run.returncode == 0:
                return candidate
    return None


def make_venv(python: str, folder: Path, *packages: str) -> Path:
    """A new empty environment with these packages; the path of its Python."""
    subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
    inside = folder / "bin" / "python"
    if packages:
        subprocess.run([inside, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages], check=True)
    return inside


def kept_venv(python: str, folder: Path, *packages: str) -> Path:
    """The same, unless an earlier run has made it to the end."""
    made = folder / "made"
    if not made.exists():
        make_venv(python, folder, *packages)
        made.touch()
    return folder / "bin" / "python"


def foreign_pip(python: Path, version: str, machine: str, command: str, *arguments: str | Path) -> None:
    """pip of `python`, for the Python of that version of a Debian (glibc 2.36) on that machine (x86_64, aarch64): takes
    wheels only, and fails where there is none."""
    platforms = [f"linux_{machine}", f"manylinux2014_{machine}", *(f"manylinux_2_{n}_{machine}" for n in range(17, 37))]
    foreign = [option for name in platforms for option in ("--platform", name)]
    foreign += ["--implementation", "cp", "--python-version", version, "--only-binary", ":all:"]
    foreign += [option for abi in (f"cp{version.replace('.', '')}", "abi3", "none") for option in ("--abi", abi)]
    subprocess.run([python, "-m", "pip", command, "-q", *foreign, *map(str, arguments)], check=True)
