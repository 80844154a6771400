"""Tiny random Hugging Face checkpoints of every family, each with a small real tokenizer.

`write_checkpoint` needs NumPy only; `build_model` and `save_checkpoint` make real transformers models.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from axpress.core.model_files.convert import convert
from axpress.core.model_files.hollow_tokenizer import special_ids, write_tokenizer
from axpress.core.model_files.safetensors import TensorSource, array_source, to_bf16, write_safetensors
from axpress.core.model_files.simulated_axmodel import read_axmodel, write_axmodel

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


GEMMA = "gemma3_text"
QWEN3_5 = "qwen3_5_text"
ARCHITECTURES = {
    "qwen3": "Qwen3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "llama": "LlamaForCausalLM",
    GEMMA: "Gemma3ForCausalLM",
    QWEN3_5: "Qwen3_5ForCausalLM",
}


@dataclass(frozen=True)
class Tiny:
    """A model to build: family, sizes in elements, and what sets it apart (`rope`, biases, tied embeddings, shards;
    `sharp`: how much steeper attention is, for it to matter which of many tokens are seen; of Gemma `window`,
    `layer_types` and `scalar`, its query_pre_attn_scalar; of Qwen3.5 `layer_types`, `linear`: key heads, value heads
    and their sizes, `rotary`: the part of a head that rotates, `sections`: pairs by axis)."""

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
    window: int = 8
    layer_types: tuple[str, ...] = ()
    scalar: int = 16
    sharp: float = 1.0
    linear: tuple[int, int, int, int] = (2, 4, 16, 24)
    rotary: float = 0.5
    sections: tuple[int, ...] = ()
    max_shard_size: str = "1GB"
    seed: int = 0

    @property
    def label(self) -> str:
        """A short name for test ids."""
        marks = [self.family, f"h{self.heads}x{self.head_dim}kv{self.kv_heads}"]
        marks += ["tied"] if self.tied else []
        marks += ["bias"] if self.attention_bias else []
        marks += [self.rope["rope_type"]] if self.rope else []
        marks += [f"w{self.window}"] if self.family == GEMMA else []
        marks += ["k{}v{}x{}.{}".format(*self.linear)] if self.family == QWEN3_5 else []
        return "-".join(marks)

    @property
    def kinds(self) -> list[str]:
        """layer_types of Qwen3.5: every third layer has attention, or as told."""
        turns = ["full_attention" if layer % 3 == 2 else "linear_attention" for layer in range(self.layers)]
        return list(self.layer_types) or turns

    @property
    def linear_config(self) -> dict[str, Any]:
        """What a config.json of Qwen3.5 says of recurrent layers."""
        names = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim")
        return {f"linear_{name}": size for name, size in zip(names, self.linear, strict=True)}


RECURRENT = Tiny(
    QWEN3_5, layers=4, hidden=32, heads=8, kv_heads=8, head_dim=128, ffn=48, rotary=0.25, sections=(8, 4, 4)
)
"""Three recurrent layers and one of attention, with rows of 2 KiB, so that decode may write them in place."""


def build_model(tiny: Tiny) -> Any:
    """The transformers model in float32, its weights already rounded to bf16, in eval mode."""
    import torch
    import transformers

    classes = {
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        GEMMA: (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
    }
    if tiny.family == QWEN3_5:  # not in every version of transformers
        classes[QWEN3_5] = (transformers.Qwen3_5TextConfig, transformers.Qwen3_5ForCausalLM)
    config_class, model_class = classes[tiny.family]
    options: dict[str, Any] = {"rope_parameters": {"rope_type": "default", "rope_theta": tiny.theta, **tiny.rope}}
    if tiny.family != "qwen2":
        options |= {"head_dim": tiny.head_dim, "attention_bias": tiny.attention_bias}
    if tiny.family == GEMMA:
        options |= _gemma_options(tiny)
    if tiny.family == QWEN3_5:
        options |= {"layer_types": tiny.kinds, **tiny.linear_config}
        options["rope_parameters"] |= {"partial_rotary_factor": tiny.rotary}
        options["rope_parameters"] |= {"mrope_section": list(tiny.sections)} if tiny.sections else {}
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
            # zeros and ones would hide a bias or a norm that is not applied
            if name.endswith("A_log"):
                parameter.uniform_(-4, 1)  # of states that remember a few tokens, or many
            elif name.endswith("bias") or "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                embedding = (
                    (0.02 if tiny.family == GEMMA else 0.1) if tiny.tied else 0.6
                )  # a tied model with large embeddings would only repeat its input
                parameter.copy_(
                    torch.randn_like(parameter) * (embedding if "embed" in name else 1.5 / parameter[0].numel() ** 0.5)
                )
            if name.endswith("q_norm.weight"):
                parameter.mul_(tiny.sharp)
            parameter.copy_(parameter.to(torch.bfloat16).float())
    return model


def _gemma_options(tiny: Tiny) -> dict[str, Any]:
    """What Gemma3TextConfig asks for beyond others; windows have a base of RoPE of their own."""
    default = {"rope_type": "default"}
    return {
        "sliding_window": tiny.window,
        "layer_types": list(tiny.layer_types) or ["sliding_attention", "full_attention"][: tiny.layers],
        "query_pre_attn_scalar": tiny.scalar,
        "rope_parameters": {
            "full_attention": {"rope_theta": tiny.theta, **default, **tiny.rope},
            "sliding_attention": {"rope_theta": 3000.0, **default},
        },
    }


def save_checkpoint(tiny: Tiny, directory: Path, dtype: str = "bfloat16") -> Any:
    """Write the checkpoint (weights as `dtype`, tokenizer, generation_config) into `directory`; returns the float32
    model."""
    import torch

    model = build_model(tiny)
    stored = copy.deepcopy(model).to(getattr(torch, dtype))  # a copy: casting also rounds the RoPE frequencies
    stored.save_pretrained(directory, max_shard_size=tiny.max_shard_size)
    write_tokenizer(directory, tiny.vocab)
    return model


def tensor_shapes(tiny: Tiny) -> dict[str, tuple[int, ...]]:
    """Hugging Face names and shapes of all tensors of the model."""
    width, kv_width = tiny.heads * tiny.head_dim, tiny.kv_heads * tiny.head_dim
    if tiny.family == QWEN3_5:
        return _hybrid_shapes(tiny)
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (tiny.hidden,),
        "post_attention_layernorm.weight": (tiny.hidden,),
        "self_attn.q_proj.weight": (width, tiny.hidden),
        "self_attn.k_proj.weight": (kv_width, tiny.hidden),
        "self_attn.v_proj.weight": (kv_width, tiny.hidden),
        "self_attn.o_proj.weight": (tiny.hidden, width),
        "mlp.gate_proj.weight": (tiny.ffn, tiny.hidden),
        "mlp.up_proj.weight": (tiny.ffn, tiny.hidden),
        "mlp.down_proj.weight": (tiny.hidden, tiny.ffn),
    }
    if tiny.family == GEMMA:
        layer |= {f"{name}_feedforward_layernorm.weight": (tiny.hidden,) for name in ("pre", "post")}
    if tiny.family in ("qwen3", GEMMA):
        layer |= {"self_attn.q_norm.weight": (tiny.head_dim,), "self_attn.k_norm.weight": (tiny.head_dim,)}
    if tiny.family == "qwen2" or tiny.attention_bias:
        layer |= {
            "self_attn.q_proj.bias": (width,),
            "self_attn.k_proj.bias": (kv_width,),
            "self_attn.v_proj.bias": (kv_width,),
        }
    if tiny.family != "qwen2" and tiny.attention_bias:
        layer |= {"self_attn.o_proj.bias": (tiny.hidden,)}
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (tiny.vocab, tiny.hidden),
        "model.norm.weight": (tiny.hidden,),
    }
    shapes |= {} if tiny.tied else {"lm_head.weight": (tiny.vocab, tiny.hidden)}
    return shapes | {f"model.layers.{i}.{name}": shape for i in range(tiny.layers) for name, shape in layer.items()}


def _hybrid_shapes(tiny: Tiny) -> dict[str, tuple[int, ...]]:
    width, kv_width = tiny.heads * tiny.head_dim, tiny.kv_heads * tiny.head_dim
    keys, heads, key_dim, value_dim = tiny.linear
    values, channels = heads * value_dim, 2 * keys * key_dim + heads * value_dim
    linear: dict[str, tuple[int, ...]] = {
        "linear_attn.in_proj_qkv.weight": (channels, tiny.hidden),
        "linear_attn.in_proj_z.weight": (values, tiny.hidden),
        "linear_attn.in_proj_b.weight": (heads, tiny.hidden),
        "linear_attn.in_proj_a.weight": (heads, tiny.hidden),
        "linear_attn.conv1d.weight": (channels, 1, 4),
        "linear_attn.A_log": (heads,),
        "linear_attn.dt_bias": (heads,),
        "linear_attn.norm.weight": (value_dim,),
        "linear_attn.out_proj.weight": (tiny.hidden, values),
    }
    full: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (2 * width, tiny.hidden),
        "self_attn.k_proj.weight": (kv_width, tiny.hidden),
        "self_attn.v_proj.weight": (kv_width, tiny.hidden),
        "self_attn.o_proj.weight": (tiny.hidden, width),
        "self_attn.q_norm.weight": (tiny.head_dim,),
        "self_attn.k_norm.weight": (tiny.head_dim,),
    }
    both: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (tiny.hidden,),
        "post_attention_layernorm.weight": (tiny.hidden,),
        "mlp.gate_proj.weight": (tiny.ffn, tiny.hidden),
        "mlp.up_proj.weight": (tiny.ffn, tiny.hidden),
        "mlp.down_proj.weight": (tiny.hidden, tiny.ffn),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (tiny.vocab, tiny.hidden),
        "model.norm.weight": (tiny.hidden,),
        **({} if tiny.tied else {"lm_head.weight": (tiny.vocab, tiny.hidden)}),
    }
    for number, kind in enumerate(tiny.kinds):
        own = both | (linear if kind == "linear_attention" else full)
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in own.items()}
    return shapes


def write_checkpoint(tiny: Tiny, directory: Path, dtype: str = "BF16", shards: int = 1) -> dict[str, np.ndarray]:
    """Write a checkpoint of random tensors (safetensors type `dtype`) with NumPy alone; returns the tensors as stored,
    by name."""
    random = np.random.default_rng(tiny.seed)
    cast: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "BF16": to_bf16,
        "F16": lambda values: values.astype(np.float16),
        "F32": lambda values: values,
    }
    tensors = {}
    for name, shape in tensor_shapes(tiny).items():
        scale = np.float32(1.5 / shape[-1] ** 0.5 if len(shape) >= 2 else 1.0)
        tensors[name] = cast[dtype](random.standard_normal(shape, np.float32) * scale)
    directory.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    where: dict[str, str] = {}
    for shard in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        mine = names[shard::shards]
        sources = {name: TensorSource(dtype, tensors[name].shape, lambda array=tensors[name]: [array]) for name in mine}
        write_safetensors(directory / file, {"format": "pt"}, sources)
        where |= dict.fromkeys(mine, file)
    if shards > 1:
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (directory / "config.json").write_text(json.dumps(hf_config(tiny)))
    write_tokenizer(directory, tiny.vocab)
    return tensors


def convert_tiny(directory: Path, tiny: Tiny, **options: Any) -> Path:
    """The package that `convert` makes, with these options, of a random checkpoint; both in `directory`."""
    write_checkpoint(tiny, directory / "hf")
    return convert(directory / "hf", directory / "package", progress=False, **options)


def prune(package: Path, layer: int, **groups: Any) -> Path:
    """Takes shape groups from one layer's file: `groups` are fields of its SimMeta. Returns the package."""
    path = next(package.glob(f"*_l{layer}_*.axmodel"))
    meta, file = read_axmodel(path)
    tensors = {name: array_source(file.array(name).copy()) for name in file.tensors}
    write_axmodel(path, replace(meta, **groups), tensors)
    return package


def with_states(package: Path, **states: str) -> Path:
    """Lets a package's recurrent layers treat their states otherwise: fields of SimMeta. Returns the package."""
    for path in package.glob("*_together.axmodel"):
        meta, file = read_axmodel(path)
        if meta.recurrent:
            tensors = {name: array_source(file.array(name).copy()) for name in file.tensors}
            write_axmodel(path, replace(meta, **states), tensors)  # type: ignore[arg-type]
    return package


def hf_config(tiny: Tiny) -> dict[str, Any]:
    """config.json in the spelling that published checkpoints use (rope_theta and rope_scaling)."""
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[tiny.family]],
        "model_type": tiny.family,
        "hidden_size": tiny.hidden,
        "num_attention_heads": tiny.heads,
        "num_key_value_heads": tiny.kv_heads,
        "intermediate_size": tiny.ffn,
        "num_hidden_layers": tiny.layers,
        "vocab_size": tiny.vocab,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": tiny.theta,
        "rope_scaling": tiny.rope or None,
        "tie_word_embeddings": tiny.tied,
        "max_position_embeddings": 4096,
        "sliding_window": 4096,
        "use_sliding_window": False,
        "max_window_layers": tiny.layers,
        "eos_token_id": special_ids(tiny.vocab)["<|im_end|>"],
    }
    if tiny.family == GEMMA:
        config |= {"sliding_window": tiny.window, "query_pre_attn_scalar": tiny.scalar, "rope_local_base_freq": 3000.0}
        config |= {"layer_types": list(tiny.layer_types) or ["sliding_attention", "full_attention"][: tiny.layers]}
        config |= {"hidden_activation": "gelu_pytorch_tanh"}
    if tiny.family == QWEN3_5:
        rope = {"rope_type": "default", "rope_theta": tiny.theta, "partial_rotary_factor": tiny.rotary}
        rope |= {"mrope_section": list(tiny.sections), "mrope_interleaved": True} if tiny.sections else {}
        config |= {"layer_types": tiny.kinds, "rope_parameters": rope, **tiny.linear_config}
    return config if tiny.family == "qwen2" else config | {"head_dim": tiny.head_dim}
