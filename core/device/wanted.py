"""What is asked for when a model is to be loaded, and what belongs around its layers and head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import PackageError
from ..model_files.embedding_file import EmbeddingTable
from ..model_files.embedding_models import END_OF_TEXT, check_family
from ..model_files.model_package import ModelPackage
from ..tokenizer.tokenizer import Tokenizer
from .axmodel import LoadedModel
from .rerank_tokens import rerank_tokens
from .shape_groups import gives_norm_alone, head_output


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model that is to be loaded. `banks`: caches of R rows each (None: as many as fit, at most MAX_BANKS);
    `logits_slots`: how many queries of a pass may want logits at once."""

    package: ModelPackage
    text: Tokenizer
    banks: int | None = None
    logits_slots: int = 1


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Arguments of a Program, see there."""

    embedding: EmbeddingTable
    token_ids: NDArray[np.int32] | None
    embeds: bool

    @classmethod
    def of(cls, wanted: Wanted, head: LoadedModel) -> Surroundings:
        """As package and loaded head say. PackageError where they contradict each other."""
        package = wanted.package
        embedding = package.embedding(head.inputs[0].shapes[0][-1])
        embeds = package.embeds or (package.head_ids_file is None and gives_norm_alone(head, len(embedding)))
        width = head.outputs[head_output(head, embeds)].shapes[0][-1]
        if embeds:
            check_family(package.family, head.path)
        token_ids = None if embeds else package.head_token_ids(width, len(embedding))
        if package.reranks:
            rerank_tokens(replace(package, embeds=embeds), wanted.text, token_ids)
        if embeds and not wanted.text.has_control(END_OF_TEXT):
            raise PackageError(f"{package.tokenizer_path} has no token {END_OF_TEXT}, with which texts to embed end")
        return cls(embedding, token_ids, embeds)
