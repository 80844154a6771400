"""The chat templates of the families whose tokenizers come as the vendor's .txt: what they write, and what the server
makes of it: whether the model thinks, can be told to, and calls functions."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import conversations
import numpy as np
import published_tokenizers
import pytest
import vendor_tokenizers
from published_tokenizers import BYTE_LEVEL

from axpress.core.errors import RequestError
from axpress.core.tokenizer.tokenizer import Tokenizer
from axpress.core.vision import KINDS, EncoderInput
from axpress.server.serving.chat_format import chat_format_of
from axpress.server.serving.generation_spec import GenerationSpec

TODAY = datetime.now()


def opened(directory: Path, name: str) -> Tokenizer:
    spec = published_tokenizers.byte_level(name)
    path = vendor_tokenizers.huggingface(directory / "tokenizer.txt", spec, [spec["added_tokens"][0]["id"]])
    return Tokenizer.open(path, tokenizer_type=BYTE_LEVEL[name].tokenizer_type)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    base = tmp_path_factory.mktemp("families")
    made = {name: opened(base / name, name) for name in BYTE_LEVEL}
    control = ["<unk>", "<s>", "</s>", "<pad>", "<eos>", "<bos>"]
    pieces = [(token, 0.0, 2 if token == "<unk>" else 3) for token in control]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)] + [("\u2581", -1.0, 1)]
    for name, kind, marks in (
        ("minicpm4", "MiniCPM4", ["<|im_start|>", "<|im_end|>"]),
        ("gemma3", "Gemma3", ["<start_of_turn>", "<end_of_turn>"]),
    ):
        special = [*range(6), len(pieces), len(pieces) + 1]
        begin = 1 if name == "minicpm4" else 5
        path = base / name / "tokenizer.txt"
        vendor_tokenizers.sentencepieces(path, pieces, special, [len(pieces) + 1], [begin], marks)
        made[name] = Tokenizer.open(path, tokenizer_type=kind)
    return made


def shown(text: Tokenizer, messages: list[dict[str, Any]], **variables: Any) -> str:
    return text.decode(text.render(messages, **variables), skip_special_tokens=False)


CHATML = (
    "<|im_start|>system\nBe brief.\n<|im_end|>\n<|im_start|>user\n  What is 1+1? <|im_end|>\n<|im_start|>assistant\n"
)
HEADERS = (
    "<|start_header_id|>user<|end_header_id|>\n\nWhat is 1+1?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
WITH_SYSTEM = {
    "qwen2_5": CHATML,
    "qwen3": CHATML,
    "smollm2": CHATML,
    "minicpm5": f"<s>{CHATML}<think>\n",
    "minicpm4": f"<s>{CHATML}",
    "hunyuan": (
        "<｜hy_begin▁of▁sentence｜>Be brief.\n<｜hy_place▁holder▁no▁3｜><｜hy_User｜>  What is 1+1? <｜hy_Assistant｜>"
    ),
    "llama3": f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>{HEADERS}",
    "llama3_1": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        f"Today Date: {TODAY:%d %b %Y}\n\nBe brief.<|eot_id|>{HEADERS}"
    ),
    "gemma3": "<bos><start_of_turn>user\nBe brief.\n\n\nWhat is 1+1?<end_of_turn>\n<start_of_turn>model\n",
}


@pytest.mark.parametrize("name", WITH_SYSTEM)
def test_a_question_with_a_system_message(texts: dict[str, Tokenizer], name: str) -> None:
    text = shown(texts[name], conversations.PLAIN["system"])
    if name == "minicpm4":  # its tokenizer puts a space before each part between control tokens
        text = text.replace("<|im_start|> ", "<|im_start|>").replace("<|im_end|> \n", "<|im_end|>\n")
    assert text == WITH_SYSTEM[name]


def test_system_messages_of_their_own(texts: dict[str, Tokenizer]) -> None:
    question = conversations.PLAIN["one question"]
    own = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    assert shown(texts["qwen2_5"], question).startswith(f"<|im_start|>system\n{own}<|im_end|>\n<|im_start|>user\n")
    own = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert shown(texts["smollm2"], question).startswith(f"<|im_start|>system\n{own}<|im_end|>\n<|im_start|>user\n")
    assert shown(texts["qwen3"], question) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("name", ["qwen3", "minicpm5"])
def test_thinking_is_switched(texts: dict[str, Tokenizer], name: str) -> None:
    question = conversations.PLAIN["one question"]
    untold, on, off = (
        shown(texts[name], question, **v) for v in ({}, {"enable_thinking": True}, {"enable_thinking": False})
    )
    assert untold == on and off.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert on.endswith("assistant\n<think>\n" if name == "minicpm5" else "assistant\n")


@pytest.mark.parametrize("name", ["qwen3", "minicpm5"])
def test_only_thoughts_after_the_last_question_are_shown(texts: dict[str, Tokenizer], name: str) -> None:
    for messages in conversations.THOUGHTS.values():
        text = shown(texts[name], messages)
        assert "hm" not in text and "well" not in text and text.count("<think>") == 1 + (name == "minicpm5")


def test_hunyuan(texts: dict[str, Tokenizer]) -> None:
    messages = conversations.PLAIN["ends with an answer"]
    begin = "<｜hy_begin▁of▁sentence｜><｜hy_User｜>a<｜hy_Assistant｜>b<｜hy_place▁holder▁no▁2｜>"
    assert shown(texts["hunyuan"], messages, add_generation_prompt=False) == begin + "<｜hy_place▁holder▁no▁8｜>"
    with pytest.raises(RequestError, match="one system message"):
        texts["hunyuan"].render([*messages, {"role": "system", "content": "x"}])


def test_gemma_turns(texts: dict[str, Tokenizer]) -> None:
    text = shown(texts["gemma3"], conversations.PLAIN["ends with an answer"], add_generation_prompt=False)
    assert text == "<bos><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
    with pytest.raises(RequestError, match="take turns"):
        texts["gemma3"].render([{"role": "user", "content": "x"}, {"role": "user", "content": "y"}])


@pytest.mark.parametrize(
    ("name", "thinking", "native"),
    [
        ("qwen2_5", "never", True),
        ("qwen3", "switch", True),
        ("minicpm4", "never", False),
        ("minicpm5", "switch", False),
        ("hunyuan", "never", False),
        ("smollm2", "never", False),
        ("llama3", "never", False),
        ("llama3_1", "never", False),
        ("gemma3", "never", False),
    ],
)
def test_what_the_server_recognises(texts: dict[str, Tokenizer], name: str, thinking: str, native: bool) -> None:
    found = chat_format_of(texts[name])
    assert (found.thinking, found.native, found.system) == (thinking, native, True)
    assert found.thinks is (thinking == "switch")
    assert found.tool_format.begin == '<tool_call>\n{"name": "' and found.tool_format.end == "}\n</tool_call>"


def test_calls_and_results(texts: dict[str, Tokenizer]) -> None:
    messages = conversations.CALLS["two calls, words before them"]
    for name in ("qwen2_5", "qwen3"):
        text = shown(texts[name], messages, tools=[conversations.WEATHER])
        assert '\n<tools>\n{"type": "function", "function": {"name": "get_weather",' in text
        assert (
            'Let me see.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "北京"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call><|im_end|>\n<|im_start|>user\n'
            '<tool_response>\nrain\n</tool_response>\n<tool_response>\n{"t": 12}\n</tool_response><|im_end|>\n'
        ) in text


EYES = {
    "qwen2_5_vl": ("qwen2_5", "Qwen2_5VL", ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")),
    "qwen3_vl": ("qwen3", "Qwen3VL", ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")),
    "internvl3": ("qwen2_5", "InternVL3", ("<img>", "</img>", "<IMG_CONTEXT>")),
    "smolvlm2": ("smollm2", "SmolVLM2", ("<end_of_utterance>", "<fake_token_around_image>", "<global-img>", "<image>")),
}
SEEN = {
    "qwen2_5_vl": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi "
        "<|vision_start|><|image_pad|><|vision_end|>there<|im_end|>\n<|im_start|>assistant\n"
    ),
    "qwen3_vl": (
        "<|im_start|>user\nHi <|vision_start|><|image_pad|><|vision_end|>there<|im_end|>\n<|im_start|>assistant\n"
    ),
    "internvl3": "<|im_start|>user\nHi <IMG_CONTEXT>\nthere<|im_end|>\n<|im_start|>assistant\n",
    "smolvlm2": "<|im_start|>User: Hi <image>there<end_of_utterance>\nAssistant:",
}


@pytest.mark.parametrize("name", EYES)
def test_models_with_eyes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their tokenizers as text files: told by type, pictures in their places, no thinking."""
    like, kind, tokens = EYES[name]
    special = (*BYTE_LEVEL[like].special, *tokens)
    monkeypatch.setitem(BYTE_LEVEL, name, replace(BYTE_LEVEL[like], tokenizer_type=kind, special=special))
    text = opened(tmp_path, name)
    adapter = KINDS[name](EncoderInput((64, 64, 3), np.dtype(np.uint8)))
    found = chat_format_of(text, None, adapter)
    assert (found.thinking, found.native, found.picture) == ("never", name == "qwen3_vl", None)
    parts = [{"type": "text", "text": "Hi "}, {"type": "image"}, {"type": "text", "text": "there"}]
    ids, _ = found.prompt(GenerationSpec(messages=[{"role": "user", "content": parts}]))
    assert text.decode(ids, skip_special_tokens=False) == SEEN[name]
    said = [{"role": "system", "content": "x"}, *conversations.PLAIN["ends with an answer"]]
    assert shown(text, said).count("x") == 1
    assert text.has_control(adapter.placeholder)


def test_calls_of_qwen3_vl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BYTE_LEVEL, "qwen3_vl", replace(BYTE_LEVEL["qwen3"], tokenizer_type="Qwen3VL"))
    text, other = opened(tmp_path / "a", "qwen3_vl"), opened(tmp_path / "b", "qwen3")
    tools = [conversations.WEATHER]
    for messages in conversations.CALLS.values():
        if messages[-1]["role"] == "assistant":
            continue  # Qwen3 shows it with a place for thoughts
        plain = [{k: v for k, v in message.items() if k != "reasoning_content"} for message in messages]
        assert shown(text, plain, tools=tools) == shown(other, plain, tools=tools)


def test_qwen3_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thinks when it is told to, in a block that the prompt opens; thoughts of answered questions are left out."""
    special = (*BYTE_LEVEL["qwen3"].special, "<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
    spec = replace(BYTE_LEVEL["qwen3"], tokenizer_type="Qwen3_5VL", special=special)
    monkeypatch.setitem(BYTE_LEVEL, "qwen3_5", spec)
    text = opened(tmp_path, "qwen3_5")
    assert chat_format_of(text, None).thinking == "switch"
    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "hm"},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "c"}]},
    ]
    before = (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>c<|im_end|>\n<|im_start|>assistant\n"
    )
    assert shown(text, said) == before + "<think>\n\n</think>\n\n"
    assert shown(text, said, enable_thinking=True) == before + "<think>\n"
