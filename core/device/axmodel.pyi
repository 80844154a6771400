"""Models loaded on the card, and the bindings of their inputs and outputs."""

import os

from .buffer import DeviceBuffer
from .runtime import Card
from .shape_groups import TensorInfo

MAX_DIMS: int

class LoadedModel:
    """One axmodel on the card: a layer or a head. `inputs` and `outputs`: TensorInfo each, in the card's order."""

    card: Card
    path: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    num_groups: int
    def __init__(self, card: Card, path: str | os.PathLike[str]) -> None:
        """Loads from a file (loading from memory hangs on some runtimes). RuntimeCallError names the file."""
    def close(self) -> None:
        """Frees the bindings and unloads. Closing twice is harmless."""

class Binding:
    """An IO object of one model for one shape group: which buffer each input and output uses.

    Setting one is a local write. The binding keeps its buffers alive. Every input and output must be bound before the
    model runs; the card reads stale data otherwise."""

    model: LoadedModel
    group: int
    def __init__(self, model: LoadedModel, group: int) -> None: ...
    def set_input(self, index: int, buffer: DeviceBuffer) -> None:
        """Binds the start of `buffer`, with exactly the size that the group asks for. ValueError: it is too small."""
    def set_output(self, index: int, buffer: DeviceBuffer, offset: int = 0) -> None:
        """As `set_input`, from byte `offset` of the buffer on, as K and V rows go into a cache."""
    def execute(self) -> None:
        """Runs the group on what is bound, and waits. For experiments: passes go through the program."""
    def submit(self) -> None:
        """Queues the same in the card's stream. RuntimeUnavailable where the runtime has no such function."""
    def close(self) -> None:
        """Destroys the IO object. Closing twice is harmless."""
