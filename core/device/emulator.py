"""The emulated runtime's control interface (csrc/emu/README.md): settings, faults, counters, and why a call was
refused.

The library keeps one state per process, so that an `Emulator` in a program
that also runs an engine on the same library talks about that engine's card."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import Any, cast

from ..errors import RuntimeUnavailable

__all__ = ["Emulator", "EmulatorError", "emulator_library"]


class EmulatorError(ValueError):
    """The emulated runtime refused a setting; the message is its own sentence."""


def emulator_library() -> Path:
    """Path of the emulated libaxcl_rt.so of this installation. RuntimeUnavailable when it was not built."""
    path = Path(__file__).parents[1] / "lib" / "libaxcl_rt.so"
    if not path.is_file():
        raise RuntimeUnavailable(
            f"{path} is missing: build it with `make build` (or install a wheel, which contains it)"
        )
    return path


class Emulator:
    """Control of the emulated runtime in this process.

    `library`: path of a libaxcl_rt.so of ours; without it the installation's own. Raises EmulatorError for a library
    that is not emulated (it lacks the axemu_ functions), OSError for one that cannot be loaded."""

    def __init__(self, library: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(library) if library is not None else emulator_library()
        self._library = ctypes.CDLL(str(self.path))
        try:
            for name, result in (("version", ctypes.c_char_p), ("last_error", ctypes.c_char_p), ("set", ctypes.c_int)):
                getattr(self._library, f"axemu_{name}").restype = result
        except AttributeError:
            raise EmulatorError(f"{self.path} is not the emulated runtime: it has no axemu_ functions") from None
        self._library.axemu_set.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        self._library.axemu_report.argtypes = [ctypes.c_char_p, ctypes.c_size_t]

    @property
    def version(self) -> str:
        """What the library calls itself."""
        return cast(bytes, self._library.axemu_version()).decode()

    def set(self, key: str, value: object) -> None:
        """Set one setting, as AXPRESS_EMU_<key> in the environment would: `key` in any case, True and False as 1 and 0.

        Raises EmulatorError with the reason for an unknown key, a wrong value, or a setting that must precede axclInit.
        """
        text = str(int(value)) if isinstance(value, bool) else str(value)
        if self._library.axemu_set(key.encode(), text.encode()):
            raise EmulatorError(self.last_error())

    def report(self) -> dict[str, Any]:
        """Counters, bytes by kind, modelled time (ns), memory, leaks and the settings in force; keys as the README
        lists them."""
        size = 4096
        while True:
            buffer = ctypes.create_string_buffer(size)
            needed = self._library.axemu_report(buffer, size)
            if needed < size:
                return cast("dict[str, Any]", json.loads(buffer.value))
            size = needed + 1024  # counters may grow meanwhile

    def reset_counters(self) -> None:
        """Set all counters to zero. Memory figures, leaks and the counts of fault rules stay."""
        self._library.axemu_reset_counters()

    def last_error(self) -> str:
        """The sentence behind the latest error of any thread, "" when there was none."""
        return cast(bytes, self._library.axemu_last_error()).decode(errors="replace")
