"""Several models by name from one server: a chat model and an embedding model that are there together, and models of a
directory that come when they are asked for and go for others. The card is emulated, and has 7 GB."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest
from embedding_models import embedding_package
from server_process import RunningServer, openai_client
from stored_models import store_hollow
from tiny_models import Tiny, write_checkpoint

from axpress.core.model_files.convert import convert

TEXTS = [f"text {i} of a batch that is embedded while a chat goes on " * 3 for i in range(16)]
QUESTION: list[Any] = [{"role": "user", "content": "Tell me something long."}]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("both")
    write_checkpoint(Tiny("qwen3", layers=2), folder / "Chat-tiny")
    ladder: dict[str, Any] = {"rows": 511, "chunk": 32, "history": [0, 32, 64, 128, 256]}
    chat = convert(folder / "Chat-tiny", folder / "chat", progress=False, **ladder)
    return chat, embedding_package(folder / "embedding", rows=255, chunk=64)


def chat_bytes(server: RunningServer, model: str) -> list[Any]:
    """What a streamed chat and Ollama's answer come to, but for times and ids."""
    fields: dict[str, Any] = {"model": model, "messages": QUESTION}
    with openai_client(server) as client, ollama.Client(server.url) as other:
        stream = client.chat.completions.create(**fields, max_tokens=80, temperature=0, seed=1, stream=True)
        text = [(chunk.choices[0].delta.content, chunk.choices[0].finish_reason) for chunk in stream]
        options = {"temperature": 0, "num_predict": 60}
        answer = other.chat(**fields, options=options)
        return ["".join(part or "" for part, _ in text), text[-1][1], answer.message.content, answer.eval_count]


def embedding_bytes(server: RunningServer, model: str) -> list[Any]:
    with openai_client(server) as client, ollama.Client(server.url) as other:
        first = [one.embedding for one in client.embeddings.create(model=model, input=TEXTS).data]
        second = other.embed(model=model, input=TEXTS[:8])
        return [first, [list(vector) for vector in second.embeddings]]


def test_a_chat_and_an_embedding_model_answer_together_as_they_do_alone(packages: tuple[Path, Path]) -> None:
    alone = []
    for package, ask in zip(packages, (chat_bytes, embedding_bytes), strict=True):
        with RunningServer(package, "--emu-profile", "none") as server:
            alone.append(ask(server, "default"))
    with RunningServer(*packages, "--emu-profile", "none") as server:
        with openai_client(server) as client:
            chat, embedding = [model.id for model in client.models.list()]
            with pytest.raises(
                openai.NotFoundError, match=f"'gpt-4' not found: this server has '{chat}', '{embedding}'"
            ):
                client.chat.completions.create(model="gpt-4", messages=QUESTION)
            with pytest.raises(openai.BadRequestError, match="embed"):
                client.chat.completions.create(model=embedding, messages=QUESTION)
        together: list[Any] = [None] * 4
        asked = [(chat_bytes, chat), (embedding_bytes, embedding)] * 2
        threads = [
            threading.Thread(target=lambda i=i, ask=ask, name=name: together.__setitem__(i, ask(server, name)))
            for i, (ask, name) in enumerate(asked)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert together == alone * 2
        with ollama.Client(server.url) as other:
            assert [model.model for model in other.list().models] == [f"{chat}:latest", f"{embedding}:latest"]
            assert {model.model for model in other.ps().models} == {f"{chat}:latest", f"{embedding}:latest"}
            assert other.show(embedding).capabilities == ["embedding"]
        report = json.loads(server.request("GET", "/report")[2])
        assert report["settings"]["more_models"] == ["package"] and len(report["health"]["models"]) == 2
        told = server.request("GET", "/metrics")[2].decode()
        assert f'vllm:generation_tokens_total{{model_name="{chat}"}}' in told
        assert f'axpress_passes_total{{model_name="{embedding}",kind="chunk"}}' in told
        counted = re.compile(r'^vllm:e2e_request_latency_seconds_count{model_name="(.*)"} (.*)$', re.MULTILINE)

        def ended() -> dict[str, str]:
            return dict(counted.findall(server.request("GET", "/metrics")[2].decode()))

        server.wait(lambda: ended() == {chat: "4", embedding: "48"}, 20, "chats, and texts of batches, by model")


class Stored:
    """A server of a models directory with three models of 2.5 GB, of which two fit, and one that never does."""

    def __init__(self, server: RunningServer, state: Path, root: Path) -> None:
        self.server, self.state, self.root = server, state, root

    def ask(self, model: str, **fields: Any) -> tuple[int, Any]:
        body = {"model": model, "messages": QUESTION, "max_tokens": 3, **fields}
        status, _, raw = self.server.request("POST", "/v1/chat/completions", json.dumps(body).encode(),
                                             {"content-type": "application/json"})  # fmt: skip
        return status, json.loads(raw)

    def models(self) -> dict[str, dict[str, Any]]:
        return {model["name"]: model for model in self.server.health()[1]["models"]}

    def let_stays_end(self) -> None:
        """Until each may go for others: it stays as long as its loading took."""
        time.sleep(max(model["load_seconds"] for model in self.models().values()) + 0.1)

    def loads(self) -> int:
        """So far."""
        return self.server.log.count("requests that wait for it")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    root = tmp_path_factory.mktemp("stored") / "models"
    for name in "abc":
        store_hollow(root, f"model-{name}")
    store_hollow(root, "too-large", 9.0)
    state = root.parent / "state"
    arguments = ("--models", "--emu-profile", root.parent / "model-a.toml", "--emu-speed", 100, "--max-queue", 6)
    with RunningServer(*arguments, "--state-dir", state, environment={"AXPRESS_MODELS": str(root)}) as server:
        yield Stored(server, state, root)
        server.wait(server.idle, 20, "idle")


def test_models_come_when_they_are_asked_for_and_go_for_others(stored: Stored) -> None:
    names = ["model-a", "model-b", "model-c"]
    assert stored.models() == {}
    with openai_client(stored.server) as client:
        assert [model.id for model in client.models.list()] == [*names, "too-large"]
    for name, loads in (("model-a", 1), ("model-b", 2), ("model-a", 2), ("model-c", 3), ("model-a", 3), ("model-b", 4)):
        status, answer = stored.ask(name)
        assert (status, answer["model"]) == (200, name)
        assert stored.loads() == loads  # the one that was used longest ago has gone
        stored.let_stays_end()
    assert set(stored.models()) == {"model-a", "model-b"}
    status, answer = stored.ask("too-large")
    assert status == 400 and answer["error"]["code"] == "model_too_large"
    assert "needs at least 8583 MiB of its memory, and there are" in answer["error"]["message"]
    assert stored.loads() == 4 and stored.ask("nobody")[0] == 404
    remembered = json.loads((stored.state / "model_memory.json").read_text())
    assert set(remembered.values()) == {model["card_bytes"] for model in stored.models().values()}


def test_many_who_ask_at_random_are_all_answered_and_models_do_not_only_come_and_go(stored: Stored) -> None:
    before, statuses = stored.loads(), list[int]()

    def client(seed: int) -> None:
        chosen = random.Random(seed)
        for _ in range(12):
            statuses.append(stored.ask(f"model-{chosen.choice('abc')}")[0])

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 36
    assert stored.loads() - before <= 24
    assert sum(model["card_bytes"] for model in stored.models().values()) < 7040 << 20
    assert "out of memory" not in stored.server.log and "failed" not in stored.server.log


def test_keep_alive_is_obeyed(stored: Stored) -> None:
    stored.let_stays_end()
    with ollama.Client(stored.server.url) as client:
        client.generate(model="model-a", prompt="hello", keep_alive=-1, options={"num_predict": 2})
        client.generate(model="model-b", prompt="", keep_alive="5m")
        (there,) = [model for model in client.ps().models if model.model == "model-a:latest"]
        assert there.expires_at is not None and there.expires_at.year == 2200
        assert client.generate(model="model-b", prompt="", keep_alive=0).done_reason == "unload"
        stored.server.wait(lambda: set(stored.models()) == {"model-a"}, 20, "unloaded")
        client.generate(model="model-a", prompt="hello", keep_alive=0, options={"num_predict": 2})
        stored.server.wait(lambda: not stored.models(), 20, "unloaded")
        client.generate(model="model-c", prompt="", keep_alive=0)  # it is not there
        assert stored.ask("model-c")[0] == 200
        time.sleep(0.5)
        assert set(stored.models()) == {"model-c"}, "who unloaded it before it was there did not mean this"


def test_a_model_whose_files_were_removed_is_listed_no_more(stored: Stored, tmp_path: Path) -> None:
    (away := stored.root / "too-large").rename(tmp_path / "away")
    with ollama.Client(stored.server.url) as client:
        assert [model.model for model in client.list().models] == [f"model-{name}:latest" for name in "abc"]
        with pytest.raises(ollama.ResponseError, match="files of model 'too-large' are gone") as gone:
            client.show("too-large")
        assert gone.value.status_code == 404
        (tmp_path / "away").rename(away)
        assert len(client.list().models) == 4


def test_a_stream_hears_that_its_model_is_loaded_and_then_its_answer(tmp_path: Path) -> None:
    root = tmp_path / "models"
    store_hollow(root, "slow", 2.5, load_s=5.4)
    arguments = ("--models", "--emu-profile", tmp_path / "slow.toml")
    with RunningServer(*arguments, environment={"AXPRESS_MODELS": str(root)}) as server:
        with openai_client(server) as client, client.chat.completions.with_streaming_response.create(
            model="slow", messages=QUESTION, max_tokens=3, stream=True
        ) as response:  # fmt: skip
            lines = response.iter_lines()
            first = next(lines)
            told = server.health()[1]
            rest = [line for line in lines if line]
        assert first == ": the model is being loaded"
        assert told["status"] == "ready" and told["loading"]["files"] == 3
        assert [(m["name"], m["status"], m["waiting_for_load"]) for m in told["models"]] == [("slow", "loading", 1)]
        assert rest[-1] == "data: [DONE]" and '"finish_reason":"length"' in rest[-2]
