"""A models directory of hollow models, as `axpress pull` would leave it."""

from __future__ import annotations

import json
from pathlib import Path

from server_process import PROFILE

from axpress.core.model_files.hollow import hollow
from axpress.core.model_store.store import RECORD


def store_hollow(root: Path, name: str, gigabytes: float = 2.5, load_s: float = 0.0) -> Path:
    """A model that takes so many GB of the card's memory, and whose three files take `load_s` modelled seconds to load
    on a card with the profile NAME.toml, which lies beside the directory."""
    layer = round(gigabytes * 1e9 / 2) - 500_000
    profile = PROFILE.replace("layer_cmm_bytes = 1000000", f"layer_cmm_bytes = {layer}")
    profile = profile.replace("[memory]", f"load_file_ms = {load_s * 1000 / 3:.3f}\n[memory]")
    path = root.parent / f"{name}.toml"
    root.mkdir(parents=True, exist_ok=True)
    path.write_text(profile.replace("test-hollow", name))
    package = hollow(str(path), root / name)
    record = {
        "name": name, "source": f"made up: {name}", "revision": "1", "licence": None,
        "pulled_at": "2026-01-01T00:00:00+00:00", "files": 3, "bytes": 1000,
    }  # fmt: skip
    (package / RECORD).write_text(json.dumps(record))
    return package
