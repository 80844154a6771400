"""Long contexts over HTTP: a package laid out as published opens and serves, prompts of 12,000 and 26,000 tokens are
answered, and what people watch stays small."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_packages import CHUNK, long_package
from server_process import RunningServer, chat, post

from axpress.core.model_files.model_package import inspect_package
from axpress.server.check_command import report_on
from axpress.server.monitor.live import MAX_RUNS

CONTEXT, PROMPT = 32767, 24 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    package = long_package(tmp_path_factory.mktemp("served"), CONTEXT, PROMPT)
    with RunningServer(package, "--emu-profile", "none", "--banks", "2") as running:
        yield running
        running.wait(running.idle, 30, "idle")


def test_a_package_of_a_long_context_opens_as_published(tmp_path: Path) -> None:
    root = long_package(tmp_path)
    assert root.name == "MiniCPM5-1B-AX650-C256-P12K-CTX16K"
    package, survey = inspect_package(root)
    assert package is not None, survey.problems
    assert (package.family, package.rows, package.chunk, package.warnings) == ("llama", 16383, CHUNK, ())
    assert package.tokenizer_path.name == "minicpm5_tokenizer.txt" and package.post_config.greedy
    shapes = report_on(root)["shapes"]
    assert shapes["decode_rows"] == [4095, 8191, 16383], "one layer lacks the smallest"
    assert shapes["history"] == [0, *range(2 * CHUNK, 12289, CHUNK)]


def numbers(seed: int, count: int) -> list[int]:
    """Random token ids of a prompt."""
    return np.random.default_rng(seed).integers(5, 800, count).tolist()


def complete(server: RunningServer, prompt: list[int], **fields: Any) -> tuple[str, dict[str, Any]]:
    """Text and usage of a completion."""
    status, body = post(server, "/v1/completions", prompt=prompt, **{"max_tokens": 12, **fields})
    assert status == 200, body
    return body["choices"][0]["text"], body["usage"]


@pytest.mark.parametrize("count", [12_000, 26_000])
def test_a_long_prompt_is_answered_and_read_once(server: RunningServer, count: int) -> None:
    """The longer one beyond the reach of chunks."""
    before = server.stats()
    text, usage = complete(server, numbers(count, count))
    assert usage["prompt_tokens"] == count and usage["completion_tokens"] == 12
    stats = server.stats()
    chunks = -(-min(count, PROMPT + CHUNK) // CHUNK)
    assert abs(stats["chunk_passes"] - before["chunk_passes"] - chunks) <= 2
    again, usage = complete(server, numbers(count, count))
    assert again == text and usage["prompt_tokens_details"]["cached_tokens"] > count - 2 * CHUNK


def test_others_go_on_beside_it_and_a_form_is_obeyed(server: RunningServer) -> None:
    """A chat of 3,000 words whose answer is JSON, and short ones meanwhile."""
    alone = [complete(server, numbers(i, 20)) for i in range(3)]
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["yes", "no", "perhaps"]}}}
    words = " ".join(f"{i} apples" for i in range(1500))
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(server.post, chat(words, response_format=form, max_tokens=20))
        beside = [complete(server, numbers(i, 20)) for i in range(3)]
        status, _, body = long.result()
    assert [text for text, _ in beside] == [text for text, _ in alone]
    assert status == 200 and body["usage"]["prompt_tokens"] > 9000, body
    assert json.loads(body["choices"][0]["message"]["content"]) in ("yes", "no", "perhaps")


def test_what_does_not_fit_is_told_with_the_numbers(server: RunningServer) -> None:
    status, body = post(server, "/v1/completions", prompt=numbers(1, CONTEXT), max_tokens=5)
    assert status == 400 and body["error"]["code"] == "context_length_exceeded"
    assert f"{CONTEXT}" in body["error"]["message"]


def test_who_watches_gets_little(server: RunningServer) -> None:
    status, _, raw = server.request("GET", "/live")
    picture = json.loads(raw)["picture"]
    assert status == 200 and [bank["rows"] for bank in picture["banks"]] == [CONTEXT] * 2
    assert len(raw) < 4000 + 14 * sum(len(bank["runs"]) // 2 for bank in picture["banks"])
    assert all(len(bank["runs"]) <= 2 * MAX_RUNS for bank in picture["banks"])
