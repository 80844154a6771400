"""Tiny random Hugging Face checkpoints of the three families, each with a small real tokenizer. Needs torch and transformers."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axpress.core.hollow_tokenizer import special_ids, write_tokenizer

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Tiny:
    """A model to build: family, sizes in elements, and what sets it apart (`rope`, biases, tied embeddings, shards)."""

    family: str
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 96
    layers: int = 2
    vocab: int = 384
    tied: bool = False
    attention_bias: bool = False
    rope: dict[str, Any] = field(default_factory=dict)
    theta: float = 10000.0
    max_shard_size: str = "1GB"
    seed: int = 0

    @property
    def label(self) -> str:
        """A short name for test ids."""
        marks = [self.family, f"h{self.heads}x{self.head_dim}kv{self.kv_heads}"]
        marks += ["tied"] if self.tied else []
        marks += ["bias"] if self.attention_bias else []
        marks += [self.rope["rope_type"]] if self.rope else []
        return "-".join(marks)


def build_model(tiny: Tiny) -> Any:
    """The transformers model in float32, its weights already rounded to bf16, in eval mode."""
    import torch
    import transformers

    classes = {
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    }
    config_class, model_class = classes[tiny.family]
    options: dict[str, Any] = {"rope_parameters": {"rope_type": "default", "rope_theta": tiny.theta, **tiny.rope}}
    if tiny.family != "qwen2":
        options |= {"head_dim": tiny.head_dim, "attention_bias": tiny.attention_bias}
    config = config_class(
        hidden_size=tiny.hidden,
        num_attention_heads=tiny.heads,
        num_key_value_heads=tiny.kv_heads,
        intermediate_size=tiny.ffn,
        num_hidden_layers=tiny.layers,
        vocab_size=tiny.vocab,
        tie_word_embeddings=tiny.tied,
        max_position_embeddings=4096,
        rms_norm_eps=1e-6,
        bos_token_id=None,
        eos_token_id=special_ids(tiny.vocab)["<|im_end|>"],
        attn_implementation="eager",
        **options,
    )
    torch.manual_seed(tiny.seed)
    model = model_class(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:  # zeros and ones would hide a bias or a norm that is not applied
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * (0.6 if "embed" in name else 1.5 / parameter.shape[1] ** 0.5))
            parameter.copy_(parameter.to(torch.bfloat16).float())
    return model


def save_checkpoint(tiny: Tiny, directory: Path, dtype: str = "bfloat16") -> Any:
    """Write the checkpoint (weights as `dtype`, tokenizer, generation_config) into `directory`; returns the float32 model."""
    import torch

    model = build_model(tiny)
    stored = copy.deepcopy(model).to(getattr(torch, dtype))  # a copy: casting also rounds the RoPE frequencies
    stored.save_pretrained(directory, max_shard_size=tiny.max_shard_size)
    write_tokenizer(directory, tiny.vocab)
    return model
