"""Packages of long contexts as published (C256-P12K-CTX16K in their names), emulated: files, config and tokenizer of
MiniCPM5's 2026 builds, whose layers are llama's; shapes and no weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import published_tokenizers
import vendor_tokenizers
from server_process import PROFILE
from stub_packages import GREEDY

from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.simulated_axmodel import SimMeta

CHUNK = 256
NAME = "MiniCPM5-1B-AX650-C256-P{}K-CTX{}K"


def long_profile(path: Path, context: int, prompt: int) -> Path:
    """A small made-up model with decode groups that double up to `context` rows and a ladder up to `prompt`; its times
    mean nothing."""
    sizes = [(context + 1) // part - 1 for part in (8, 4, 2)]
    changes = {
        'family = "qwen3"': 'family = "llama"',
        "rows = 1023\nchunk = 128\nhistory = [0, 128, 256, 384, 512]": (
            f"rows = {context}\nsmaller_rows = {sizes}\nchunk = {CHUNK}\nhistory = {list(range(0, prompt + 1, CHUNK))}"
        ),
    }
    text = PROFILE
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    return path


def long_package(folder: Path, context: int = 16383, prompt: int = 12288, *, pruned: bool = True) -> Path:
    """The package of that name in `folder`. `pruned`: one layer lacks some groups, and has the others at other
    numbers."""

    def prune(meta: SimMeta) -> SimMeta:
        if meta.layer != 1 or not pruned:
            return meta
        kept, costs = meta.history[:1] + meta.history[2:], meta.cost_chunk_us or ()
        return replace(
            meta, decode_rows=meta.decode_rows[1:], cost_decode_us=(meta.cost_decode_us or ())[1:], history=kept,
            cost_chunk_us=costs[:1] + costs[2:],
        )  # fmt: skip

    name = NAME.format((prompt + 1) >> 10, (context + 1) >> 10)
    package = hollow(
        str(long_profile(folder / "long.toml", context, prompt)), folder / name, name="llama", change=prune
    )
    shutil.rmtree(package / "tokenizer")
    spec = published_tokenizers.byte_level("minicpm5")
    vendor_tokenizers.huggingface(package / "minicpm5_tokenizer.txt", spec, [0])
    made = json.loads((package / "config.json").read_text())
    published = {
        "system_prompt": "you are a helpful assistant.", "model_name": f"AXERA-TECH/{name}",
        "url_tokenizer_model": "minicpm5_tokenizer.txt", "tokenizer_type": "MiniCPM5",
        "post_config_path": "post_config.json", "use_mmap_load_embed": True, "use_mmap_load_layer": True,
        "devices": [0], "enable_thinking": False,
    }  # fmt: skip
    same = ("template_filename_axmodel", "axmodel_num", "filename_post_axmodel", "filename_tokens_embed",
            "tokens_embed_num", "tokens_embed_size")  # fmt: skip
    config = {**published, **{key: made[key] for key in same}}
    (package / "config.json").write_text(json.dumps({**config, "axpress": made["axpress"]}))
    (package / "post_config.json").write_text(json.dumps(GREEDY))
    return package
