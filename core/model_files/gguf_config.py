"""The metadata of a GGUF file in the words of a Hugging Face checkpoint's config.json and generation_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import PackageError
from . import gemma3
from .hf_checkpoint import FAMILIES

ARCHITECTURES = {"gemma3": gemma3.FAMILY, **{name: name for name in FAMILIES if name != gemma3.FAMILY}}
"""Our families by the names that such files have for them."""
CHANGES_ARITHMETIC = (  # keys (below the architecture) of variants that share an architecture's name
    *("logit_scale", "embedding_scale", "residual_scale", "attention.scale", "attention.clamp_kqv"),
    *("attention.max_alibi_bias", "attn_logit_softcapping", "final_logit_softcapping", "use_parallel_residual"),
    *("attention.temperature_scale", "attention.temperature_length", "rope.scaling.attn_factor"),
)
RANK = 4  # llama.cpp's LLAMA_POOLING_TYPE_RANK
END_KEYS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))


def hf_config(metadata: Mapping[str, Any], embedding: tuple[int, ...], *, tied: bool, where: str) -> dict[str, Any]:
    """config.json's values; `embedding` is the shape of the embedding, `where` names the file in errors. PackageError:
    an architecture or a variant of one that axpress does not run (spec_of refuses more)."""
    architecture = metadata.get("general.architecture")
    kind = metadata.get("general.type", "model")
    if kind != "model":
        raise PackageError(f"{where} is of type {kind!r}, not a model: give the file of the model itself")
    if architecture not in ARCHITECTURES:
        raise PackageError(
            f"{where} is of the architecture {architecture!r}, which is not supported: axpress converts"
            f" {', '.join(ARCHITECTURES)}"
        )
    prefix = f"{architecture}."
    own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    for key in CHANGES_ARITHMETIC:
        if own.get(key):
            raise PackageError(f"{where} sets {prefix}{key} to {own[key]}, which is not supported")
    if own.get("pooling_type"):
        whose = "a reranker's with a head of its own" if own["pooling_type"] == RANK else "an embedding model's"
        raise PackageError(f"{where} is {whose} ({prefix}pooling_type): convert the original checkpoint")
    heads, hidden = own.get("attention.head_count"), own.get("embedding_length")
    head_dim = own.get("attention.key_length")
    if head_dim is None and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
        head_dim = hidden // heads
    if own.get("attention.value_length", head_dim) != head_dim:
        raise PackageError(f"{where} has keys and values of different sizes, which is not supported")
    config = {
        "model_type": ARCHITECTURES[architecture],
        "num_hidden_layers": own.get("block_count"),
        "hidden_size": hidden,
        "intermediate_size": own.get("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": own.get("attention.head_count_kv"),
        "head_dim": head_dim,
        "vocab_size": embedding[0],
        "rms_norm_eps": _decimal(own.get("attention.layer_norm_rms_epsilon", 1e-6)),
        "tie_word_embeddings": tied,
        "max_position_embeddings": own.get("context_length"),
        "rope_theta": _decimal(own.get("rope.freq_base", 10000.0)),
        "num_experts": own.get("expert_count", 0),
        "sliding_window": own.get("attention.sliding_window"),
        "use_sliding_window": bool(own.get("attention.sliding_window")),
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
    }
    if head_dim and own.get("rope.dimension_count", head_dim) != head_dim:
        config["partial_rotary_factor"] = own["rope.dimension_count"] / head_dim
    return config | _scaling(own) | (_gemma3(own, head_dim) if architecture == "gemma3" else {})


def _gemma3(own: Mapping[str, Any], head_dim: int | None) -> dict[str, Any]:
    """What is Gemma's own. The 27B alone scales scores by hidden / heads, which the file only shows by its size, as
    llama.cpp knows it; windows have a base of their own since 2025, 10000 before."""
    scalar = own["embedding_length"] // own["attention.head_count"] if own.get("block_count") == 62 else head_dim
    values = {
        "query_pre_attn_scalar": scalar,
        "rope_theta": _decimal(own.get("rope.freq_base", 1e6)),
        "rope_local_base_freq": _decimal(own.get("rope.freq_base_swa", 1e4)),
        "sliding_window_pattern": own.get("attention.sliding_window_pattern"),
    }
    return {key: value for key, value in values.items() if value is not None}


def _scaling(own: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_scaling`, where the file asks for one; which kinds there are, the checkpoint's reader knows."""
    factor = own.get("rope.scaling.factor", own.get("rope.scale_linear"))
    kind = own.get("rope.scaling.type", "linear" if factor not in (None, 0.0, 1.0) else "none")
    return {} if kind == "none" else {"rope_scaling": {"rope_type": kind, "factor": _decimal(factor or 1.0)}}


def generation_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """generation_config.json's values: the tokens that end an answer, where the file names several (of one the
    tokenizer knows, and which tokens of known names end too), and recommended sampling."""
    ends = sorted({metadata[key] for key in END_KEYS if key in metadata})
    values: dict[str, Any] = {"eos_token_id": ends} if len(ends) > 1 else {}
    said = {
        ours: metadata[f"general.sampling.{theirs}"]
        for ours, theirs in (
            *(("temperature", "temp"), ("top_p", "top_p"), ("top_k", "top_k")),
            ("repetition_penalty", "penalty_repeat"),
        )
        if f"general.sampling.{theirs}" in metadata
    }
    return values | ({"do_sample": True} | {key: _decimal(value) for key, value in said.items()} if said else {})


def _decimal(value: Any) -> Any:
    """A float32 as the decimal number that was meant (0.00001, not 0.000009999999747)."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
