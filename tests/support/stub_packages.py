"""Model directories as they are published, in stubs: right names and sizes, files without content (sparse), tokenizers
that open. tests/data/packages.json describes them; `tree` writes such a description down shortly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from repository import ROOT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

PUBLISHED = ROOT / "tests" / "data" / "packages.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"
SMALL = 4096
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
GREEDY = {  # as 2026's packages come
    "enable_temperature": False, "temperature": 0.9, "enable_repetition_penalty": False, "repetition_penalty": 1.2,
    "penalty_window": 20, "enable_top_p_sampling": False, "top_p": 0.8, "enable_top_k_sampling": False, "top_k": 10,
}  # fmt: skip


def published() -> list[dict[str, Any]]:
    """The packages that are described; the keys are explained beside the original of the file."""
    entries: list[dict[str, Any]] = json.loads(PUBLISHED.read_text())
    return entries


def directory_name(entry: Mapping[str, Any]) -> str:
    """The directory that a clone of the package makes."""
    if mode := entry.get("mode"):
        return str(mode["mode"])
    return str(entry["name"]).partition("@")[0].replace("pulsar2 llm_build output ", "").partition(" ")[0]


def build_entry(parent: Path, entry: Mapping[str, Any]) -> Path:
    """The tree of one description below `parent`; returns its root."""
    root = parent / directory_name(entry)
    root.mkdir(parents=True)
    for file in entry["files"]:
        for number in range(file.get("count", 1)):
            path = root / (file["path"] % number if file.get("count") else file["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, file, entry)
    return root


def _write(path: Path, file: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    kind, size = file["kind"], file["size"]
    contents = {"config.json": entry["config"], "post_config.json": entry["post_config"]}
    if kind == "pointer":
        pointer(path, file.get("real_size", 1 << 20))
    elif kind == "config" and (value := contents.get(path.name, entry.get("mode"))) not in (None, "absent"):
        path.write_text(json.dumps(value))
    elif kind == "tokenizer":
        tokenizer_file(path)
    elif path.suffix == ".npy":
        npy(path, (entry["vocab"], entry["hidden"]))
    elif size == 0 or (kind == "config" and path.name in contents):
        path.touch()
    else:
        sparse(path, size or SMALL)


def sparse(path: Path, size: int) -> None:
    """A file of `size` bytes that takes no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(size)


def pointer(path: Path, size: int) -> None:
    """What a clone without Git LFS has in place of a file of `size` bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(POINTER.format("0" * 64, size))


def npy(path: Path, shape: tuple[int, int], dtype: str = "<f4") -> None:
    """A sparse .npy file of zeros."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + shape[0] * shape[1] * np.dtype(dtype).itemsize)


def tokenizer_file(path: Path) -> None:
    """One file of a tokenizer that opens: bytes, and the ends that Qwen's has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == "tokenizer.json":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        made = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(alphabet)}, merges=[]))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        made.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
        made.save(str(path))
    elif path.name == "tokenizer_config.json":
        path.write_text(json.dumps({"eos_token": "<|im_end|>", "chat_template": CHATML}))
    elif path.suffix == ".txt" and "tokenizer" in path.name:
        tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        path.write_text("\n".join(["430 3", "3 1 0", "256 257 258 258", "259 1", *tokens, "#version: 0.2", ""]))
    elif path.suffix == ".json":
        path.write_text("{}")
    else:
        path.write_text("stub\n")


def tree(root: Path, files: Mapping[str, Any]) -> Path:
    """Writes files down: a name with %d and a (count, size) are layers; an int is a size; a str a text; a dict or list
    JSON; "pointer" a Git LFS pointer; None a file of a tokenizer; a tuple of two ints under .npy its shape."""
    root.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, tuple) and path.suffix == ".npy":
            npy(path, value)
        elif isinstance(value, tuple):
            for number in range(value[0]):
                sparse(root / (name % number), value[1])
        elif value is None:
            tokenizer_file(path)
        elif isinstance(value, int):
            sparse(path, value)
        elif value == "pointer":
            pointer(path, 1 << 20)
        elif isinstance(value, str):
            path.write_text(value)
        else:
            path.write_text(json.dumps(value))
    return root
