"""Where the bench scripts leave their figures: bench/results/NAME.json, with what they ran on."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def write_results(name: str, results: dict[str, Any]) -> Path:
    """Writes a bench's figures with date, machine type and Python version; returns the file."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    about = {"when": time.strftime("%Y-%m-%d %H:%M"), "card": "emulated"}
    about |= {"machine": platform.machine(), "python": platform.python_version()}
    path.write_text(json.dumps({"about": about, **results}, indent=1) + "\n")
    return path
