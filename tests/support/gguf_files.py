"""GGUF files made from Hugging Face checkpoints, as llama.cpp's converter makes them, through the library's writer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from tokenizers import Tokenizer

from axpress.core.model_files.hf_checkpoint import Checkpoint
from axpress.core.model_files.safetensors import from_bf16

PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
GEMMA_PARTS = PARTS | {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
ARCHITECTURES = {"gemma3_text": "gemma3"}
"""GGUF's name of a family, where it has one of its own."""
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name: str, parts: Mapping[str, str] = PARTS) -> str:
    """GGUF's name of a Hugging Face tensor."""
    stem, kind = name.rsplit(".", 1)
    if stem in WHOLE:
        return f"{WHOLE[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{parts[part]}.{kind}"


def interleaved(array: np.ndarray, heads: int) -> np.ndarray:
    """The rows of q or k as files of the architecture llama have them: halves of each head in turns."""
    halves = array.reshape(heads, 2, -1, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def stored(values: np.ndarray, kind: Kind) -> np.ndarray:
    """A tensor's bytes in a file: vectors are always float32."""
    return values if values.ndim == 1 else gguf.quantize(values, kind)


def write_gguf(
    checkpoint: Path,
    path: Path,
    kind: Kind = Kind.BF16,
    *,
    encode: Callable[[np.ndarray, Kind], np.ndarray] = stored,
    metadata: Mapping[str, Any] | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write the checkpoint's tensors as `kind`, its configuration and tokenizer; `metadata` changes keys (None: leaves
    one out), `extra` adds float32 tensors."""
    config = json.loads((checkpoint / "config.json").read_text())
    family, source = config["model_type"], Checkpoint(checkpoint)
    values = model_metadata(config) | tokenizer_metadata(checkpoint, config["vocab_size"]) | dict(metadata or {})
    gemma = family == "gemma3_text"
    writer = gguf.GGUFWriter(path, values.pop("general.architecture", ARCHITECTURES.get(family, family)))
    for key, value in values.items():
        _add(writer, key, value)
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    for name in source.names:
        array = np.concatenate([from_bf16(block) for block in source.source(name).blocks()]).reshape(source.shape(name))
        if family == "llama" and (turned := [heads[part] for part in "qk" if f".{part}_proj." in name]):
            array = interleaved(array, turned[0])
        as_kind = Kind.F32 if array.ndim == 1 else kind
        array = array + 1 if gemma and array.ndim == 1 else array  # its norms, as they are multiplied with
        name = gguf_name(name, GEMMA_PARTS if gemma else PARTS)
        writer.add_tensor(name, encode(array, as_kind), raw_dtype=as_kind)
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def model_metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that say what a model is."""
    family = config["model_type"]
    rope = config.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    values: dict[str, Any] = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(rope.get("rope_theta") or config["rope_theta"]),
    }
    if head_dim := config.get("head_dim"):
        values |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
        values |= {"rope.dimension_count": head_dim} if family == "llama" else {}
    if (scaling := config.get("rope_scaling") or rope).get("rope_type") == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling["factor"])}
    if family == "gemma3_text":
        local, types = config["rope_parameters"]["sliding_attention"], config["layer_types"]
        values |= {"attention.sliding_window": config["sliding_window"], "rope.freq_base_swa": local["rope_theta"]}
        values |= {"attention.sliding_window_pattern": types.index("full_attention") + 1}
    return {f"{ARCHITECTURES.get(family, family)}.{key}": value for key, value in values.items()}


def tokenizer_metadata(checkpoint: Path, vocab: int, pre: str = "gpt-2") -> dict[str, Any]:
    """The keys of a byte-level tokenizer.json and its tokenizer_config.json."""
    document = json.loads((checkpoint / "tokenizer.json").read_text())
    config = json.loads((checkpoint / "tokenizer_config.json").read_text())
    added = {entry["id"]: entry for entry in document["added_tokens"]}
    ids = Tokenizer.from_str(json.dumps(document)).get_vocab()
    texts = {index: text for text, index in ids.items()}
    kinds = [5 if i not in texts else 1 if i not in added else 3 if added[i]["special"] else 4 for i in range(vocab)]
    values: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [texts.get(i, f"[PAD{i}]") for i in range(vocab)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in document["model"]["merges"]],
    }
    for name in ("bos", "eos", "pad"):
        token = config.get(f"{name}_token")
        token = token["content"] if isinstance(token, dict) else token
        if token is not None:
            values[f"tokenizer.ggml.{'padding' if name == 'pad' else name}_token_id"] = ids[token]
    if config.get("chat_template"):
        values["tokenizer.chat_template"] = config["chat_template"]
    return values


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
