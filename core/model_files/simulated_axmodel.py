"""Simulated axmodels: safetensors files whose metadata says what a compiled layer or head of these shapes would be."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import PackageError
from .safetensors import SafetensorsFile, TensorSource, write_safetensors

FORMAT = "axpress-sim-1"
COMPILER = "axpress-sim 1"
NORM_ALONE = ("norm", "norm_as_output")  # `head_gives` of heads without a vocabulary
# what such a layer cannot lack
FAMILY_TENSORS = {"qwen3": ("q_norm", "k_norm"), "qwen2": ("q_bias", "k_bias", "v_bias")}
FAMILY_TENSORS["gemma3_text"] = ("q_norm", "k_norm", "attention_out_norm", "ffn_out_norm")
FAMILY_TENSORS["qwen3_5_text"] = ("q_norm", "k_norm")
ATTENTION, RECURRENT = LAYER_KINDS = ("attention", "recurrent")


@dataclass(frozen=True, slots=True)
class SimMeta:
    """What the metadata of a simulated axmodel says. Sizes in elements, costs in microseconds, memory in bytes.

    `layer` is None for the head. `history` has one entry per chunk group, `cost_chunk_us` and `cost_decode_us` one for
    each of their groups. `cost_*` and `cmm_bytes` None: the emulator's profile and the file's size decide.
    `attention_scale`: what scores are multiplied with, None: 1 / sqrt(head_dim). `hollow`: the file has no tensors,
    only shapes and costs; `file_bytes` is then the size of the published file. `p0_width`: how wide the one row is
    that a group without history takes for a cache, "hidden" or "kv": published packages have both. `head_gives`:
    "logits"; or, for embedding models, the normed hidden state: "norm" as `output_norm`, "norm_as_output" as `output`,
    "both" beside the logits. `tensors`: inputs and outputs of a hollow file that no plain layer has, in the words of
    csrc/emu/arithmetic/tensors.c.

    `gated`: what attention gives is multiplied with a gate. `rope_sections`: pairs of a head's dimensions that rotate
    by each of three axes; chunks then take indices [3, chunk]. `layer_kind` "recurrent": K and V are the states of one
    sequence, the same in every group: that of the convolution [1, conv_kernel - 1, conv_dim] and the recurrent one
    [1, value_heads, key_dim, value_dim], in this order or in the other (`state_order` "kv" or "vk"), of `state_dtype`
    "bf16", "fp32" or "fp16". Tokens whose mask is 0 leave the states as they are or not (`padding` "exact" or
    "spoils"); groups without history read the states before or begin with zeros (`p0_state` "reads" or "ignores").
    """

    family: str
    layer: int | None
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rms_eps: float = 1e-6
    decode_rows: tuple[int, ...] = (2047,)
    chunk: int = 0
    history: tuple[int, ...] = ()
    rope_attention_factor: float = 1.0
    attention_scale: float | None = None
    gated: bool = False
    rope_sections: tuple[int, ...] = ()
    rope_interleaved: bool = False
    layer_kind: str = ATTENTION
    conv_dim: int = 0
    conv_kernel: int = 0
    key_heads: int = 0
    value_heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    state_order: str = "kv"
    state_dtype: str = "bf16"
    padding: str = "exact"
    p0_state: str = "reads"
    head_rows: tuple[int, ...] = (1,)
    output_dtype: str = "bf16"
    head_gives: str = "logits"
    p0_width: str = "hidden"
    hollow: bool = False
    tensors: str | None = None
    cmm_bytes: int | None = None
    file_bytes: int | None = None
    cost_decode_us: tuple[float, ...] | None = None
    cost_chunk_us: tuple[float, ...] | None = None
    cost_head_us: float | None = None
    profile: str | None = None
    compiler: str = COMPILER

    @property
    def recurrent(self) -> bool:
        """Whether it is a layer with states in place of attention over rows."""
        return self.layer is not None and self.layer_kind == RECURRENT

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of a recurrent layer's K and V."""
        conv = (1, self.conv_kernel - 1, self.conv_dim)
        state = (1, self.value_heads, self.key_dim, self.value_dim)
        return (state, conv) if self.state_order == "vk" else (conv, state)

    @property
    def kind(self) -> str:
        """ "layer" or "head"."""
        return "head" if self.layer is None else "layer"

    def to_metadata(self) -> dict[str, str]:
        """The string map for the file's `__metadata__`."""
        fields = _COMMON + (_HEAD_ONLY if self.layer is None else _LAYER_ONLY)
        fields += OF_RECURRENT if self.recurrent else ()
        result = {"format": FORMAT, "kind": self.kind}
        for name in fields:
            value = getattr(self, name)
            if value is not None and value != () and value is not False:
                result[name] = _to_text(value)
        return result

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: str | os.PathLike[str]) -> SimMeta:
        """Parse and check the `__metadata__` of the file `path`; PackageError names the file and the key."""
        if metadata.get("format") != FORMAT:
            raise PackageError(
                f"{path} is not a simulated axmodel of this version: format is {metadata.get('format')!r}, not"
                f" {FORMAT!r}"
            )
        kind = metadata.get("kind")
        if kind not in ("layer", "head"):
            raise PackageError(f"{path} is damaged: its kind is {kind!r}, not 'layer' or 'head'; convert it again")
        values: dict[str, object] = {"layer": None}
        required = {
            "family",
            "hidden",
            *(("vocab",) if kind == "head" else ("layer", "heads", "kv_heads", "head_dim", "ffn")),
        }
        for name, parse in _PARSERS.items():
            if name not in metadata:
                if name in required:
                    raise PackageError(f"{path} is damaged: its metadata lacks {name!r}; convert it again")
                continue
            try:
                values[name] = parse(metadata[name])
            except ValueError:
                raise PackageError(
                    f"{path} is damaged: {name} is {metadata[name]!r} in its metadata; convert it again"
                ) from None
        if kind == "head":
            values["layer"] = None
        if values.setdefault("layer_kind", ATTENTION) not in LAYER_KINDS:
            raise PackageError(
                f"{path} is damaged: layer_kind is {metadata['layer_kind']!r} in its metadata; convert it again"
            )
        for name in ("layers", "heads", "kv_heads", "head_dim", "ffn", "vocab"):
            values.setdefault(name, 0)
        return cls(**values)  # type: ignore[arg-type]


def _to_text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return ",".join(_to_text(item) for item in value)
    return str(value)


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(item) for item in text.split(",") if item.strip())


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(item) for item in text.split(",") if item.strip())


_COMMON = (
    *("family", "layers", "hidden", "rms_eps", "hollow", "tensors", "cmm_bytes", "file_bytes", "profile", "compiler"),
)
_LAYER_ONLY = (
    *("layer", "heads", "kv_heads", "head_dim", "ffn", "decode_rows", "chunk", "history", "p0_width"),
    *("rope_attention_factor", "attention_scale", "cost_decode_us", "cost_chunk_us"),
    *("gated", "rope_sections", "rope_interleaved"),
)
_SIZES = ("conv_dim", "conv_kernel", "key_heads", "value_heads", "key_dim", "value_dim")
_WORDS = ("layer_kind", "state_order", "state_dtype", "padding", "p0_state")
OF_RECURRENT = _WORDS + _SIZES  # what metadata says of recurrent layers alone
_HEAD_ONLY = ("vocab", "head_rows", "output_dtype", "head_gives", "cost_head_us")
_PARSERS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("family", "output_dtype", "head_gives", "p0_width", "tensors", "profile", "compiler"), str),
    **dict.fromkeys(("layer", "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "chunk"), int),
    **dict.fromkeys(("cmm_bytes", "file_bytes", *_SIZES), int),
    **dict.fromkeys(_WORDS, str),
    **dict.fromkeys(("rms_eps", "rope_attention_factor", "attention_scale", "cost_head_us"), float),
    **dict.fromkeys(("decode_rows", "history", "head_rows", "rope_sections"), _ints),
    **dict.fromkeys(("cost_decode_us", "cost_chunk_us"), _floats),
    **dict.fromkeys(("hollow", "gated", "rope_interleaved"), lambda text: text == "1"),
}


def write_axmodel(
    path: str | os.PathLike[str], meta: SimMeta, tensors: Mapping[str, TensorSource] | None = None
) -> None:
    """Write a simulated axmodel; without `tensors` it must be a hollow one. Shapes are checked against `meta`."""
    tensors = tensors or {}
    if not meta.hollow:
        check_shapes({name: source.shape for name, source in tensors.items()}, meta, path)
    write_safetensors(path, meta.to_metadata(), tensors)


def read_axmodel(path: str | os.PathLike[str]) -> tuple[SimMeta, SafetensorsFile]:
    """Open a simulated axmodel by mmap and check it; PackageError names the file and what is wrong."""
    file = SafetensorsFile(path)
    meta = SimMeta.from_metadata(file.metadata, path)
    if not meta.hollow:
        check_shapes({name: info.shape for name, info in file.tensors.items()}, meta, path)
    return meta, file


def read_layers(paths: Sequence[str | os.PathLike[str]]) -> SimMeta:
    """The metadata of the first layer with attention, with the shape groups alone that all these layers have: files may
    have fewer than others. PackageError as for read_axmodel, and where no decode group is common to all."""
    metas = [read_axmodel(path)[0] for path in paths]
    first = next((meta for meta in metas if not meta.recurrent), metas[0])
    decode, chunks = set(first.decode_rows), {(first.chunk, p) for p in first.history}
    for path, meta in zip(paths, metas, strict=True):
        chunks &= {(meta.chunk, p) for p in meta.history}
        if decode.isdisjoint(meta.decode_rows):
            mine, theirs = (", ".join(map(str, sorted(rows))) for rows in (meta.decode_rows, decode))
            raise PackageError(
                f"{path} decodes over {mine} rows, the layers before it over {theirs}: no shape group is common to"
                " them, files of two builds?"
            )
        decode &= set(meta.decode_rows)
    kept = [i for i, rows in enumerate(first.history) if (first.chunk, rows) in chunks and rows <= max(decode)]
    costs, rows = first.cost_chunk_us, sorted(decode)
    singly = dict(zip(first.decode_rows, first.cost_decode_us or (), strict=False))
    return replace(
        first,
        decode_rows=tuple(rows),
        cost_decode_us=tuple(singly[r] for r in rows) if singly else None,
        chunk=first.chunk if kept else 0,
        history=tuple(first.history[i] for i in kept),
        cost_chunk_us=costs and tuple(costs[i] for i in kept),
    )


def published_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes of the model file at `path`; of a hollow one, those of the published file that it stands for."""
    return _told(path, "file_bytes") or os.stat(path).st_size


def device_bytes(path: str | os.PathLike[str]) -> int:
    """What the model file at `path` is expected to take of a card's memory: its size, or what a simulated one says."""
    return _told(path, "cmm_bytes") or os.stat(path).st_size


def _told(path: str | os.PathLike[str], key: str) -> int:
    """Bytes that a simulated file, a layer's, a head's or an encoder's, says of itself; 0: it does not."""
    told = SafetensorsFile(path).metadata.get(key, "") if is_simulated(path) else ""
    return int(told) if told.isdigit() else 0


def is_simulated(path: str | os.PathLike[str]) -> bool:
    """Whether the file starts like a simulated axmodel; reads only its first bytes. False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            start = file.read(8 + 256)
    except OSError:
        return False
    return start[8:9] == b"{" and b'"__metadata__"' in start and FORMAT.encode() in start


def tensor_shapes(meta: SimMeta) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Names and shapes of the tensors that a file with this metadata must have, and of those that it may have."""
    if meta.layer is None:
        norm: dict[str, tuple[int, ...]] = {"norm": (meta.hidden,)}
        if meta.head_gives in NORM_ALONE:
            return norm, {}
        return {**norm, "head": (meta.vocab, meta.hidden)}, {"head_scale": (meta.vocab,)}
    if meta.recurrent:
        return _recurrent_shapes(meta)
    width, kv_width = meta.heads * meta.head_dim, meta.kv_heads * meta.head_dim
    required: dict[str, tuple[int, ...]] = {
        "input_norm": (meta.hidden,),
        "q": (width, meta.hidden),
        "k": (kv_width, meta.hidden),
        "v": (kv_width, meta.hidden),
        "o": (meta.hidden, width),
        "post_norm": (meta.hidden,),
        "gate": (meta.ffn, meta.hidden),
        "up": (meta.ffn, meta.hidden),
        "down": (meta.hidden, meta.ffn),
        "inv_freq": (meta.head_dim // 2,),
    }
    optional: dict[str, tuple[int, ...]] = {
        "q_bias": (width,),
        "k_bias": (kv_width,),
        "v_bias": (kv_width,),
        "o_bias": (meta.hidden,),
    }
    optional |= {"q_norm": (meta.head_dim,), "k_norm": (meta.head_dim,)}
    if meta.family == "gemma3_text":
        optional |= {"attention_out_norm": (meta.hidden,), "ffn_out_norm": (meta.hidden,)}
    if meta.gated:
        required["q_gate"] = (width, meta.hidden)
    optional |= {f"{name}_scale": shape[:1] for name, shape in required.items() if len(shape) == 2}  # of int8 weights
    for name in FAMILY_TENSORS.get(meta.family, ()):
        required[name] = optional.pop(name)
    return required, optional


def _recurrent_shapes(meta: SimMeta) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    values = meta.value_heads * meta.value_dim
    matrices: dict[str, tuple[int, ...]] = {
        "qkv": (meta.conv_dim, meta.hidden),
        "z": (values, meta.hidden),
        "b": (meta.value_heads, meta.hidden),
        "a": (meta.value_heads, meta.hidden),
        "o": (meta.hidden, values),
        "gate": (meta.ffn, meta.hidden),
        "up": (meta.ffn, meta.hidden),
        "down": (meta.hidden, meta.ffn),
    }
    others: dict[str, tuple[int, ...]] = {
        "input_norm": (meta.hidden,),
        "post_norm": (meta.hidden,),
        "conv": (meta.conv_kernel, meta.conv_dim),
        "a_log": (meta.value_heads,),
        "dt_bias": (meta.value_heads,),
        "state_norm": (meta.value_dim,),
    }
    return matrices | others, {f"{name}_scale": shape[:1] for name, shape in matrices.items()}


def check_shapes(shapes: Mapping[str, Sequence[int]], meta: SimMeta, path: str | os.PathLike[str]) -> None:
    """Raise PackageError unless `shapes` (name -> shape) are exactly what `meta` asks for."""
    required, optional = tensor_shapes(meta)
    for name in required:
        if name not in shapes:
            raise PackageError(
                f"{path} has no tensor {name!r}, which a {meta.kind} of family {meta.family} needs: convert it again"
            )
    for name, shape in shapes.items():
        expected = required.get(name) or optional.get(name)
        if expected is None:
            raise PackageError(f"{path} has a tensor {name!r} that a {meta.kind} of family {meta.family} does not know")
        partial = name == "inv_freq" and meta.family == "qwen3_5_text" and len(shape) == 1
        if tuple(shape) != expected and not (partial and 0 < shape[0] < expected[0]):
            raise PackageError(
                f"{path} is damaged: tensor {name!r} has shape {list(shape)}, its metadata asks for {list(expected)}"
            )
