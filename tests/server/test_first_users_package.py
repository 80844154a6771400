"""The first user's package, laid out as published: an empty config.json, the layers in a folder of their own, two
tokenizers, a post_config.json that wants the best token. Around a hollow 4B of full shape, whose groups without history
have a dummy row as wide as the hidden state. It opens, under the names that his programs use, and does what they ask.

The hollow model's text is noise and its tokenizer is ours: the real one is not to be had here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from server_process import RunningServer, post

from axpress.core.model_files.hollow import hollow

POST_CONFIG = {
    "enable_temperature": False, "temperature": 0.9, "enable_repetition_penalty": False, "repetition_penalty": 1.2,
    "penalty_window": 20, "enable_top_p_sampling": False, "top_p": 0.8, "enable_top_k_sampling": True, "top_k": 1,
}  # fmt: skip
RUN = """./main_axcl_aarch64 --template_filename_axmodel "qwen3-4b-ax650/qwen3_p128_l%d_together.axmodel" \\
--axmodel_num 36 --url_tokenizer_model http://127.0.0.1:12345 --tokens_embed_num 151936 --tokens_embed_size 2560
"""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as his clone has it."""
    root = tmp_path_factory.mktemp("first") / "Qwen3-4B"
    made = hollow("qwen3-4b-w8a16-pi5", root.with_name("made"), p0_width="hidden")
    layers = root / "qwen3-4b-ax650"
    layers.mkdir(parents=True)
    for path in made.glob("*_l*_together.axmodel"):
        number = path.name.rpartition("_l")[2].removesuffix("_together.axmodel")
        path.rename(layers / f"qwen3_p128_l{number}_together.axmodel")
    next(made.glob("*_post.axmodel")).rename(layers / "qwen3_post.axmodel")
    (made / "model.embed_tokens.weight.bfloat16.bin").rename(layers / "model.embed_tokens.weight.bfloat16.bin")
    for name in ("qwen2.5_tokenizer", "qwen3_tokenizer"):
        shutil.copytree(made / "tokenizer", root / name)
        config = json.loads((root / name / "tokenizer_config.json").read_text())
        config["chat_template"] = f"{name} " + TEMPLATE  # so that it can be told which one was taken
        (root / name / "tokenizer_config.json").write_text(json.dumps(config))
    (root / "config.json").touch()
    (root / "post_config.json").write_text(json.dumps(POST_CONFIG))
    (root / "qwen3_tokenizer_uid.py").write_text('AutoTokenizer.from_pretrained("qwen3_tokenizer")\n')
    (root / "run_qwen3_4b_int8_ctx_axcl_aarch64.sh").write_text(RUN)
    for name in ("main_ax650", "main_axcl_aarch64"):
        (root / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return root


@pytest.fixture(scope="module")
def server(package: Path) -> Iterator[RunningServer]:
    with RunningServer(package, "--device", "emu", "--emu-profile", "none") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("name", ["qwen3-4b-ax650", "Qwen3-4B", "qwen3-4b", "Qwen3-4B:latest", "default"])
def test_his_smoke_tests(client: openai.OpenAI, name: str) -> None:
    messages = [{"role": "user", "content": "Hello!"}]
    answer = client.chat.completions.create(model=name, messages=messages, max_tokens=5)  # type: ignore[arg-type]
    assert answer.usage is not None and answer.usage.completion_tokens >= 1
    stream = client.chat.completions.create(model=name, messages=messages, max_tokens=5, stream=True)  # type: ignore[call-overload]
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] in ("stop", "length")
    assert client.models.retrieve(name).id == "Qwen3-4B"


def test_health_says_what_it_is(server: RunningServer) -> None:
    status, body = server.health()
    assert status == 200 and body["model"] == "Qwen3-4B" and body["emulated"] and body["context_length"] == 2559


def test_the_tokenizer_is_the_one_that_his_scripts_name(server: RunningServer) -> None:
    status, answer = post(server, "/tokenize", messages=[{"role": "user", "content": "hi"}])
    assert status == 200
    status, answer = post(server, "/detokenize", tokens=answer["tokens"])
    assert status == 200 and answer["content"].startswith("qwen3_tokenizer <|im_start|>user")


def test_a_temperature_varies_and_silence_is_greedy(client: openai.OpenAI) -> None:
    def text(**sampling: float) -> str:
        messages = [{"role": "user", "content": "Name the product."}]
        answer = client.chat.completions.create(model="default", messages=messages, max_tokens=12, **sampling)  # type: ignore
        return answer.choices[0].message.content or ""

    assert text() == text() == text(temperature=0), "his package asks for the best token"
    assert len({text(temperature=0.9, top_p=0.95, seed=seed) for seed in range(4)}) > 1
