"""Embedding models: what tells them, and what their vectors may be.

One kind is served, Qwen3-Embedding: a text ends with END_OF_TEXT, whose hidden state behind the final norm is the
vector, scaled to length 1. Others gather a text's meaning in other ways, and files do not always say how."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PackageError
from ..files import read_json

FAMILY = "qwen3"
END_OF_TEXT = "<|endoftext|>"
SHORTEST = 32  # values: what Qwen3-Embedding was trained for
SIGN, POOLING = "config_sentence_transformers.json", "1_Pooling"
LAST_TOKEN = "lasttoken"
SUPPORTED = "axpress serves embedding models of the Qwen3-Embedding type, whose vector is the last token's"


def check_family(family: str | None, where: Path | str) -> None:
    """Raises PackageError for an embedding model of any other family."""
    if family != FAMILY:
        raise PackageError(f"{where} is an embedding model of the family {family or 'unknown'}: {SUPPORTED}")


def is_checkpoint(directory: Path) -> bool:
    """Whether a Hugging Face checkpoint was made to embed texts. PackageError: in a way that is not supported."""
    dense = sorted(path.name for path in directory.glob("*_Dense"))
    if dense:
        raise PackageError(f"{directory / dense[0]} changes vectors after the model: {SUPPORTED}")
    pooling = directory / POOLING / "config.json"
    if not pooling.is_file():
        return (directory / SIGN).is_file() and not is_cross_encoder(directory / SIGN)
    said = read_json(pooling)
    start = "pooling_mode_"
    modes = [key.removeprefix(start) for key, value in said.items() if key.startswith(start) and value is True]
    mode = said.get("pooling_mode", " and ".join(modes))
    if mode != LAST_TOKEN:
        raise PackageError(f"{pooling} gathers vectors by {mode}: {SUPPORTED}")
    return True


def is_cross_encoder(sign: Path) -> bool:
    """Whether sentence-transformers' file is one of a model that judges pairs of texts, and embeds none."""
    try:
        return json.loads(sign.read_bytes()).get("model_type") == "CrossEncoder"
    except (OSError, ValueError, AttributeError):
        return False


def check_end(tokenizer_json: bytes, where: Path) -> None:
    """Raises PackageError unless the tokenizer itself ends each text with END_OF_TEXT, as it is served."""
    processor = json.loads(tokenizer_json).get("post_processor") or {}
    for step in processor.get("processors") or [processor]:
        last = (step.get("single") or [{}])[-1]
        if step.get("type") == "TemplateProcessing" and last.get("SpecialToken", {}).get("id") == END_OF_TEXT:
            return
    raise PackageError(f"{where} does not end a text with {END_OF_TEXT}: {SUPPORTED}, and that is their end token")


def matryoshka(values: Mapping[str, Any], names: Iterable[str]) -> bool | tuple[int, ...]:
    """Whether a model was trained for shorter vectors, or for which: as a configuration says, else as Qwen3-Embedding
    was, which no file says."""
    told = values.get("matryoshka_dimensions")
    if isinstance(told, list):
        return tuple(sorted({size for size in told if type(size) is int and size > 0}))
    said = values.get("is_matryoshka")
    if isinstance(said, bool):
        return said
    return any("qwen3-embedding" in re.sub("[^a-z0-9]+", "-", name.lower()) for name in names)


def package_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a package's configuration says of a model whose checkpoint has this one."""
    told = {key: config[key] for key in ("is_matryoshka", "matryoshka_dimensions") if key in config}
    return {"is_embedding": True, **told}


def vector_sizes(trained: bool | tuple[int, ...], hidden: int) -> Sequence[int]:
    """How many values a vector may have; last, the whole one's `hidden`."""
    if isinstance(trained, tuple):
        return (*(size for size in trained if size < hidden), hidden)
    return range(min(SHORTEST, hidden) if trained else hidden, hidden + 1)
