"""Timing profiles: what a published model costs on a published card, one TOML file each in core/profiles."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PackageError
from .qwen3_5 import FAMILY, LINEAR, Recurrence, layer_kinds

PROFILE_DIR = Path(__file__).parents[1] / "profiles"


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The model a profile describes; sizes in elements, `history` in cache rows per chunk group. `rows`: of the largest
    decode group; `smaller_rows`: of the others.

    `*_file_bytes`: what the published files have; 0: not told. `full_attention_interval`: of so many layers the last
    has attention, all others are recurrent, with states of the sizes that follow; 0: all have attention.
    `vision`: model_type of the checkpoint, where it has eyes: an encoder of the `vision_*` sizes, with further outputs
    after the blocks of `deepstack`, for pictures of `image_size` pixels a side; empty: it has none."""

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rows: int
    chunk: int
    history: tuple[int, ...]
    smaller_rows: tuple[int, ...] = ()
    layer_file_bytes: int = 0
    head_file_bytes: int = 0
    full_attention_interval: int = 0
    conv_kernel: int = 0
    key_heads: int = 0
    value_heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    vision: str = ""
    image_size: int = 0
    vision_blocks: int = 0
    vision_hidden: int = 0
    vision_heads: int = 0
    vision_ffn: int = 0
    deepstack: tuple[int, ...] = ()
    encoder_file_bytes: int = 0

    @property
    def recurrence(self) -> Recurrence | None:
        """Which layers are recurrent, and their sizes; None: no layer is."""
        if not self.full_attention_interval:
            return None
        kinds = layer_kinds({"full_attention_interval": self.full_attention_interval}, self.layers, "a profile")
        recurrent = tuple(kind == LINEAR for kind in kinds)
        return Recurrence(recurrent, self.conv_kernel, self.key_heads, self.value_heads, self.key_dim, self.value_dim)


@dataclass(frozen=True, slots=True)
class Cost:
    """Times of one execute and of the calls around it; units are in the names. Loading a model file takes
    `load_file_ms` and its bytes at `load_mb_s`; 0: no time. `recurrent_*_ms`: of a recurrent layer, whatever the
    history; 0: as other layers. `encoder_ms`: of one run of a vision encoder."""

    decode_rows: tuple[int, ...]
    decode_layer_ms: tuple[float, ...]
    chunk_history: tuple[int, ...]
    chunk_layer_ms: tuple[float, ...]
    head_ms: float
    sync_call_ms: float
    submit_us: float
    d2d_us: float
    d2d_gb_s: float
    bus_mb_s: float
    transfer_us: float
    unpinned_us: float
    load_file_ms: float = 0.0
    load_mb_s: float = 0.0
    recurrent_decode_ms: float = 0.0
    recurrent_chunk_ms: float = 0.0
    encoder_ms: float = 0.0

    def decode_us(self, rows: int) -> float:
        """Microseconds of one decode layer with `rows` rows of cache; constant outside the table."""
        return round(1000 * float(np.interp(rows, self.decode_rows, self.decode_layer_ms)), 3)

    def chunk_us(self, history: int) -> float:
        """Microseconds of one chunk layer that covers `history` rows; the last slope goes on above the table."""
        xs, ys = self.chunk_history, self.chunk_layer_ms
        if history <= xs[-1] or len(xs) == 1:
            return round(1000 * float(np.interp(history, xs, ys)), 3)
        slope = (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
        return round(1000 * (ys[-1] + slope * (history - xs[-1])), 3)

    def load_s(self, file_bytes: int) -> float:
        """Seconds that loading one model file of so many bytes takes."""
        return self.load_file_ms / 1e3 + (file_bytes / self.load_mb_s / 1e6 if self.load_mb_s else 0.0)


@dataclass(frozen=True, slots=True)
class Memory:
    """The card's contiguous memory (CMM), and what a loaded layer, head and vision encoder take of it, activations
    included."""

    cmm_mib: int
    idle_cmm_mib: int
    layer_cmm_bytes: int
    head_cmm_bytes: int
    encoder_cmm_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile file."""

    name: str
    model: ModelShape
    cost: Cost
    memory: Memory


def profile_names() -> list[str]:
    """Names of the profiles that come with axpress."""
    return sorted(path.stem for path in PROFILE_DIR.glob("*.toml"))


def profile_path(name: str) -> Path:
    """The file of the profile called `name`, which may be the path itself where it contains a slash. PackageError:
    there is none."""
    path = Path(name) if "/" in name else PROFILE_DIR / f"{name}.toml"
    if not path.is_file():
        raise PackageError(
            f"there is no profile {name!r}: use one of {', '.join(profile_names())}, or the path of a TOML file"
        )
    return path


def load_profile(name: str) -> Profile:
    """The profile called `name`, or the file at the path `name` if it contains a slash. PackageError: unknown or
    malformed."""
    path = profile_path(name)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise PackageError(f"{path} is not a readable TOML file: {error}") from None
    sections = {"model": ModelShape, "cost": Cost, "memory": Memory}
    loaded: dict[str, Any] = {
        section: _section(kind, data.get(section), section, path) for section, kind in sections.items()
    }
    cost = loaded["cost"]
    if len(cost.decode_rows) != len(cost.decode_layer_ms) or len(cost.chunk_history) != len(cost.chunk_layer_ms):
        raise PackageError(
            f"{path}: decode_rows and decode_layer_ms, chunk_history and chunk_layer_ms must be equally long"
        )
    if (loaded["model"].family == FAMILY) != bool(loaded["model"].full_attention_interval):
        raise PackageError(f"{path}: [model] needs full_attention_interval for the family {FAMILY}, and for no other")
    return Profile(name=str(data.get("name", path.stem)), **loaded)


def _section(kind: type, table: object, section: str, path: Path) -> Any:
    if not isinstance(table, dict):
        raise PackageError(f"{path} has no section [{section}]")
    names = {field.name for field in fields(kind)}
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    if wrong := sorted((needed - set(table)) | (set(table) - names)):
        raise PackageError(f"{path}: [{section}] lacks or does not know {', '.join(wrong)}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
