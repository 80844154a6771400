"""A models directory of hollow models, each about a third of the emulated card, as `axpress pull` would leave it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from server_process import PROFILE

from axpress.core.model_files.hollow import hollow
from axpress.core.model_store.store import RECORD

GB = 2.5e9


def store_hollow(root: Path, name: str, gigabytes: float = 2.5, load_s: float = 0.0) -> Path:
    """A model of so many GB of the card's memory, whose files take `load_s` modelled seconds to load."""
    layer = round(gigabytes * 1e9 / 2) - 500_000
    profile = PROFILE.replace("layer_cmm_bytes = 1000000", f"layer_cmm_bytes = {layer}").replace("test-hollow", name)
    profile += f"load_file_ms = {load_s * 1000 / 3}\n" if load_s else ""
    path = root.parent / f"{name}.toml"
    path.write_text(re.sub(r"(?m)^(load_file_ms.*)\n", "", profile).replace("[memory]", _cost(load_s) + "[memory]"))
    package = hollow(str(path), root / name)
    record = {
        "name": name, "source": f"made up: {name}", "revision": "1", "licence": None,
        "pulled_at": "2026-01-01T00:00:00+00:00", "files": 3, "bytes": 1000,
    }  # fmt: skip
    (package / RECORD).write_text(json.dumps(record))
    return package


def _cost(load_s: float) -> str:
    return f"load_file_ms = {load_s * 1000 / 3:.3f}\n" if load_s else ""
