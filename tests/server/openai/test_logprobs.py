"""Log-probabilities as clients get them against a transformers model on the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_process import RunningServer
from tiny_models import Tiny, save_checkpoint

from axpress.core.model_files.convert import convert
from axpress.core.tokenizer.tokenizer import Tokenizer

torch = pytest.importorskip("torch", reason="the reference needs torch and transformers")
pytest.importorskip("transformers", reason="the reference needs torch and transformers")

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logprobs")


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    """The transformers model, float32 on the weights rounded to bf16."""
    return save_checkpoint(Tiny("qwen3"), base / "hf")


@pytest.fixture(scope="module")
def server(base: Path, model: Any) -> Iterator[RunningServer]:
    package = convert(base / "hf", base / "package", rows=511, chunk=32, history=[0, 32, 64, 128, 256], progress=False)
    with RunningServer(package, "--emu-profile", "none") as running:
        yield running


def reference(model: Any, ids: list[int]) -> np.ndarray:
    """log P(next token) after every position, float64 [len(ids), vocab]."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].double()
    result: np.ndarray = torch.log_softmax(logits, -1).numpy()
    return result


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 1.5, "seed": 3},
        {"temperature": 1.5, "seed": 4, "top_k": 5, "presence_penalty": 1.5, "repetition_penalty": 1.2},
        {"temperature": 1, "seed": 5, "guided_regex": "[a-z ]{30,40}"},
    ],
    ids=["greedy", "hot", "narrowed", "constrained"],
)
def test_they_are_the_models_own(base: Path, model: Any, server: RunningServer, fields: dict[str, Any]) -> None:
    """Whatever chose the tokens: temperature, penalties, filters or a grammar."""
    text = Tokenizer.open(base / "hf")
    request = {"messages": MESSAGES, "logprobs": True, "top_logprobs": 20, "max_tokens": 40, **fields}
    status, _, body = server.post(request)
    assert status == 200, body
    entries = body["choices"][0]["logprobs"]["content"]
    assert len(entries) == body["usage"]["completion_tokens"] > 10
    number = {bytes(data): i for i, data in enumerate(text.pieces.data)}
    assert len(number) == text.vocab_size
    chosen = [number[bytes(one["bytes"])] for one in entries]
    prompt = text.render(MESSAGES)
    expected = reference(model, prompt + chosen)[len(prompt) - 1 : -1]
    errors = []
    for row, token, entry in zip(expected, chosen, entries, strict=True):
        assert [one["logprob"] for one in entry["top_logprobs"]] == sorted(
            (one["logprob"] for one in entry["top_logprobs"]), reverse=True
        )
        errors.append(entry["logprob"] - row[token])
        best = [number[bytes(one["bytes"])] for one in entry["top_logprobs"]]
        errors += [one["logprob"] - row[i] for one, i in zip(entry["top_logprobs"], best, strict=True)]
        assert min(row[best]) >= np.sort(row)[-21] - 0.1  # they are the best ones
    # What rounding to bf16 costs: keys, values, layer outputs, logits.
    assert np.sqrt(np.mean(np.square(errors))) < 0.02 and np.max(np.abs(errors)) < 0.1
    assert np.std(expected[:, :]) > 0.5
