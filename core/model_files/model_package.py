"""Opens a model directory, published or simulated, and checks everything that can be checked before the card is
touched."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PackageError
from .embedding_file import EmbeddingFile, EmbeddingTable
from .embedding_models import check_family, matryoshka
from .hf_checkpoint import token_ids
from .model_kind import layer_windows, recurrent_layers
from .package_config import AGAIN, PackageConfig, parse_devices
from .package_parts import with_likely_shape
from .package_survey import PARTS, Survey, survey_package
from .rerank_models import FLAG, INSTRUCTION_KEY, check_kind
from .sampling_defaults import SamplingDefaults
from .simulated_axmodel import OF_RECURRENT, SimMeta, device_bytes, is_simulated, read_axmodel, read_layers
from .trimmed_head import read_id_list
from .vision_files import VisionFiles

MOST_PADDING = 1024  # logits beyond the vocabulary, in small vocabularies; in others a tenth


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A model directory that has passed the checks. Paths are absolute; sizes in elements, None where only the card can
    say.

    `embeds`: its files say that it embeds texts; `matryoshka`: for which shorter vectors it was trained. `reranks`: its
    configuration says that it ranks documents, too, with `rerank_instruction` where a request has none. `aliases`:
    every name that it answers to, `name` first. `tokenizer_path`: the directory with tokenizer.json or
    tokenizer.model, or a .txt file in the vendor's format, whose family is `tokenizer_type` (the configuration's own
    word, None: not said). `eos` and `bos` override the tokenizer's; empty and None: its own hold. `family`: what the
    compiled checkpoint called its kind, as far as files tell. `vocab_size`: rows of the embedding; a head may give
    fewer or more logits, see `head_token_ids`. `rows`, `chunk` and `max_positions` are hints (simulated packages have
    them); the truth about shapes comes from the loaded layers. `device_bytes` is what layers, head and vision encoder
    are expected to take of the card's memory: the files' sizes, or what a simulated file says. `warnings`: what is
    odd. `windows`: of each layer, how many positions its tokens see (0: all); empty: no layer has a sliding window.
    `recurrent`: of each layer, whether K and V are the state of one sequence, not rows; empty: no layer's are.
    `devices`: indexes of the cards that its configuration wants it on; empty: it does not say.
    `vision`: what a model with eyes has beside the rest."""

    directory: Path
    name: str
    aliases: tuple[str, ...]
    layer_files: tuple[Path, ...]
    head_file: Path
    head_ids_file: Path | None
    embedding_file: EmbeddingFile
    vocab_size: int | None
    hidden_size: int | None
    tokenizer_path: Path
    tokenizer_type: str | None
    post_config: SamplingDefaults
    eos: tuple[int, ...]
    bos: int | None
    system_prompt: str | None
    enable_thinking: bool | None
    family: str | None
    embeds: bool
    matryoshka: bool | tuple[int, ...]
    simulated: bool
    hollow: bool
    profile: str | None
    rows: int | None
    chunk: int | None
    max_positions: int | None
    device_bytes: int
    warnings: tuple[str, ...]
    windows: tuple[int, ...] = ()
    reranks: bool = False
    rerank_instruction: str | None = None
    devices: tuple[int, ...] = ()
    recurrent: tuple[bool, ...] = ()
    vision: VisionFiles | None = None

    @property
    def num_layers(self) -> int:
        """Number of transformer layers."""
        return len(self.layer_files)

    @property
    def layers_dir(self) -> Path:
        """The directory of the layers."""
        return self.layer_files[0].parent

    @property
    def embed_file(self) -> Path:
        """The file of the embedding."""
        return self.embedding_file.path

    def embedding(self, hidden: int) -> EmbeddingTable:
        """The embedding table [vocab, hidden], mapped read-only (never read as a whole).

        `hidden` is the width the layers take. PackageError when the file cannot be a table of that width.
        """
        return self.embedding_file.open(hidden)

    def head_token_ids(self, width: int, vocab: int) -> npt.NDArray[np.int32] | None:
        """Which token each of the head's `width` logits is, where it has fewer than the embedding's `vocab` rows; None:
        logit i is token i (and what a padded head gives beyond `vocab` is no token). PackageError: a trimmed head
        without its list of ids, or with a wrong one."""
        if width >= vocab:
            if width > vocab + max(MOST_PADDING, vocab // 10):
                raise PackageError(f"{self.head_file} gives {width} logits for {vocab} tokens: files of two models?")
            return None
        if self.head_ids_file is None:
            raise PackageError(
                f"{self.head_file} gives {width} logits for a vocabulary of {vocab}, and no list says which tokens they"
                f" are: copy the head's list of ids (a .json file) into {self.head_file.parent}"
            )
        return read_id_list(self.head_ids_file, width, vocab)


def open_package(directory: str | os.PathLike[str]) -> ModelPackage:
    """Open a model directory as published, compiled or simulated: its root, or the folder of one build within it.

    Raises PackageError, one sentence with the file's name and what to do: anything missing, cut short, a Git LFS
    pointer, inconsistent, of a kind that is not supported, or several models and nothing that says which."""
    package, survey = inspect_package(directory)
    if package is None:
        raise PackageError(survey.problems[0])
    return package


def inspect_package(directory: str | os.PathLike[str]) -> tuple[ModelPackage | None, Survey]:
    """The package, None if it does not open, and all that was found: `problems` says why not."""
    survey = survey_package(directory)
    package = None
    if not survey.problems:
        with survey.noting(PARTS):
            package = _with_meta(_package(survey))
            if package.embeds:
                check_family(package.family, package.directory)
            if package.reranks:
                check_kind(package.family, package.embeds, package.directory)
            shaped = replace(_shaped(package, survey), scale=_embedding_scale(package, survey))
            package = replace(package, embedding_file=shaped, vocab_size=shaped.rows, hidden_size=shaped.hidden)
            if package.simulated and shaped.rows:
                package.head_token_ids(read_axmodel(package.head_file)[0].vocab, shaped.rows)
    return (None if survey.problems else package), survey


def _package(found: Survey) -> ModelPackage:
    build, config, tokenizer, head, embedding = found.build, found.config, found.tokenizer, found.head, found.embedding
    assert build and tokenizer and head and embedding
    own = config.values.get("axpress")
    own = PackageConfig(config.path, own if isinstance(own, dict) else {})
    # then all must be: a damaged one is named when it is read
    simulated = any(is_simulated(path) for path in (*build.files, head))
    return ModelPackage(
        directory=found.home,
        name=found.name,
        aliases=found.aliases,
        layer_files=build.files,
        head_file=head,
        head_ids_file=found.id_list,
        embedding_file=embedding,
        vocab_size=embedding.rows,
        hidden_size=embedding.hidden,
        tokenizer_path=tokenizer,
        tokenizer_type=config.text("tokenizer_type"),
        post_config=found.sampling,
        eos=token_ids(config.values.get("eos")),
        bos=next(iter(token_ids(config.values.get("bos"))), None),
        system_prompt=config.text("system_prompt"),
        enable_thinking=_thinking(config.values),
        family=package_family(found),
        embeds=found.embeds,
        matryoshka=matryoshka(config.values, found.aliases),
        simulated=simulated,
        hollow=simulated and bool(own.values.get("hollow")),
        profile=own.text("profile"),
        rows=None,
        chunk=build.chunk,
        max_positions=own.size("max_positions"),
        device_bytes=sum(path.stat().st_size for path in (*build.files, head, *_encoders(found.vision))),
        warnings=tuple(found.warnings),
        reranks=config.asks(FLAG) is not None,
        rerank_instruction=config.text(INSTRUCTION_KEY),
        windows=layer_windows((found.config, *found.sidecars), len(build.files)),
        devices=_devices(config),
        vision=found.vision,
        recurrent=recurrent_layers((found.config, *found.sidecars), len(build.files), package_family(found)),
    )


def _encoders(vision: VisionFiles | None) -> list[Path]:
    return [] if vision is None else [vision.encoder]


def _thinking(values: Mapping[str, Any]) -> bool | None:
    """The runner's two ways to say whether the model thinks where a request does not."""
    switch = values.get("enable_thinking")
    mode = {"think": True, "no_think": False}.get(str(values.get("thinking_mode")))
    return switch if isinstance(switch, bool) else mode


def _devices(config: PackageConfig) -> tuple[int, ...]:
    said = config.values.get("devices")
    return () if said in (None, []) else parse_devices(said, f"{config.path} has devices =")


def _embedding_scale(package: ModelPackage, found: Survey) -> float:
    """What embeddings are multiplied with on the host: what the configuration says as `embedding_scale`; else
    sqrt(hidden) for Gemma, as the vendor's runner does for Gemma 4, and 1 for others. PackageError: not a number
    above 0."""
    said = found.config.values.get("embedding_scale")
    if said is None:
        hidden = package.hidden_size or package.embedding_file.hidden
        return math.sqrt(hidden) if hidden and (package.family or "").startswith("gemma") else 1.0
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 < said < math.inf:
        raise PackageError(
            f"{found.config.path} has embedding_scale = {said!r}, which is not a number above 0: {AGAIN}"
        )
    return float(said)


def package_family(found: Survey) -> str | None:
    """The model_type that the checkpoint had: as its configuration says, else as the compiler named the layers."""
    said = next((kind for config in (found.config, *found.sidecars) if (kind := config.text("model_type"))), None)
    if said is None and found.build is not None:
        said = re.sub(r"forcausallm$", "", found.build.prefix.lower())
    return said or None


def _shaped(package: ModelPackage, found: Survey) -> EmbeddingFile:
    """The embedding with every size that is known, checked against its file."""
    file = package.embedding_file.with_shape(package.vocab_size, package.hidden_size)
    return with_likely_shape(file, (package.tokenizer_path, found.home), found.outer_config)


def _with_meta(package: ModelPackage) -> ModelPackage:
    """Check the metadata of a simulated package's files against each other, and take sizes and costs from it."""
    if not package.simulated:
        return package
    metas = [read_axmodel(path)[0] for path in (*package.layer_files, package.head_file)]
    *layers, head = metas
    first = next((meta for meta in layers if not meta.recurrent), layers[0])
    if head.layer is not None:
        raise PackageError(f"{package.head_file} is a layer, not a head: {AGAIN}")
    for number, (meta, path) in enumerate(zip(layers, package.layer_files, strict=True)):
        if meta.layer != number or meta.layers not in (0, len(layers)):
            raise PackageError(
                f"{path} holds layer {meta.layer} of {meta.layers}, its place is layer {number} of {len(layers)}:"
                f" {AGAIN}"
            )
        if difference := _difference(meta, first):
            raise PackageError(f"{path} does not belong to {package.layer_files[0].name}: its {difference}; {AGAIN}")
    if head.hidden != layers[0].hidden:
        raise PackageError(
            f"{package.head_file} takes rows of {head.hidden}, the layers give {layers[0].hidden}: {AGAIN}"
        )
    common = read_layers(package.layer_files)
    sizes = [
        meta.cmm_bytes or path.stat().st_size
        for meta, path in zip(metas, (*package.layer_files, package.head_file), strict=True)
    ]
    sizes += [device_bytes(path) for path in _encoders(package.vision)]
    return replace(
        package,
        hidden_size=_agree(package, "tokens_embed_size", package.hidden_size, head.hidden),
        family=layers[0].family,
        recurrent=tuple(meta.recurrent for meta in layers) if any(meta.recurrent for meta in layers) else (),
        hollow=layers[0].hollow,
        profile=layers[0].profile or package.profile,
        rows=common.decode_rows[-1],
        chunk=common.chunk or None,
        device_bytes=sum(sizes),
    )


def _difference(meta: SimMeta, first: SimMeta) -> str | None:
    for field in fields(SimMeta):
        mine, other = getattr(meta, field.name), getattr(first, field.name)
        own = field.name in ("layer", "cmm_bytes", "file_bytes", "compiler", "decode_rows", "chunk", "history", "gated")
        if not own and field.name not in OF_RECURRENT and not field.name.startswith("cost_") and mine != other:
            return f"{field.name} is {mine}, not {other}"
    return None


def _agree(package: ModelPackage, key: str, configured: int | None, actual: int) -> int:
    if configured not in (None, actual):
        raise PackageError(
            f"{package.directory / 'config.json'} says {key} {configured}, the layers take {actual}: {AGAIN}"
        )
    return actual
