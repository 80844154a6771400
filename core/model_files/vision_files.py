"""The vision part of a package: which family its encoder is of, and which file that is.

What is published says it in config.json (`vlm_type`, `filename_image_encoder_axmodel`), or only by names: of the
encoder, of the layers, of the folders that they lie in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import PackageError
from .package_config import AGAIN, PackageConfig
from .safetensors import SafetensorsFile
from .simulated_axmodel import is_simulated

TYPE_KEYS, FILE_KEYS = ("vlm_type", "VLM_TYPE"), ("filename_image_encoder_axmodel", "filename_image_encoder_axmodedl")
OTHER_KEYS = ("tokenizer_type", "model_type")
BY_NUMBER = {"1": "qwen2_5_vl", "2": "qwen3_vl", "3": "internvl3", "5": "smolvlm2"}  # as the vendor's runner counts
BY_NAME = {
    "qwen25vl": "qwen2_5_vl",
    "qwen3vl": "qwen3_vl",
    "qwen35vl": "qwen3_vl",
    "internvl3": "internvl3",
    "internvlchat": "internvl3",
    "smolvlm": "smolvlm2",
}
TAKEN_FIRST = "nhwc"  # of several encoders that differ in their input: pixels as they are, bytes

VISION_WORDS = {"vit", "vision", "visual", "vlm", "vpm", "siglip", "image"}


@dataclass(frozen=True, slots=True)
class VisionFiles:
    """The vision part of a model: of which kind, and the file of its encoder."""

    kind: str
    encoder: Path


def find_vision(
    config: PackageConfig, sidecars: Iterable[PackageConfig], names: Sequence[str], files: Iterable[Path]
) -> VisionFiles | None:
    """What the package has of it; None: nothing, or a family that is not served. `names`: of layers and folders;
    `files`: those beside the layers. PackageError: an encoder that is named and missing, or several."""
    encoder = _encoder(config, files)
    if encoder is None:
        return None
    kind = _kind(config, sidecars, [*names, encoder.name], encoder)
    return None if kind is None else VisionFiles(kind, encoder)


def _encoder(config: PackageConfig, files: Iterable[Path]) -> Path | None:
    for key in FILE_KEYS:
        if name := config.text(key):
            path = config.resolve(name)
            if not path.is_file():
                raise PackageError(f"{config.path} has {key} = {name}: that vision encoder is missing; {AGAIN}")
            return path
    found = sorted(path for path in files if path.suffix.lower() == ".axmodel" and _words(path.name) & VISION_WORDS)
    first = [path for path in found if TAKEN_FIRST in path.name.lower()]
    found = first if len(first) == 1 else found
    if len(found) > 1:
        several = ", ".join(path.name for path in found)
        raise PackageError(
            f"{config.path.parent} has several vision encoders ({several}): name the one to use in config.json as"
            f" {FILE_KEYS[0]}"
        )
    return found[0] if found else None


def _kind(config: PackageConfig, sidecars: Iterable[PackageConfig], names: Sequence[str], encoder: Path) -> str | None:
    said = next((config.values[key] for key in TYPE_KEYS if key in config.values), None)
    if said is not None and str(said) != "0":
        return BY_NUMBER.get(str(said)) or _by_name(said)
    if is_simulated(encoder):
        return SafetensorsFile(encoder).metadata.get("vision_kind")
    told: list[Any] = [each.values.get(key) for each in (config, *sidecars) for key in OTHER_KEYS]
    return next((kind for name in (*told, *names) if name and (kind := _by_name(name))), None)


def _by_name(name: object) -> str | None:
    plain = re.sub(r"[^a-z0-9]", "", str(name).lower())
    return next((kind for part, kind in BY_NAME.items() if part in plain), None)


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", name.lower()))
