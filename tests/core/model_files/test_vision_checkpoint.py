"""`axpress convert` of checkpoints with eyes: names and keys as published, what is refused, positions by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_vision_models import CASES, TinyVision, save

from axpress.core.errors import PackageError
from axpress.core.model_files.convert import convert
from axpress.core.model_files.hf_checkpoint import _called_here
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.model_package import open_package
from axpress.core.model_files.safetensors import SafetensorsFile, array_source, write_safetensors
from axpress.core.model_files.simulated_axmodel import device_bytes, published_bytes, read_axmodel
from axpress.core.model_files.vision_axmodel import VisionMeta, read_encoder, write_encoder
from axpress.core.model_files.vision_checkpoint import text_config
from axpress.core.model_files.vision_positions import nearest, stretched

pytest.importorskip("torch", reason="the checkpoints are transformers' own")
FIRST = {tiny.family: tiny for tiny in reversed(CASES)}
LAYOUT = {  # layer 0, head, encoder, vlm_type, as published packages have them
    "qwen3_vl": ("qwen3_vl_text_p16_l0_together", "qwen3_vl_text_post", "tiny_vision.axmodel", "Qwen3VL"),
    "qwen2_5_vl": ("qwen2_5_vl_p16_l0_together", "qwen2_5_vl_post", "tiny_vision_nhwc.axmodel", "Qwen2_5VL"),
    "internvl": ("qwen2_p16_l0_together", "qwen2_post", "tiny_vit.axmodel", "InternVL3"),
    "smolvlm": ("llama_p16_l0_together", "llama_post", "vit_model/vision_model.axmodel", "SmolVLM2"),
}
GROUPS: dict[str, Any] = {"rows": 63, "chunk": 16, "history": (0, 16), "name": "tiny", "progress": False}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A checkpoint of a family, made once."""
    base = tmp_path_factory.mktemp("eyes")

    def made(family: str) -> Path:
        if not (base / family).exists():
            save(FIRST[family], base / family)
        return base / family

    return made


def size_of(tiny: TinyVision) -> dict[str, Any]:
    return {"image_size": tiny.image_size}


@pytest.mark.parametrize("family", LAYOUT)
def test_packages_are_laid_out_as_published(checkpoints: Callable[[str], Path], family: str, tmp_path: Path) -> None:
    layer, head, encoder, vlm_type = LAYOUT[family]
    out = convert(checkpoints(family), tmp_path / "out", weights="int8", **size_of(FIRST[family]), **GROUPS)
    config = json.loads((out / "config.json").read_text())
    assert config["vlm_type"] == config["tokenizer_type"] == vlm_type
    assert config["filename_image_encoder_axmodel"] == encoder
    meta = read_encoder(out / encoder)[0]
    told = {"kind": meta.vision_kind, "image_size": list(meta.image_size), "tokens": meta.num_tokens}
    assert config["axpress"]["vision"] == told
    package = open_package(out)
    assert package.layer_files[0].stem == layer and package.head_file.stem == head
    assert package.vision is not None and package.vision.encoder == out.resolve() / encoder
    assert package.vision.kind == meta.vision_kind
    text = read_axmodel(package.layer_files[0])[0]
    axes = {"qwen3_vl": ((4, 2, 2), True), "qwen2_5_vl": ((4, 2, 2), False)}
    assert (text.rope_sections, text.rope_interleaved) == axes.get(family, ((), False))
    assert {info.dtype for info in read_encoder(out / encoder)[1].tensors.values()} <= {"BF16", "F32"}
    sizes = (out / encoder).stat().st_size
    assert device_bytes(out / encoder) == published_bytes(out / encoder) == sizes


def test_an_encoder_that_stays_away_is_named(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    out = convert(checkpoints("smolvlm"), tmp_path / "out", **GROUPS)
    (out / "vit_model" / "vision_model.axmodel").unlink()
    with pytest.raises(PackageError, match=r"vision_model\.axmodel"):
        open_package(out)


def edited(source: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A checkpoint with another config.json."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).symlink_to(path)
    config = json.loads((source / "config.json").read_text())
    change(config)
    (target / "config.json").unlink()
    (target / "config.json").write_text(json.dumps(config))
    return target


REFUSED: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "no eyes": ("qwen3_vl", lambda c: c.pop("vision_config"), "no vision_config"),
    "no text": ("internvl", lambda c: c.pop("text_config"), "no text_config"),
    "sections": ("qwen3_vl", lambda c: c["text_config"]["rope_parameters"].update(mrope_section=[4, 2, 1]),
                 r"mrope_section \[4, 2, 1\] for 8 pairs"),
    "activation": ("smolvlm", lambda c: c["vision_config"].update(hidden_act="tanh"), "activation 'tanh'"),
    "norm of heads": ("internvl", lambda c: c["vision_config"].update(use_qk_norm=True), "use_qk_norm is True"),
    "no such block": ("qwen2_5_vl", lambda c: c["vision_config"].update(depth=4), "blocks.3.norm1.weight"),
    "fewer blocks": ("smolvlm", lambda c: c["vision_config"].update(num_hidden_layers=1), "tensors that a plain"),
    "another width": ("qwen3_vl", lambda c: c["vision_config"].update(intermediate_size=64), "linear_fc1.weight"),
    "quantised": ("qwen3_vl", lambda c: c.update(quantization_config={"quant_method": "gptq"}), "gptq"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_named(checkpoints: Callable[[str], Path], case: str, tmp_path: Path) -> None:
    family, change, sentence = REFUSED[case]
    source = edited(checkpoints(family), tmp_path / "hf", change)
    with pytest.raises(PackageError, match=sentence):
        convert(source, tmp_path / "out", **size_of(FIRST[family]), **GROUPS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("family", "options", "sentence"),
    [
        ("qwen3_vl", {"image_size": 40}, "no multiple of 16"),
        ("internvl", {"image_size": 64}, "not 64"),
        ("qwen2_5_vl", {"image_size": 56, "image_input": "float32"}, "--image-input float32"),
    ],
)
def test_sizes_that_an_encoder_cannot_have_are_refused(
    checkpoints: Callable[[str], Path], family: str, options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(PackageError, match=sentence):
        convert(checkpoints(family), tmp_path / "out", **options, **GROUPS)


def test_older_configurations_have_the_text_part_beside_the_eyes() -> None:
    config = {
        "model_type": "qwen2_5_vl", "hidden_size": 64, "rope_theta": 1e6, "eos_token_id": 5, "image_token_id": 7,
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 2, 2]}, "vision_config": {"depth": 2},
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    }  # fmt: skip
    text, sections = text_config(config, "config.json")
    assert sections == (4, 2, 2)
    assert text["model_type"] == "qwen2" and text["eos_token_id"] == 5 and text["rope_parameters"] == {}
    assert not {"vision_config", "image_token_id", "architectures", "rope_scaling"} & text.keys()


PARTS = ("visual", "vision_tower", "vision_model", "multi_modal_projector", "connector")
EYES = tuple(f"model.{part}." for part in PARTS)
OLDER_NAMES: dict[str, dict[str, str]] = {  # as published files have them: as transformers 5 writes them
    "qwen3_vl": {},
    "qwen2_5_vl": {"model.language_model.": "model.", "model.visual.": "visual."},
    "internvl": {
        "model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head.",
        "model.vision_tower.": "vision_tower.", "model.multi_modal_projector.": "multi_modal_projector.",
    },
    "smolvlm": {},
}  # fmt: skip


@pytest.mark.parametrize("family", OLDER_NAMES)
def test_names_of_published_files_are_known(checkpoints: Callable[[str], Path], family: str, tmp_path: Path) -> None:
    source = edited(checkpoints(family), tmp_path / "hf", lambda config: None)
    stored = SafetensorsFile(source / "model.safetensors")
    ours = {_called_here(name): name for name in stored.tensors}  # whichever way they were saved
    assert all(name.startswith(("model.", "lm_head.")) for name in ours)
    inner = {name: f"model.language_model.{name.removeprefix('model.')}" for name in ours if not name.startswith(EYES)}
    full = {name: name if name.startswith("lm_head.") else inner.get(name, name) for name in ours}
    if family == "smolvlm":
        full = {name: new.replace("language_model", "text_model") for name, new in full.items()}
    for before, after in OLDER_NAMES[family].items():
        full = {name: after + new.removeprefix(before) if new.startswith(before) else new for name, new in full.items()}
    tensors = {full[name]: array_source(stored.array(theirs).copy()) for name, theirs in ours.items()}
    (source / "model.safetensors").unlink()
    write_safetensors(source / "model.safetensors", {"format": "pt"}, tensors)
    options = {**size_of(FIRST[family]), **GROUPS}
    packages = [convert(checkpoints(family), tmp_path / "one", **options), convert(source, tmp_path / "two", **options)]
    first, second = ({p.relative_to(out): p.read_bytes() for p in out.rglob("*.*") if p.is_file()} for out in packages)
    assert first == second


def test_dynamic_scaling_is_none_within_the_context(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    def scale(config: dict[str, Any]) -> None:
        config["text_config"]["rope_scaling"] = {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}

    outs = [convert(checkpoints("internvl"), tmp_path / "plain", **GROUPS)]
    outs += [convert(edited(checkpoints("internvl"), tmp_path / "hf", scale), tmp_path / "scaled", **GROUPS)]
    layers = [(out / "qwen2_p16_l0_together.axmodel").read_bytes() for out in outs]
    assert layers[0] == layers[1]


def meta_of(rows: int, cols: int, merge: int) -> VisionMeta:
    sizes: dict[str, Any] = {"layers": 1, "hidden": 1, "heads": 1, "head_dim": 4, "ffn": 1, "out_hidden": 1}
    return VisionMeta(
        "qwen3_vl", "patches_u8", norm="layer", activation="gelu", image_rows=rows, image_cols=cols, patch_size=1,
        merge=merge, merger_norm="none", **sizes,
    )  # fmt: skip


def test_positions_are_stretched_corner_on_corner() -> None:
    table = np.arange(9, dtype=np.float32)[:, None]  # 3 x 3: 3 rows + 1 column
    found = stretched(table, 3, meta_of(4, 2, 2))[:, 0].reshape(2, 2, 2)  # squares of two rows by two columns
    columns = np.array([0.0, 2.0])
    rows = np.array([0, 2 / 3, 4 / 3, 2]) * 3
    expected = (rows[:, None] + columns).reshape(2, 2, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_nearest_position_is_the_one_below() -> None:
    table = np.arange(16, dtype=np.float32)[:, None]
    assert nearest(table, 4, meta_of(2, 2, 1))[:, 0].tolist() == [0, 2, 8, 10]
    assert nearest(table, 4, meta_of(4, 4, 1))[:, 0].tolist() == list(range(16))


def test_a_hollow_package_has_its_encoder(tmp_path: Path) -> None:
    package = open_package(hollow("qwen3-vl-2b-w8a16-pi5", tmp_path / "out"))
    assert package.vision is not None and package.vision.kind == "qwen3_vl"
    meta = read_encoder(package.vision.encoder)[0]
    assert (meta.image_size, meta.num_tokens, len(meta.deepstack), meta.out_hidden) == ((384, 384), 144, 3, 2048)
    assert meta.cost_encoder_us == 192_000
    assert published_bytes(package.vision.encoder) == 407_000_000
    layer = read_axmodel(package.layer_files[0])[0]
    assert layer.rope_sections == (24, 20, 20) and layer.rope_interleaved


def test_damage_is_named(tmp_path: Path) -> None:
    meta = meta_of(2, 2, 2)
    write_encoder(tmp_path / "sound.axmodel", meta, {})
    assert read_encoder(tmp_path / "sound.axmodel")[0] == meta
    raw = (tmp_path / "sound.axmodel").read_bytes()
    for before, after, sentence in (
        (b'"hidden":"1"', b'"hidden":"x"', "hidden is 'x'"),
        (b'"kind":"vision"', b'"kind":"layers"', "not a simulated vision encoder"),
        (b'"image_rows"', b'"image_raws"', "lacks 'image_rows'"),
    ):
        assert before in raw
        (tmp_path / "damaged.axmodel").write_bytes(raw.replace(before, after))
        with pytest.raises(PackageError, match=sentence):
            read_encoder(tmp_path / "damaged.axmodel")
