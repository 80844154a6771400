"""The report of a probe: one JSON file, complete after each experiment, without anything that names the user."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from ...errors import PackageError
from ...model_files.model_package import ModelPackage
from ..host import Host
from ..pcie import find_cards

SCHEMA = "axpress-probe/1"


class ProbeReport:
    """What is known so far, and the file that holds it."""

    def __init__(self, path: Path, host: Host, package: ModelPackage, version: str, emulated: bool) -> None:
        self.path = path
        self._private: list[tuple[str, str]] = []
        self.hide(os.path.expanduser("~"), "HOME")
        self.hide(os.fspath(package.directory), "MODEL_DIR")
        self.data: dict[str, Any] = {
            "schema": SCHEMA,
            "axpress": version,
            "emulated": emulated,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "host": {
                "machine": platform.machine(),
                "board": host.board(),
                "kernel": host.kernel(),
                "links": [
                    f"{host.text(f'{card}/current_link_speed')} x{host.text(f'{card}/current_link_width')}"
                    for card in find_cards(host)
                ],
            },
            "package": {
                "name": package.name,
                "layers": package.num_layers,
                "hidden": package.hidden_size,
                "vocabulary": package.vocab_size,
                "simulated": package.simulated,
            },
            "tests": {},
        }

    def hide(self, private: str, word: str) -> None:
        """Writes `word` wherever `private` would stand."""
        self._private.insert(0, (private, word))

    def add(self, name: str, state: str, seconds: float, results: dict[str, Any], error: str = "") -> None:
        """Adds an experiment and saves. `state`: done, failed, crashed, no answer, not run."""
        test = {"state": state, "seconds": round(seconds, 1), "results": results}
        self.data["tests"][name] = test | ({"error": error} if error else {})
        self.save()

    def save(self) -> None:
        """Writes the file anew; whatever happens meanwhile, the one before or the new one is there, whole."""
        text = json.dumps(self.data, indent=1)
        for private, word in self._private:
            if len(private) > 1:
                text = text.replace(json.dumps(private)[1:-1], word)
        beside = self.path.with_name(self.path.name + ".part")
        beside.write_text(text + "\n", encoding="utf-8")
        os.replace(beside, self.path)


def read_report(path: Path) -> dict[str, Any]:
    """A report that `axpress doctor --probe` wrote. PackageError: it is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PackageError(f"{path} is not a readable report of `axpress doctor --probe`: {error}") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA or not isinstance(data.get("tests"), dict):
        schema = data.get("schema") if isinstance(data, dict) else None
        raise PackageError(
            f"{path} is not a report of `axpress doctor --probe`: its schema is {schema!r}, not {SCHEMA!r}"
        )
    return data


def results(report: dict[str, Any], test: str) -> dict[str, Any]:
    """What an experiment found; empty where it was not run, or found nothing."""
    found = report["tests"].get(test, {})
    found = found.get("results", {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}
