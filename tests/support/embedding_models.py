"""Tiny random Qwen3-Embedding checkpoints, as they are published, and what transformers makes of texts with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import vendor_tokenizers
from tiny_models import Tiny, save_checkpoint, write_checkpoint

from axpress.core.model_files.convert import convert
from axpress.core.model_files.embedding_models import END_OF_TEXT
from axpress.core.model_files.safetensors import SafetensorsFile, array_source, write_safetensors
from axpress.core.model_files.simulated_axmodel import read_axmodel, write_axmodel

TINY = Tiny("qwen3", layers=2, vocab=512, tied=True)
NAME = "Qwen3-Embedding-tiny"
POOLING = {
    "word_embedding_dimension": 64,
    "pooling_mode_cls_token": False,
    "pooling_mode_lasttoken": True,
    "include_prompt": True,
}


def as_published(directory: Path, pooling: dict[str, Any] = POOLING) -> Path:
    """Lays a checkpoint out as Qwen3-Embedding's: no head, tensors called as in a model without one, a tokenizer that
    ends texts, and sentence-transformers' files."""
    path = directory / "model.safetensors"
    file = SafetensorsFile(path)
    kept = {name: file.array(name).copy() for name in file.tensors if not name.startswith("lm_head")}
    tensors = {name.removeprefix("model."): array_source(array) for name, array in kept.items()}
    write_safetensors(path, {"format": "pt"}, tensors)
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    end = next(token["id"] for token in tokenizer["added_tokens"] if token["content"] == END_OF_TEXT)
    ends = {"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, ends],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, ends, {"Sequence": {"id": "B", "type_id": 0}}, ends],
        "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [end], "tokens": [END_OF_TEXT]}},
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (directory / "config_sentence_transformers.json").write_text("{}")
    return directory


def embedding_package(directory: Path, tiny: Tiny = TINY, head_gives: str = "norm", **options: Any) -> Path:
    """A package of random weights that `convert` makes; its head then changed to give the same in another way."""
    write_checkpoint(tiny, directory / NAME)
    as_published(directory / NAME)
    package = convert(directory / NAME, directory / "package", progress=False, **options)
    return package if head_gives == "norm" else with_head(package, tiny, head_gives)


def with_head(package: Path, tiny: Tiny, head_gives: str) -> Path:
    """The same package with a head of another kind (see SimMeta)."""
    path = next(package.glob("*_post.axmodel"))
    meta, file = read_axmodel(path)
    tensors = {"norm": array_source(file.array("norm").copy())}
    if head_gives in ("both", "logits"):
        tensors["head"] = array_source(np.zeros((tiny.vocab, tiny.hidden), np.uint16))
    write_axmodel(path, replace(meta, head_gives=head_gives), tensors)
    return package


def published_layout(package: Path) -> Path:
    """The same package as the vendor publishes them: flat, with the tokenizer in one .txt file and no sampling."""
    config = json.loads((package / "config.json").read_text())
    spec = json.loads((package / "tokenizer" / "tokenizer.json").read_text())
    vendor_tokenizers.huggingface(package / "tokenizer.txt", spec, config["eos"])
    for path in package.glob("*.axmodel"):
        path.rename(package / f"qwen3_{path.name.partition('_')[2]}")
    shutil.rmtree(package / "tokenizer")
    (package / "post_config.json").unlink()
    names = ("template_filename_axmodel", "filename_post_axmodel")
    changed = {name: f"qwen3_{config[name].partition('_')[2]}" for name in names}
    gone = ("axpress", "post_config_path", "eos", "bos")
    kept = {key: value for key, value in config.items() if key not in gone} | changed
    more = {"model_name": "AXERA-TECH/Qwen3-Embedding-0.6B", "url_tokenizer_model": "tokenizer.txt", "devices": [0]}
    (package / "config.json").write_text(json.dumps(kept | more))
    return package


def reference(directory: Path, tiny: Tiny = TINY) -> tuple[Any, Any]:
    """The transformers model without its head, float32, and the tokenizer, of a checkpoint that is written there."""
    import transformers

    model = save_checkpoint(tiny, directory)
    as_published(directory)
    return model.model, transformers.PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))


def reference_vectors(model: Any, prompts: Sequence[Sequence[int]], dimensions: int | None = None) -> np.ndarray:
    """What sentence-transformers makes of these ids: the last token's normed state, its first values, of length 1."""
    import torch

    vectors = []
    with torch.no_grad():
        for ids in prompts:
            last = model(torch.tensor([list(ids)])).last_hidden_state[0, -1, :dimensions]
            vectors.append(torch.nn.functional.normalize(last, dim=0).numpy())
    return np.array(vectors)
