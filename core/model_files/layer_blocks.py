"""How a model's layers are split over several cards: contiguous blocks, the head on the last layer's card."""

from __future__ import annotations

import os
from itertools import accumulate
from typing import TYPE_CHECKING

from ..errors import PackageError
from .simulated_axmodel import device_bytes

if TYPE_CHECKING:
    from .model_package import ModelPackage

MOST_CARDS = 8
DEVICES = "AXLLM_DEVICES"


def layer_blocks(num_layers: int, num_cards: int) -> list[slice]:
    """The layers of each card; those left over go to the first ones, as the vendor's runner has it. PackageError:
    fewer layers than cards."""
    if num_layers < num_cards:
        raise PackageError(f"a model of {num_layers} layers cannot be split over {num_cards} cards: name fewer of them")
    sizes = [num_layers // num_cards + (i < num_layers % num_cards) for i in range(num_cards)]
    return [slice(stop - size, stop) for size, stop in zip(sizes, accumulate(sizes), strict=True)]


def block_bytes(package: ModelPackage, num_cards: int) -> list[int]:
    """What the files of each card's block are expected to take of its memory."""
    blocks = layer_blocks(package.num_layers, num_cards)
    sizes = [sum(map(device_bytes, package.layer_files[block])) for block in blocks]
    sizes[-1] += device_bytes(package.head_file)
    return sizes


def parse_devices(said: object, where: str) -> tuple[int, ...]:
    """Indexes of cards, as `devices` of a configuration or AXLLM_DEVICES says them: [0, 1] or "0,1". PackageError."""
    items = said.strip("[] ").split(",") if isinstance(said, str) else said
    try:
        if not isinstance(items, list):
            raise ValueError
        indexes = tuple(int(item) for item in items if not isinstance(item, bool | float))
        if len(indexes) != len(items) or len(set(indexes)) != len(indexes) or any(index < 0 for index in indexes):
            raise ValueError
    except (TypeError, ValueError):
        raise PackageError(f"{where} {said!r} is no list of different cards, such as [0, 1]") from None
    return indexes


def wanted_devices(package: ModelPackage) -> tuple[int, ...]:
    """The cards that the model is meant for: AXLLM_DEVICES, as for the vendor's runner, else `devices` of its
    configuration; empty: nobody says. PackageError: not readable."""
    if said := os.environ.get(DEVICES):
        return parse_devices(said, f"{DEVICES}, a variable of the environment,")
    return package.devices
