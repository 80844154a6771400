"""OpenAI's system_fingerprint: it changes when anything changes that can change an answer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from .. import version
from ..settings import Settings

if TYPE_CHECKING:
    from axpress.core.engine.engine_group import AnyEngine

SAMPLES, SAMPLE = 16, 16 << 10


def fingerprint(engine: AnyEngine, settings: Settings) -> str:
    """Of the model's files, its sampling defaults, the card's runtime, this program and `--exact`: the same on every
    machine that has the same."""
    root = settings.directory
    files = sorted((str(f.relative_to(root)), _digest(f)) for f in root.rglob("*") if f.is_file())
    parts = (version(), engine.info, files, engine.package.post_config, settings.exact)
    return "fp_" + hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _digest(file: Path) -> str:
    """Of a file's size, and of all that is in it, or where it is large of samples: gigabytes of weights are not read
    for this, and those of another build differ everywhere."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as data:
        if size <= SAMPLES * SAMPLE:
            digest.update(data.read())
        else:
            for sample in range(SAMPLES):
                data.seek((size - SAMPLE) * sample // (SAMPLES - 1))
                digest.update(data.read(SAMPLE))
    return digest.hexdigest()
