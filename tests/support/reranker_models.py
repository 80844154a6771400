"""Tiny random Qwen3-Reranker checkpoints, as they are published, and how transformers ranks documents with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny_tokenizers
from tiny_models import Tiny, save_checkpoint, write_checkpoint

from axpress.core.model_files.convert import convert
from axpress.core.model_files.rerank_models import AFTER, BEFORE, INSTRUCTION
from axpress.core.model_files.safetensors import array_source
from axpress.core.model_files.simulated_axmodel import read_axmodel, write_axmodel

TINY = Tiny("qwen3", layers=2, vocab=640)
NAME = "Qwen3-Reranker-tiny"
SIGN = "config_sentence_transformers.json"


def tokens_of(directory: Path) -> tuple[int, int]:
    """Ids of yes and no."""
    vocabulary = json.loads((directory / "tokenizer.json").read_text())["model"]["vocab"]
    return vocabulary["yes"], vocabulary["no"]


def as_published(directory: Path, instruction: str = INSTRUCTION) -> Path:
    """Gives a checkpoint a tokenizer that knows yes and no, and sentence-transformers' files."""
    tiny_tokenizers.qwen(directory, "yes\nno")
    yes, no = tokens_of(directory)
    added = json.loads((directory / "tokenizer.json").read_text())["added_tokens"]
    end = next(token["id"] for token in added if token["content"] == "<|im_end|>")
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": end}))
    base, kind = "sentence_transformers", "CrossEncoder"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{base}.base.modules.transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_LogitScore", "type": f"{base}.cross_encoder.modules.logit_score.LogitScore"},
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    said = {"model_type": kind, "prompts": {"query": instruction}, "default_prompt_name": "query"}
    (directory / SIGN).write_text(json.dumps(said))
    (directory / "1_LogitScore").mkdir()
    (directory / "1_LogitScore" / "config.json").write_text(json.dumps({"true_token_id": yes, "false_token_id": no}))
    return directory


def reranker_package(directory: Path, tiny: Tiny = TINY, **options: Any) -> Path:
    """A package of random weights that `convert` makes of such a checkpoint."""
    write_checkpoint(tiny, directory / NAME)
    return convert(as_published(directory / NAME), directory / "package", progress=False, **options)


def trim(package: Path, ids: list[int]) -> Path:
    """Trims the package's head to these tokens."""
    path = next(package.glob("*_post.axmodel"))
    meta, file = read_axmodel(path)
    tensors = {"norm": array_source(file.array("norm").copy()), "head": array_source(file.array("head")[ids].copy())}
    write_axmodel(package / "new.axmodel", replace(meta, vocab=len(ids)), tensors)
    (package / "new.axmodel").rename(path)
    (package / "kept_ids.json").write_text(json.dumps(ids))
    return package


def reference(directory: Path, tiny: Tiny = TINY) -> tuple[Any, Any]:
    """The transformers model in float32, and the tokenizer, of a checkpoint that is written there."""
    import transformers

    model = save_checkpoint(tiny, directory)
    as_published(directory)
    return model, transformers.PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))


def reference_ids(tokenizer: Any, query: str, document: str, instruction: str = INSTRUCTION) -> list[int]:
    """A pair as its model card lays it out."""
    pair = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    return [token for part in (BEFORE, pair, AFTER) for token in tokenizer.encode(part, add_special_tokens=False)]


def reference_logits(model: Any, prompts: list[list[int]], tokens: tuple[int, ...]) -> np.ndarray:
    """Of these tokens after each of the prompts, float32 [prompts, tokens]."""
    import torch

    with torch.no_grad():
        last = [model(torch.tensor([ids])).logits[0, -1, list(tokens)].numpy() for ids in prompts]
    return np.array(last)
