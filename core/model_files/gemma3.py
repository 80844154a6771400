"""What a Gemma 3 checkpoint's config.json says beyond other families': windows, two kinds of RoPE, the scale of scores
and that of embeddings. What is absent has the defaults of Hugging Face's Gemma3TextConfig."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import PackageError
from .model_kind import SLIDING

FAMILY = "gemma3_text"
DEFAULTS: Mapping[str, Any] = {
    "head_dim": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "max_position_embeddings": 131072,
    "rope_theta": 1e6, "rope_local_base_freq": 1e4, "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "sliding_window_pattern": 6, "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip


def with_defaults(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """config.json's values with what they leave out; `where` names the file in errors. PackageError: a variant with
    other arithmetic."""
    given = {key: value for key, value in config.items() if value is not None or key == "sliding_window"}
    pattern = given.get("_sliding_window_pattern", given.get("sliding_window_pattern"))
    values = {**DEFAULTS, **given, **({"sliding_window_pattern": pattern} if pattern else {})}
    if values["hidden_activation"] != "gelu_pytorch_tanh":
        raise PackageError(
            f"{where} uses the activation {values['hidden_activation']!r}, which is not supported in Gemma (only"
            " gelu_pytorch_tanh is)"
        )
    return values


def rope_configs(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each layer type, the values that RoPE's frequencies are read from: windows have a base of their own, and no
    scaling."""
    given = values.get("rope_parameters") or {}
    if any(isinstance(part, dict) for part in given.values()):
        plain = {key: value for key, value in values.items() if key not in ("rope_parameters", "rope_scaling")}
        kinds = {"full_attention": "rope_theta", SLIDING: "rope_local_base_freq"}
        return {
            kind: plain | {"rope_theta": values[base]} | {"rope_parameters": given.get(kind) or {}}
            for kind, base in kinds.items()
        }
    local = {key: value for key, value in values.items() if key not in ("rope_parameters", "rope_scaling")}
    return {"full_attention": dict(values), SLIDING: local | {"rope_theta": values["rope_local_base_freq"]}}
