"""The tokens that judge a document, which a reranker's tokenizer and head must have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import PackageError
from ..model_files.model_package import ModelPackage
from ..model_files.rerank_models import CONTROL, NO, SUPPORTED, YES, check_kind
from ..tokenizer.tokenizer import Tokenizer


def rerank_tokens(package: ModelPackage, text: Tokenizer, token_ids: NDArray[np.int32] | None) -> tuple[int, int]:
    """Ids of yes and no. `token_ids`: the tokens that a trimmed head gives logits of; None: all. PackageError: the
    model can be no reranker."""
    check_kind(package.family, package.embeds, package.directory)
    if missing := next((token for token in CONTROL if not text.has_control(token)), None):
        raise PackageError(f"{package.tokenizer_path} has no token {missing}: {SUPPORTED}")
    ids = [text.encode(answer) for answer in (YES, NO)]
    if any(len(tokens) != 1 for tokens in ids):
        raise PackageError(f"{package.tokenizer_path} has no token for {YES!r}, or none for {NO!r}: {SUPPORTED}")
    (yes,), (no,) = ids
    if token_ids is not None and not {yes, no} <= set(token_ids.tolist()):
        raise PackageError(
            f"{package.head_file} is trimmed, and gives no logits of {YES!r} and {NO!r} (tokens {yes} and {no}),"
            f" which judge documents: keep both in {package.head_ids_file}, or serve it as no reranker"
        )
    return yes, no
