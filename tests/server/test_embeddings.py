"""Embeddings over the wire: OpenAI's, Azure's and Ollama's, against transformers, with the clients that people use."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import ollama
import openai
import pytest
from broken_bodies import BROKEN_BODIES
from documented_client import WITH_BODY, Client, short
from embedding_models import NAME, TINY, reference, reference_vectors
from server_process import RunningServer, chat, openai_client

from axpress.core.model_files.convert import convert

TEXTS = ["What is 7 + 5?", "hello there world", "", "one two three " * 9]
CONTEXT = 255
ROUTES = [route for route in WITH_BODY if route.embeds]
OTHERS = [route for route in WITH_BODY if not route.embeds]


class Served:
    """A running server of an embedding model, and what transformers makes of texts with it."""

    def __init__(self, server: RunningServer, model: Any, tokenizer: Any) -> None:
        self.server, self._model, self._tokenizer = server, model, tokenizer

    def ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    def expect(self, vectors: Any, texts: list[str], dimensions: int = TINY.hidden) -> None:
        """They are those of these texts."""
        mine = np.array(vectors, np.float32)
        theirs = reference_vectors(self._model, [self.ids(text) for text in texts], dimensions)
        assert mine.shape == theirs.shape
        assert np.allclose(np.linalg.norm(mine, axis=1), 1, atol=1e-5)
        assert ((mine * theirs).sum(axis=1) > 0.9999).all()

    def post(self, path: str, **fields: Any) -> tuple[int, Any]:
        headers = {"content-type": "application/json"}
        status, _, raw = self.server.request("POST", path, json.dumps(fields).encode(), headers)
        return status, json.loads(raw)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("served")
    model, tokenizer = reference(folder / NAME)
    package = convert(folder / NAME, folder / "package", rows=CONTEXT, chunk=64, progress=False)
    with RunningServer(package, "--emu-profile", "none") as running:
        yield Served(running, model, tokenizer)
        running.wait(running.idle, 20, "idle")


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai_client(served.server) as client:
        yield client


@pytest.fixture
def ollama_client(served: Served) -> Iterator[ollama.Client]:
    with ollama.Client(served.server.url) as client:
        yield client


def vectors(answer: Any) -> np.ndarray:
    """As they were sent: shortest decimals of float32."""
    assert [one.index for one in answer.data] == list(range(len(answer.data)))
    return np.array([one.embedding for one in answer.data], np.float32)


def test_openai(served: Served, client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="default", input=TEXTS)  # base64, unseen by whoever asks
    served.expect(vectors(answer), TEXTS)
    count = sum(len(served.ids(text)) for text in TEXTS)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (count, count)
    plain = client.embeddings.create(model="default", input=TEXTS[0], encoding_format="float")
    assert np.array_equal(vectors(plain)[0], vectors(answer)[0]) and plain.model == answer.model
    ids = [served.ids(text) for text in TEXTS]
    assert np.array_equal(vectors(client.embeddings.create(model="default", input=ids)), vectors(answer))
    without_end = client.embeddings.create(model="default", input=ids[1][:-1])
    assert np.array_equal(vectors(without_end)[0], vectors(answer)[1])
    short_ones = client.embeddings.create(model="default", input=TEXTS, dimensions=32)
    served.expect(vectors(short_ones), TEXTS, 32)


def test_base64_is_little_endian_float32(served: Served) -> None:
    both = [served.post("/v1/embeddings", input="hi", encoding_format=form)[1] for form in ("float", "base64")]
    plain, packed = (one["data"][0]["embedding"] for one in both)
    assert np.array_equal(np.frombuffer(base64.b64decode(packed), "<f4"), np.array(plain, np.float32))


def test_azure(served: Served) -> None:
    azure = openai.AzureOpenAI(azure_endpoint=served.server.url, api_key="none", api_version="2024-10-21")
    with azure:
        served.expect(vectors(azure.embeddings.create(model="anything", input=TEXTS)), TEXTS)


def test_what_is_refused_is_named(served: Served, client: openai.OpenAI) -> None:
    for fields, said in (
        ({"dimensions": 31}, "trained for vectors of 32 to 64 values"),
        ({"dimensions": 65}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"input_type": "query"}, "input_type"),
        ({"input": [1, 512]}, r"input\[1\]"),
        ({"input": ["a", "word " * CONTEXT]}, f"tokens; this model's context is {CONTEXT}"),
    ):
        asked: dict[str, Any] = {"model": "default", "input": "hi", **fields}
        known = {key: asked.pop(key) for key in ("model", "input", "dimensions", "encoding_format") if key in asked}
        with pytest.raises(openai.BadRequestError, match=said):
            client.embeddings.create(**known, extra_body=asked)
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="another", input="hi")


def test_it_generates_no_text(served: Served, client: openai.OpenAI, ollama_client: ollama.Client) -> None:
    with pytest.raises(openai.BadRequestError, match="generates no text: it is an embedding model"):
        client.chat.completions.create(model="default", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(openai.BadRequestError, match="generates no text"):
        client.completions.create(model="default", prompt="hi", stream=True)
    with pytest.raises(ollama.ResponseError, match="generates no text"):
        ollama_client.generate("default", "hi")
    status, refused = served.post("/v1/messages", model="default", **chat(max_tokens=3))
    assert status == 400 and "generates no text" in refused["error"]["message"]


def test_ollama(served: Served, ollama_client: ollama.Client) -> None:
    client = ollama_client
    answer = client.embed("default", TEXTS, keep_alive="5m", options={"num_ctx": 2048, "temperature": 0, "stop": None})
    served.expect(answer.embeddings, TEXTS)
    assert answer.prompt_eval_count == sum(len(served.ids(text)) for text in TEXTS)
    assert answer.model == "default" and answer.total_duration
    served.expect(client.embed("default", TEXTS[0], dimensions=40).embeddings, TEXTS[:1], 40)
    assert client.embeddings("default", TEXTS[1]).embedding == answer.embeddings[1]
    assert client.show("default").capabilities == ["embedding"]
    assert served.post("/api/embed", model="default", input=[])[1] == {"model": "default", "embeddings": []}
    assert served.post("/api/embeddings", model="default")[1] == {"embedding": []}


def test_ollama_cuts_where_it_may(served: Served) -> None:
    long, end = "word " * CONTEXT * 3, served.ids("")
    whole = served.post("/v1/embeddings", input=[*served.ids(long)[: CONTEXT - 1], *end])[1]
    cut = served.post("/api/embed", model="default", input=long)[1]
    assert cut["embeddings"] == [whole["data"][0]["embedding"]] and cut["prompt_eval_count"] == CONTEXT
    assert served.post("/api/embeddings", model="default", prompt=long)[1]["embedding"] == cut["embeddings"][0]
    status, refused = served.post("/api/embed", model="default", input=["a", long], truncate=False)
    assert status == 400 and f"context is {CONTEXT} tokens" in refused["error"]
    few = served.post("/api/embed", model="default", input=long, options={"num_ctx": 9})[1]
    assert few["prompt_eval_count"] == 9
    for options, name in (({"temperature": 9}, "temperature"), ({"num_ctx": 0}, "num_ctx"), ({"nope": 1}, "nope")):
        status, refused = served.post("/api/embed", model="default", input="a", options=options)
        assert status == 400 and f"options.{name}" in refused["error"]
    huge = served.post("/api/embed", model="default", input="word " * 200_000)
    assert huge[0] == 200 and huge[1]["prompt_eval_count"] == CONTEXT


def test_hundreds_of_texts(served: Served) -> None:
    idle = lambda: not served.server.stats()["num_running"]  # noqa: E731 - an answer is counted just after it was given
    served.server.wait(idle, 60, "idle")
    before = served.server.stats()
    texts = [f"query: the number {i}" for i in range(700)]
    status, answer = served.post("/v1/embeddings", input=texts)
    assert status == 200 and len(answer["data"]) == 700
    served.server.wait(idle, 60, "idle")
    stats = {name: served.server.stats()[name] - before[name] for name in before if type(before[name]) is int}
    assert stats["prompt_tokens"] == answer["usage"]["prompt_tokens"] and stats["finished"] == 700
    assert stats["chunk_passes"] + stats["decode_passes"] < 350, "several ride together"
    assert stats["cached_tokens"] > 700, "their beginning is shared"
    one = served.post("/v1/embeddings", input=texts[650])[1]["data"][0]["embedding"]
    assert one == answer["data"][650]["embedding"]
    line = next(line for line in reversed(served.server.log.splitlines()) if "/v1/embeddings" in line)
    assert "generated_tokens=0" in line and "outcome=stop" in line, line
    assert metric(served, "vllm:prompt_tokens_total") == served.server.stats()["prompt_tokens"]
    assert metric(served, "vllm:request_success_total", 'finished_reason="stop"') >= 701


def metric(served: Served, name: str, label: str = "") -> float:
    lines = served.server.request("GET", "/metrics")[2].decode().splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name) and label in line))


# ---- what every route must stand ----


@pytest.fixture(scope="module")
def documented(served: Served) -> Iterator[Client]:
    client = Client(served.server)
    yield client
    client.close()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_its_routes_answer_as_documented(documented: Client, route: Any) -> None:
    assert documented.post(route, short(route))[0] == 200
    for name in BROKEN_BODIES:
        documented.refused(route, BROKEN_BODIES[name])
    field = "prompt" if route.path == "/api/embeddings" else "input"
    for text in ("<|endoftext|><|im_start|>", "{{ 7*7 }}", "\x00\x1b[31m\u202e\ufeff\U0010ffff"):
        assert documented.post(route, short(route, **{field: text}))[0] == 200
    status = documented.post(route, short(route, **{field: "a" * 100_000}))[0]
    assert status == (400 if route.path == "/v1/embeddings" else 200)
    documented.refused(route, short(route, **{field: "\ud800"}))
    documented.refused(route, short(route, model="no such model"), 404)


@pytest.mark.parametrize("route", OTHERS, ids=lambda route: route.path)
def test_other_routes_are_refused_or_answered_as_documented(documented: Client, route: Any) -> None:
    status, answer = documented.post(route, short(route))
    assert status == (200 if route.stream is None and not route.changes and not route.reranks else 400), answer
