"""Which file is a package's vision encoder, and of which family, by what is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from axpress.core.errors import PackageError
from axpress.core.model_files.package_config import PackageConfig
from axpress.core.model_files.vision_files import find_vision


def found(folder: Path, files: list[str], values: dict[str, Any] | None = None, *names: str) -> tuple[str, str] | None:
    """Kind and name of the encoder of a package with these files beside its layers, and this configuration."""
    for name in files:
        (folder / name).touch()
    config = PackageConfig(folder / "config.json", values or {})
    vision = find_vision(config, [], names, [folder / name for name in files])
    return None if vision is None else (vision.kind, vision.encoder.name)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (1, "qwen2_5_vl"), (2, "qwen3_vl"), ("3", "internvl3"), (5, "smolvlm2"), ("Qwen3VL", "qwen3_vl"),
        ("Qwen2_5VL", "qwen2_5_vl"), ("InternVL3", "internvl3"), ("SmolVLM2", "smolvlm2"),
    ],
)  # fmt: skip
def test_the_family_that_a_configuration_names(tmp_path: Path, said: object, kind: str) -> None:
    values = {"vlm_type": said, "filename_image_encoder_axmodel": "eyes.axmodel"}
    assert found(tmp_path, ["eyes.axmodel"], values) == (kind, "eyes.axmodel")
    values = {"vlm_type": said, "filename_image_encoder_axmodedl": "eyes.axmodel"}  # as it was spelled once
    assert found(tmp_path, ["eyes.axmodel"], values) == (kind, "eyes.axmodel")


@pytest.mark.parametrize("said", [4, 6, "FastVLM", "PaddleOCRVL", "MiniCPMV46VL", "Gemma4VL"])
def test_families_that_are_not_served(tmp_path: Path, said: object) -> None:
    assert found(tmp_path, ["qwen3_vl_vision.axmodel"], {"vlm_type": said}, "qwen3_vl_text") is None


def test_names_tell_where_nothing_else_does(tmp_path: Path) -> None:
    assert found(tmp_path, ["a_vision.axmodel", "a_post.axmodel"], None, "qwen3_vl_text") == (
        "qwen3_vl", "a_vision.axmodel",
    )  # fmt: skip
    assert found(tmp_path, ["a_vision.axmodel"], None, "llama_p128") is None
    assert found(tmp_path, ["whisper_encoder.axmodel"], None, "qwen3_vl_text") is None


def test_of_several_encoders_one_is_to_be_named(tmp_path: Path) -> None:
    two = ["m_vision_nchw448.axmodel", "m_vision_nhwc.axmodel"]
    assert found(tmp_path, two, None, "qwen2_5_vl") == ("qwen2_5_vl", two[1])
    more = ["m_vision_384.axmodel", "m_vision_448.axmodel"]
    with pytest.raises(PackageError, match=r"several vision encoders \(m_vision_384.axmodel, m_vision_448.axmodel\)"):
        found(tmp_path, more, None, "qwen2_5_vl")
    with pytest.raises(PackageError, match=r"filename_image_encoder_axmodel = gone.axmodel: .* is missing"):
        found(tmp_path, more, {"filename_image_encoder_axmodel": "gone.axmodel", "vlm_type": 1})
