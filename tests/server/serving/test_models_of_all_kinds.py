"""Models of every kind by name on one small card: each says what it says alone, whichever had to go for it."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
from embedding_models import embedding_package
from pictures import data_url, file, picture
from seeing_models import seeing_package
from server_process import RunningServer, openai_client
from tiny_models import RECURRENT, Tiny, convert_tiny
from tiny_vision_models import TinyVision

from axpress.core.model_store.store import RECORD

pytest.importorskip("torch", reason="tiny models with eyes are made with torch and transformers")

MEMORY = 87
"""MiB of the card: 16 and 64 of them stay free, and the hybrid's cache and states take 3."""
PICTURE = {"type": "image_url", "image_url": {"url": data_url(file(picture()))}}
CAPABILITIES = {
    "dense": ["completion", "tools", "thinking"],
    "hybrid": ["completion", "tools", "thinking"],
    "seeing": ["completion", "tools", "vision", "thinking"],
    "embedding": ["embedding"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with one of each."""
    folder = tmp_path_factory.mktemp("kinds")
    sizes: dict[str, Any] = {"rows": 511, "chunk": 32, "history": [0, 32, 64, 128, 256]}
    made = {
        "dense": convert_tiny(folder / "dense", Tiny("qwen3"), **sizes),
        "hybrid": convert_tiny(folder / "hybrid", RECURRENT, **sizes),
        "seeing": seeing_package(TinyVision("qwen3_vl", image_size=64), folder / "seeing")[1],
        "embedding": embedding_package(folder / "embedding", rows=255, chunk=64),
    }
    record = {"source": "made up", "revision": "1", "licence": None, "pulled_at": "2026-01-01T00:00:00+00:00",
              "files": 3, "bytes": 1000}  # fmt: skip
    for name, package in made.items():
        stored = folder / "models" / name
        stored.parent.mkdir(exist_ok=True)
        shutil.move(package, stored)
        (stored / RECORD).write_text(json.dumps({"name": name, **record}))
    return folder / "models"


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    environment = {"AXPRESS_MODELS": str(root), "AXPRESS_EMU_FAULTS": f"memory={MEMORY}"}
    with RunningServer("--models", "--emu-profile", "none", "--max-queue", 8, environment=environment) as running:
        yield running


def ask(server: RunningServer, kind: str, model: str) -> Any:
    """Its answer to a question of its kind."""
    with openai_client(server) as client:
        if kind == "embedding":
            return client.embeddings.create(model=model, input=["a text"]).data[0].embedding
        content = [PICTURE, {"type": "text", "text": "What is it?"}] if kind == "seeing" else "Tell me something."
        asked: list[Any] = [{"role": "user", "content": content}]
        answer = client.chat.completions.create(
            model=model, messages=asked, max_tokens=12, temperature=0, logprobs=True, extra_body={"ignore_eos": True}
        )
        return answer.choices[0].message.content, answer.choices[0].logprobs


def test_what_a_model_can_do_is_told_before_it_is_loaded_and_after(server: RunningServer) -> None:
    with ollama.Client(server.url) as client:
        for kind, can in CAPABILITIES.items():
            assert client.show(kind).capabilities == can
            ask(server, kind, kind)
            assert kind in [model["name"] for model in server.health()[1]["models"]]
            assert client.show(kind).capabilities == can


def test_each_says_what_it_says_alone_whichever_had_to_go_for_it(root: Path, server: RunningServer) -> None:
    alone = {}
    for kind in CAPABILITIES:
        with RunningServer(root / kind, "--emu-profile", "none") as one:
            alone[kind] = ask(one, kind, "default")
    before, answers = server.log.count("requests that wait for it"), []

    def client(seed: int) -> None:
        chosen = random.Random(seed)
        for _ in range(8):
            kind = chosen.choice(list(CAPABILITIES))
            answers.append((kind, ask(server, kind, kind)))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 24 and all(answer == alone[kind] for kind, answer in answers)
    assert server.log.count("requests that wait for it") > before, "nobody had to go"
    assert "out of memory" not in server.log
