"""Checkpoints of models with eyes: their text part's configuration, and their vision tower as one encoder for the
card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import PackageError
from .safetensors import TensorSource
from .vision_axmodel import PLANES, VisionMeta
from .vision_families import FAMILIES, Config, Family, pair
from .vision_tower import Tower


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder to write: its file's name within the package, metadata, tensors, and the checkpoint's tensors that it
    took."""

    file: str
    meta: VisionMeta
    tensors: dict[str, TensorSource]
    used: set[str]


def family_of(config: Config) -> Family | None:
    """The family of a checkpoint with eyes, by its config.json; None: it has none."""
    return FAMILIES.get(str(config.get("model_type")))


def family_named(model_type: str) -> Family | None:
    """The family of that model_type; None: there is none of that name."""
    return FAMILIES.get(model_type)


def vision_keys(family: Family, encoder: str, *, hybrid: bool = False) -> dict[str, Any]:
    """Keys of a package's config.json that tell its eyes, as published; `encoder`: the file's name within it. A
    `hybrid` has a tokenizer_type of its own."""
    names = {"vlm_type": family.vlm_type} if hybrid else dict.fromkeys(("tokenizer_type", "vlm_type"), family.vlm_type)
    return {**names, "filename_image_encoder_axmodel": encoder}


def text_config(config: Config, where: str) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The text part's values, as those of a model of its own, and the sections of its RoPE (empty: one axis). `where`
    names the file in errors. PackageError: no text part."""
    family = FAMILIES[str(config["model_type"])]
    inner = config.get("text_config")
    if inner is None and family.text_type:  # older files: side by side with what belongs to the eyes
        inner = {key: value for key, value in config.items() if "vision" not in key and "token_id" not in key}
        inner |= {key: config[key] for key in ("eos_token_id", "bos_token_id") if key in config}
    if not isinstance(inner, dict):
        raise PackageError(f"{where} has no text_config, which a {config['model_type']} model's has: download it again")
    kept = {key: config[key] for key in ("tie_word_embeddings", "quantization_config") if key in config}
    values = {**family.text_defaults, **{key: value for key, value in inner.items() if value is not None}, **kept}
    values["model_type"] = family.text_type or inner.get("model_type")
    values.pop("architectures", None)
    rope = dict(values.pop("rope_scaling", None) or {}) | dict(values.get("rope_parameters") or {})
    sections = tuple(rope.pop("mrope_section", family.sections))
    rope.pop("mrope_interleaved", None)
    # "dynamic" (InternVL3) changes nothing up to max_position_embeddings
    if rope.get("rope_type", rope.get("type")) in ("mrope", "default", "dynamic"):
        rope = {key: value for key, value in rope.items() if key not in ("type", "rope_type")}
    return values | {"rope_parameters": rope}, sections if family.sections else ()


def sections_of(family: Family, sections: Sequence[int], pairs: int, where: str) -> tuple[int, ...]:
    """Sections that tell what each of a head's pairs turns by. PackageError: there are not as many pairs."""
    if not sections:
        return ()
    if len(sections) != 3 or sum(sections) != pairs:
        raise PackageError(f"{where} has mrope_section {list(sections)} for {pairs} pairs of a head's dimensions")
    return tuple(sections)


def encoder_of(
    config: Config,
    names: Sequence[str],
    array: Callable[[str], np.ndarray],
    preprocessor: Config,
    where: str,
    name: str,
    image_size: int | None = None,
    image_input: str = "uint8",
) -> Encoder:
    """The vision tower of the checkpoint at `where`, of config.json's values and tensors by name, as one encoder of a
    package called `name`. `preprocessor`: the values of preprocessor_config.json. `image_size`: pixels of the picture's
    side (None: as the published encoder); `image_input`: "uint8", or "float32" for what InternVL3's builds take beside
    it. PackageError names what cannot be converted."""
    family = FAMILIES[str(config["model_type"])]
    given = config.get("vision_config")
    if not isinstance(given, dict):
        raise PackageError(f"{where} has no vision_config in its config.json: download it again")
    vision = {**family.defaults, **{key: value for key, value in given.items() if value is not None}}
    if "image_size" in vision and image_size is None:
        image_size = pair(vision["image_size"])[0]
    meta = family.describe(family, vision, config, image_size or family.image_size)
    changes: dict[str, Any] = {}
    if image_input == "float32" and family.kind == "internvl3":
        changes["vision_input"] = PLANES
    elif image_input != "uint8":
        raise PackageError(
            f"--image-input {image_input}: encoders of {family.kind} take uint8 (InternVL3 float32, too)"
        )
    for ours, theirs, default in zip(
        ("pixel_mean", "pixel_std"), ("image_mean", "image_std"), family.pixels, strict=True
    ):
        changes[ours] = tuple(preprocessor.get(theirs) or default)
    meta = replace(meta, **changes)
    tower = Tower(meta, vision, where, names, array)
    tensors = family.tensors(tower)
    return Encoder(family.encoder.format(name), meta, tensors, tower.used)
