from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .axmodel import LoadedModel
from .runtime import Card
from .shape_groups import Group, LayerShape
from .step import Step

class Program:
    card: Card
    shape: LayerShape
    groups: tuple[Group, ...]
    num_layers: int
    num_banks: int
    logits_slots: int
    bank_rows: int
    in_place_decode: bool
    closed: bool
    vocab_size: int
    use_async: bool
    def __init__(
        self,
        card: Card,
        layers: list[LoadedModel],
        head: LoadedModel,
        embedding: NDArray[np.uint16],
        *,
        num_banks: int = 1,
        logits_slots: int = 1,
    ) -> None: ...
    def set_modes(self, *, use_async: bool, in_place_decode: bool) -> None: ...
    def time_layers(self, group: int) -> float: ...
    def time_head(self) -> float: ...
    def kv_buffers(self, bank: int, layer: int) -> tuple[Any, Any]: ...
    def run(self, step: Step, timeout_ms: int = -1) -> None: ...
    def more_logits(self, queries: Sequence[int], timeout_ms: int = -1) -> None: ...
    def logits(self, slot: int = 0) -> NDArray[Any]: ...
    def move_rows(self, bank: int, old: NDArray[np.int32], new: NDArray[np.int32], timeout_ms: int = -1) -> None: ...
    def check_closable(self) -> None: ...
    def close(self) -> None: ...
