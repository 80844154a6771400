"""How a model's layers are split over several cards: contiguous blocks, the head on the last layer's card."""

from __future__ import annotations

import os
from itertools import accumulate, pairwise

from ..errors import PackageError
from .model_package import ModelPackage
from .package_config import parse_devices
from .simulated_axmodel import device_bytes

MOST_CARDS = 8
DEVICES = "AXLLM_DEVICES"


def layer_blocks(package: ModelPackage, num_cards: int) -> list[slice]:
    """The layers of each card. Each card's files are as large together as can be: a token takes as long as its weights
    are large, and the head counts as the layers that it is as large as. (The vendor's runner counts layers alone, so
    that its last card works longest.) PackageError: fewer layers than cards."""
    return even_blocks([device_bytes(path) for path in package.layer_files], device_bytes(package.head_file), num_cards)


def even_blocks(sizes: list[int], head: int, num_cards: int) -> list[slice]:
    """The same for layers of these sizes; of two ways that are equally good the one with more for the first."""
    num_layers, ends = len(sizes), [0, *accumulate(sizes)]
    if num_layers < num_cards:
        raise PackageError(f"a model of {num_layers} layers cannot be split over {num_cards} cards: name fewer of them")
    cuts = [0]
    for number in range(1, num_cards):
        share = (ends[-1] + head) * number
        possible = range(cuts[-1] + 1, num_layers - (num_cards - number) + 1)
        cuts.append(min(possible, key=lambda cut: (abs(ends[cut] * num_cards - share), -cut)))
    return [slice(start, stop) for start, stop in pairwise([*cuts, num_layers])]


def block_bytes(package: ModelPackage, num_cards: int) -> list[int]:
    """What the files of each card's block are expected to take of its memory."""
    sizes = [sum(map(device_bytes, package.layer_files[block])) for block in layer_blocks(package, num_cards)]
    sizes[-1] += device_bytes(package.head_file)
    return sizes


def wanted_devices(package: ModelPackage) -> tuple[int, ...]:
    """The cards that the model is meant for: AXLLM_DEVICES, as for the vendor's runner, else `devices` of its
    configuration; empty: nobody says. PackageError: not readable."""
    if said := os.environ.get(DEVICES):
        return parse_devices(said, f"{DEVICES}, a variable of the environment,")
    return package.devices
