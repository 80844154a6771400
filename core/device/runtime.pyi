"""The AXCL runtime and the card behind it: open, bind, copy, close; every call checked, errors typed."""

import os
from typing import Any

SYSTEM_PATHS: tuple[str, ...]

def describe_code(code: int) -> str:
    """Words for a runtime error value, e.g. 'memory: out of memory' for 0x80300507."""

def find_library() -> str | None:
    """The real runtime: $AXPRESS_AXCL_LIB, the loader's path, then the vendor's directory. None when there is none."""

def library_problem(library: str | os.PathLike[str]) -> str:
    """Why this process cannot use the runtime `library`: it does not load, or lacks a function. Empty: it can.

    None of its functions is called."""

def device_ids(library: str | os.PathLike[str]) -> list[int]:
    """What the runtime calls its cards, those that are there at present. RuntimeUnavailable, RuntimeCallError."""

def reboot_device(library: str | os.PathLike[str], device_id: int) -> None:
    """Reboots the firmware of a card, which takes with it all that this process has there and is missing from the list
    for seconds afterwards. RuntimeUnavailable where the runtime cannot do that, RuntimeCallError where it fails."""

class Card:
    """One device with its context and its one stream; owner of everything that is allocated or loaded on it.

    Open it, use it from threads that called `bind_thread()`, close it: models, buffers, stream, context, device,
    runtime, in that order. After `close()` every call raises RuntimeUnavailable."""

    library: str
    device: int
    devices: tuple[int, ...]
    emulated: bool
    has_async: bool
    closed: bool
    def __init__(
        self,
        library: str | os.PathLike[str],
        device: int = 0,
        settings: dict[str, str] | None = None,
        *,
        device_id: int | None = None,
    ) -> None:
        """Opens the runtime `library` and its `device`-th card, or the one that the runtime calls `device_id`;
        `settings` go to an emulated runtime before it starts.

        The process may have other cards of the same runtime open, for which the settings are those of the first.
        Raises RuntimeUnavailable (library or symbol missing, index without a card, one that is open already) or
        RuntimeCallError."""
    def last_error(self) -> str:
        """The emulated runtime's sentence about its last refusal; empty on a real one."""
    def bind_thread(self) -> None:
        """Binds the card's context to the calling thread; each thread that uses the card does this once."""
    def version(self) -> str:
        """Version of the runtime library, e.g. '3.6.4'."""
    def properties(self) -> dict[str, Any]:
        """What the card says of itself: sizes in bytes, temperature in degrees Celsius, loads as reported. The next
        generation's runtime tells its uid and its memory alone; empty where the runtime has no such call."""
    def wait(self, timeout_ms: int) -> None:
        """Until all that was submitted to the stream is done. StepTimeout: not after `timeout_ms`; else what failed."""
    def unload(self, paths: list[str]) -> None:
        """Unloads what was loaded from these files, the last first; the card stays open. RuntimeCallError."""
    def begin_close(self, settle_ms: int = 5000) -> None:
        """From here on failures do not stop the closing. Waits so long for the stream; one that does not end is
        destroyed by force."""
    def close(self) -> None:
        """Frees everything in order. Raises BufferError, and stays open, while NumPy views of pinned buffers live.

        A card that fails meanwhile is closed as far as it lets itself be, and a warning says what failed first."""
