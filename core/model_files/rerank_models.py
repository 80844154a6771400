"""Rerankers: what tells them, and what a package says of one.

One kind is served, Qwen3-Reranker: a whole language model that is asked whether a document meets a query, and judged by
its logits of "yes" and "no". Others are asked or judged in other ways, and files do not always say how."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import PackageError
from ..files import read_json
from . import embedding_models

FAMILY = "qwen3"
YES, NO = "yes", "no"
SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the"
    ' answer can only be "yes" or "no".'
)
BEFORE = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
CONTROL = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
SCORE = "*_LogitScore"
TEMPLATE = "chat_template.jinja"
FLAG, INSTRUCTION_KEY = "is_reranker", "rerank_instruction"
SUPPORTED = 'axpress serves rerankers of the Qwen3-Reranker type, which are judged by their logits of "yes" and "no"'


def check_kind(family: str | None, embeds: bool, where: Path | str) -> None:
    """Raises PackageError for a model that can be no reranker, whatever is said of it."""
    if embeds:
        raise PackageError(f"{where} is an embedding model, and no reranker: {SUPPORTED}")
    if family != FAMILY:
        raise PackageError(f"{where} is of the family {family or 'unknown'}, and no reranker: {SUPPORTED}")


def is_checkpoint(directory: Path) -> bool:
    """Whether a Hugging Face checkpoint was made to rank documents, as sentence-transformers' files say."""
    return embedding_models.is_cross_encoder(directory / embedding_models.SIGN) or any(directory.glob(SCORE))


def package_keys(directory: Path) -> dict[str, Any]:
    """What a package says of the checkpoint that `is_checkpoint`. PackageError: it ranks in a way that is not
    supported."""
    sign = directory / embedding_models.SIGN
    if not any(directory.glob(SCORE)):
        raise PackageError(f"{sign} is a reranker's, and no {SCORE} says what judges a document: {SUPPORTED}")
    said = read_json(sign, {})
    prompts, name = said.get("prompts"), said.get("default_prompt_name")
    instruction = prompts.get(name) if isinstance(prompts, dict) else None
    return {FLAG: True, **({INSTRUCTION_KEY: instruction} if isinstance(instruction, str) and instruction else {})}


def check_tokenizer(files: Mapping[str, bytes], checkpoint: Path) -> None:
    """Raises PackageError where these files of a tokenizer lack what a reranker is asked by, or where the checkpoint's
    own files say that it is asked or judged otherwise."""
    tokenizer = json.loads(files.get("tokenizer.json", b"{}"))
    vocabulary = tokenizer.get("model", {}).get("vocab")
    known = vocabulary if isinstance(vocabulary, dict) else {}
    added = {token.get("content") for token in tokenizer.get("added_tokens") or []}
    if missing := [token for token in (YES, NO) if token not in known] + [t for t in CONTROL if t not in added]:
        raise PackageError(f"{checkpoint} has no token {missing[0]!r} in tokenizer.json: {SUPPORTED}")
    for path in sorted(checkpoint.glob(f"{SCORE}/config.json")):
        said = read_json(path)
        ids = said.get("true_token_id"), said.get("false_token_id")
        if ids != (known[YES], known[NO]):
            raise PackageError(f"{path} judges by the tokens {ids[0]} and {ids[1]}: {SUPPORTED}")
        template = files.get(TEMPLATE, b"").decode("utf-8", "replace")
        if re.search("""["']document["']""", template) and not _is_of_pairs(template):
            raise PackageError(f"{checkpoint / TEMPLATE} asks about documents in other words: {SUPPORTED}")


def chat_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The tokenizer's files without a chat template that lays out a query and a document, and no conversation."""
    pairs = _is_of_pairs(files.get(TEMPLATE, b"").decode("utf-8", "replace"))
    return {name: content for name, content in files.items() if name != TEMPLATE or not pairs}


def _is_of_pairs(template: str) -> bool:
    return SYSTEM.partition(" Note")[0] in template
