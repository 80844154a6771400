"""Simulated vision encoders: safetensors files whose metadata describes a transformer over the patches of one picture
of fixed size; csrc/emu/arithmetic/vision_header.c says which tensors they hold."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields

from ..errors import PackageError
from .safetensors import SafetensorsFile, TensorSource, write_safetensors
from .simulated_axmodel import COMPILER, FORMAT

KIND = "vision"
PATCHES, IMAGE, PLANES = "patches_u8", "image_u8", "planes_fp32"


@dataclass(frozen=True, slots=True)
class VisionMeta:
    """What the metadata of a simulated vision encoder says. Sizes in elements, `image_rows` and `image_cols` in patches
    of `patch_size` pixels a side.

    `vision_kind`: the family. `vision_input`: uint8 patches [1, N, 2 p p, 3], uint8 [1, H, W, 3] or float32
    [1, 3, H, W]; uint8 is divided by 255, `pixel_mean` taken off, divided by `pixel_std`. `merge` x `merge` patches
    become one token, as wide as `out_hidden`, by a product, or two with GELU between (`merger_hidden`), after a norm of
    each patch, of all together, or none (`merger_norm` "token", "group", "none"). `norm`: "layer" or "rms";
    `activation`: "gelu", "gelu_tanh" or "silu". `window`: tokens on the side of the square whose patches see each
    other, in all blocks but `full_blocks`; 0: everybody sees everybody. After each block of `deepstack` one more
    output is taken, float32. `output_dtype`: "fp32" or "bf16". `hollow`: shapes and costs only; `file_bytes` is then
    the size of the published file."""

    vision_kind: str
    vision_input: str
    layers: int
    hidden: int
    heads: int
    head_dim: int
    ffn: int
    norm: str
    activation: str
    image_rows: int
    image_cols: int
    patch_size: int
    merge: int
    out_hidden: int
    merger_norm: str
    merger_hidden: int = 0
    frames: int = 1
    rms_eps: float = 1e-6
    merger_eps: float = 1e-6
    window: int = 0
    full_blocks: tuple[int, ...] = ()
    deepstack: tuple[int, ...] = ()
    pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    output_dtype: str = "fp32"
    hollow: bool = False
    cmm_bytes: int | None = None
    file_bytes: int | None = None
    cost_encoder_us: float | None = None
    profile: str | None = None
    compiler: str = COMPILER

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the picture, in pixels."""
        return self.image_rows * self.patch_size, self.image_cols * self.patch_size

    @property
    def num_tokens(self) -> int:
        """Tokens that a picture becomes."""
        return self.image_rows * self.image_cols // self.merge**2

    def to_metadata(self) -> dict[str, str]:
        """The string map for the file's `__metadata__`."""
        result = {"format": FORMAT, "kind": KIND}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or value == () or value is False:
                continue
            result[field.name] = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if self.hollow:
            result["hollow"] = "1"
        return result


def is_encoder(metadata: Mapping[str, str]) -> bool:
    """Whether a simulated axmodel's metadata is a vision encoder's."""
    return metadata.get("kind") == KIND


def write_encoder(path: str | os.PathLike[str], meta: VisionMeta, tensors: Mapping[str, TensorSource]) -> None:
    """Write a simulated vision encoder; without tensors it must be a hollow one."""
    write_safetensors(path, meta.to_metadata(), tensors)


def read_encoder(path: str | os.PathLike[str]) -> tuple[VisionMeta, SafetensorsFile]:
    """Open a simulated vision encoder by mmap; its tensors are checked where it is loaded. PackageError names the file
    and what is wrong."""
    file = SafetensorsFile(path)
    metadata = file.metadata
    if metadata.get("format") != FORMAT or not is_encoder(metadata):
        raise PackageError(f"{path} is not a simulated vision encoder of this version: convert the model again")
    values: dict[str, object] = {}
    for field in fields(VisionMeta):
        if field.name not in metadata:
            if field.default is MISSING:
                raise PackageError(f"{path} is damaged: its metadata lacks {field.name!r}; convert it again")
            continue
        try:
            values[field.name] = _parsed(str(field.type), metadata[field.name])
        except ValueError:
            text = f"{field.name} is {metadata[field.name]!r} in its metadata"
            raise PackageError(f"{path} is damaged: {text}; convert it again") from None
    return VisionMeta(**values), file  # type: ignore[arg-type]


def _parsed(kind: str, text: str) -> object:
    """A value of a field of this type, as its annotation spells it."""
    if kind.startswith("tuple"):
        element = float if "float" in kind else int
        return tuple(element(item) for item in text.split(",") if item.strip())
    if kind == "bool":
        return text == "1"
    if kind.startswith("str"):
        return text
    return float(text) if kind.startswith("float") else int(text)
