"""Preprocessing, against transformers' own processors where they do the same; sizes, tokens, digests, prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pictures import file, picture

from axpress.core.errors import PackageError, RequestError
from axpress.core.vision import KINDS, EncoderInput, adapter_for

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
U8, F32 = np.dtype(np.uint8), np.dtype(np.float32)
ENCODERS = {
    "qwen3_vl": EncoderInput((16, 512, 3), U8),
    "qwen2_5_vl": EncoderInput((16, 392, 3), U8),
    "internvl3": EncoderInput((3, 56, 56), F32, 4),
    "smolvlm2": EncoderInput((64, 64, 3), U8, 4),
}


def test_every_family_has_its_encoder_here() -> None:
    assert ENCODERS.keys() == KINDS.keys()


def test_a_picture_is_stretched_to_the_encoder_bicubic() -> None:
    image = picture(90, 30)
    (stretched,) = adapter_for("qwen3_vl", ENCODERS["qwen3_vl"]).prepare(file(image))
    (same,) = adapter_for("qwen3_vl", ENCODERS["qwen3_vl"]).prepare(file(image.resize((64, 64), 3)))
    np.testing.assert_array_equal(stretched.pixels, same.pixels)
    assert stretched.digest == same.digest


def test_runs_are_those_of_transformers() -> None:
    """One test, since importing transformers takes longer than all else here."""
    for kind in ("qwen3_vl", "qwen2_5_vl"):
        _compare_patches(kind)
    _compare_internvl()
    for detail in ("auto", "low"):
        for size in ((100, 100), (200, 70), (70, 200), (130, 128), (30, 40), (1, 1), (300, 2)):
            _compare_tiles(size, detail)


def _compare_patches(kind: str) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    adapter = adapter_for(kind, ENCODERS[kind])
    patch, (side, _) = adapter.patch_size, adapter.size  # type: ignore[attr-defined]
    image = picture(side, side)  # of the encoder's size, since the vendor's resize keeps no proportions
    theirs = Qwen2VLImageProcessorPil(
        patch_size=patch, do_normalize=False, do_rescale=False, size={"shortest_edge": side**2, "longest_edge": side**2}
    )(image, return_tensors="np")
    expected = np.asarray(theirs["pixel_values"]).reshape(-1, 3, 2 * patch * patch).transpose(0, 2, 1)
    (ours,) = adapter.prepare(file(image))
    np.testing.assert_array_equal(ours.pixels, expected)
    assert tuple(theirs["image_grid_thw"][0]) == (1, 4, 4)
    assert (ours.grid, ours.num_tokens) == ((2, 2), 4)


def _compare_internvl() -> None:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    image = picture(90, 50)
    theirs = GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, image_mean=MEAN, image_std=STD)(
        image, return_tensors="np"
    )
    (ours,) = adapter_for("internvl3", ENCODERS["internvl3"]).prepare(file(image))
    np.testing.assert_allclose(ours.pixels, theirs["pixel_values"][0], atol=2e-6)


def _compare_tiles(size: tuple[int, int], detail: Any) -> None:
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    image = picture(*size)
    theirs = SmolVLMImageProcessorPil(
        size={"longest_edge": 128}, max_image_size={"longest_edge": 64}, do_normalize=False, do_rescale=False,
        do_image_splitting=detail != "low", return_row_col_info=True,
    )(image, return_tensors="np")  # fmt: skip
    runs = adapter_for("smolvlm2", ENCODERS["smolvlm2"]).prepare(file(image), detail)
    expected = theirs["pixel_values"][0].transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(np.stack([run.pixels for run in runs]), expected)
    told = "".join([run.before + "<image>" * run.num_tokens + run.after for run in runs])
    assert told == get_image_prompt_string(
        theirs["rows"][0][0], theirs["cols"][0][0], 4, image_token="<image>",
        fake_token_around_image="<fake_token_around_image>", global_image_token="<global-img>",
    )  # fmt: skip


def test_internvls_two_inputs_hold_the_same_picture() -> None:
    image = file(picture(90, 50))
    (ours,) = adapter_for("internvl3", ENCODERS["internvl3"]).prepare(image)
    (raw,) = adapter_for("internvl3", EncoderInput((56, 56, 3), U8, 4)).prepare(image)
    assert raw.pixels.shape == (56, 56, 3)
    np.testing.assert_allclose((raw.pixels / 255 - MEAN) / STD, ours.pixels.transpose(1, 2, 0), atol=1e-5)
    assert raw.digest != ours.digest


@pytest.mark.parametrize("kind", KINDS)
def test_digests_tell_pixels_and_families_apart(kind: str) -> None:
    adapter = adapter_for(kind, ENCODERS[kind])
    one, same, other = (adapter.prepare(file(picture(seed=seed)))[-1] for seed in (1, 1, 2))
    assert one.digest == same.digest != other.digest
    assert len(one.digest) == 16
    assert one.pixels.shape == ENCODERS[kind].shape
    assert one.pixels.dtype == ENCODERS[kind].dtype
    assert not one.pixels.flags.writeable


def test_the_same_pixels_for_another_family_have_another_digest() -> None:
    image = file(picture(56, 56))
    smol = adapter_for("smolvlm2", EncoderInput((56, 56, 3), U8, 4)).prepare(image, "low")
    intern = adapter_for("internvl3", EncoderInput((56, 56, 3), U8, 4)).prepare(image)
    assert smol[0].digest != intern[0].digest


def _spelled(text: str) -> list[int]:
    """A tokenizer: a token for each tag, 100 and more for other characters."""
    tags = ["<image>", "<fake_token_around_image>", "<global-img>", "<row_1_col_1>", "<row_1_col_2>", "<row_2_col_1>",
            "<row_2_col_2>"]  # fmt: skip
    ids = []
    while text:
        tag = next((tag for tag in tags if text.startswith(tag)), text[0])
        ids.append(tags.index(tag) if tag in tags else 100 + ord(tag))
        text = text.removeprefix(tag)
    return ids


def test_placeholders_become_all_tokens_of_their_pictures() -> None:
    adapter = adapter_for("smolvlm2", ENCODERS["smolvlm2"])
    pictures = [adapter.prepare(file(picture(100, 40))), adapter.prepare(file(picture(9, 9)), "low")]
    ids, images = adapter.expand([777, 0, 778, 0, 779], pictures, _spelled)
    text = (
        "<fake_token_around_image><row_1_col_1><image><image><image><image>"
        "<fake_token_around_image><row_1_col_2><image><image><image><image>\n"
        "\n<fake_token_around_image><global-img><image><image><image><image><fake_token_around_image>"
    )
    low = "<fake_token_around_image><global-img><image><image><image><image><fake_token_around_image>"
    assert ids == [777, *_spelled(text), 778, *_spelled(low), 779]
    assert [ids[image.start : image.start + image.num_tokens] for image in images] == [[0] * 4] * 4
    assert [image.digest for image in images] == [run.digest for runs in pictures for run in runs]
    assert [image.start for image in images] == sorted(image.start for image in images)


@pytest.mark.parametrize("ids", [[], [0, 0]])
def test_a_template_that_drops_or_doubles_a_picture_is_told(ids: list[int]) -> None:
    adapter = adapter_for("smolvlm2", ENCODERS["smolvlm2"])
    with pytest.raises(RequestError, match=f"shows {len(ids)} of the 1 pictures"):
        adapter.expand(ids, [adapter.prepare(file(picture()))], _spelled)


@pytest.mark.parametrize(
    ("kind", "encoder"),
    [
        ("qwen3_vl", EncoderInput((15, 512, 3), U8)),
        ("qwen3_vl", EncoderInput((16, 510, 3), U8)),
        ("qwen3_vl", EncoderInput((16, 512, 3), F32)),
        ("qwen3_vl", EncoderInput((16, 512, 3), U8, 16)),
        ("internvl3", EncoderInput((56, 56, 4), U8)),
        ("smolvlm2", EncoderInput((64, 32, 3), U8)),
        ("smolvlm2", EncoderInput((3, 64, 64), F32)),
        ("paddleocr", EncoderInput((64, 64, 3), U8)),
    ],
)
def test_other_encoders_are_refused(kind: str, encoder: EncoderInput) -> None:
    with pytest.raises(PackageError, match=r"known here|read here|one for four"):
        adapter_for(kind, encoder)


def test_an_encoders_input_is_told_by_shape_and_bytes() -> None:
    assert EncoderInput.of([1, 576, 512, 3], 576 * 512 * 3) == EncoderInput((576, 512, 3), U8)
    assert EncoderInput.of((1, 3, 448, 448), 4 * 3 * 448 * 448, 256) == EncoderInput((3, 448, 448), F32, 256)
    with pytest.raises(PackageError, match="neither uint8 nor float32"):
        EncoderInput.of((1, 3, 448, 448), 2 * 3 * 448 * 448)


def test_published_sizes_give_the_published_tokens() -> None:
    assert adapter_for("qwen3_vl", EncoderInput((576, 512, 3), U8)).size == (384, 384)
    assert adapter_for("qwen3_vl", EncoderInput((576, 512, 3), U8)).grid == (12, 12)
    assert adapter_for("qwen2_5_vl", EncoderInput((1024, 392, 3), U8)).size == (448, 448)
    assert adapter_for("qwen2_5_vl", EncoderInput((1024, 392, 3), U8)).grid == (16, 16)
    assert adapter_for("internvl3", EncoderInput((3, 448, 448), F32)).grid == (16, 16)
    assert adapter_for("smolvlm2", EncoderInput((512, 512, 3), U8)).grid == (8, 8)
    assert adapter_for("smolvlm2", EncoderInput((512, 512, 3), U8)).longest_side == 1024
