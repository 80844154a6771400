"""GGUF files: a package made of one equals the package of the checkpoint that it was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece
import tiny_tokenizers
from gguf import GGMLQuantizationType as Kind
from gguf_files import interleaved, tokenizer_metadata, write_gguf
from nasty_texts import nasty_texts
from tiny_models import LLAMA3_ROPE, Tiny, save_checkpoint, write_checkpoint

from axpress.core.errors import PackageError
from axpress.core.model_files.convert import convert
from axpress.core.model_files.gguf_checkpoint import GgufCheckpoint
from axpress.core.model_files.gguf_tokenizer import SPLITS, tokenizer_files
from axpress.core.model_files.model_package import open_package
from axpress.core.model_files.safetensors import SafetensorsFile, TensorSource, to_bf16, write_safetensors
from axpress.core.tokenizer import Tokenizer

MODELS = (
    Tiny("llama"),
    Tiny("llama", tied=True, attention_bias=True, head_dim=32, kv_heads=1),
    Tiny("qwen2", tied=True, rope={"rope_type": "linear", "factor": 4.0}),
    Tiny("qwen3", head_dim=32, attention_bias=True, theta=1e6),
    Tiny("gemma3_text", tied=True, theta=1e6),
)
ROUND_TRIP = (Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1)
DEQUANTISED_ONLY = (Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.IQ4_NL, Kind.IQ4_XS)


def package(source: Path, out: Path) -> Path:
    return convert(source, out, rows=64, chunk=16, name="tiny", progress=False)


def weights(directory: Path) -> dict[str, bytes]:
    """Content of the layers, the head and the embedding by file name."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix in (".axmodel", ".bin")}


@pytest.mark.parametrize("tiny", MODELS, ids=lambda tiny: tiny.label)
def test_a_file_gives_the_package_of_its_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    save_checkpoint(tiny, tmp_path / "hf")
    file = write_gguf(tmp_path / "hf", tmp_path / "model.gguf")
    expected, made = package(tmp_path / "hf", tmp_path / "a"), package(file, tmp_path / "b")
    assert weights(made) == weights(expected)
    theirs, ours = open_package(expected), open_package(made)
    assert (ours.family, ours.max_positions) == (theirs.family, theirs.max_positions)
    one, other = (Tokenizer.open(path / "tokenizer") for path in (expected, made))
    assert (other.eos_ids, other.bos_id, other.special_ids) == (one.eos_ids, one.bos_id, one.special_ids)
    for text in nasty_texts(200):
        assert other.encode(text, control=True) == one.encode(text, control=True), text
    chat = [{"role": "user", "content": "What is 12 + 30?"}]
    assert other.render(chat) == one.render(chat)


def test_scaled_frequencies_of_llama_3(tmp_path: Path) -> None:
    tiny = Tiny("llama", rope=LLAMA3_ROPE)
    save_checkpoint(tiny, tmp_path / "hf")
    plain = 1 / tiny.theta ** (np.arange(0, tiny.head_dim, 2) / tiny.head_dim)
    expected = package(tmp_path / "hf", tmp_path / "a")
    wanted = SafetensorsFile(open_package(expected).layer_files[0]).array("inv_freq")
    file = write_gguf(tmp_path / "hf", tmp_path / "model.gguf", extra={"rope_freqs.weight": plain / wanted})
    found = SafetensorsFile(open_package(package(file, tmp_path / "b")).layer_files[0]).array("inv_freq")
    assert not np.allclose(wanted, plain, rtol=0.01) and np.allclose(found, wanted, rtol=1e-6)


def test_transformers_reads_the_same_rows_of_q_and_k(tmp_path: Path) -> None:
    """So the files of these tests have the order that others' have."""
    transformers = pytest.importorskip("transformers")
    model = save_checkpoint(Tiny("llama"), tmp_path)
    write_gguf(tmp_path, tmp_path / "model.gguf", Kind.F32)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf").state_dict()
    for name, tensor in model.state_dict().items():
        assert np.allclose(theirs[name].float().numpy(), tensor.numpy(), atol=1e-6), name


@pytest.mark.parametrize("kind", ROUND_TRIP + DEQUANTISED_ONLY, ids=lambda kind: kind.name)
def test_every_type_is_dequantised(kind: Kind, tmp_path: Path) -> None:
    """Against a checkpoint that holds what the library makes of the file's bytes."""
    tiny = Tiny("llama", hidden=256, heads=4, head_dim=64, ffn=512, layers=1)
    write_checkpoint(tiny, tmp_path / "hf")
    random, values = np.random.default_rng(1), {}

    def encode(array: np.ndarray, as_kind: Kind) -> np.ndarray:
        if as_kind in DEQUANTISED_ONLY:
            shape = gguf.quant_shape_to_byte_shape(array.shape, as_kind)
            data = random.integers(0, 0x78, shape, np.uint8)  # so that scales (half precision) are finite
        else:
            data = gguf.quantize(array, as_kind)
        values[len(values)] = gguf.dequantize(data, as_kind).reshape(array.shape)
        return data

    file = write_gguf(tmp_path / "hf", tmp_path / "model.gguf", kind, encode=encode)
    names = list(SafetensorsFile(tmp_path / "hf" / "model.safetensors").tensors)
    tensors = dict(zip(names, values.values(), strict=True))
    for part, heads in (("q", tiny.heads), ("k", tiny.kv_heads)):
        name = f"model.layers.0.self_attn.{part}_proj.weight"
        turned = tensors[name]
        rows = interleaved(np.arange(len(turned)), heads)
        tensors[name] = np.empty_like(turned)
        tensors[name][rows] = turned
    bits = {name: to_bf16(array) for name, array in tensors.items()}
    sources = {name: TensorSource("BF16", array.shape, lambda array=array: [array]) for name, array in bits.items()}
    write_safetensors(tmp_path / "hf" / "model.safetensors", {"format": "pt"}, sources)
    assert weights(package(file, tmp_path / "b")) == weights(package(tmp_path / "hf", tmp_path / "a"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"general.architecture": "gemma2"}, "architecture 'gemma2'"),
        ({"general.type": "mmproj"}, "of type 'mmproj'"),
        ({"qwen3.rope.scaling.type": "yarn", "qwen3.rope.scaling.factor": 4.0}, "RoPE of type 'yarn'"),
        ({"qwen3.rope.dimension_count": 8}, "only a part of each head"),
        ({"qwen3.attention.value_length": 8}, "keys and values of different sizes"),
        ({"qwen3.expert_count": 8}, "mixture of experts"),
        ({"qwen3.attention.sliding_window": 128}, "sliding-window attention"),
        ({"qwen3.logit_scale": 0.5}, "qwen3.logit_scale"),
        ({"qwen3.pooling_type": 3}, "embedding model"),
        ({"qwen3.pooling_type": 4}, "a reranker's with a head of its own"),
        ({"qwen3.attention.head_count": [4, 2]}, "no usable 'num_attention_heads'"),
        ({"tokenizer.ggml.pre": "viking"}, "'viking'"),
        ({"tokenizer.ggml.pre": None}, "does not say how text is split"),
        ({"tokenizer.ggml.model": "bert"}, "tokenizer of kind 'bert'"),
        ({"tokenizer.ggml.tokens": ["a"]}, "no usable list of tokens"),
        ({"tokenizer.ggml.merges": ["a nonsense"]}, "unsound tokenizer"),
        ({"split.count": 3}, "one of 3 parts"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusals(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_checkpoint(Tiny("qwen3"), tmp_path / "hf")
    file = write_gguf(tmp_path / "hf", tmp_path / "model.gguf", metadata=changes)
    with pytest.raises(PackageError) as refused:
        package(file, tmp_path / "out")
    assert said in str(refused.value) and str(file) in str(refused.value) and "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "model.gguf"]


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    write_checkpoint(Tiny("qwen3"), tmp_path / "hf")
    vector = np.zeros(8, np.float32)
    for extra, said in (
        ({"blk.0.attn_sinks.weight": vector}, "'blk.0.attn_sinks.weight'"),
        ({"rope_freqs.weight": vector[:3]}, "rope_freqs.weight does not fit"),
    ):
        file = write_gguf(tmp_path / "hf", tmp_path / "model.gguf", extra=extra)
        with pytest.raises(PackageError, match=said):
            package(file, tmp_path / "out")


def test_files_that_are_none(tmp_path: Path) -> None:
    write_checkpoint(Tiny("qwen3"), tmp_path / "hf")
    whole = write_gguf(tmp_path / "hf", tmp_path / "whole.gguf").read_bytes()
    for name, content, said in (
        ("cut.gguf", whole[: len(whole) // 2], "not a sound GGUF file"),
        ("head.gguf", whole[:1000], "not a sound GGUF file"),
        ("empty.gguf", b"", "not a sound GGUF file"),
        ("text.gguf", b"no such thing" * 10, "not a sound GGUF file"),
        ("pointer.gguf", b"version https://git-lfs.github.com/spec/v1\nsize 99\n", "Git LFS pointer"),
        ("model.bin", whole, "not called .gguf"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PackageError, match=said):
            package(tmp_path / name, tmp_path / "out")
    with pytest.raises(PackageError, match="is not there"):
        package(tmp_path / "nothing.gguf", tmp_path / "out")


# tokenizers


@pytest.mark.parametrize(("make", "pre"), [(tiny_tokenizers.qwen, "qwen2"), (tiny_tokenizers.llama3, "llama-bpe")])
def test_byte_level_tokenizers(make: Any, pre: str, tmp_path: Path) -> None:
    directory = make(tmp_path / "hf")
    theirs = Tokenizer.open(directory)
    made = written(tokenizer_metadata(directory, theirs.vocab_size + 3, pre), tmp_path / "gguf")
    assert (made.vocab_size, made.begin, made.special_ids) == (theirs.vocab_size, theirs.begin, theirs.special_ids)
    for text in nasty_texts(1000):
        assert made.encode(text) == theirs.encode(text), text
    messages = [{"role": "user", "content": "a <|im_end|> b"}, {"role": "assistant", "content": "c"}]
    assert made.render(messages) == theirs.render(messages)


def written(metadata: dict[str, Any], directory: Path) -> Tokenizer:
    directory.mkdir()
    for name, content in tokenizer_files(metadata, "model.gguf").items():
        (directory / name).write_bytes(content)
    return Tokenizer.open(directory)


def test_single_digits_and_words(tmp_path: Path) -> None:
    """SmolLM2's splitting: digits apart, and so are the spaces before them."""
    directory = tiny_tokenizers.qwen(tmp_path / "hf")
    metadata = tokenizer_metadata(directory, 700, "smollm")
    (tmp_path / "t.json").write_bytes(tokenizer_files(metadata, "model.gguf")["tokenizer.json"])
    from tokenizers import Tokenizer as Library

    split = Library.from_file(str(tmp_path / "t.json")).pre_tokenizer.pre_tokenize_str("it's 2025,\n\n1½")
    assert [text for text, _ in split] == ["it", "'s", "Ġ", "2", "0", "2", "5", ",", "ĊĊ", "1", "Â½"]


@pytest.mark.parametrize("pre", sorted(SPLITS))
def test_every_way_to_split_keeps_the_text(pre: str, tmp_path: Path) -> None:
    directory = tiny_tokenizers.llama3(tmp_path / "hf")
    made = written(tokenizer_metadata(directory, 700, pre), tmp_path / "gguf")
    for text in ("DON'T  stop\r\n\n 1234567890,5%: naïve Ελλάδα 你好 x86_64 ½", "", " ", "'S"):
        assert made.decode(made.encode(text)) == text


def test_a_sentencepiece_model(tmp_path: Path) -> None:
    directory = tiny_tokenizers.sentence_piece(tmp_path / "hf")
    pieces = sentencepiece.SentencePieceProcessor(str(directory / "tokenizer.model"))
    count = range(pieces.GetPieceSize())
    user = {"[INST]", "[/INST]", "\u2581\u2581\u2581"}
    kinds = [
        2 if pieces.IsUnknown(i) else 3 if pieces.IsControl(i) else 6 if pieces.IsByte(i)
        else 4 if pieces.IdToPiece(i) in user else 1 for i in count
    ]  # fmt: skip
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [pieces.IdToPiece(i) for i in count],
        "tokenizer.ggml.scores": [pieces.GetScore(i) for i in count],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": tiny_tokenizers.INST,
    }
    config = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps(config | {"legacy": True}))
    theirs, made = Tokenizer.open(directory), written(metadata, tmp_path / "gguf")
    assert (made.vocab_size, made.begin, made.eos_ids) == (theirs.vocab_size, theirs.begin, theirs.eos_ids)
    for text in nasty_texts(1000):
        assert made.encode(text) == theirs.encode(text), text
    messages = [{"role": "user", "content": "a </s> b"}, {"role": "assistant", "content": "c"}]
    assert made.render(messages) == theirs.render(messages)
    with pytest.raises(PackageError, match="scores"):
        tokenizer_files(metadata | {"tokenizer.ggml.scores": [0.0]}, "model.gguf")


def test_templates_ends_and_sampling(tmp_path: Path) -> None:
    write_checkpoint(Tiny("qwen3"), tmp_path / "hf")
    extra = {
        "tokenizer.chat_template.tool_use": "tools {{ messages[0].content }}",
        "tokenizer.ggml.eot_token_id": 7,
        "general.sampling.temp": 0.6,
        "general.sampling.top_k": 20,
    }
    file = write_gguf(tmp_path / "hf", tmp_path / "model.gguf", metadata=extra)
    checkpoint = GgufCheckpoint(file)
    assert {template["name"] for template in json.loads(checkpoint.tokenizer()["tokenizer_config.json"])[
        "chat_template"
    ]} == {"default", "tool_use"}  # fmt: skip
    made = open_package(package(file, tmp_path / "out"))
    assert 7 in made.eos and len(made.eos) == 2
    assert (made.post_config.temperature, made.post_config.top_k, made.post_config.top_p) == (0.6, 20, None)
