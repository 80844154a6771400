"""Greedy answers through pyaxengine, as the published packages' scripts drive it: whole caches up and down at each
execute, one group per chunk, groups counted from the decode group on. Prints JSON: the ids of each answer.

axengine_loop.py PACKAGE PROMPTS_JSON TOKENS"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from axengine import InferenceSession
from ml_dtypes import bfloat16

HIDDEN = np.float32(-65536)


class Loop:
    """The package's layers and head, and one sequence's K and V as arrays on the host."""

    def __init__(self, package: Path) -> None:
        config = json.loads((package / "config.json").read_text())
        layers = [package / (config["template_filename_axmodel"] % i) for i in range(config["axmodel_num"])]
        self.layers = [InferenceSession(str(path)) for path in layers]
        self.head = InferenceSession(str(package / config["filename_post_axmodel"]))
        embedding = np.fromfile(package / config["filename_tokens_embed"], np.uint16).view(bfloat16)
        self.embedding = embedding.reshape(-1, config["tokens_embed_size"])
        self.caches = [
            {name: np.zeros(self.shapes(0)[name], bfloat16) for name in ("K_cache", "V_cache")} for _ in layers
        ]
        self.used = 0

    def shapes(self, group: int) -> dict[str, list[int]]:
        return {one.name: one.shape for one in self.layers[0].get_inputs(group)}

    def feed(self, tokens: list[int], group: int) -> int:
        """Runs `tokens` through a group, padded to its width; the best next token."""
        shapes = self.shapes(group)
        width, columns = shapes["mask"][1:]
        hidden = np.zeros(shapes["input"], bfloat16)
        hidden[0, : len(tokens)] = self.embedding[tokens]
        mask = np.full(shapes["mask"], HIDDEN)
        for row in range(len(tokens)):
            mask[0, row, : self.used] = 0
            mask[0, row, columns - width : columns - width + row + 1] = 0
        indices = np.arange(self.used, self.used + width, dtype=np.uint32).reshape(shapes["indices"])
        for layer, cache in zip(self.layers, self.caches, strict=True):
            feeds = {name: self._history(cache[name], shapes[name]) for name in cache}
            feeds |= {"indices": indices, "input": hidden, "mask": mask.astype(bfloat16)}
            keys, values, hidden = layer.run(None, feeds, shape_group=group)
            for name, rows in (("K_cache", keys), ("V_cache", values)):
                cache[name][0, self.used : self.used + len(tokens)] = rows[0, : len(tokens)]
        self.used += len(tokens)
        (logits,) = self.head.run(None, {"input": hidden[:, len(tokens) - 1 : len(tokens)]})
        return int(np.argmax(logits.astype(np.float32)))

    def _history(self, cache: np.ndarray, shape: list[int]) -> np.ndarray:
        """What a group takes for a cache: a row of zeros, of whatever width it says, where it takes no history."""
        if shape[1] == 1:
            return np.zeros(shape, bfloat16)
        return np.ascontiguousarray(cache[:, : shape[1]])

    def answer(self, prompt: list[int], tokens: int) -> list[int]:
        self.used, chunk = 0, self.shapes(1)["input"][1]
        for group, begin in enumerate(range(0, len(prompt), chunk), 1):
            token = self.feed(prompt[begin : begin + chunk], group)
        ids = [token]
        while len(ids) < tokens:
            ids.append(self.feed(ids[-1:], 0))
        return ids


if __name__ == "__main__":
    loop = Loop(Path(sys.argv[1]))
    print(json.dumps([loop.answer(prompt, int(sys.argv[3])) for prompt in json.loads(sys.argv[2])]))
