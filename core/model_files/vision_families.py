"""The families of models with eyes: what their configurations and tensors are called. What these do is told by
VisionMeta alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import PackageError
from . import vision_positions
from .safetensors import TensorSource, array_source
from .vision_axmodel import IMAGE, PATCHES, VisionMeta
from .vision_tower import Tower

Config = Mapping[str, Any]
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
TOWER, SMOL, QWEN = "model.vision_tower.", "model.vision_model.", "model.visual."


@dataclass(frozen=True, slots=True)
class Family:
    """`kind` is ours (vision_kind), `vlm_type` the published configuration's; `prefix` and `encoder` name files.
    `text_type`: the text part's model_type where its own configuration calls it otherwise. `sections`: pairs of a
    head that turn by each axis where nothing is said; empty: positions have one axis. `describe` makes VisionMeta of
    the vision_config with its defaults, the whole configuration and the picture's size; `tensors` the file's."""

    kind: str
    vlm_type: str
    prefix: str
    encoder: str
    image_size: int
    pixels: tuple[tuple[float, ...], tuple[float, ...]]
    defaults: Config
    describe: Callable[[Family, Config, Config, int], VisionMeta]
    tensors: Callable[[Tower], dict[str, TensorSource]]
    text_type: str = ""
    text_defaults: Config = field(default_factory=dict)
    sections: tuple[int, ...] = ()
    interleaved: bool = False


# ---- Qwen3-VL and Qwen2.5-VL ----------------------------------------------------------------------------------------


def _qwen3(family: Family, vision: Config, config: Config, size: int) -> VisionMeta:
    merge, hidden = vision["spatial_merge_size"], vision["hidden_size"]
    return VisionMeta(
        norm="layer",
        activation=_activation(vision["hidden_act"]),
        merger_norm="token",
        merger_hidden=hidden * merge**2,
        out_hidden=vision["out_hidden_size"],
        frames=vision["temporal_patch_size"],
        deepstack=tuple(vision["deepstack_visual_indexes"]),
        **_sizes(family, vision, size, merge, PATCHES),
    )


def _qwen3_tensors(tower: Tower) -> dict[str, TensorSource]:
    meta = tower.meta
    group, mergers = meta.merger_hidden, [f"{QWEN}merger."]
    deep = [f"{QWEN}deepstack_merger_list.{number}." for number in range(len(meta.deepstack))]
    side = int(tower.config["num_position_embeddings"] ** 0.5)
    table = tower.floats(f"{QWEN}pos_embed.weight", side * side, meta.hidden)
    names = {"input_norm": "norm1.weight", "input_norm_bias": "norm1.bias", "post_norm": "norm2.weight"}
    names |= {"post_norm_bias": "norm2.bias", "o": "attn.proj.weight", "o_bias": "attn.proj.bias"}
    names |= {"up": "mlp.linear_fc1.weight", "up_bias": "mlp.linear_fc1.bias"}
    names |= {"down": "mlp.linear_fc2.weight", "down_bias": "mlp.linear_fc2.bias"}
    tensors = tower.blocks(QWEN + "blocks.{}.", names, {"weight": "attn.qkv.weight", "bias": "attn.qkv.bias"})
    tensors |= {
        "patch": tower.patches(f"{QWEN}patch_embed.proj.weight"),
        "patch_bias": tower.one(f"{QWEN}patch_embed.proj.bias", meta.hidden),
        "positions": array_source(vision_positions.stretched(table, side, meta)),
        "inv_freq": array_source(vision_positions.frequencies(meta.head_dim, tower.config)),
        "merge_norm": tower.one(f"{QWEN}merger.norm.weight", meta.hidden),
        "merge_norm_bias": tower.one(f"{QWEN}merger.norm.bias", meta.hidden),
    }
    if deep:
        tensors["deep_norm"] = tower.rows([f"{name}norm.weight" for name in deep], 1, group)
        tensors["deep_norm_bias"] = tower.rows([f"{name}norm.bias" for name in deep], 1, group)
    return tensors | tower.merger([*mergers, *deep], "linear_fc1", "linear_fc2")


def _qwen2_5(family: Family, vision: Config, config: Config, size: int) -> VisionMeta:
    merge, hidden = vision["spatial_merge_size"], vision["hidden_size"]
    sizes = _sizes(family, vision, size, merge, PATCHES)
    return VisionMeta(
        norm="rms",
        activation=_activation(vision["hidden_act"]),
        merger_norm="token",
        merger_hidden=hidden * merge**2,
        out_hidden=vision["out_hidden_size"],
        frames=vision["temporal_patch_size"],
        window=vision["window_size"] // merge // sizes["patch_size"],
        full_blocks=tuple(block for block in vision["fullatt_block_indexes"] if block < sizes["layers"]),
        **sizes,
    )


def _qwen2_5_tensors(tower: Tower) -> dict[str, TensorSource]:
    names = {"input_norm": "norm1.weight", "post_norm": "norm2.weight"}
    names |= {"o": "attn.proj.weight", "o_bias": "attn.proj.bias"}
    names |= {ours: f"mlp.{ours}_proj.weight" for ours in ("gate", "up", "down")}
    names |= {f"{ours}_bias": f"mlp.{ours}_proj.bias" for ours in ("gate", "up", "down")}
    tensors = tower.blocks(QWEN + "blocks.{}.", names, {"weight": "attn.qkv.weight", "bias": "attn.qkv.bias"})
    tensors |= {
        "patch": tower.patches(f"{QWEN}patch_embed.proj.weight"),
        "inv_freq": array_source(vision_positions.frequencies(tower.meta.head_dim, tower.config)),
        "merge_norm": tower.one(f"{QWEN}merger.ln_q.weight", tower.meta.hidden),
    }
    return tensors | tower.merger([f"{QWEN}merger."], "mlp.0", "mlp.2")


# ---- InternVL3 and SmolVLM2 -----------------------------------------------------------------------------------------


def _internvl(family: Family, vision: Config, config: Config, size: int) -> VisionMeta:
    merge = round(1 / config.get("downsample_ratio", 0.5))
    wanted = {"use_qk_norm": False, "norm_type": "layer_norm", "use_absolute_position_embeddings": True}
    _refuse_others(vision, wanted)
    wanted = {"projector_hidden_act": "gelu", "vision_feature_layer": -1, "vision_feature_select_strategy": "default"}
    _refuse_others({**wanted, **config}, wanted)
    if [size, size] != list(pair(vision["image_size"])):
        raise PackageError(f"an InternVL3's pictures have {vision['image_size']} pixels a side, not {size}")
    text = config["text_config"]["hidden_size"]
    return VisionMeta(
        norm="layer",
        activation=_activation(vision["hidden_act"]),
        merger_norm="group",
        merger_hidden=text,
        merger_eps=1e-5,
        out_hidden=text,
        **_sizes(family, vision, size, merge, IMAGE),
    )


def _internvl_tensors(tower: Tower) -> dict[str, TensorSource]:
    meta, below = tower.meta, TOWER + "embeddings."
    group, projector = meta.hidden * meta.merge**2, "model.multi_modal_projector."
    patches = meta.image_rows * meta.image_cols
    places = tower.floats(f"{below}position_embeddings", patches + 1, meta.hidden)
    first = tower.floats(f"{below}cls_token", meta.hidden) + places[0]
    names = {"input_norm": "layernorm_before.weight", "input_norm_bias": "layernorm_before.bias"}
    names |= {"post_norm": "layernorm_after.weight", "post_norm_bias": "layernorm_after.bias"}
    names |= {ours: f"attention.{ours}_proj.weight" for ours in "qkv"}
    names |= {f"{ours}_bias": f"attention.{ours}_proj.bias" for ours in "qkv"}
    names |= {"o": "attention.projection_layer.weight", "o_bias": "attention.projection_layer.bias"}
    names |= {"up": "mlp.fc1.weight", "up_bias": "mlp.fc1.bias", "down": "mlp.fc2.weight", "down_bias": "mlp.fc2.bias"}
    names |= {"attention_out_scale": "lambda_1", "ffn_out_scale": "lambda_2"}
    tensors = tower.blocks(TOWER + "encoder.layer.{}.", names)
    tensors |= {
        "patch": tower.patches(f"{below}patch_embeddings.projection.weight"),
        "patch_bias": tower.one(f"{below}patch_embeddings.projection.bias", meta.hidden),
        "positions": array_source(vision_positions.by_squares(places[1:], meta)),
        "class": array_source(first),
        "merge_norm": tower.one(f"{projector}layer_norm.weight", group),
        "merge_norm_bias": tower.one(f"{projector}layer_norm.bias", group),
    }
    if not tower.config["use_mean_pooling"]:
        tensors["norm"] = tower.one(f"{TOWER}layernorm.weight", meta.hidden)
        tensors["norm_bias"] = tower.one(f"{TOWER}layernorm.bias", meta.hidden)
    return tensors | tower.merger([projector], "linear_1", "linear_2")


def _smolvlm(family: Family, vision: Config, config: Config, size: int) -> VisionMeta:
    merge = config.get("scale_factor", 2)
    return VisionMeta(
        norm="layer",
        activation=_activation(vision["hidden_act"]),
        merger_norm="none",
        out_hidden=config["text_config"]["hidden_size"],
        **_sizes(family, vision, size, merge, IMAGE),
    )


def _smolvlm_tensors(tower: Tower) -> dict[str, TensorSource]:
    meta = tower.meta
    side = pair(tower.config["image_size"])[0] // meta.patch_size
    table = tower.floats(f"{SMOL}embeddings.position_embedding.weight", side * side, meta.hidden)
    names = {"input_norm": "layer_norm1.weight", "input_norm_bias": "layer_norm1.bias"}
    names |= {"post_norm": "layer_norm2.weight", "post_norm_bias": "layer_norm2.bias"}
    names |= {ours: f"self_attn.{ours}_proj.weight" for ours in "qkv"} | {"o": "self_attn.out_proj.weight"}
    names |= {f"{ours}_bias": f"self_attn.{ours}_proj.bias" for ours in "qkv"} | {"o_bias": "self_attn.out_proj.bias"}
    names |= {"up": "mlp.fc1.weight", "up_bias": "mlp.fc1.bias", "down": "mlp.fc2.weight", "down_bias": "mlp.fc2.bias"}
    group = meta.hidden * meta.merge**2
    return tower.blocks(SMOL + "encoder.layers.{}.", names) | {
        "patch": tower.patches(f"{SMOL}embeddings.patch_embedding.weight"),
        "patch_bias": tower.one(f"{SMOL}embeddings.patch_embedding.bias", meta.hidden),
        "positions": array_source(vision_positions.nearest(table, side, meta)),
        "norm": tower.one(f"{SMOL}post_layernorm.weight", meta.hidden),
        "norm_bias": tower.one(f"{SMOL}post_layernorm.bias", meta.hidden),
        "merge_out": tower.one("model.connector.modality_projection.proj.weight", meta.out_hidden, group),
    }


# ---- what they share ------------------------------------------------------------------------------------------------


def _sizes(family: Family, vision: Config, size: int, merge: int, pixels: str) -> dict[str, Any]:
    """The fields of VisionMeta that all families have."""
    heads = vision.get("num_heads", vision.get("num_attention_heads"))
    patch = pair(vision["patch_size"])[0]
    if size % (patch * merge):
        raise PackageError(
            f"--image-size {size} is no multiple of {patch * merge}, the side of a {family.kind} encoder's token"
        )
    if vision["hidden_size"] % heads:
        raise PackageError(f"a vision_config of {vision['hidden_size']} channels cannot have {heads} heads")
    return {
        "vision_kind": family.kind,
        "vision_input": pixels,
        "layers": vision.get("depth", vision.get("num_hidden_layers")),
        "hidden": vision["hidden_size"],
        "heads": heads,
        "head_dim": vision["hidden_size"] // heads,
        "ffn": vision["intermediate_size"],
        "image_rows": size // patch,
        "image_cols": size // patch,
        "patch_size": patch,
        "merge": merge,
        "rms_eps": vision.get("layer_norm_eps", 1e-6),
    }


def _activation(name: str) -> str:
    known = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "silu": "silu"}
    if name not in known:
        raise PackageError(f"the vision_config uses the activation {name!r}, known are {', '.join(known)}")
    return known[name]


def _refuse_others(config: Config, wanted: Config) -> None:
    for key, value in wanted.items():
        if config[key] != value:
            raise PackageError(f"the model's {key} is {config[key]!r}, which is not supported (only {value!r} is)")


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width, of a configuration's value that may be one number for both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


QWEN3_VISION: Config = {
    "depth": 27, "hidden_size": 1152, "hidden_act": "gelu_pytorch_tanh", "intermediate_size": 4304, "num_heads": 16,
    "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 3584,
    "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24],
}  # fmt: skip
QWEN2_5_VISION: Config = {
    "depth": 32, "hidden_size": 3584, "hidden_act": "silu", "intermediate_size": 3420, "num_heads": 16,
    "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 3584, "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
INTERNVL_VISION: Config = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "attention_bias": False,
    "use_qk_norm": False, "intermediate_size": 4096, "hidden_act": "gelu", "norm_type": "layer_norm",
    "layer_norm_eps": 1e-6, "image_size": [448, 448], "patch_size": [14, 14], "use_mean_pooling": True,
    "use_absolute_position_embeddings": True,
}  # fmt: skip
SMOLVLM_VISION: Config = {
    "hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 32, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
}  # fmt: skip

FAMILIES: Mapping[str, Family] = {  # by the model_type of a checkpoint
    "qwen3_vl": Family(
        "qwen3_vl", "Qwen3VL", "qwen3_vl_text", "{}_vision.axmodel", 384, HALF, QWEN3_VISION, _qwen3, _qwen3_tensors,
        "qwen3", {"rms_norm_eps": 1e-6, "rope_theta": 5e5}, (24, 20, 20), True,
    ),
    "qwen3_5": Family(  # its text part: qwen3_5.py
        "qwen3_vl", "Qwen3VL", "qwen3_5_text", "qwen3_5_vision.axmodel", 384, HALF,
        {**QWEN3_VISION, "deepstack_visual_indexes": []}, _qwen3, _qwen3_tensors, "qwen3_5_text",
    ),
    "qwen2_5_vl": Family(
        "qwen2_5_vl", "Qwen2_5VL", "qwen2_5_vl", "{}_vision_nhwc.axmodel", 448, CLIP, QWEN2_5_VISION, _qwen2_5,
        _qwen2_5_tensors, "qwen2", {"rms_norm_eps": 1e-5, "rope_theta": 1e6}, (16, 24, 24),
    ),
    "internvl": Family(
        "internvl3", "InternVL3", "", "{}_vit.axmodel", 448, IMAGENET, INTERNVL_VISION, _internvl, _internvl_tensors,
    ),
    "smolvlm": Family(
        "smolvlm2", "SmolVLM2", "", "vit_model/vision_model.axmodel", 512, HALF, SMOLVLM_VISION, _smolvlm,
        _smolvlm_tensors,
    ),
}  # fmt: skip
