import os

from .buffer import DeviceBuffer
from .runtime import Card
from .shape_groups import TensorInfo

MAX_DIMS: int

class LoadedModel:
    card: Card
    path: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    num_groups: int
    def __init__(self, card: Card, path: str | os.PathLike[str]) -> None: ...
    def close(self) -> None: ...

class Binding:
    model: LoadedModel
    group: int
    def __init__(self, model: LoadedModel, group: int) -> None: ...
    def set_input(self, index: int, buffer: DeviceBuffer) -> None: ...
    def set_output(self, index: int, buffer: DeviceBuffer) -> None: ...
    def close(self) -> None: ...
