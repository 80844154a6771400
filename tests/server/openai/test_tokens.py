"""What the model reads: /tokenize and /detokenize, in both spellings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_tokenizers
from server_process import RunningServer, post, tiny_package

MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello <|im_end|>"}]


@pytest.mark.parametrize("text", ["", "Hello, world!", "<|im_start|>user", "日本語 👋🏽 é\n\n  x", "\x00\t"])
def test_a_text_comes_back(server: RunningServer, text: str) -> None:
    status, answer = post(server, "/tokenize", prompt=text)
    assert (
        status == 200
        and answer["count"] == len(answer["tokens"])
        and answer["max_model_len"] == server.health()[1]["context_length"]
    )
    assert post(server, "/tokenize", content=text)[1] == answer, "the demo model has no begin token"
    status, back = post(server, "/detokenize", tokens=answer["tokens"])
    assert status == 200 and back == {"prompt": text, "content": text}


def test_a_conversation_is_what_chat_reads(server: RunningServer) -> None:
    status, answer = post(server, "/tokenize", messages=MESSAGES, model="default", add_generation_prompt=True)
    assert status == 200
    chat = server.post({"messages": MESSAGES, "max_tokens": 1})[2]
    assert chat["usage"]["prompt_tokens"] == answer["count"]
    text = post(server, "/detokenize", tokens=answer["tokens"])[1]["prompt"]
    assert text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n") and "Hello <|im_end|><|im_end|>" in text
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    with_tools = post(server, "/tokenize", messages=MESSAGES, tools=[tool])[1]
    chat = server.post({"messages": MESSAGES, "tools": [tool], "max_tokens": 1})[2]
    assert chat["usage"]["prompt_tokens"] == with_tools["count"] > answer["count"]


def test_pieces(server: RunningServer) -> None:
    answer = post(server, "/tokenize", content="Hi \U00012345", with_pieces=True, return_token_strs=True)[1]
    data = b"".join(p["piece"].encode() if isinstance(p["piece"], str) else bytes(p["piece"]) for p in answer["tokens"])
    assert data.decode() == "Hi \U00012345"
    assert [p["id"] for p in answer["tokens"]] == post(server, "/tokenize", content="Hi \U00012345")[1]["tokens"]
    assert len(answer["token_strs"]) == answer["count"] and "\ufffd" in answer["token_strs"]


def test_control_tokens_on_request(server: RunningServer) -> None:
    plain = post(server, "/tokenize", content="<|im_end|>")[1]
    special = post(server, "/tokenize", content="<|im_end|>", parse_special=True)[1]
    assert plain["count"] > 1 == special["count"]
    assert post(server, "/detokenize", tokens=special["tokens"])[1]["content"] == "<|im_end|>"
    assert post(server, "/tokenize", content="<|im_end|>", parse_special=False)[1] == plain


def test_the_begin_token_of_models_that_have_one(tmp_path: Path) -> None:
    package, _ = tiny_package(tmp_path)
    tokenizer = tmp_path / "llama3"
    tiny_tokenizers.llama3(tokenizer)
    for file in tokenizer.iterdir():
        (package / json.loads((package / "config.json").read_text())["url_tokenizer_model"] / file.name).write_bytes(
            file.read_bytes()
        )
    with RunningServer(package, "--emu-profile", "none") as server:

        def count(**fields: Any) -> int:
            return int(post(server, "/tokenize", **fields)[1]["count"])

        bare = count(content="Hello")
        assert count(prompt="Hello") == count(prompt="Hello", add_special_tokens=True) == bare + 1
        assert count(content="Hello", add_special=True) == bare + 1
        assert (
            count(prompt="Hello", add_special_tokens=False) == bare and count(prompt="") == 1 and count(content="") == 0
        )


@pytest.mark.parametrize(
    "path, fields, param",
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "content": "b"}, "content"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, "messages"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": "\ud800"}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("/tokenize", {"messages": MESSAGES, "add_special": True}, "add_special"),
        ("/tokenize", {"messages": MESSAGES, "add_generation_prompt": False}, "add_generation_prompt"),
        ("/tokenize", {"messages": MESSAGES, "chat_template": "x"}, "chat_template"),
        ("/tokenize", {"prompt": "a", "tools": []}, "tools"),
        ("/tokenize", {"prompt": "a", "add_special": True, "add_special_tokens": True}, "add_special"),
        ("/tokenize", {"prompt": "a", "what": 1}, "what"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [0, -1]}, "tokens[1]"),
        ("/detokenize", {"tokens": [2**32]}, "tokens[0]"),
        ("/detokenize", {"tokens": [2**64]}, "tokens[0]"),
        ("/detokenize", {"tokens": [True]}, "tokens[0]"),
        ("/detokenize", {"tokens": [0] * (2**18 + 1)}, "tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    server: RunningServer, path: str, fields: dict[str, Any], param: str
) -> None:
    status, answer = post(server, path, **fields)
    assert status == 400 and answer["error"]["param"] == param and param in answer["error"]["message"], answer


def test_other_errors(server: RunningServer) -> None:
    status, answer = post(server, "/tokenize", prompt="a", model="other")
    assert status == 404 and answer["error"]["code"] == "model_not_found"
    assert server.request("POST", "/detokenize", b"{", {"content-type": "application/json"})[0] == 400
    assert server.request("POST", "/tokenize", b"{}", {"content-type": "text/plain"})[0] == 415
    assert server.request("GET", "/tokenize")[0] == 405
