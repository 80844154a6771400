"""The vendor's own programs on the emulated runtime say what our engine says. They are not ours to ship: each test
names what to give it, and is skipped without."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import vendor_tokenizers
from collecting import GREEDY, ask
from repository import ROOT

from axpress.core.device.emulator import emulator_library
from axpress.core.engine.engine import Engine
from axpress.core.request import SamplingParams

DEMO = ROOT / "core" / "demo" / "package"
AXLLM = os.environ.get("AXPRESS_TEST_AXLLM", "")
LONG = " ".join(["Tell me about the weather today.", "Count from one to ten."] * 12)  # more than one chunk
CHATS = [["Hello"], ["What can you do?", "And then?"], ["Tell me a story", "Another one, please."], [LONG, "Again."]]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine.open(DEMO, profile="none")
    yield engine
    engine.close()


def run(command: list[str], mode: str, given: str = "") -> str:
    """What a program prints; models in the vendor's order, layers before the head."""
    settings = {"AXPRESS_EMU_MODE": mode, "AXPRESS_EMU_HEAD_FIRST": "0"}
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AXPRESS_EMU_")}
    environment = clean | settings | {"LD_LIBRARY_PATH": str(emulator_library().parent)}
    result = subprocess.run(
        command, input=given, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The demo package with a tokenizer and a config.json that axllm reads: it never says token 0 unless told."""
    for file in DEMO.glob("*.*"):
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((DEMO / "config.json").read_text())
    spec = json.loads((DEMO / "tokenizer" / "tokenizer.json").read_text())
    vendor_tokenizers.huggingface(tmp_path / "tokenizer.txt", spec, config["eos"], coded=True)
    config |= {"url_tokenizer_model": "tokenizer.txt", "tokenizer_type": "Qwen2_5", "pad_token_id": -1}
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.skipif(not AXLLM, reason="AXPRESS_TEST_AXLLM is not the path of the vendor's axllm, built for AXCL")
@pytest.mark.parametrize("mode", ["strict", "tolerant"])
def test_axllm_says_what_the_engine_says(mode: str, package: Path, engine: Engine) -> None:
    lines = "\n/reset\n".join("\n".join(chat) for chat in CHATS) + "\n/q\n"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", run([AXLLM, "run", str(package)], mode, lines))
    answers = [text.strip() for text in re.findall(r"ttft: [^\n]*\n(.*?)\n\d\d:\d\d:\d\d", plain, re.DOTALL)]
    expected = []
    for chat in CHATS:
        messages: list[dict[str, str]] = []
        for question in chat:
            messages.append({"role": "user", "content": question})
            answer = ask(engine, engine.text.render(messages), params=GREEDY, max_tokens=900, ignore_eos=False).text
            messages.append({"role": "assistant", "content": answer})
            expected.append(answer.strip())
    assert answers == expected


@pytest.mark.skipif(importlib.util.find_spec("axengine") is None, reason="pyaxengine (axengine) is not installed")
def test_pyaxengine_says_what_the_engine_says(engine: Engine) -> None:
    prompts = [[7, 300, 41], list(range(100, 227)), list(range(100, 500))]
    loop = str(ROOT / "tests" / "support" / "axengine_loop.py")
    answers = json.loads(run([sys.executable, loop, str(DEMO), json.dumps(prompts), "60"], "tolerant").splitlines()[-1])
    params = SamplingParams(temperature=0, logprobs=0)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert [one.token for one in ask(engine, prompt, params=params, max_tokens=60).logprobs] == answer
