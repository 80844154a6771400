"""`axpress hollow`: a package with a published model's full shapes, costs and memory, but without weights, in a few
megabytes.

For benchmarks on the emulator: its text is noise. The embedding file has its full size but no data (a sparse file of
zeros)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .convert import (
    EMBED_NAME,
    TOKENIZER_DIR,
    check_groups,
    file_prefix,
    hybrid_keys,
    layer_pattern,
    new_directory,
    new_file,
    package_config,
    package_name,
    recurrent_meta,
    write_json,
)
from .hollow_tokenizer import write_tokenizer
from .qwen3_5 import rope_sections
from .simulated_axmodel import SimMeta, write_axmodel
from .timing_profile import Profile, load_profile
from .vision_axmodel import VisionMeta, write_encoder
from .vision_checkpoint import Family, family_named, vision_keys

SAMPLING = {  # Qwen3's published defaults
    "enable_temperature": True,
    "temperature": 0.6,
    "enable_repetition_penalty": False,
    "repetition_penalty": 1.0,
    "penalty_window": 20,
    "enable_top_p_sampling": True,
    "top_p": 0.95,
    "enable_top_k_sampling": True,
    "top_k": 20,
}


def _as_is(meta: SimMeta) -> SimMeta:
    return meta


def hollow(
    profile: str,
    out_dir: str | os.PathLike[str],
    *,
    name: str | None = None,
    p0_width: str = "hidden",
    change: Callable[[SimMeta], SimMeta] = _as_is,
) -> Path:
    """Write a hollow package of the profile's full size to `out_dir` (absent or empty) and return its path.

    `profile` is the name of a shipped profile or the path of a TOML file; `p0_width` as in SimMeta. `change` gets the
    metadata of each layer and of the head (layer None) before it is written, and returns what to write: for packages
    that no profile describes. Raises PackageError as load_profile and convert do."""
    loaded = load_profile(profile)
    name = package_name(name or f"{loaded.name}-hollow")
    meta = replace(_layer_meta(loaded), p0_width=p0_width)
    check_groups(meta.decode_rows, meta.chunk, meta.history)
    with new_directory(Path(out_dir)) as work:
        eyes = family_named(loaded.model.vision)
        prefix = (eyes and eyes.prefix) or file_prefix(name, meta)
        if eyes:
            write_encoder(new_file(work / eyes.encoder.format(name)), _encoder_meta(eyes, loaded), {})
        for layer in range(meta.layers):
            write_axmodel(work / (layer_pattern(prefix, meta.chunk) % layer), change(_of_layer(meta, layer, loaded)))
        write_axmodel(work / f"{prefix}_post.axmodel", change(_head_meta(meta, loaded)))
        with open(work / EMBED_NAME, "wb") as file:
            file.truncate(meta.vocab * meta.hidden * 2)
        (work / TOKENIZER_DIR).mkdir()
        special = write_tokenizer(work / TOKENIZER_DIR, meta.vocab)
        write_json(work / "post_config.json", SAMPLING)
        eos = [special["<|im_end|>"], special["<|endoftext|>"]]
        config = package_config(name, meta, eos, None, {"hollow": True, "profile": loaded.name}, prefix)
        config |= hybrid_keys(loaded.model.recurrence)
        write_json(work / "config.json", config | (vision_keys(eyes, eyes.encoder.format(name)) if eyes else {}))
    return Path(out_dir)


def _layer_meta(profile: Profile) -> SimMeta:
    model, cost = profile.model, profile.cost
    # a group cannot read more rows than the cache has
    history = tuple(sorted({min(rows, model.rows) for rows in model.history}))
    decode, eyes = (*model.smaller_rows, model.rows), family_named(model.vision)
    return SimMeta(
        family=model.family,
        layer=0,
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        ffn=model.ffn,
        vocab=model.vocab,
        decode_rows=decode,
        chunk=model.chunk,
        history=history,
        gated=model.recurrence is not None,
        rope_sections=_sections(profile),
        rope_interleaved=model.recurrence is not None or bool(eyes and eyes.interleaved),
        hollow=True,
        cmm_bytes=profile.memory.layer_cmm_bytes,
        file_bytes=model.layer_file_bytes or None,
        cost_decode_us=tuple(cost.decode_us(rows) for rows in decode),
        cost_chunk_us=tuple(cost.chunk_us(rows) for rows in history),
        profile=profile.name,
    )


def _sections(profile: Profile) -> tuple[int, ...]:
    model, eyes = profile.model, family_named(profile.model.vision)
    if model.recurrence:
        return rope_sections({}, model.head_dim // 8)  # a quarter, in pairs
    return eyes.sections if eyes else ()


def _encoder_meta(eyes: Family, profile: Profile) -> VisionMeta:
    model = profile.model
    blocks = {"depth": model.vision_blocks, "hidden_size": model.vision_hidden, "intermediate_size": model.vision_ffn}
    sizes: dict[str, Any] = blocks | {"num_heads": model.vision_heads, "out_hidden_size": model.hidden}
    sizes |= {"deepstack_visual_indexes": list(model.deepstack)}
    sizes |= {"num_hidden_layers": model.vision_blocks, "num_attention_heads": model.vision_heads}
    size = {"image_size": [model.image_size] * 2} if "image_size" in eyes.defaults else {}
    text = {"text_config": {"hidden_size": model.hidden}}
    return replace(
        eyes.describe(eyes, {**eyes.defaults, **sizes, **size}, text, model.image_size),
        hollow=True,
        cmm_bytes=profile.memory.encoder_cmm_bytes or None,
        file_bytes=model.encoder_file_bytes or None,
        cost_encoder_us=round(1000 * profile.cost.encoder_ms, 3),
        profile=profile.name,
    )


def _of_layer(meta: SimMeta, layer: int, profile: Profile) -> SimMeta:
    meta, recurrence, cost = replace(meta, layer=layer), profile.model.recurrence, profile.cost
    if recurrence is None or not recurrence.layers[layer]:
        return meta
    meta = recurrent_meta(meta, recurrence)
    if cost.recurrent_decode_ms:
        meta = replace(meta, cost_decode_us=(round(1000 * cost.recurrent_decode_ms, 3),) * len(meta.decode_rows))
    if cost.recurrent_chunk_ms:
        meta = replace(meta, cost_chunk_us=(round(1000 * cost.recurrent_chunk_ms, 3),) * len(meta.history))
    return meta


def _head_meta(meta: SimMeta, profile: Profile) -> SimMeta:
    head_us = round(1000 * profile.cost.head_ms, 3)
    return replace(
        meta,
        layer=None,
        cmm_bytes=profile.memory.head_cmm_bytes,
        file_bytes=profile.model.head_file_bytes or None,
        cost_head_us=head_us,
    )
