"""What models took of the card's memory when they were loaded, on disk: so that it is known before they are loaded
again."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from axpress.core.device.card_memory import expected_bytes

if TYPE_CHECKING:
    from axpress.core.model_files.model_package import ModelPackage

log = logging.getLogger("axpress.server")

FILE = "model_memory.json"


class MemoryBook:
    """Bytes by model, its size and its caches. `path` None: kept in memory alone. A file that cannot be read counts as
    empty; one that cannot be written is no reason to stop."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, int] = {}
        if path is not None and path.exists():
            try:
                self._known = {str(name): int(size) for name, size in json.loads(path.read_bytes()).items()}
            except (OSError, ValueError, AttributeError, TypeError) as error:
                log.warning("%s does not say what models take of the card's memory (%s)", path, error)

    def need(self, package: ModelPackage, banks: int) -> tuple[int, int]:
        """What it takes: at least, and likely. The same where it was measured."""
        measured = self._known.get(_key(package, banks))
        return (measured, measured) if measured else expected_bytes(package, banks)

    def note(self, package: ModelPackage, banks: int, measured: int | None) -> None:
        """It was loaded, and took so much."""
        key = _key(package, banks)
        if not measured or self._known.get(key) == measured:
            return
        self._known[key] = measured
        if self._path is None:
            return
        temporary = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._known))
            temporary.replace(self._path)
        except OSError as error:
            log.debug("what models take is not remembered: %s", error)


def _key(package: ModelPackage, banks: int) -> str:
    return f"{package.name} {package.device_bytes} {package.num_layers} {banks}"
