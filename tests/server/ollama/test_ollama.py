"""Ollama's own client, and clients as Home Assistant, Open WebUI and curl are, against real servers on the emulated
card."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import httpx
import jsonschema
import ollama
import pytest
from pydantic import BaseModel, Field, TypeAdapter
from server_process import RunningServer, tiny_package

from axpress.server.ollama import replies

NAME = "tests/tiny"
HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
FIXED: dict[str, Any] = {"seed": 7, "temperature": 1, "num_predict": 20}
CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "The time in a zone",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"type": "string", "enum": ["UTC", "CET"]}},
            "required": ["zone"],
        },
    },
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tiny_package(tmp_path_factory.mktemp("ollama"))


@pytest.fixture(scope="module")
def server(package: tuple[Path, Path]) -> Iterator[RunningServer]:
    with RunningServer(package[0], "--emu-profile", package[1], "--emu-speed", 3, "--model-name", NAME) as running:
        yield running
        running.wait(running.idle, 30, "idle")  # the last piece of an answer comes a moment before its end


@pytest.fixture(scope="module")
def demo() -> Iterator[RunningServer]:
    with RunningServer() as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[ollama.Client]:
    with ollama.Client(server.url) as client:
        yield client


def post(server: RunningServer, path: str, document: Any, **headers: str) -> tuple[int, list[dict[str, Any]]]:
    """Status and the lines of a POST's answer, parsed."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    status, head, raw = server.request("POST", path, body, {"content-type": "application/json", **headers})
    assert (head["content-type"] == "application/x-ndjson") == (head.get("transfer-encoding") == "chunked")
    return status, [json.loads(line) for line in raw.splitlines()]


def error(server: RunningServer, path: str, document: Any, **headers: str) -> tuple[int, str]:
    """Status and sentence of an error, which is all that the answer is."""
    status, (only,) = post(server, path, document, **headers)
    TypeAdapter(replies.OllamaError).validate_python(only)
    return status, only["error"]


def test_whole_answer(client: ollama.Client) -> None:
    answer = client.chat(NAME, HI, options=FIXED)
    assert answer.model == NAME and answer.message.role == "assistant" and answer.message.content
    assert (
        answer.done
        and answer.done_reason == "length"
        and answer.eval_count == 20
        and (answer.prompt_eval_count or 0) > 2
    )
    assert answer.message.thinking is None and answer.message.tool_calls is None and answer.logprobs is None
    assert answer.created_at is not None and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", answer.created_at)
    parts = (answer.prompt_eval_duration or 0), (answer.eval_duration or 0)
    assert answer.load_duration == 0 and min(parts) > 0 and sum(parts) <= (answer.total_duration or 0) + 1


def test_a_stream_is_the_whole_answer(client: ollama.Client) -> None:
    whole = client.chat(NAME, HI, options=FIXED)
    lines = list(client.chat(NAME, HI, options=FIXED, stream=True))
    assert "".join(line.message.content or "" for line in lines) == whole.message.content
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True] and len(lines) > 5
    last = lines[-1]
    assert (last.done_reason, last.eval_count, last.prompt_eval_count) == ("length", 20, whole.prompt_eval_count)
    assert all(line.done_reason is None and line.eval_count is None for line in lines[:-1])
    assert {line.message.role for line in lines} == {"assistant"} and {line.model for line in lines} == {NAME}
    completion = client.generate(NAME, "hi", options=FIXED)
    assert completion.response == whole.message.content
    pieces = client.generate(NAME, "hi", options=FIXED, stream=True)
    assert "".join(line.response or "" for line in pieces) == whole.message.content


def test_async_client_in_parallel(server: RunningServer, client: ollama.Client) -> None:
    expected = client.chat(NAME, HI, options=FIXED).message.content

    async def one(api: ollama.AsyncClient, stream: bool) -> str:
        if not stream:
            return (await api.chat(NAME, HI, options=FIXED)).message.content or ""
        return "".join(
            [line.message.content or "" async for line in await api.chat(NAME, HI, options=FIXED, stream=True)]
        )

    async def many() -> list[str]:
        api = ollama.AsyncClient(server.url)
        try:
            return await asyncio.gather(*(one(api, bool(i % 2)) for i in range(8)))
        finally:
            await api.close()

    assert set(asyncio.run(many())) == {expected}


def test_every_line_is_as_the_schema_says(server: RunningServer) -> None:
    chat, completion = TypeAdapter(replies.OllamaChatReply), TypeAdapter(replies.OllamaGenerateReply)
    for stream in (True, False):
        fields: dict[str, Any] = {"model": NAME, "options": FIXED, "logprobs": True, "top_logprobs": 2}
        status, lines = post(server, "/api/chat", {**fields, "messages": HI, **({} if stream else {"stream": False})})
        assert status == 200 and (len(lines) > 1) == stream
        for line in lines:
            chat.validate_python(line)
        _, lines = post(server, "/api/generate", {**fields, "prompt": "hi", "stream": stream})
        for line in lines:
            completion.validate_python(line)


class Pet(BaseModel):
    name: Literal["Ada", "Bo"]
    age: int = Field(ge=0, le=9)


def test_formats_are_kept_at_any_temperature(client: ollama.Client) -> None:
    for seed in range(4):
        options = {"seed": seed, "temperature": 2}
        answer = client.chat(NAME, HI, format=Pet.model_json_schema(), options=options, think=False)
        Pet.model_validate_json(answer.message.content or "")
        assert answer.done_reason == "stop"
        pieces = client.generate(NAME, "hi", format=Pet.model_json_schema(), options=options, stream=True, think=False)
        Pet.model_validate_json("".join(piece.response or "" for piece in pieces))
        text = client.generate(NAME, "hi", format="json", options={**options, "num_predict": 100}, think=False).response
        assert text is not None and text.startswith("{")
    assert client.generate(NAME, "hi", format="", options=FIXED).eval_count == 20
    with pytest.raises(ollama.ResponseError, match="'format'") as wrong:
        client.generate(NAME, "hi", format={"type": "nonsense"})
    assert wrong.value.status_code == 400


def test_calls_of_tools(server: RunningServer) -> None:
    """Random weights begin a call now and then: once begun, it is a whole call of a known function with arguments that
    match."""

    async def one(api: ollama.AsyncClient, seed: int) -> list[ollama.Message]:
        options = {"seed": seed, "temperature": 1, "num_predict": 150}
        answer = await api.chat(NAME, HI, tools=[CLOCK], options=options, stream=True, think=False)
        return [line.message async for line in answer]

    async def many() -> list[list[ollama.Message]]:
        api = ollama.AsyncClient(server.url)
        try:
            return await asyncio.gather(*(one(api, seed) for seed in range(4, 16)))
        finally:
            await api.close()

    found = [call.function for answer in asyncio.run(many()) for message in answer for call in message.tool_calls or ()]
    assert found, "no seed began a call: take others"
    for call in found:
        assert call.name == "clock"
        jsonschema.validate(call.arguments, CLOCK["function"]["parameters"])  # type: ignore[index]


def test_results_of_tools_are_part_of_the_prompt(client: ollama.Client) -> None:
    call = {"function": {"name": "clock", "arguments": {"zone": "UTC"}}}
    asked = [
        *HI,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "noon", "tool_name": "clock"},
    ]
    counts = [client.chat(NAME, asked[:n], tools=[CLOCK], options=FIXED).prompt_eval_count or 0 for n in (1, 2, 3)]
    assert counts[0] < counts[1] < counts[2]
    assert (client.chat(NAME, HI, options=FIXED).prompt_eval_count or 0) < counts[0]


def test_thinking(client: ollama.Client, demo: RunningServer) -> None:
    for think in (None, True, False, "low"):
        assert client.chat(NAME, HI, think=think, options=FIXED).done  # type: ignore[arg-type]
    with ollama.Client(demo.url) as other:
        assert other.chat("default", HI, think=False).message.content
        assert "thinking" not in (other.show("default").capabilities or ())
        with pytest.raises(ollama.ResponseError, match=r"'think'.*does not reason") as wrong:
            other.chat("default", HI, think=True)
        assert wrong.value.status_code == 400
    assert "thinking" in (client.show(NAME).capabilities or ())


def test_models(client: ollama.Client, server: RunningServer) -> None:
    (listed,) = client.list().models
    (loaded,) = client.ps().models
    assert listed.model == loaded.model == loaded.name == NAME + ":latest" and listed.digest == loaded.digest
    assert (
        listed.size == loaded.size
        and (loaded.size_vram or 0) > 0
        and loaded.expires_at is not None
        and loaded.expires_at.year > 2100
    )
    health = server.health()[1]
    assert loaded.context_length == health["context_length"]
    for name in (NAME, listed.model, "default"):
        shown = client.show(name)
        assert shown.modelinfo is not None and shown.details is not None
        family = shown.modelinfo["general.architecture"]
        assert (
            shown.modelinfo[f"{family}.context_length"] == health["context_length"] and shown.details.family == family
        )
        assert shown.capabilities is not None and shown.capabilities[:2] == ["completion", "tools"]
        assert shown.modified_at == listed.modified_at and shown.details == listed.details
    shapes = {"tags": replies.OllamaModels, "ps": replies.OllamaLoadedModels, "version": replies.OllamaVersion}
    for name, reply in shapes.items():
        TypeAdapter(reply).validate_json(server.request("GET", f"/api/{name}")[2])
    TypeAdapter(replies.OllamaShown).validate_python(post(server, "/api/show", {"name": NAME})[1][0])


def test_what_is_not_done_here_is_said(client: ollama.Client, server: RunningServer) -> None:
    calls = (
        lambda: client.embed(NAME, "x"),
        lambda: client.embeddings(NAME, "x"),
        lambda: client.pull(NAME),
        lambda: list(client.pull(NAME, stream=True)),
        lambda: client.push(NAME),
        lambda: client.create("new", from_=NAME),
        lambda: client.copy(NAME, "new"),
        lambda: client.delete(NAME),
    )
    for call in calls:
        with pytest.raises(
            ollama.ResponseError, match=r"makes no embeddings|models that it was started with|models are not pushed"
        ) as refused:
            call()
        assert refused.value.status_code == 400
    assert server.request("HEAD", "/api/blobs/sha256:00")[0] == 400
    assert server.request("POST", "/api/blobs/sha256:00", b"x" * 100_000)[0] == 400


def test_without_a_prompt(server: RunningServer) -> None:
    before = server.stats()["generated_tokens"]
    for path, document in (
        ("/api/generate", {}),
        ("/api/generate", {"prompt": ""}),
        ("/api/chat", {}),
        ("/api/chat", {"messages": []}),
    ):
        for keep_alive, reason in (("5m", "load"), (0, "unload")):
            status, (only,) = post(server, path, {"model": NAME, "keep_alive": keep_alive, **document})
            assert status == 200 and only["done"] is True and only["done_reason"] == reason
    assert server.stats()["generated_tokens"] == before and post(server, "/api/show", {"model": NAME})[0] == 200


def test_raw_prompts_are_laid_out_by_the_client(client: ollama.Client) -> None:
    laid_out = client.generate(NAME, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", raw=True, options=FIXED)
    templated = client.generate(NAME, "hi", options=FIXED)
    assert laid_out.response == templated.response and laid_out.prompt_eval_count == templated.prompt_eval_count
    as_text = client.generate(NAME, "<|im_start|>", options=FIXED)
    assert (as_text.prompt_eval_count or 0) > (client.generate(NAME, "x", options=FIXED).prompt_eval_count or 0)
    with_system = client.generate(NAME, "hi", system="Be brief.", options=FIXED)
    assert (with_system.prompt_eval_count or 0) > (templated.prompt_eval_count or 0)


def test_limits_and_stops(client: ollama.Client) -> None:
    whole = client.generate(NAME, "hi", options=FIXED)
    text, prompt = whole.response or "", whole.prompt_eval_count or 0
    short = client.generate(NAME, "hi", options={**FIXED, "num_ctx": prompt + 3})
    assert (short.eval_count, short.done_reason) == (3, "length")
    assert client.generate(NAME, "hi", options={**FIXED, "num_ctx": 1_000_000}).response == text
    with pytest.raises(ollama.ResponseError, match=r"'prompt' takes .* 'options.num_ctx' is 2 tokens. Shorten it"):
        client.generate(NAME, "hi", options={"num_ctx": 2})
    cut = len(text) // 2
    for stop in (text[cut : cut + 3], ["never there", text[cut : cut + 3]]):
        stopped = client.generate(NAME, "hi", options={**FIXED, "stop": stop})
        assert stopped.done_reason == "stop" and stopped.response == text[: text.index(text[cut : cut + 3])]
    endless = client.generate(
        NAME, "hi", options={"num_predict": -1, "num_ctx": prompt + 40, "seed": 1, "temperature": 1}
    )
    assert endless.done_reason in ("stop", "length") and (endless.eval_count or 0) <= 40


def test_log_probabilities_are_those_of_openais_api(server: RunningServer) -> None:
    asked = {"model": NAME, "messages": HI, "options": FIXED, "logprobs": True, "top_logprobs": 2}
    _, (ours,) = post(server, "/api/chat", {**asked, "stream": False})
    status, _, theirs = server.post(
        {"messages": HI, "seed": 7, "temperature": 1, "max_tokens": 20, "logprobs": True, "top_logprobs": 2}
    )
    assert status == 200 and len(ours["logprobs"]) == 20
    assert ours["logprobs"] == theirs["choices"][0]["logprobs"]["content"]
    _, lines = post(server, "/api/chat", asked)
    assert [one for line in lines for one in line.get("logprobs", ())] == ours["logprobs"]


# ---- clients as they are ----


def test_as_home_assistant_asks(demo: RunningServer) -> None:
    call = ollama.Message.ToolCall(function=ollama.Message.ToolCall.Function(name="clock", arguments={"zone": "UTC"}))
    history = [
        ollama.Message(role="system", content="You are a voice assistant."),
        ollama.Message(role="user", content="What time is it?"),
        ollama.Message(role="assistant", content=None, thinking=None, tool_calls=[call]),
        ollama.Message(role="tool", content='{"data": "12:00", "error": null}'),
    ]

    async def ask() -> list[Any]:
        api = ollama.AsyncClient(demo.url)
        try:
            models = [one["model"] for one in (await api.list())["models"]]
            loaded = (await api.ps())["models"][0]
            assert (
                isinstance(loaded["expires_at"], datetime)
                and loaded["expires_at"].astimezone()
                and loaded["size_vram"] > 0
            )
            answer = await api.chat(
                model=models[0], messages=history, tools=[CLOCK], stream=True, keep_alive=-1,
                options={"num_ctx": 8192}, think=False,
                format=None,
            )  # fmt: skip
            return [line async for line in answer]
        finally:
            await api.close()

    lines = asyncio.run(ask())
    assert lines[-1]["done"] and all(line["message"]["role"] == "assistant" for line in lines)
    assert "".join(line["message"].get("content") or "" for line in lines)


def test_as_open_webui_asks(demo: RunningServer) -> None:
    with httpx.Client(base_url=demo.url) as web:
        version = web.get("/api/version").json()["version"]
        assert tuple(map(int, re.sub(r"^v|-.*", "", version).split("."))) >= (0, 5, 0)
        (model,) = web.get("/api/tags").json()["models"]
        assert {"name", "model", "modified_at", "size", "digest", "details"} <= set(model)
        assert web.get("/api/ps").json()["models"][0]["name"] == model["name"]
        assert web.post("/api/show", json={"name": model["model"]}).json()["model_info"]
        document = {
            "model": model["model"], "messages": [{"role": "user", "content": "Hello"}], "stream": True,
            "keep_alive": "5m",
            "options": {"temperature": 0.0, "num_ctx": 2048, "repeat_last_n": 64, "tfs_z": 1, "mirostat": 0,
            "stop": ["###"]},
        }  # fmt: skip
        with web.stream("POST", "/api/chat", json=document) as answer:
            lines = [json.loads(line) for line in answer.iter_lines()]
        assert lines[-1]["done_reason"] == "stop" and lines[-1]["eval_count"] / lines[-1]["eval_duration"] > 0
        assert "".join(line["message"]["content"] for line in lines).startswith("Hello")
        refused = web.post("/api/embed", json={"model": model["model"], "input": ["a"]})
        assert refused.status_code == 400 and "embeddings" in refused.json()["error"]


def test_as_the_documentations_curl_asks(demo: RunningServer) -> None:
    body = json.dumps({"model": "axpress-toy", "prompt": "Hello"}).encode()
    for kind in ({"content-type": "application/x-www-form-urlencoded"}, {}):
        status, _, raw = demo.request("POST", "/api/generate", body, kind)
        assert status == 200 and json.loads(raw.splitlines()[-1])["done_reason"] == "stop"
        assert demo.request("POST", "/api/show", b'{"model": "axpress-toy"}', kind)[0] == 200
    own_page = {"origin": demo.url, "content-type": "text/plain"}
    for path in ("/api/generate", "/api/show"):
        status, _, raw = demo.request("POST", path, body, own_page)
        assert status == 415 and "application/json" in json.loads(raw)["error"]
    assert demo.request("POST", "/api/generate", body, {**own_page, "content-type": "application/json"})[0] == 200
    status, _, raw = demo.request("POST", "/api/generate", body, {"origin": "http://elsewhere.example"})
    assert status == 403 and "elsewhere.example" in json.loads(raw)["error"]


def test_as_the_users_program_asks(demo: RunningServer) -> None:
    options = {
        "temperature": 0.7, "top_k": 40, "top_p": 0.9, "num_ctx": 2048, "repeat_last_n": 64, "repeat_penalty": 1.1,
        "num_predict": 24,
        "stop": ["\n\n", "User:"],
    }  # fmt: skip
    answer = httpx.post(
        f"{demo.url}/api/chat", json={"model": "axpress-toy", "messages": HI, "stream": False, "options": options}
    )
    assert answer.status_code == 200 and answer.json()["message"]["content"] and answer.json()["eval_count"] <= 24


# ---- what goes wrong ----

GOOD: dict[str, Any] = {"model": NAME, "messages": HI}


@pytest.mark.parametrize(
    ("document", "status", "words"),
    [
        (b"", 400, "empty"),
        (b"{", 400, "not valid JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"model": "x", "model": "y"}', 400, "appears twice"),
        (b'\xff{"model": 1}', 400, "UTF-8"),
        ({"messages": HI}, 400, "'model'"),
        ({"model": "nope", "messages": HI}, 404, "model 'nope' not found"),
        ({"model": NAME + ":1b", "messages": HI}, 404, "not found"),
        ({**GOOD, "options": {"temperature": float("nan")}}, 400, "'options.temperature'"),
        (b'{"model": "tests/tiny", "messages": [], "options": {"seed": 1' + b"0" * 500 + b"}}", 400, "'options.seed'"),
        ({**GOOD, "options": {"num_predict": 10**30}}, 400, "'options.num_predict'"),
        ({**GOOD, "options": {"mirostat": 2}}, 400, "no mirostat"),
        ({**GOOD, "template": "x"}, 400, "'template'"),
        ({**GOOD, "messages": [{**HI[0], "images": ["AA=="]}]}, 400, "images"),
        ({**GOOD, "messages": [{"role": "user", "content": "word " * 2000}]}, 400, "context is"),
        ({**GOOD, "format": "xml"}, 400, "'format'"),
    ],
)
def test_errors_are_one_sentence(server: RunningServer, document: Any, status: int, words: str) -> None:
    for stream in (True, False):
        fields = {**document, "stream": stream} if isinstance(document, dict) else document
        got, sentence = error(server, "/api/chat", fields)
        assert got == status and words in sentence


def test_errors_of_the_http_layer_have_the_same_shape(server: RunningServer) -> None:
    status, sentence = error(server, "/api/nothing", {})
    assert status == 404 and "no such path" in sentence
    assert error(server, "/api/tags", {})[0] == 405
    assert error(server, "/api/chat", GOOD, **{"content-encoding": "gzip"})[0] == 415
    assert error(server, "/api/chat", GOOD, host="elsewhere.example")[0] == 403
    status, _, raw = server.request("POST", "/v1/chat/completions", b"{", {"content-type": "application/json"})
    assert status == 400 and json.loads(raw)["error"]["type"] == "invalid_request_error"


def test_a_client_that_leaves_frees_the_card(server: RunningServer, package: tuple[Path, Path]) -> None:
    asked = {**GOOD, "think": False, "options": {"seed": 8, "temperature": 1, "num_predict": -1}}
    _, (whole,) = post(server, "/api/chat", {**asked, "stream": False})
    assert whole["eval_count"] > 200, "take another seed: this answer is too short to leave it"
    body = json.dumps(asked).encode()
    head = f"POST /api/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    slow = RunningServer(package[0], "--emu-profile", package[1], "--emu-speed", 0.2, "--model-name", NAME)
    with slow, slow.cut_short(whole["eval_count"] // 2), slow.raw() as connection:  # of several seconds
        connection.sendall(head + body)
        received = b""
        while received.count(b"\n{") + received.count(b'{"model"') < 3:
            received += connection.recv(4096)
    assert b"application/x-ndjson" in received
