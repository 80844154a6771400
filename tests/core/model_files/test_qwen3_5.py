"""Qwen3.5's checkpoints: which layers are recurrent, what becomes of their tensors, and packages of hybrids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_packages import build_entry, published
from tiny_models import QWEN3_5, Tiny, convert_tiny, hf_config, write_checkpoint

from axpress.core.errors import PackageError
from axpress.core.model_files.convert import convert
from axpress.core.model_files.model_package import inspect_package, open_package
from axpress.core.model_files.safetensors import SafetensorsFile, TensorSource, write_safetensors
from axpress.core.model_files.simulated_axmodel import read_axmodel

TINY = Tiny(QWEN3_5, layers=4, sections=(2, 1, 1), head_dim=16)
LAYER = "qwen3_5_text_p16_l{}_together.axmodel"


TOWER = {"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4, "out_hidden_size": 64,
         "num_position_embeddings": 16}  # fmt: skip


def tower_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the smallest vision tower."""
    sides = {"norm1": (16,), "norm2": (16,), "attn.qkv": (48, 16), "attn.proj": (16, 16), "mlp.linear_fc1": (24, 16)}
    parts = {f"blocks.0.{name}": shape for name, shape in (sides | {"mlp.linear_fc2": (16, 24)}).items()}
    parts |= {"merger.norm": (16,), "merger.linear_fc1": (64, 64), "merger.linear_fc2": (64, 64)}
    shapes: dict[str, tuple[int, ...]] = {"pos_embed.weight": (16, 16), "patch_embed.proj.weight": (16, 3, 2, 4, 4)}
    shapes |= {f"{name}.weight": shape for name, shape in parts.items()} | {"patch_embed.proj.bias": (16,)}
    return shapes | {f"{name}.bias": shape[:1] for name, shape in parts.items()}


def with_vision(directory: Path, tensors: dict[str, np.ndarray]) -> Path:
    """The checkpoint as Qwen3_5ForConditionalGeneration is saved: other names, and other parts."""
    renamed = {name.replace("model.", "model.language_model.", 1): array for name, array in tensors.items()}
    renamed |= {f"model.visual.{name}": np.zeros(shape, np.uint16) for name, shape in tower_shapes().items()}
    renamed["mtp.fc.weight"] = np.zeros((2, 2), np.uint16)
    directory.mkdir()
    sources = {name: TensorSource("BF16", array.shape, lambda array=array: [array]) for name, array in renamed.items()}
    write_safetensors(directory / "model.safetensors", {"format": "pt"}, sources)
    text = hf_config(TINY) | {"model_type": QWEN3_5}
    text.pop("architectures")
    config = {"model_type": "qwen3_5", "architectures": ["Qwen3_5ForConditionalGeneration"], "text_config": text}
    config |= {"vision_config": TOWER, "image_token_id": 380, "tie_word_embeddings": TINY.tied}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_tiny(tmp_path_factory.mktemp("tiny"), TINY, rows=64, chunk=16)


def test_files_and_configuration_are_as_published(package: Path) -> None:
    names = {path.name for path in package.iterdir()}
    assert {LAYER.format(layer) for layer in range(4)} | {"qwen3_5_text_post.axmodel"} <= names
    config = json.loads((package / "config.json").read_text())
    assert config["template_filename_axmodel"] == LAYER.format("%d")
    assert config["tokenizer_type"] == "Qwen3_5VL" and "vlm_type" not in config
    assert config["layer_types"] == TINY.kinds and config["full_attention_interval"] == 3
    opened = open_package(package)
    assert opened.recurrent == (True, True, False, True) and opened.family == QWEN3_5
    assert (opened.rows, opened.chunk) == (64, 16)


def test_tensors_lie_as_the_card_reads_them(package: Path) -> None:
    stored = SafetensorsFile(package.parent / "hf" / "model.safetensors")
    recurrent, full = (read_axmodel(package / LAYER.format(layer)) for layer in (0, 2))
    meta, file = recurrent
    assert meta.recurrent and meta.state_shapes == ((1, 3, 160), (1, 4, 16, 24)) and not meta.gated
    convolution = stored.array("model.layers.0.linear_attn.conv1d.weight")
    np.testing.assert_array_equal(file.array("conv"), convolution[:, 0].T)
    decay = stored.array("model.layers.0.linear_attn.A_log").astype(np.uint32) << 16
    np.testing.assert_array_equal(file.array("a_log"), decay.view(np.float32))
    meta, file = full
    assert meta.gated and meta.rope_sections == (2, 1, 1) and meta.rope_interleaved
    queries = stored.array("model.layers.2.self_attn.q_proj.weight").reshape(4, 2, 16, 64)
    np.testing.assert_array_equal(file.array("q"), queries[:, 0].reshape(64, 64))
    np.testing.assert_array_equal(file.array("q_gate"), queries[:, 1].reshape(64, 64))
    assert file.array("inv_freq").shape == (4,), "half of 16 dimensions rotate, in pairs"


def test_the_text_part_of_a_checkpoint_with_eyes_is_the_same(package: Path, tmp_path: Path) -> None:
    tensors = write_checkpoint(TINY, tmp_path / "hf")
    source = with_vision(tmp_path / "eyes", tensors)
    for path in (tmp_path / "hf").glob("token*"):
        (source / path.name).write_bytes(path.read_bytes())
    out = convert(source, tmp_path / "out", rows=64, chunk=16, image_size=16, progress=False)
    for path in package.glob("*.*"):
        if path.name != "config.json":
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    config = json.loads((out / "config.json").read_text())
    assert (config["tokenizer_type"], config["vlm_type"]) == ("Qwen3_5VL", "Qwen3VL")
    assert config["axpress"]["left_out"] == ["mtp."]
    opened = open_package(out)
    assert opened.recurrent == (True, True, False, True)
    assert opened.vision is not None and opened.vision.encoder.name == "qwen3_5_vision.axmodel"


def test_int8_weights(tmp_path: Path) -> None:
    out = convert_tiny(tmp_path, TINY, rows=64, chunk=16, weights="int8")
    kinds = {name: info.dtype for name, info in read_axmodel(out / LAYER.format(0))[1].tensors.items()}
    assert {name for name, kind in kinds.items() if kind == "I8"} == {"qkv", "z", "o", "gate", "up", "down"}
    assert read_axmodel(out / LAYER.format(2))[1].tensors["q_gate"].dtype == "I8"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"layer_types": ["linear_attention"] * 3}, "layer_types of 3 layers, the model has 4"),
        ({"layer_types": ["linear_attention"] * 3 + ["mamba"]}, "mamba"),
        ({"layer_types": None, "full_attention_interval": "4"}, "full_attention_interval = '4'"),
        ({"linear_num_key_heads": 3}, "4 value heads, 3 key heads"),
        ({"linear_key_head_dim": 0}, "unusable sizes"),
        ({"linear_value_head_dim": 20}, r"layer 0 .*'qkv' has shape \[160, 64\]"),
        ({"head_dim": 32}, r"layer 2 .*shape"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
        ({"model_type": "qwen3_5"}, "no text_config"),
        ({"num_experts": 8}, "mixture of experts"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
    ],
)  # fmt: skip
def test_what_is_refused(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    write_checkpoint(TINY, tmp_path / "hf")
    path = tmp_path / "hf" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(PackageError, match=sentence):
        convert(tmp_path / "hf", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_layers_take_turns_where_nothing_lists_them(tmp_path: Path) -> None:
    write_checkpoint(
        Tiny(QWEN3_5, layers=4, layer_types=(*["linear_attention"] * 3, "full_attention")), tmp_path / "hf"
    )
    path = tmp_path / "hf" / "config.json"
    config = json.loads(path.read_text())
    del config["layer_types"]
    path.write_text(json.dumps(config))
    out = convert(tmp_path / "hf", tmp_path / "out", rows=64, chunk=16, progress=False)
    assert open_package(out).recurrent == (True, True, True, False)


def test_a_layer_of_another_size_is_named(package: Path, tmp_path: Path) -> None:
    write_checkpoint(TINY, tmp_path / "hf")
    tensors = SafetensorsFile(tmp_path / "hf" / "model.safetensors")
    names = [name for name in tensors.tensors if "layers.3" not in name]
    sources = {
        name: TensorSource("BF16", tensors.tensors[name].shape, lambda n=name: [tensors.array(n)]) for name in names
    }
    write_safetensors(tmp_path / "hf" / "other", {"format": "pt"}, sources)
    (tmp_path / "hf" / "other").replace(tmp_path / "hf" / "model.safetensors")
    with pytest.raises(PackageError, match=r"model\.layers\.3\.input_layernorm"):
        convert(tmp_path / "hf", tmp_path / "out", progress=False)


def published_entry(name: str) -> dict[str, Any]:
    return next(entry for entry in published() if entry["name"].startswith(name))


def test_a_published_hybrid_tells_its_layers_by_their_name(tmp_path: Path) -> None:
    """It has no key for them."""
    package, survey = inspect_package(build_entry(tmp_path, published_entry("Qwen3.5-2B")))
    assert package is not None, survey.problems
    assert package.recurrent == (True, True, True, False) * 6
    assert package.vision is not None and package.vision.encoder.name == "qwen3_5_vision.axmodel"


def test_a_published_hybrid_without_its_encoder_opens_too(tmp_path: Path) -> None:
    entry = published_entry("Qwen3.5-2B")
    config = {key: value for key, value in entry["config"].items() if "vlm" not in key and "image" not in key}
    files = [file for file in entry["files"] if "vision" not in file["path"]]
    package, survey = inspect_package(build_entry(tmp_path, entry | {"config": config, "files": files}))
    assert package is not None and package.vision is None, survey.problems
    assert package.recurrent == (True, True, True, False) * 6


def test_a_hybrid_with_another_encoder_is_told_by_what_it_is(tmp_path: Path) -> None:
    package, survey = inspect_package(build_entry(tmp_path, published_entry("MiniCPM-V-4.6")))
    assert package is None and "hybrid model with recurrent (linear attention) layers and vision" in survey.problems[0]
