"""A Hugging Face checkpoint on disk: its configuration, checked against what axpress can convert, and its tensors by
mmap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PackageError
from ..files import check_not_pointer, read_json
from . import embedding_models, gemma3, qwen3_5, rerank_models, vision_checkpoint
from .model_kind import SLIDING, layer_types, unserved_kind
from .safetensors import SafetensorsFile, TensorSource, bf16_source

FAMILIES = ("qwen3", "qwen2", "llama", "gemma3_text", "qwen3_5_text")
FLOAT_DTYPES = ("F32", "F16", "BF16")
RENAMED = {  # what names begin with in models of several parts: what the same tensors begin with here
    "model.language_model.": "model.",
    "model.text_model.": "model.",
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "language_model.": "model.",
    "visual.": "model.visual.",
    "vision_tower.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}
INDEX_NAME = "model.safetensors.index.json"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json", "vocab.json", "merges.txt"),
)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The sizes and constants of a supported model, from its config.json. Sizes in elements. `embedding`: what a
    package says of a model that embeds texts, `reranker` of one that ranks documents; None: it only generates text.
    `windows`: of each layer, how many positions it sees (0: all); empty: none has a window. `inv_freq_sliding`: RoPE's
    of layers with a window. `embedding_scale`: what embeddings are multiplied with before the first layer;
    `attention_scale`: what scores are (None: by head_dim). `recurrence`: the layers with states, of hybrids (whose
    attention is gated). `rope_sections`, `rope_interleaved`: as in SimMeta, of models with positions of three axes.
    `eyes`: the family of its vision tower, None: it has none that is known."""

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rms_eps: float
    tied: bool
    inv_freq: npt.NDArray[np.float32]
    max_positions: int | None
    eos: tuple[int, ...]
    bos: int | None
    embedding: Mapping[str, Any] | None = None
    reranker: Mapping[str, Any] | None = None
    windows: tuple[int, ...] = ()
    inv_freq_sliding: npt.NDArray[np.float32] | None = None
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    recurrence: qwen3_5.Recurrence | None = None
    rope_sections: tuple[int, ...] = ()
    rope_interleaved: bool = False
    eyes: vision_checkpoint.Family | None = None


class Checkpoint:
    """The tensors of a checkpoint directory, one or more safetensors shards, opened when first needed."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        self._files: dict[str, SafetensorsFile] = {}
        single = directory / "model.safetensors"
        if (directory / INDEX_NAME).exists():
            weight_map = read_json(directory / INDEX_NAME).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise PackageError(f"{directory / INDEX_NAME} has no weight_map: download it again")
            self._where = {str(name): self._shard_name(shard) for name, shard in weight_map.items()}
        elif single.exists():
            self._where = dict.fromkeys(self._open(single.name).tensors, single.name)
        else:
            raise PackageError(self._no_weights())
        self._bare = "embed_tokens.weight" in self._where  # as a model without a head is saved
        self._stored = {f"model.{name}" if self._bare else _called_here(name): name for name in self._where}
        self._where = {name: self._where[stored] for name, stored in self._stored.items()}

    def _shard_name(self, shard: object) -> str:
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise PackageError(f"{self.path / INDEX_NAME} names a shard outside its directory: {shard!r}")
        return shard

    def _no_weights(self) -> str:
        others = sorted(path.name for pattern in ("*.bin", "*.pth", "*.gguf") for path in self.path.glob(pattern))
        found = f" (found {', '.join(others[:3])})" if others else ""
        return (
            f"{self.path} has no model.safetensors and no {INDEX_NAME}{found}: save the model as safetensors, or give a"
            " .gguf file itself"
        )

    def _open(self, shard: str) -> SafetensorsFile:
        if shard not in self._files:
            path = self.path / shard
            if not path.is_file():
                raise PackageError(f"{path} is missing: {INDEX_NAME} lists it, download it again")
            check_not_pointer(path)
            self._files[shard] = SafetensorsFile(path)
        return self._files[shard]

    @cached_property
    def spec(self) -> ModelSpec:
        """Sizes and constants; PackageError names what axpress does not run."""
        config, where = read_json(self.path / "config.json"), str(self.path / "config.json")
        if rerank_models.is_checkpoint(self.path):
            return replace(spec_of(config, self.generation, where), reranker=rerank_models.package_keys(self.path))
        if vision_checkpoint.family_of(config):
            spec = spec_of(config, self.generation, where)
            return replace(spec, tied=spec.tied or "lm_head.weight" not in self)  # left out where it is the default
        if not (embedding_models.is_checkpoint(self.path) or self._bare):
            return spec_of(config, self.generation, where)
        config.pop("architectures", None)  # whatever class it was saved as
        spec = spec_of(config, self.generation, where)
        embedding_models.check_family(spec.family, self.path)
        return replace(spec, embedding=embedding_models.package_keys(config))

    @cached_property
    def generation(self) -> Mapping[str, Any]:
        """generation_config.json; empty where there is none."""
        return read_json(self.path / "generation_config.json", {})

    def tokenizer(self) -> Mapping[str, bytes]:
        """The tokenizer's files: content by name. PackageError: neither tokenizer.json nor tokenizer.model."""
        found = {name: path.read_bytes() for name in TOKENIZER_FILES if (path := self.path / name).is_file()}
        if not found.keys() & {"tokenizer.json", "tokenizer.model"}:
            raise PackageError(
                f"{self.path} has neither tokenizer.json nor tokenizer.model: add the tokenizer "
                "(transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...) writes tokenizer.json)"
            )
        return found

    def encoder(self, name: str, image_size: int | None, image_input: str) -> vision_checkpoint.Encoder | None:
        """The vision encoder, as vision_checkpoint.encoder_of has it; None: the model has no eyes that are known."""
        config = read_json(self.path / "config.json")
        if vision_checkpoint.family_of(config) is None:
            return None
        preprocessor = read_json(self.path / "preprocessor_config.json", {})
        return vision_checkpoint.encoder_of(
            config, self.names, self.array, preprocessor, str(self.path), name, image_size, image_input
        )

    @property
    def names(self) -> list[str]:
        """Names of all tensors, in the order of the index."""
        return list(self._where)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of tensor `name`; PackageError when the checkpoint lacks it."""
        if name not in self._where:
            raise PackageError(
                f"{self.path} has no tensor {name!r}: it is not a checkpoint of the family that config.json says"
            )
        file, stored = self._open(self._where[name]), self._stored[name]
        if stored not in file.tensors:
            raise PackageError(f"{file.path} lacks the tensor {stored!r} that {INDEX_NAME} promises: download it again")
        return file.tensors[stored].shape

    def source(self, name: str) -> TensorSource:
        """Tensor `name` as bf16, read and rounded while it is written. PackageError: as `array`."""
        return bf16_source(self.array(name))

    def array(self, name: str) -> np.ndarray:
        """Tensor `name` as it is stored: float32, float16 or bf16 bits, mapped. PackageError: absent, or not a plain
        float type."""
        self.shape(name)
        file, stored = self._open(self._where[name]), self._stored[name]
        dtype = file.tensors[stored].dtype
        if dtype not in FLOAT_DTYPES:
            raise PackageError(
                f"tensor {name!r} in {file.path} has type {dtype}: convert the original, not a quantised checkpoint"
            )
        return file.array(stored)


def _called_here(name: str) -> str:
    """What a tensor is called here, whatever its part is called in the checkpoint."""
    start = next((start for start in RENAMED if name.startswith(start)), "")
    return RENAMED[start] + name.removeprefix(start) if start else name


def spec_of(config: Mapping[str, Any], generation: Mapping[str, Any], where: str) -> ModelSpec:
    """The spec that config.json's values describe, and generation_config.json's for the end tokens; `where` names them
    in errors. PackageError names what axpress does not run."""
    eyes = vision_checkpoint.family_of(config)
    sections: tuple[int, ...] = ()
    if qwen3_5.is_checkpoint(config):
        config = qwen3_5.text_config(config, where)
    elif eyes:
        config, sections = vision_checkpoint.text_config(config, where)
    _refuse_unsupported(config, where)
    gemma = config["model_type"] == gemma3.FAMILY
    if gemma:
        config = gemma3.with_defaults(config, where)
    heads = _integer(config, "num_attention_heads", where)
    hidden = _integer(config, "hidden_size", where)
    family = str(config["model_type"])
    head_dim = config.get("head_dim") or (128 if family == "qwen3" else hidden // heads)
    kv_heads = config.get("num_key_value_heads") or heads
    ropes, rotary = gemma3.rope_configs(config) if gemma else {"full_attention": config}, head_dim
    if family == qwen3_5.FAMILY:
        ropes["full_attention"], rotary = qwen3_5.rope_config(config, head_dim)
    if heads % kv_heads or head_dim % 2 or rotary < 2 or rotary % 2:
        raise PackageError(f"{where} is inconsistent: {heads} heads, {kv_heads} key/value heads, head size {head_dim}")
    spec = ModelSpec(
        family=family,
        layers=_integer(config, "num_hidden_layers", where),
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=_integer(config, "intermediate_size", where),
        vocab=_integer(config, "vocab_size", where),
        rms_eps=float(config.get("rms_norm_eps", 1e-6)),
        tied=bool(config.get("tie_word_embeddings", False)),
        inv_freq=rope_frequencies(ropes["full_attention"], rotary, where),
        max_positions=config.get("max_position_embeddings"),
        eos=token_ids(generation.get("eos_token_id", config.get("eos_token_id"))),
        bos=next(iter(token_ids(generation.get("bos_token_id", config.get("bos_token_id")))), None),
    )
    if family == qwen3_5.FAMILY:
        return replace(_with_recurrence(spec, config, where), eyes=eyes)
    if eyes:
        sections = vision_checkpoint.sections_of(eyes, sections, len(spec.inv_freq), where)
        return replace(spec, eyes=eyes, rope_sections=sections, rope_interleaved=eyes.interleaved)
    if not gemma:
        return spec
    kinds = layer_types(config, spec.layers, where)
    if len(kinds) != spec.layers:
        raise PackageError(f"{where} has layer_types of {len(kinds)} layers, the model has {spec.layers}")
    return replace(
        spec,
        windows=tuple(_integer(config, "sliding_window", where) if kind == SLIDING else 0 for kind in kinds),
        inv_freq_sliding=rope_frequencies(ropes[SLIDING], head_dim, where),
        embedding_scale=math.sqrt(hidden),
        attention_scale=float(config["query_pre_attn_scalar"]) ** -0.5,
    )


def _with_recurrence(spec: ModelSpec, config: Mapping[str, Any], where: str) -> ModelSpec:
    return replace(
        spec,
        recurrence=qwen3_5.recurrence(config, spec.layers, where),
        rope_sections=qwen3_5.rope_sections(config, len(spec.inv_freq)),
        rope_interleaved=True,
    )


def token_ids(value: object) -> tuple[int, ...]:
    """Token ids from a field that may be absent, one id or a list of them; anything else counts as absent."""
    items = value if isinstance(value, list) else [value]
    return tuple(item for item in items if isinstance(item, int) and not isinstance(item, bool) and item >= 0)


def _integer(config: Mapping[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise PackageError(f"{where} has no usable {key!r} ({value!r}): download it again")
    return value


def _refuse_unsupported(config: Mapping[str, Any], where: str) -> None:
    supported = f"axpress converts plain text models of the families {', '.join(FAMILIES)}"
    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method", "unknown method") if isinstance(quantised, dict) else "unknown method"
        raise PackageError(
            f"{where} describes a quantised checkpoint ({method}): convert the original bf16 or float checkpoint"
        )
    architectures = [str(name) for name in config.get("architectures") or []]
    if scoring := next((name for name in architectures if name.endswith("ForSequenceClassification")), None):
        raise PackageError(
            f"{where} is a {scoring}, whose head gives scores and no tokens, which is not supported: of a reranker of"
            " the Qwen3-Reranker type convert the original, a Qwen3ForCausalLM"
        )
    if (kind := unserved_kind(config)) or (kind := _windows_of_others(config)):
        raise PackageError(f"{where} describes {kind}, which is not supported: {supported}")
    if any(config.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise PackageError(f"{where} describes a mixture of experts, which is not supported: {supported}")
    if config.get("model_type") not in FAMILIES:
        raise PackageError(f"{where} is of family {config.get('model_type')!r}, which is not supported: {supported}")
    if architectures and not any(name.endswith("ForCausalLM") for name in architectures):
        raise PackageError(f"{where} is a {architectures[0]}, not a language model (...ForCausalLM): {supported}")
    if config["model_type"] != gemma3.FAMILY and config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise PackageError(
            f"{where} uses the activation {config['hidden_act']!r}, which is not supported (only silu is)"
        )


def _windows_of_others(config: Mapping[str, Any]) -> str | None:
    """Sliding windows of a family whose conversion does not know them."""
    types = config.get("layer_types")
    if config.get("model_type") == gemma3.FAMILY or not isinstance(types, list) or SLIDING not in types:
        return None
    return f"a {config.get('model_type')} model with sliding-window layers (layer_types)"


def rope_frequencies(config: Mapping[str, Any], head_dim: int, where: str = "config.json") -> npt.NDArray[np.float32]:
    """RoPE frequencies, float32 [head_dim/2], with the model's scaling applied: default, linear or llama3.

    Reads both spellings: `rope_parameters` (transformers 5) and `rope_theta` + `rope_scaling`. PackageError names other
    kinds."""
    rope = dict(config.get("rope_scaling") or {}) | dict(config.get("rope_parameters") or {})
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if kind not in ("default", "linear", "llama3") or "mrope_section" in rope:
        kind = "mrope" if "mrope_section" in rope else kind
        raise PackageError(
            f"{where} asks for RoPE of type {kind!r}, which is not supported (default, linear and llama3 are)"
        )
    if float(rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))) != 1.0:
        raise PackageError(f"{where} rotates only a part of each head (partial_rotary_factor), which is not supported")
    theta = float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = (np.float32(1.0) / np.power(np.float32(theta), exponents)).astype(np.float32)
    if kind == "default":
        return frequencies
    try:
        return _scale_frequencies(kind, frequencies, rope, config.get("max_position_embeddings"))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise PackageError(
            f"{where} has an incomplete RoPE scaling of type {kind!r} ({error}): download it again"
        ) from None


def _scale_frequencies(
    kind: str, frequencies: np.ndarray, rope: Mapping[str, Any], max_positions: Any
) -> npt.NDArray[np.float32]:
    factor = np.float32(rope["factor"])
    if factor <= 0:
        raise ValueError(f"factor is {factor}")
    if kind == "linear":
        return (frequencies / factor).astype(np.float32)
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    original = float(rope.get("original_max_position_embeddings") or max_positions)
    wavelength = np.float32(2 * math.pi) / frequencies
    # 1 for short waves (left alone), 0 for long ones (divided by factor)
    smooth = (original / wavelength - low) / (high - low)
    smooth = np.clip(smooth, 0.0, 1.0)
    return ((1 - smooth) * (frequencies / factor) + smooth * frequencies).astype(np.float32)
