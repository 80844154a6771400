"""Tiny random models with eyes as packages that can be asked, and what transformers make of the same pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chat_templates import SEEING, set_template
from PIL import Image
from tiny_vision_models import IMAGE_TOKEN, TinyVision, save

from axpress.core.model_files.convert import convert
from axpress.core.vision import KINDS

NAMES = {"internvl": "internvl3", "smolvlm": "smolvlm2"}
TOKENS = {
    "internvl": ("<IMG_CONTEXT>", "<img>", "</img>"),
    "smolvlm": (
        "<image>",
        "<fake_token_around_image>",
        "<global-img>",
        *(f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)),
    ),
}
SPARE = [f"<|{name}|>" for name in ("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start",
                                    "quad_end", "vision_pad")]  # fmt: skip


def seeing_package(tiny: TinyVision, directory: Path, **options: Any) -> tuple[Any, Path]:
    """The float32 model of transformers, and the package of it with a tokenizer that has its family's tokens."""
    model = save(tiny, directory / "hf")
    path = directory / "hf" / "tokenizer.json"
    text = path.read_text()
    for spare, token in zip(SPARE, TOKENS.get(tiny.family, ()), strict=False):
        text = text.replace(spare, token)
    path.write_text(text)
    if tiny.family.startswith("qwen"):
        set_template(directory / "hf", SEEING)
    sizes: dict[str, Any] = {"rows": 511, "chunk": 64, "history": [0, 64, 128, 256], **options}
    sizes |= {"image_size": tiny.image_size, "image_input": tiny.image_input}
    return model, convert(directory / "hf", directory / "package", progress=False, **sizes)


def log_probabilities(
    model: Any, tiny: TinyVision, ids: list[int], placeholder: int, pictures: list[Image.Image]
) -> Any:
    """Of each token after the prompt `ids`, as transformers' own processor and model have them: float32 [V]."""
    import torch

    tokens = torch.tensor([[IMAGE_TOKEN if token == placeholder else token for token in ids]])
    given = _inputs(tiny, pictures)
    if tiny.family.startswith("qwen"):
        given["mm_token_type_ids"] = (tokens == IMAGE_TOKEN).int()
    with torch.no_grad():
        return torch.log_softmax(model(input_ids=tokens, **given).logits[0, -1], -1).numpy()


def _inputs(tiny: TinyVision, pictures: list[Image.Image]) -> dict[str, Any]:
    if not pictures:
        return {}
    side: Any = tiny.image_size or {"internvl": 32, "smolvlm": 48}[tiny.family]
    if tiny.family.startswith("qwen"):
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        own = (
            {"patch_size": 8, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
            if "3" in tiny.family
            else {"patch_size": 4}
        )
        processor = Qwen2VLImageProcessorPil(size={"shortest_edge": side**2, "longest_edge": side**2}, **own)
        # the vendor stretches to the encoder's size, which transformers do not
        return dict(
            processor([one.resize((side, side), Image.Resampling.BICUBIC) for one in pictures], return_tensors="pt")
        )
    if tiny.family == "internvl":
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

        processor = GotOcr2ImageProcessorPil(
            size={"height": side, "width": side}, image_mean=(0.485, 0.456, 0.406), image_std=(0.229, 0.224, 0.225)
        )
        return {"pixel_values": processor(pictures, return_tensors="pt")["pixel_values"]}
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    processor = SmolVLMImageProcessorPil(size={"longest_edge": 2 * side}, max_image_size={"longest_edge": side})
    return dict(processor(pictures, return_tensors="pt"))


def placeholder_of(tiny: TinyVision) -> str:
    """The token that stands for its pictures."""
    return KINDS[NAMES.get(tiny.family, tiny.family)].placeholder
