"""Tiny random models with eyes: transformers' own classes, and their vision towers run alone as the reference."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from axpress.core.model_files.hollow_tokenizer import special_ids, write_tokenizer

VOCAB = 384
IMAGE_TOKEN, START_TOKEN, END_TOKEN, VIDEO_TOKEN = 300, 301, 302, 303


@dataclass(frozen=True)
class TinyVision:
    """A model to build: its model_type; `vision` and `outer` go into its configuration, `image_size` to `convert`."""

    family: str
    vision: dict[str, Any] = field(default_factory=dict)
    outer: dict[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    image_input: str = "uint8"
    heads: int = 4
    head_dim: int = 16
    seed: int = 0
    label: str = ""

    @property
    def name(self) -> str:
        """Name of the test's parameter."""
        return f"{self.family}-{self.label}" if self.label else self.family


TEXT: dict[str, Any] = {
    "hidden_size": 64, "num_key_value_heads": 2, "intermediate_size": 96, "num_hidden_layers": 4,
    "vocab_size": VOCAB, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "bos_token_id": None,
    "eos_token_id": special_ids(VOCAB)["<|im_end|>"], "pad_token_id": None,
}  # fmt: skip
QWEN3_VISION: dict[str, Any] = {
    "depth": 4, "hidden_size": 48, "intermediate_size": 80, "num_heads": 4, "patch_size": 8, "out_hidden_size": 64,
    "num_position_embeddings": 25, "deepstack_visual_indexes": [0, 1, 3],
}  # fmt: skip
QWEN2_5_VISION: dict[str, Any] = {
    "depth": 3, "hidden_size": 32, "intermediate_size": 56, "num_heads": 2, "patch_size": 4, "out_hidden_size": 64,
    "window_size": 16, "fullatt_block_indexes": [1],
}  # fmt: skip
INTERNVL_VISION: dict[str, Any] = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "attention_bias": True,
    "intermediate_size": 64, "image_size": [32, 32], "patch_size": [4, 4], "layer_scale_init_value": 0.5,
}  # fmt: skip
SMOLVLM_VISION: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 48,
    "patch_size": 4,
}  # fmt: skip

CASES = [
    TinyVision("qwen3_vl", image_size=64),
    TinyVision("qwen3_vl", {"deepstack_visual_indexes": [], "num_heads": 3, "num_position_embeddings": 100},
               image_size=48, label="plain"),
    TinyVision("qwen3_5", {"num_heads": 3}, image_size=48),
    TinyVision("qwen2_5_vl", image_size=56),
    TinyVision("qwen2_5_vl", {"window_size": 24, "fullatt_block_indexes": [0, 2]}, image_size=48, label="wide"),
    TinyVision("internvl"),
    TinyVision("internvl", {"attention_bias": False, "use_mean_pooling": False}, image_input="float32", label="planes"),
    TinyVision("smolvlm", outer={"scale_factor": 4}),
    TinyVision("smolvlm", outer={"scale_factor": 2}, image_size=40, label="smaller"),
]  # fmt: skip


def build(tiny: TinyVision) -> Any:
    """The transformers model in float32, its weights already rounded to bf16, in eval mode."""
    import torch
    import transformers

    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
    if tiny.family.startswith("qwen"):
        rope["mrope_section"] = [4, 2, 2]
    text = {**TEXT, "num_attention_heads": tiny.heads, "head_dim": tiny.head_dim, "rope_parameters": rope}
    tokens = {"image_token_id": IMAGE_TOKEN, "vision_start_token_id": START_TOKEN}
    outer = {"tie_word_embeddings": False, **tiny.outer}
    if tiny.family == "qwen3_vl":
        vision = {**QWEN3_VISION, **tiny.vision}
        config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **tokens, **outer)
        model_class = transformers.Qwen3VLForConditionalGeneration
    elif tiny.family == "qwen3_5":
        vision = {key: value for key, value in {**QWEN3_VISION, **tiny.vision}.items() if "deepstack" not in key}
        kinds = ["linear_attention", "linear_attention", "full_attention", "linear_attention"]
        linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16}
        inner = {**text, "layer_types": kinds, **linear, "linear_value_head_dim": 24}
        config = transformers.Qwen3_5Config(text_config=inner, vision_config=vision, **tokens, **outer)
        model_class = transformers.Qwen3_5ForConditionalGeneration
    elif tiny.family == "qwen2_5_vl":
        vision = {**QWEN2_5_VISION, **tiny.vision}
        config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens, **outer)
        model_class = transformers.Qwen2_5_VLForConditionalGeneration
    elif tiny.family == "internvl":
        inner = {**text, "model_type": "qwen2"}
        vision = {**INTERNVL_VISION, **tiny.vision}
        config = transformers.InternVLConfig(
            text_config=inner, vision_config=vision, image_token_id=IMAGE_TOKEN, **outer
        )
        model_class = transformers.InternVLForConditionalGeneration
    else:
        inner = {**text, "model_type": "llama"}
        vision = {**SMOLVLM_VISION, **tiny.vision}
        config = transformers.SmolVLMConfig(
            text_config=inner, vision_config=vision, image_token_id=IMAGE_TOKEN, **outer
        )
        model_class = transformers.SmolVLMForConditionalGeneration
    config._attn_implementation = "eager"
    torch.manual_seed(tiny.seed)
    model = model_class(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _randomise(name, parameter)
    return model


def _randomise(name: str, parameter: Any) -> None:
    """Zeros and ones would hide a bias, a norm or a scale that is not applied."""
    import torch

    if parameter.ndim == 1:
        parameter.add_(0.3 * torch.randn_like(parameter))
    elif "embed_tokens" in name or "position" in name or "pos_embed" in name or "cls_token" in name:
        parameter.copy_(0.6 * torch.randn_like(parameter))
    else:
        parameter.copy_(torch.randn_like(parameter) * 1.5 / parameter[0].numel() ** 0.5)
    parameter.copy_(parameter.to(torch.bfloat16).float())


def save(tiny: TinyVision, directory: Path) -> Any:
    """Write the checkpoint (weights as bf16, tokenizer) into `directory`; returns the float32 model."""
    import torch

    model = build(tiny)
    stored = copy.deepcopy(model).to(torch.bfloat16)  # a copy: casting also rounds the RoPE frequencies
    stored.save_pretrained(directory)
    write_tokenizer(directory, VOCAB)
    return model


def picture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A random picture, uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def encoder_input(meta: Any, pixels: np.ndarray) -> np.ndarray:
    """A picture as the encoder takes it: written here anew, from the published packages' description."""
    if meta.vision_input == "image_u8":
        return pixels[None]
    if meta.vision_input == "planes_fp32":
        return np.ascontiguousarray(normalised(meta, pixels).transpose(2, 0, 1)[None])
    side, merge = meta.patch_size, meta.merge
    result = []
    for top in range(0, pixels.shape[0], side * merge):
        for left in range(0, pixels.shape[1], side * merge):
            for y in range(top, top + side * merge, side):
                for x in range(left, left + side * merge, side):
                    patch = pixels[y : y + side, x : x + side].reshape(-1, 3)
                    result.append(np.concatenate([patch, patch]))
    return np.array(result)[None]


def normalised(meta: Any, pixels: np.ndarray) -> np.ndarray:
    mean, std = np.array(meta.pixel_mean, np.float32), np.array(meta.pixel_std, np.float32)
    return (pixels.astype(np.float32) / np.float32(255) - mean) / std


def reference(model: Any, meta: Any, pixels: np.ndarray) -> list[np.ndarray]:
    """What transformers' tower makes of a picture: the tokens, then what is added after the first layers."""
    import torch

    values = torch.tensor(normalised(meta, pixels).transpose(2, 0, 1))
    with torch.no_grad():
        if not meta.vision_input.startswith("patches"):
            given = values[None, None] if "smolvlm" in meta.vision_kind else values[None]
            found = model.model.get_image_features(given, return_dict=True, **_layers(model)).pooler_output
            return [(found if isinstance(found, torch.Tensor) else torch.stack(list(found))).reshape(-1, 64).numpy()]
        grid = torch.tensor([[1, meta.image_rows, meta.image_cols]])
        found = model.model.visual(_as_patches(meta, values), grid)
        deep = getattr(found, "deepstack_features", None) or []
        return [found.pooler_output.numpy(), *(feature.numpy() for feature in deep)]


def _as_patches(meta: Any, values: Any) -> Any:
    """A picture [3, H, W] as transformers' processor of Qwen's models has it: rows of channel, frame, row, column."""
    import torch

    side, merge, (rows, cols) = meta.patch_size, meta.merge, (meta.image_rows, meta.image_cols)
    blocks = torch.stack([values, values]).reshape(2, 3, rows // merge, merge, side, cols // merge, merge, side)
    return blocks.permute(2, 5, 3, 6, 1, 0, 4, 7).reshape(rows * cols, -1)


def _layers(model: Any) -> dict[str, Any]:
    if model.config.model_type != "internvl":
        return {}
    return {"vision_feature_layer": -1, "vision_feature_select_strategy": "default"}


def grid_of(meta: Any) -> tuple[int, int]:
    """Rows and columns of a picture's tokens."""
    return meta.image_rows // meta.merge, meta.image_cols // meta.merge


def logits(model: Any, meta: Any, prompt: Any, pixels: Sequence[np.ndarray], answer: list[int]) -> np.ndarray:
    """transformers' logits of a prompt with pictures and the tokens after it, float32 [n, vocab]."""
    import torch

    ids = torch.tensor([[*prompt.ids, *answer]])
    values = [torch.tensor(normalised(meta, each).transpose(2, 0, 1)) for each in pixels]
    given: dict[str, Any] = {}
    if meta.vision_input.startswith("patches"):
        given["pixel_values"] = torch.cat([_as_patches(meta, each) for each in values])
        given["image_grid_thw"] = torch.tensor([[1, meta.image_rows, meta.image_cols]] * len(values))
        places = prompt.positions(3)
        after = places.max() + 1 + np.arange(len(answer))
        given["position_ids"] = torch.tensor(np.concatenate([places, np.tile(after, (3, 1))], 1)[:, None])
    else:
        stacked = torch.stack(values)
        given["pixel_values"] = stacked[None] if "smolvlm" in meta.vision_kind else stacked
    with torch.no_grad():
        return model(ids, use_cache=True, **given).logits[0].numpy()
