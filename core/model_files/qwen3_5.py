"""What a Qwen3.5 checkpoint's config.json says beyond other families': which layers are recurrent and how large their
states are, a gate beside each query, a part of each head that rotates, positions of three axes; and how its tensors
become ours. What is absent has the defaults of Hugging Face's Qwen3_5TextConfig."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import PackageError
from .safetensors import TensorSource, array_source, bf16_source, from_bf16

FAMILY = "qwen3_5_text"
TOKENIZER_TYPE = "Qwen3_5VL"  # in packages, also of models without eyes
WITH_VISION = "qwen3_5"  # model_type of a checkpoint whose text part is one of several
LINEAR, FULL = KINDS = ("linear_attention", "full_attention")
INTERVAL = 4  # of so many layers the last has attention, where nothing is said
DEFAULTS: Mapping[str, Any] = {
    "head_dim": 256, "rms_norm_eps": 1e-6, "hidden_act": "silu", "full_attention_interval": INTERVAL,
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16,
    "linear_num_value_heads": 32, "max_position_embeddings": 32768,
}  # fmt: skip
ROTARY, SECTIONS = 0.25, (11, 11, 10)
LEFT_OUT = ("mtp.",)  # what names of tensors begin with that predict several tokens at once

LAYER_TENSORS = {  # ours: Hugging Face's, below model.layers.N., in every layer
    "input_norm": "input_layernorm.weight",
    "post_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
ATTENTION_TENSORS = {
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
}
QUERIES = "self_attn.q_proj.weight"  # of each head the query, then the gate
RECURRENT_TENSORS = {
    "qkv": "linear_attn.in_proj_qkv.weight",
    "z": "linear_attn.in_proj_z.weight",
    "b": "linear_attn.in_proj_b.weight",
    "a": "linear_attn.in_proj_a.weight",
    "o": "linear_attn.out_proj.weight",
    "state_norm": "linear_attn.norm.weight",
}
CONVOLUTION = "linear_attn.conv1d.weight"  # [channels, 1, taps]
SINGLES = {"a_log": "linear_attn.A_log", "dt_bias": "linear_attn.dt_bias"}


@dataclass(frozen=True, slots=True)
class Recurrence:
    """The recurrent layers of a model. `layers`: of each layer, whether it is one. Sizes in elements."""

    layers: tuple[bool, ...]
    conv_kernel: int
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int

    @property
    def conv_dim(self) -> int:
        """Channels of the convolution: queries, keys and values side by side."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    @property
    def state_elements(self) -> int:
        """Elements of both states of one layer."""
        return (self.conv_kernel - 1) * self.conv_dim + self.value_heads * self.key_dim * self.value_dim

    def sizes(self) -> dict[str, Any]:
        """The fields of SimMeta that tell a recurrent layer's sizes."""
        names = ("conv_dim", "conv_kernel", "key_heads", "value_heads", "key_dim", "value_dim")
        return {name: getattr(self, name) for name in names}


def is_checkpoint(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a Qwen3.5 model, with or without its other parts."""
    return config.get("model_type") in (FAMILY, WITH_VISION)


def text_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The text part's values with what they leave out; `where` names the file in errors. PackageError: no text part,
    or a variant with other arithmetic."""
    outer = dict(config)
    if config.get("model_type") == WITH_VISION:
        inner = config.get("text_config")
        if not isinstance(inner, dict):
            raise PackageError(f"{where} has no text_config, which a {WITH_VISION} model's has: download it again")
        shared = {key: outer[key] for key in ("tie_word_embeddings", "quantization_config") if key in outer}
        outer = shared | inner | {"model_type": FAMILY}
    values = {**DEFAULTS, **{key: value for key, value in outer.items() if value is not None}}
    if values.get("attention_bias"):
        raise PackageError(f"{where} has attention_bias, which is not supported in {FAMILY}: no published model has it")
    return values


def layer_kinds(values: Mapping[str, Any], layers: int, where: object) -> list[str]:
    """Of each layer, "linear_attention" or "full_attention": as listed, or by full_attention_interval. PackageError:
    another number of layers, or another kind."""
    given = values.get("layer_types")
    if not isinstance(given, list):
        every = values.get("full_attention_interval", INTERVAL)
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise PackageError(f"{where} has full_attention_interval = {every!r}, which is no number of layers")
        return [LINEAR if (layer + 1) % every else FULL for layer in range(layers)]
    if len(given) != layers:
        raise PackageError(f"{where} has layer_types of {len(given)} layers, the model has {layers}")
    if unknown := sorted({str(kind) for kind in given} - set(KINDS)):
        raise PackageError(f"{where} has layers of an unknown kind (layer_types: {', '.join(unknown)})")
    return [str(kind) for kind in given]


def recurrence(values: Mapping[str, Any], layers: int, where: str) -> Recurrence:
    """Sizes of the recurrent layers. PackageError: not numbers, or ones that do not fit together."""
    sizes = {
        ours: values[f"linear_{theirs}"]
        for ours, theirs in {
            "conv_kernel": "conv_kernel_dim",
            "key_heads": "num_key_heads",
            "value_heads": "num_value_heads",
            "key_dim": "key_head_dim",
            "value_dim": "value_head_dim",
        }.items()
    }
    if any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in sizes.values()):
        raise PackageError(f"{where} has unusable sizes of linear attention (linear_...: {sizes}): download it again")
    if sizes["value_heads"] % sizes["key_heads"]:
        heads = f"{sizes['value_heads']} value heads, {sizes['key_heads']} key heads"
        raise PackageError(f"{where} is inconsistent: linear attention with {heads}")
    kinds = layer_kinds(values, layers, where)
    return Recurrence(tuple(kind == LINEAR for kind in kinds), **sizes)


def rope_config(values: Mapping[str, Any], head_dim: int) -> tuple[dict[str, Any], int]:
    """The values that RoPE's frequencies are read from, and how many of a head's dimensions rotate."""
    rope = dict(values.get("rope_scaling") or {}) | dict(values.get("rope_parameters") or {})
    factor = float(rope.pop("partial_rotary_factor", values.get("partial_rotary_factor", ROTARY)))
    for key in ("mrope_section", "mrope_interleaved"):
        rope.pop(key, None)
    plain = {key: value for key, value in values.items() if key not in ("rope_scaling", "partial_rotary_factor")}
    return plain | {"rope_parameters": rope}, int(head_dim * factor)


def rope_sections(values: Mapping[str, Any], pairs: int) -> tuple[int, ...]:
    """Of so many rotating pairs, how many turn by each axis (time, row, column); axes take turns pair by pair as long
    as they have any."""
    rope = dict(values.get("rope_scaling") or {}) | dict(values.get("rope_parameters") or {})
    _, rows, columns = rope.get("mrope_section") or SECTIONS
    by_row = len(range(1, min(3 * rows, pairs), 3))
    by_column = len(range(2, min(3 * columns, pairs), 3))
    return pairs - by_row - by_column, by_row, by_column


def layer_tensors(
    array: Callable[[str], np.ndarray], prefix: str, recurrent: bool, heads: int, used: set[str]
) -> dict[str, TensorSource]:
    """A layer's tensors in our layout. `array` gives a tensor of the checkpoint (float32, float16 or bf16 bits) by its
    name, which begins with `prefix`; `used` collects the names. The frequencies of RoPE are not among them."""

    def take(theirs: str) -> np.ndarray:
        used.add(prefix + theirs)
        return array(prefix + theirs)

    kind = RECURRENT_TENSORS if recurrent else ATTENTION_TENSORS
    tensors = {ours: bf16_source(take(theirs)) for ours, theirs in {**LAYER_TENSORS, **kind}.items()}
    if not recurrent:
        return tensors | _queries_and_gates(take(QUERIES), heads)
    weights = take(CONVOLUTION)
    tensors["conv"] = bf16_source(np.ascontiguousarray(weights.reshape(len(weights), -1).T))
    return tensors | {ours: array_source(_floats(take(theirs))) for ours, theirs in SINGLES.items()}


def _queries_and_gates(both: np.ndarray, heads: int) -> dict[str, TensorSource]:
    """q_proj's rows taken apart; rows that do not divide are left as they are, for the check of shapes to name."""
    rows, hidden = both.shape
    if rows % (2 * heads):
        return {"q": bf16_source(both), "q_gate": bf16_source(both)}
    split = both.reshape(heads, 2, rows // (2 * heads), hidden)

    def part(number: int) -> TensorSource:
        def blocks() -> Iterator[np.ndarray]:
            for head in split[:, number]:
                yield from bf16_source(head).blocks()

        return TensorSource("BF16", (rows // 2, hidden), blocks)

    return {"q": part(0), "q_gate": part(1)}


def _floats(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(from_bf16(values) if values.dtype == np.uint16 else values.astype(np.float32))
