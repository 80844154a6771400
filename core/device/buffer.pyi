"""Owners of memory: on the card (handles) and pinned in the host (zero-copy NumPy views).

One owner, many views: a view keeps its buffer alive through Python's buffer protocol, and `close()` refuses while one
lives, so no pointer that Python can reach ever dangles."""

from typing import Any

from numpy.typing import DTypeLike, NDArray

from .runtime import Card

class DeviceBuffer:
    """`nbytes` of the card's memory. Its handle is not a host pointer; only the runtime may use it."""

    card: Card
    nbytes: int
    num_views: int
    def __init__(self, card: Card, nbytes: int, *, zero: bool = False) -> None:
        """Allocates. `zero` fills with zeros: every KV buffer needs it, a NaN in a hidden row survives the mask."""
    def fill(self, value: int) -> None:
        """Sets every byte to `value`."""
    def write(self, data: Any, offset: int = 0) -> None:
        """Copies a C-contiguous buffer's bytes to `offset`. Synchronous: for loading and probes, never per token."""
    def read(self, dtype: DTypeLike = "uint16", count: int = -1, offset: int = 0) -> NDArray[Any]:
        """A fresh NumPy array of `count` items (-1: all that follow) from byte `offset`. Synchronous."""
    def close(self) -> None:
        """Frees the memory. Closing twice is harmless."""

class PinnedBuffer:
    """`nbytes` of pinned host memory, zeroed; NumPy views of it cost nothing: `np.frombuffer(buffer, dtype)`."""

    card: Card
    nbytes: int
    num_views: int
    def __init__(self, card: Card, nbytes: int) -> None: ...
    def view(self, dtype: DTypeLike, shape: int | tuple[int, ...] = -1) -> NDArray[Any]:
        """A writable NumPy view in `dtype`, reshaped; it keeps this buffer alive and open."""
    def close(self) -> None:
        """Frees the memory. Raises BufferError while views live. Closing twice is harmless."""
