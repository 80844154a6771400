"""A GGUF file as a checkpoint: its tensors under Hugging Face's names, dequantised while they are written.

Read through the library `gguf`, an extra that nothing else needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PackageError
from ..files import check_not_pointer
from .gguf_config import generation_config, hf_config
from .gguf_tokenizer import tokenizer_files
from .hf_checkpoint import ModelSpec, spec_of
from .safetensors import BLOCK_BYTES, TensorSource, to_bf16

if TYPE_CHECKING:
    import gguf

EMBEDDING, HEAD, ROPE_FACTORS = "token_embd.weight", "output.weight", "rope_freqs.weight"
NAMES = {EMBEDDING: "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", HEAD: "lm_head.weight"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GEMMA_NAMES = LAYER_NAMES | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
ROTATED = re.compile(r"blk\.\d+\.attn_([qk])\.")


class GgufCheckpoint:
    """The same as hf_checkpoint.Checkpoint, of one GGUF file. PackageError: not a sound file, or not one of a model
    that axpress converts."""

    def __init__(self, path: Path) -> None:
        check_not_pointer(path)
        self.path = path
        self.metadata, tensors = _read(path)
        self._config = hf_config(
            self.metadata, tuple(int(size) for size in reversed(_tensor(tensors, EMBEDDING, path).shape)),
            tied=HEAD not in tensors, where=str(path),
        )  # fmt: skip
        self._rope_factors = tensors.pop(ROPE_FACTORS, None)
        self._gemma = self.metadata["general.architecture"] == "gemma3"
        parts = GEMMA_NAMES if self._gemma else LAYER_NAMES
        self._tensors = {_hf_name(name, parts): tensor for name, tensor in tensors.items()}

    @property
    def names(self) -> list[str]:
        """Names of all tensors; those that no family has keep the file's own."""
        return list(self._tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    @cached_property
    def spec(self) -> ModelSpec:
        """Sizes and constants. The RoPE frequencies are divided by the file's factors, where it has them."""
        spec = spec_of(self._config, self.generation, str(self.path))
        if self._rope_factors is None:
            return spec
        factors = np.asarray(self._rope_factors.data, np.float32).reshape(-1)
        if factors.shape != spec.inv_freq.shape or not (factors > 0).all():
            raise PackageError(f"{self.path}: {ROPE_FACTORS} does not fit heads of {spec.head_dim}: download it again")
        return replace(spec, inv_freq=(spec.inv_freq / factors).astype(np.float32))

    @property
    def generation(self) -> Mapping[str, Any]:
        """What a generation_config.json would say."""
        return generation_config(self.metadata)

    def tokenizer(self) -> Mapping[str, bytes]:
        """The tokenizer's files, made from the metadata: content by name."""
        return tokenizer_files(self.metadata, str(self.path))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of tensor `name`, outermost first; PackageError when the file lacks it."""
        return tuple(int(size) for size in reversed(_tensor(self._tensors, name, self.path).shape))

    def source(self, name: str) -> TensorSource:
        """Tensor `name` as bf16, dequantised and rounded while it is written. PackageError: absent, or of a type that
        the library cannot dequantise."""
        shape, tensor = self.shape(name), self._tensors[name]
        order = self._row_order(tensor.name, shape)
        data = tensor.data if tensor.data.ndim > 1 else tensor.data[None]  # a vector is one row
        self._dequantize(tensor, data[:1])
        rows = max(1, BLOCK_BYTES // (4 * shape[-1]))

        def blocks() -> Iterator[np.ndarray]:
            if len(shape) == 1:
                vector = self._dequantize(tensor, data).reshape(-1)
                if self._gemma:  # all of its vectors are norms', which such files hold as they are multiplied with
                    vector = vector - 1
                yield to_bf16(vector if order is None else vector[order])
                return
            for start in range(0, len(data), rows):
                part = data[start : start + rows] if order is None else data[order[start : start + rows]]
                yield to_bf16(self._dequantize(tensor, part))

        return TensorSource("BF16", shape, blocks)

    def _dequantize(self, tensor: gguf.ReaderTensor, data: np.ndarray) -> np.ndarray:
        import gguf

        try:
            return gguf.dequantize(data, tensor.tensor_type)
        except NotImplementedError:
            raise PackageError(
                f"tensor {tensor.name!r} in {self.path} has type {tensor.tensor_type.name}, which the library gguf"
                " cannot dequantise: take another quantisation of the model"
            ) from None

    def _row_order(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The file's row for each of the checkpoint's rows where they differ: files of the architecture llama have the
        two halves of each head of q and k interleaved."""
        rotated = ROTATED.match(name)
        if rotated is None or self.metadata["general.architecture"] != "llama":
            return None
        heads = self.spec.heads if rotated[1] == "q" else self.spec.kv_heads
        if shape[0] % (2 * heads):
            return None  # convert says what is wrong
        return np.arange(shape[0]).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def require_gguf(what: str) -> None:
    """PackageError, which begins with `what` is to be read: the library is not installed."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise PackageError(f"{what}: reading GGUF needs the package gguf: pip install 'axpress[gguf]'") from None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, gguf.ReaderTensor]]:
    """Metadata and tensors by name. The tensors' data are views of the mapped file."""
    require_gguf(str(path))
    import gguf

    class Reader(gguf.GGUFReader):
        """Its views are plain arrays: views of class memmap cost several times the time and the memory."""

        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: np.ndarray) -> None:
            self._data = mapped.view(np.ndarray)

    try:
        reader = Reader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except OSError as error:
        raise PackageError(f"{path} cannot be read ({error.strerror}): correct its name or permissions") from None
    except Exception as error:  # of a damaged file: whatever the library stumbles over
        raise PackageError(f"{path} is not a sound GGUF file ({error}): download it again") from None
    if reader.byte_order != "I":
        raise PackageError(f"{path} is big-endian: take the usual little-endian file of the model")
    if (parts := metadata.get("split.count", 1)) > 1:
        raise PackageError(f"{path} is one of {parts} parts: join them with llama-gguf-split --merge")
    return metadata, {tensor.name: tensor for tensor in reader.tensors}


def _tensor(tensors: Mapping[str, gguf.ReaderTensor], name: str, path: Path) -> gguf.ReaderTensor:
    if name not in tensors:
        raise PackageError(f"{path} has no tensor {name!r}: it is not a whole model, download it again")
    return tensors[name]


def _hf_name(name: str, parts: Mapping[str, str]) -> str:
    if found := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name):
        layer, part, kind = found.groups()
        return f"model.layers.{layer}.{parts[part]}.{kind}" if part in parts else name
    return NAMES.get(name, name)
