"""`axpress convert`: a checkpoint (Hugging Face's, or a GGUF file) becomes a simulated model package that the emulated
card runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..errors import PackageError
from . import embedding_models, qwen3_5, rerank_models
from .embedding_file import scale_bf16
from .gguf_checkpoint import GgufCheckpoint
from .hf_checkpoint import Checkpoint, ModelSpec
from .int8_weights import int8_tensors
from .model_kind import SLIDING
from .safetensors import TensorSource, array_source
from .simulated_axmodel import COMPILER, RECURRENT, SimMeta, check_shapes, write_axmodel
from .vision_axmodel import VisionMeta, write_encoder
from .vision_checkpoint import Encoder, vision_keys

EMBED_NAME = "model.embed_tokens.weight.bfloat16.bin"
TOKENIZER_DIR = "tokenizer"
TOKENIZER_TYPES = {"qwen3": "Qwen3", "qwen2": "Qwen2_5", "llama": "Llama", "gemma3_text": "Gemma3"}
TOKENIZER_TYPES[qwen3_5.FAMILY] = qwen3_5.TOKENIZER_TYPE
DEFAULT_HISTORY_END = 1024
HEAD_ROWS = (1, 2, 4, 8, 16)  # tokens that the head's groups take: its weights are then read once for all of them
WHOLE_CONTEXT = 65536  # penalty window of a checkpoint: Hugging Face's penalty looks at every token

AnyCheckpoint = Checkpoint | GgufCheckpoint

LAYER_TENSORS = {  # ours: Hugging Face's, below model.layers.N.
    "input_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "post_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
OPTIONAL_TENSORS = {
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "o_bias": "self_attn.o_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
}
GEMMA_TENSORS = {  # four norms a layer: what others call post_attention_layernorm comes before the second block
    **LAYER_TENSORS,
    "attention_out_norm": "post_attention_layernorm.weight",
    "post_norm": "pre_feedforward_layernorm.weight",
    "ffn_out_norm": "post_feedforward_layernorm.weight",
}


def convert(
    checkpoint: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    rows: int | Sequence[int] = 2047,
    chunk: int = 128,
    history: Sequence[int] | None = None,
    p0_width: str = "hidden",
    weights: str = "bf16",
    name: str | None = None,
    generation: Mapping[str, Any] | None = None,
    embeddings: str = "raw",
    reranker: bool = False,
    image_size: int | None = None,
    image_input: str = "uint8",
    progress: bool = True,
) -> Path:
    """Convert the checkpoint, a Hugging Face directory or a GGUF file, into a simulated package at `out_dir`, which
    must be absent or empty; returns its path.

    `rows` is the decode group's cache (R), or those of several decode groups; `chunk` the prefill chunk's width (0:
    no chunk groups), `history` the cache rows that each chunk group takes (default: as default_history), `p0_width`
    as in SimMeta. `embeddings` of Gemma: "raw", the host multiplies them with sqrt(hidden), or "scaled", the table
    holds them so. `weights` "int8": matrices as int8 with a scale a row; the embedding stays bf16. `generation`:
    values of generation_config.json that go before the checkpoint's. `reranker`: the model ranks documents, whether
    its files say so or not. `image_size`, `image_input`: of models with eyes, as vision_checkpoint.encoder_of has
    them; their encoder stays bf16. Everything is checked before the first byte is written, and `out_dir` appears only
    when it is complete. PackageError: one sentence saying what cannot be converted and why."""
    source, target = Path(checkpoint), Path(out_dir)
    opened = open_checkpoint(source)
    spec = opened.spec
    name = package_name(name or (source.stem if source.is_file() else source.resolve().name))
    decode = (rows,) if isinstance(rows, int) else tuple(rows)
    ladder = default_history(max(decode, default=0), chunk) if history is None else list(history)
    base = replace(_base_meta(spec, decode, chunk, ladder), p0_width=p0_width)
    prefix = (spec.eyes.prefix or spec.family) if spec.eyes else file_prefix(name, base)
    encoder = _encoder(opened, name, image_size, image_input)
    jobs = _plan(opened, spec, base, prefix, encoder)
    if weights == "int8":
        jobs = [
            (file, meta, int8_tensors(tensors) if isinstance(meta, SimMeta) else tensors)
            for file, meta, tensors in jobs
        ]
    if embeddings not in ("raw", "scaled"):
        raise PackageError(f"embeddings are raw or scaled, not {embeddings}")
    if embeddings == "scaled" and spec.embedding_scale != 1.0:
        embed = _scaled(jobs[0][2]["embed"], spec.embedding_scale)
        jobs[0] = (EMBED_NAME, None, {"embed": embed})
    if weights not in ("int8", "bf16"):
        raise PackageError(f"--weights is bf16 or int8, not {weights}")
    tokenizer = opened.tokenizer()
    keys = _kind_keys(opened, tokenizer, reranker)
    if rerank_models.FLAG in keys:
        tokenizer = rerank_models.chat_files(tokenizer)
    with new_directory(target) as work:
        _write_all(work, jobs, progress)
        (work / TOKENIZER_DIR).mkdir()
        for file_name, content in tokenizer.items():
            (work / TOKENIZER_DIR / file_name).write_bytes(content)
        write_json(work / "post_config.json", post_config({**opened.generation, **(generation or {})}))
        extra: dict[str, Any] = {"weights": weights}
        if left_out := [part for part in qwen3_5.LEFT_OUT if any(name.startswith(part) for name in opened.names)]:
            extra["left_out"] = left_out
        if spec.max_positions:
            extra["max_positions"] = spec.max_positions
        eyes = _vision_keys(spec, encoder, extra)
        config = package_config(name, base, spec.eos, spec.bos, extra, prefix) | eyes
        config |= _window_keys(spec, embeddings) | hybrid_keys(spec.recurrence) | dict(keys)
        write_json(work / "config.json", config)
    return target


def _scaled(source: TensorSource, scale: float) -> TensorSource:
    """A bf16 tensor times `scale`, rounded as the host rounds that does it row by row."""
    return TensorSource("BF16", source.shape, lambda: (scale_bf16(block, scale) for block in source.blocks()))


def _kind_keys(checkpoint: AnyCheckpoint, tokenizer: Mapping[str, bytes], reranker: bool) -> Mapping[str, Any]:
    """What config.json says of a model that does more, or something else, than generating text."""
    spec, where = checkpoint.spec, checkpoint.path
    if reranker or spec.reranker is not None:
        rerank_models.check_kind(spec.family, spec.embedding is not None, where)
        rerank_models.check_tokenizer(tokenizer, where)
        return spec.reranker or {rerank_models.FLAG: True}
    if spec.embedding is not None:
        embedding_models.check_end(tokenizer.get("tokenizer.json", b"{}"), where)
    return spec.embedding or {}


def _window_keys(spec: ModelSpec, embeddings: str) -> dict[str, Any]:
    """Keys of config.json that tell windows, as published, and what the embeddings still are to be multiplied with."""
    if not spec.windows:
        return {}
    kinds = [SLIDING if window else "full_attention" for window in spec.windows]
    scale = spec.embedding_scale if embeddings == "raw" else 1.0
    return {"sliding_window": max(spec.windows), "layer_types": kinds, "embedding_scale": scale}


def hybrid_keys(recurrence: qwen3_5.Recurrence | None) -> dict[str, Any]:
    """Keys of config.json that tell which layers are recurrent, as a checkpoint's do."""
    if recurrence is None:
        return {}
    linear, full = qwen3_5.KINDS
    kinds = [linear if recurrent else full for recurrent in recurrence.layers]
    every = kinds.index(full) + 1 if full in kinds else 0
    regular = bool(every) and kinds == qwen3_5.layer_kinds({"full_attention_interval": every}, len(kinds), "")
    return {"layer_types": kinds, **({"full_attention_interval": every} if regular else {})}


def _encoder(checkpoint: AnyCheckpoint, name: str, image_size: int | None, image_input: str) -> Encoder | None:
    encoder = checkpoint.encoder(name, image_size, image_input) if isinstance(checkpoint, Checkpoint) else None
    if encoder is None and (image_size, image_input) != (None, "uint8"):
        raise PackageError(f"{checkpoint.path} has no vision tower that is known: no --image-size, no --image-input")
    return encoder


def _vision_keys(spec: ModelSpec, encoder: Encoder | None, extra: dict[str, Any]) -> dict[str, Any]:
    """Keys of config.json that tell the eyes, as published; `extra` gets what only ours say."""
    if encoder is None or spec.eyes is None:
        return {}
    meta = encoder.meta
    extra["vision"] = {"kind": meta.vision_kind, "image_size": list(meta.image_size), "tokens": meta.num_tokens}
    return vision_keys(spec.eyes, encoder.file, hybrid=spec.recurrence is not None)


def open_checkpoint(path: Path) -> AnyCheckpoint:
    """The checkpoint at `path`. PackageError: it is neither a directory nor a GGUF file, or not a sound one."""
    if path.is_file() and path.suffix.lower() == ".gguf":
        return GgufCheckpoint(path)
    if path.is_dir():
        return Checkpoint(path)
    what = "is a file, but not called .gguf" if path.exists() else "is not there"
    raise PackageError(f"{path} {what}: give the directory of a Hugging Face checkpoint, or a GGUF file")


def default_history(rows: int, chunk: int) -> list[int]:
    """The ladder of chunk groups used when none is asked for: 0 and multiples of `chunk` up to 1024, as long as the
    chunk fits behind them into the `rows` (the vendor's runner reckons with that)."""
    return list(range(0, max(min(rows - chunk, DEFAULT_HISTORY_END), 0) + 1, chunk)) if chunk else []


def package_name(text: str) -> str:
    """`text` as a file name prefix: letters, digits, dots and dashes; underscores separate the parts of published
    names."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.").lower() or "model"


def file_prefix(name: str, meta: SimMeta) -> str:
    """What the names of a package's model files begin with: the package's name, or that of the checkpoint's kind, as
    hybrids are published."""
    return meta.family if meta.family == qwen3_5.FAMILY else name


def layer_pattern(name: str, chunk: int) -> str:
    """File name of layer %d, as published packages spell it."""
    return f"{name}_p{chunk}_l%d_together.axmodel"


def _base_meta(spec: ModelSpec, rows: tuple[int, ...], chunk: int, history: list[int]) -> SimMeta:
    check_groups(rows, chunk, history)
    return SimMeta(
        family=spec.family,
        layer=0,
        layers=spec.layers,
        hidden=spec.hidden,
        heads=spec.heads,
        kv_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        ffn=spec.ffn,
        vocab=spec.vocab,
        rms_eps=spec.rms_eps,
        attention_scale=spec.attention_scale,
        gated=spec.recurrence is not None,
        rope_sections=spec.rope_sections,
        rope_interleaved=spec.rope_interleaved,
        decode_rows=rows,
        chunk=chunk if history else 0,
        history=tuple(history) if chunk else (),
    )


def check_groups(rows: Sequence[int], chunk: int, history: Sequence[int]) -> None:
    """Refuse shape groups that no card could have; PackageError names the option."""
    if min(rows, default=0) < 1:
        raise PackageError(f"--rows must be at least 1, not {','.join(map(str, rows))}")
    if chunk < 0 or chunk == 1:
        raise PackageError(f"--chunk must be 0 (no chunk groups) or at least 2, not {chunk}")
    if history and not chunk:
        raise PackageError("--history needs chunk groups: give --chunk, or leave --history out")
    if any(later <= earlier for earlier, later in pairwise(history)) or (history and history[0] < 0):
        raise PackageError(f"--history must be ascending numbers of rows from 0, not {','.join(map(str, history))}")
    if history and history[-1] > max(rows):
        raise PackageError(
            f"--history goes up to {history[-1]} rows, but the cache has only {max(rows)}: raise --rows or shorten"
            " --history"
        )


PreparedRequest = tuple[str, SimMeta | VisionMeta | None, Mapping[str, TensorSource]]
"""File name, metadata (None: the embedding file, raw bytes) and tensors."""


def _plan(
    checkpoint: AnyCheckpoint, spec: ModelSpec, base: SimMeta, name: str, encoder: Encoder | None
) -> list[PreparedRequest]:
    """Every file to write, with its shapes checked against the configuration; nothing is written yet."""
    embed = checkpoint.source("model.embed_tokens.weight")
    if embed.shape != (spec.vocab, spec.hidden):
        raise PackageError(
            f"{checkpoint.path}: the embedding has shape {list(embed.shape)}, config.json says [{spec.vocab},"
            f" {spec.hidden}]"
        )
    jobs: list[PreparedRequest] = [(EMBED_NAME, None, {"embed": embed})]
    used = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    for layer in range(spec.layers):
        meta = replace(base, layer=layer)
        if spec.recurrence is not None:
            tensors = _hybrid_tensors(checkpoint, layer, spec, used)
            meta = recurrent_meta(meta, spec.recurrence) if spec.recurrence.layers[layer] else meta
        else:
            tensors = _layer_tensors(checkpoint, layer, spec, used)
        check_shapes(
            {key: tensor.shape for key, tensor in tensors.items()}, meta, f"layer {layer} of {checkpoint.path}"
        )
        jobs.append((layer_pattern(name, base.chunk) % layer, meta, tensors))
    head, gives = {"norm": checkpoint.source("model.norm.weight")}, "norm"
    if spec.embedding is None:
        gives = "logits"
        head["head"] = embed if spec.tied else checkpoint.source("lm_head.weight")
    meta = replace(base, layer=None, head_rows=HEAD_ROWS, head_gives=gives)
    check_shapes({key: tensor.shape for key, tensor in head.items()}, meta, f"the head of {checkpoint.path}")
    jobs.append((f"{name}_post.axmodel", meta, head))
    if encoder is not None:
        jobs.append((encoder.file, encoder.meta, encoder.tensors))
        used |= encoder.used
    used |= {key for key in checkpoint.names if spec.recurrence and key.startswith(qwen3_5.LEFT_OUT)}
    unknown = sorted(key for key in checkpoint.names if key not in used and not key.endswith("rotary_emb.inv_freq"))
    if unknown:
        raise PackageError(
            f"{checkpoint.path} has {len(unknown)} tensors that a plain {spec.family} model does not have "
            f"(the first is {unknown[0]!r}): not supported"
        )
    return jobs


def _layer_tensors(checkpoint: AnyCheckpoint, layer: int, spec: ModelSpec, used: set[str]) -> dict[str, TensorSource]:
    prefix = f"model.layers.{layer}."
    windowed = bool(spec.windows) and spec.windows[layer] > 0
    frequencies = spec.inv_freq if spec.inv_freq_sliding is None or not windowed else spec.inv_freq_sliding
    tensors = {"inv_freq": array_source(frequencies)}
    for ours, theirs in (GEMMA_TENSORS if spec.windows else LAYER_TENSORS).items():
        tensors[ours] = checkpoint.source(prefix + theirs)
        used.add(prefix + theirs)
    for ours, theirs in OPTIONAL_TENSORS.items():
        if prefix + theirs in checkpoint:
            tensors[ours] = checkpoint.source(prefix + theirs)
            used.add(prefix + theirs)
    return tensors


def _hybrid_tensors(checkpoint: AnyCheckpoint, layer: int, spec: ModelSpec, used: set[str]) -> dict[str, TensorSource]:
    assert spec.recurrence is not None and isinstance(checkpoint, Checkpoint)  # no GGUF file is read as a hybrid
    recurrent = spec.recurrence.layers[layer]
    tensors = qwen3_5.layer_tensors(checkpoint.array, f"model.layers.{layer}.", recurrent, spec.heads, used)
    return tensors if recurrent else {"inv_freq": array_source(spec.inv_freq), **tensors}


def recurrent_meta(meta: SimMeta, recurrence: qwen3_5.Recurrence) -> SimMeta:
    """The metadata of a recurrent layer, from that of one with attention."""
    return replace(meta, layer_kind=RECURRENT, gated=False, **recurrence.sizes())


def _write_all(work: Path, jobs: Sequence[PreparedRequest], progress: bool) -> None:
    total = sum(tensor.num_bytes for _, _, tensors in jobs for tensor in tensors.values())
    with tqdm(
        total=total, unit="B", unit_scale=True, unit_divisor=1024, disable=not progress, desc="converting"
    ) as bar:
        for file_name, meta, tensors in jobs:
            bar.set_postfix_str(file_name, refresh=False)
            counted = {key: _counted(tensor, bar) for key, tensor in tensors.items()}
            if meta is None:
                with open(work / file_name, "wb") as file:
                    for tensor in counted.values():
                        for block in tensor.blocks():
                            file.write(np.ascontiguousarray(block).data)
            elif isinstance(meta, VisionMeta):
                write_encoder(new_file(work / file_name), meta, counted)
            else:
                write_axmodel(work / file_name, meta, counted)


def _counted(source: TensorSource, bar: tqdm) -> TensorSource:
    def blocks() -> Iterator[np.ndarray]:
        for block in source.blocks():
            yield block
            bar.update(block.nbytes)

    return TensorSource(source.dtype, source.shape, blocks)


def post_config(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling defaults in the published packages' form, from a checkpoint's generation_config."""
    sample = bool(generation.get("do_sample", False))
    temperature, top_p, top_k = (generation.get(key) for key in ("temperature", "top_p", "top_k"))
    penalty = generation.get("repetition_penalty") or 1.0
    return {
        "enable_temperature": sample and temperature is not None,
        "temperature": 1.0 if temperature is None else temperature,
        "enable_repetition_penalty": penalty != 1.0,
        "repetition_penalty": penalty,
        "penalty_window": WHOLE_CONTEXT,
        # neither would mean greedy to a runner
        "enable_top_p_sampling": sample and (top_p is not None or top_k is None),
        "top_p": 1.0 if top_p is None else top_p,
        "enable_top_k_sampling": sample and bool(top_k),
        "top_k": top_k or 1,
    }


def package_config(
    name: str,
    meta: SimMeta,
    eos: Sequence[int],
    bos: int | None,
    extra: Mapping[str, Any] | None = None,
    prefix: str | None = None,
) -> dict[str, Any]:
    """config.json of a package: the published keys, and an `axpress` object that says that it is simulated. `prefix`:
    what the names of its model files begin with (None: as file_prefix)."""
    prefix = prefix or file_prefix(name, meta)
    config: dict[str, Any] = {
        "model_name": name,
        "tokenizer_type": TOKENIZER_TYPES.get(meta.family, meta.family),
        "url_tokenizer_model": TOKENIZER_DIR,
        "template_filename_axmodel": layer_pattern(prefix, meta.chunk),
        "axmodel_num": meta.layers,
        "filename_post_axmodel": f"{prefix}_post.axmodel",
        "filename_tokens_embed": EMBED_NAME,
        "tokens_embed_num": meta.vocab,
        "tokens_embed_size": meta.hidden,
        "post_config_path": "post_config.json",
    }
    if eos:  # where the checkpoint names none, its tokenizer does
        config["eos"] = list(eos)
    if bos is not None:
        config["bos"] = bos
    shape = {"family": meta.family, "rows": max(meta.decode_rows), "chunk": meta.chunk, "history": list(meta.history)}
    config["axpress"] = {"simulated": True, "compiler": COMPILER, **shape, **(extra or {})}
    return config


def new_file(path: Path) -> Path:
    """`path`, whose folder is there from now on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A temporary directory beside `target` that takes its place when the block succeeds and vanishes when it does
    not."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise PackageError(f"{target} exists and is not empty: give a new directory, or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    target = target.resolve()
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield work
        work.chmod(0o755)  # mkdtemp's 0700 would hide the package from a service user
        os.rename(work, target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
