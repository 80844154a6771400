"""OpenAI's system_fingerprint: it changes when anything changes that can change an answer."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from .. import version
from ..settings import Settings

if TYPE_CHECKING:
    from axpress.core.engine.engine import Engine


def fingerprint(engine: Engine, settings: Settings) -> str:
    """Of the model's files, its sampling defaults, the card's runtime, this program and `--exact`."""
    root = settings.directory
    files = sorted(
        (str(f.relative_to(root)), f.stat().st_size, f.stat().st_mtime_ns) for f in root.rglob("*") if f.is_file()
    )
    parts = (version(), engine.info, files, engine.package.post_config, settings.exact)
    return "fp_" + hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
