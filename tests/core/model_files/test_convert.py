"""Conversion of Hugging Face checkpoints, simulated axmodel files, hollow packages and profiles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import LLAMA3_ROPE, Tiny, save_checkpoint, write_checkpoint
from tokenizers import Tokenizer

from axpress.core.errors import PackageError
from axpress.core.model_files import convert as convert_module
from axpress.core.model_files.convert import EMBED_NAME, convert, default_history
from axpress.core.model_files.hf_checkpoint import rope_frequencies
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.hollow_tokenizer import MIN_VOCAB, build_tokenizer, special_ids
from axpress.core.model_files.int8_weights import int8_tensors
from axpress.core.model_files.safetensors import SafetensorsFile, array_source, from_bf16, to_bf16, write_safetensors
from axpress.core.model_files.simulated_axmodel import (
    SimMeta,
    is_simulated,
    published_bytes,
    read_axmodel,
    read_layers,
    write_axmodel,
)
from axpress.core.model_files.timing_profile import PROFILE_DIR, load_profile, profile_names

TINY = Tiny("qwen3")


# bf16


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_bf16_rounds_to_the_nearest_and_ties_to_even(values: list[float]) -> None:
    single = np.array(values, np.float32)
    rounded = to_bf16(single)
    for value, bits in zip(single, rounded, strict=True):
        back = from_bf16(np.array([bits]))[0]
        if np.isnan(value):
            assert np.isnan(back)
            continue
        below, above = (np.array([(int(value.view(np.uint32)) >> 16) + step], np.uint32) << 16 for step in (0, 1))
        candidates = [float(part.view(np.float32)[0]) for part in (below, above)]
        if not np.isfinite(value) or np.isinf(candidates[1]):
            continue  # checked with known values below
        distances = [abs(float(value) - candidate) for candidate in candidates]
        assert abs(float(value) - float(back)) == min(distances)
        if distances[0] == distances[1]:
            assert bits % 2 == 0


def test_bf16_of_special_values() -> None:
    largest = np.array([0x7F7F], np.uint16)
    values = np.array([np.inf, -np.inf, -0.0, from_bf16(largest)[0], np.finfo(np.float32).max], np.float32)
    assert to_bf16(values).tolist() == [0x7F80, 0xFF80, 0x8000, 0x7F7F, 0x7F80]
    all_ones = np.array([0xFFFFFFFF], np.uint32).view(np.float32)  # a NaN whose rounding would carry out of the word
    assert np.isnan(from_bf16(to_bf16(all_ones)))[0]


# safetensors files


def test_other_programs_read_what_we_write(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors", reason="safetensors comes with transformers")
    array = np.arange(7, dtype=np.float32)
    bits = to_bf16(np.linspace(-1, 1, 15, dtype=np.float32)).reshape(3, 5)
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": "b"}, {"bits": array_source(bits), "array": array_source(array)})
    theirs = dict(safetensors.deserialize(path.read_bytes()))
    assert bytes(theirs["bits"]["data"]) == bits.tobytes() and theirs["bits"]["shape"] == [3, 5]
    assert bytes(theirs["array"]["data"]) == array.tobytes()
    mine = SafetensorsFile(path)
    assert mine.metadata == {"a": "b"}
    assert (mine.array("bits") == bits).all() and (mine.array("array") == array).all()
    assert not mine.array("bits").flags.writeable


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(position=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 60))
def test_a_damaged_file_is_refused_or_still_sound(tmp_path: Path, position: int, value: int, cut: int) -> None:
    path = tmp_path / "damaged.safetensors"
    write_safetensors(
        path,
        {"k": "v"},
        {"a": array_source(np.arange(4, dtype=np.float32)), "b": array_source(np.zeros((2, 3), np.uint16))},
    )
    raw = bytearray(path.read_bytes())
    raw[position % len(raw)] = value
    path.unlink()
    path.write_bytes(raw[: len(raw) - cut])
    try:
        file = SafetensorsFile(path)
        for name in file.tensors:
            file.array(name).sum()
    except PackageError as error:
        assert "damaged.safetensors" in str(error)


META = SimMeta(
    "qwen3",
    0,
    2,
    64,
    4,
    2,
    16,
    96,
    384,
    decode_rows=(255, 1023),
    chunk=128,
    history=(0, 128),
    cost_chunk_us=(1.5, 2.25),
)


def test_metadata_survives_a_round_trip(tmp_path: Path) -> None:
    head = SimMeta(
        "llama", None, 2, 64, 0, 0, 0, 0, 384, rms_eps=1e-5, head_rows=(1, 4), output_dtype="fp32", cost_head_us=7920.0
    )
    for meta in (META, head):
        hollowed = SimMeta.from_metadata({**meta.to_metadata(), "hollow": "1"}, "x")
        path = tmp_path / "a.axmodel"
        write_axmodel(path, hollowed)
        read, _ = read_axmodel(path)
        assert read == hollowed and read.hollow and is_simulated(path)
        assert read.kind == meta.kind
    assert META.to_metadata()["history"] == "0,128" and META.to_metadata()["cost_chunk_us"] == "1.5,2.25"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"format": "axpress-sim-9"}, "format"),
        ({"kind": "tail"}, "kind"),
        ({"hidden": "many"}, "hidden"),
        ({"history": "0,x"}, "history"),
    ],
)
def test_wrong_metadata_is_named(change: dict[str, str], part: str) -> None:
    with pytest.raises(PackageError, match=part):
        SimMeta.from_metadata({**META.to_metadata(), **change}, "layer.axmodel")
    missing = META.to_metadata()
    del missing["ffn"]
    with pytest.raises(PackageError, match="ffn"):
        SimMeta.from_metadata(missing, "layer.axmodel")


def test_tensors_that_do_not_fit_the_metadata_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no tensor 'input_norm'"):
        write_axmodel(tmp_path / "a.axmodel", META, {})


# convert


@pytest.mark.parametrize(
    ("tiny", "dtype", "shards"),
    [
        (Tiny("qwen3", tied=True), "BF16", 1),
        (Tiny("qwen3", attention_bias=True), "F32", 3),
        (Tiny("qwen2", heads=7, kv_heads=1, hidden=112), "F16", 2),
        (Tiny("llama", heads=6, kv_heads=3, head_dim=32, tied=True), "F32", 1),
    ],
    ids=lambda value: value.label if isinstance(value, Tiny) else str(value),
)
def test_every_weight_arrives_rounded_to_bf16(tmp_path: Path, tiny: Tiny, dtype: str, shards: int) -> None:
    tensors = write_checkpoint(tiny, tmp_path / "Tiny_Model v1", dtype, shards)
    bits = {name: array if dtype == "BF16" else to_bf16(array) for name, array in tensors.items()}
    out = convert(tmp_path / "Tiny_Model v1", tmp_path / "out", rows=300, chunk=64, progress=False)
    assert sorted(path.name for path in out.glob("*.axmodel")) == [
        *(f"tiny-model-v1_p64_l{layer}_together.axmodel" for layer in range(tiny.layers)),
        "tiny-model-v1_post.axmodel",
    ]
    seen = {"model.embed_tokens.weight"}
    for layer in range(tiny.layers):
        meta, file = read_axmodel(out / f"tiny-model-v1_p64_l{layer}_together.axmodel")
        assert (meta.layer, meta.decode_rows, meta.chunk, meta.history) == (layer, (300,), 64, (0, 64, 128, 192))
        names = {**convert_module.LAYER_TENSORS, **convert_module.OPTIONAL_TENSORS}
        for name in set(file.tensors) - {"inv_freq"}:
            theirs = f"model.layers.{layer}.{names[name]}"
            assert (file.array(name) == bits[theirs]).all(), theirs
            seen.add(theirs)
    _, head = read_axmodel(out / "tiny-model-v1_post.axmodel")
    assert (head.array("norm") == bits["model.norm.weight"]).all()
    assert (head.array("head") == bits["model.embed_tokens.weight" if tiny.tied else "lm_head.weight"]).all()
    assert seen | {"model.norm.weight", "lm_head.weight"} >= set(bits), "some weight was left out"
    assert (out / EMBED_NAME).read_bytes() == bits["model.embed_tokens.weight"].tobytes()


def test_configuration_of_a_package(tmp_path: Path) -> None:
    write_checkpoint(TINY, tmp_path / "hf")
    generation = {
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "eos_token_id": [360, 358],
        "bos_token_id": 358,
    }
    (tmp_path / "hf" / "generation_config.json").write_text(json.dumps(generation))
    out = convert(tmp_path / "hf", tmp_path / "out", name="Tiny", progress=False)
    config = json.loads((out / "config.json").read_text())
    assert config["model_name"] == "tiny" and config["axmodel_num"] == 2
    assert config["template_filename_axmodel"] == "tiny_p128_l%d_together.axmodel"
    assert (config["tokens_embed_num"], config["tokens_embed_size"]) == (384, 64)
    assert (config["eos"], config["bos"]) == ([360, 358], 358)
    assert config["axpress"]["simulated"] is True
    for key in ("filename_post_axmodel", "filename_tokens_embed", "url_tokenizer_model", "post_config_path"):
        assert (out / config[key]).exists(), key
    assert (out / "tokenizer" / "tokenizer.json").read_bytes() == (tmp_path / "hf" / "tokenizer.json").read_bytes()
    post = json.loads((out / "post_config.json").read_text())
    assert (post["temperature"], post["top_k"], post["top_p"]) == (0.6, 20, 0.95)
    assert post["enable_temperature"] and post["enable_top_k_sampling"] and post["enable_top_p_sampling"]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"model_type": "mistral"}, "mistral"),
        ({"model_type": "qwen3_moe", "num_experts": 128}, "mixture of experts"),
        ({"use_sliding_window": True, "max_window_layers": 1}, "sliding-window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding-window"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "hybrid"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "dynamic"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [8, 4, 4]}}, "mrope"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "linear"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "Qwen3ForSequenceClassification"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"vision_config": {}}, "vision"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers"),
        ({"num_hidden_layers": 3}, "layers.2"),
        ({"num_hidden_layers": 1}, "layers.1"),
        ({"intermediate_size": 128}, "gate"),
        ({"vocab_size": 385}, "embedding"),
        ({"num_key_value_heads": 3}, "key/value heads"),
    ],
)
def test_what_cannot_be_converted_is_named_and_nothing_written(
    tmp_path: Path, change: dict[str, Any], part: str
) -> None:
    write_checkpoint(TINY, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(PackageError, match=part):
        convert(tmp_path / "hf", tmp_path / "out", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_a_quantised_tensor_and_an_unknown_one_are_named(tmp_path: Path) -> None:
    write_checkpoint(Tiny("qwen3", layers=1), tmp_path / "hf")
    file = SafetensorsFile(tmp_path / "hf" / "model.safetensors")
    sources = {name: array_source(file.array(name).copy()) for name in file.tensors}
    bias = {"model.layers.0.mlp.up_proj.bias": array_source(np.zeros(96, np.float32))}
    write_safetensors(tmp_path / "hf" / "model.safetensors", {}, {**sources, **bias})
    with pytest.raises(PackageError, match=r"up_proj\.bias"):
        convert(tmp_path / "hf", tmp_path / "out", progress=False)
    name = "model.layers.0.mlp.up_proj.weight"
    wide = convert_module.TensorSource("I8", (96, 64), lambda: [np.zeros((96, 64), np.int8)])
    write_safetensors(tmp_path / "hf" / "model.safetensors", {}, {**sources, name: wide})
    with pytest.raises(PackageError, match="I8"):
        convert(tmp_path / "hf", tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"rows": 0}, "--rows"),
        ({"chunk": 1}, "--chunk"),
        ({"chunk": 0, "history": [0]}, "--history"),
        ({"history": [128, 0]}, "ascending"),
        ({"history": [0, 4096]}, "--rows"),
    ],
)
def test_impossible_options_are_named(tmp_path: Path, options: dict[str, Any], part: str) -> None:
    write_checkpoint(TINY, tmp_path / "hf")
    with pytest.raises(PackageError, match=part):
        convert(tmp_path / "hf", tmp_path / "out", progress=False, **options)


def test_ladders() -> None:
    assert default_history(2047, 128) == list(range(0, 1025, 128))
    assert default_history(256, 128) == [0, 128] and default_history(255, 128) == [0]
    assert default_history(100, 128) == [0]
    assert default_history(2047, 0) == []


def test_no_tokenizer_no_package(tmp_path: Path) -> None:
    write_checkpoint(TINY, tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.json").unlink()
    with pytest.raises(PackageError, match=r"tokenizer\.json"):
        convert(tmp_path / "hf", tmp_path / "out", progress=False)


def test_pointers_and_missing_shards_are_named(tmp_path: Path) -> None:
    write_checkpoint(TINY, tmp_path / "hf", shards=2)
    shard = tmp_path / "hf" / "model-00002-of-00002.safetensors"
    shard.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4711\n")
    with pytest.raises(PackageError, match=r"00002-of-00002.*4711.*git lfs pull"):
        convert(tmp_path / "hf", tmp_path / "out", progress=False)
    shard.unlink()
    with pytest.raises(PackageError, match=r"00002-of-00002.*missing"):
        convert(tmp_path / "hf", tmp_path / "out", progress=False)


def test_a_directory_in_use_is_not_touched_and_a_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(TINY, tmp_path / "hf")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(PackageError, match="not empty"):
        convert(tmp_path / "hf", tmp_path / "out", progress=False)
    (tmp_path / "out" / "mine.txt").unlink()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(convert_module, "write_axmodel", full_disk)
        with pytest.raises(OSError, match="No space"):
            convert(tmp_path / "hf", tmp_path / "out", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "out"] and not any((tmp_path / "out").iterdir())
    assert (convert(tmp_path / "hf", tmp_path / "out", progress=False) / "config.json").is_file()


@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize(
    "rope", [{}, {"rope_type": "linear", "factor": 4.0}, LLAMA3_ROPE], ids=["default", "linear", "llama3"]
)
def test_rope_frequencies_are_those_of_transformers(rope: dict[str, Any], head_dim: int) -> None:
    pytest.importorskip("torch", reason="needs torch and transformers")
    from transformers.models.llama.modeling_llama import LlamaConfig, LlamaRotaryEmbedding

    old = {"rope_theta": 500000.0, "rope_scaling": rope or None}
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0, **rope}}
    sizes = {"hidden_size": 4 * head_dim, "num_attention_heads": 4, "max_position_embeddings": 8192}
    reference = LlamaRotaryEmbedding(LlamaConfig(**sizes, **new)).inv_freq.numpy()
    for spelling in (old, new):
        np.testing.assert_allclose(rope_frequencies(spelling, head_dim), reference, rtol=3e-7)


def test_a_real_checkpoint_of_transformers_converts(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs torch and transformers")
    transformers = pytest.importorskip("transformers", reason="needs torch and transformers")
    model = save_checkpoint(Tiny("llama", rope=LLAMA3_ROPE, max_shard_size="100KB"), tmp_path / "hf")
    assert (tmp_path / "hf" / "model.safetensors.index.json").is_file(), "the test wants more than one shard"
    out = convert(tmp_path / "hf", tmp_path / "out", progress=False)
    _, layer = read_axmodel(next(out.glob("*_l1_*")))
    np.testing.assert_array_equal(
        from_bf16(layer.array("down")), model.model.layers[1].mlp.down_proj.weight.detach().numpy()
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "tokenizer")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


# profiles and hollow packages


# facts/costs.md: layers, hidden, K/V width, vocabulary; rows, chunk; decode layer, chunk at P=0 and 512, head, in ms
TABLE = {
    "qwen3-0.6b-w8a16-pi5": (28, 1024, 1024, 151936, 2047, 128, 1.50, 2.80, 2.80 + 0.00234 * 512, 7.92),
    "qwen3-0.6b-int4-pi5": (28, 1024, 1024, 151936, 2047, 64, 1.17, 2.15, 3.13 + 0.1 * (512 - 128) / 64, 7.92),
    "qwen3-1.7b-w8a16-pi5": (28, 2048, 1024, 151936, 2047, 128, 3.20, 5.80, 5.80 + 0.0029 * 512, 16.2),
    "qwen3-4b-w8a16-pi5": (36, 2560, 1024, 151936, 2559, 128, 6.00, 11.1, 11.1 + 0.0049 * 512, 20.0),
    "qwen3.5-0.8b-int4-pi5": (24, 1024, 512, 248320, 2047, 128, 1.23, 3.30, 4.50, 12.94),
    "qwen3-vl-2b-w8a16-pi5": (28, 2048, 1024, 151936, 2047, 128, 2.95, 5.80, 5.80 + 0.0029 * 512, 16.2),
}
LADDERS: dict[int | str, tuple[int, ...]] = {
    128: (*range(0, 1025, 128), 1536, 2048), 64: (0, 64, 128, 192), "qwen3_5_text": tuple(range(0, 1153, 128)),
    "qwen3_vl": tuple(range(0, 1153, 128)),
}  # fmt: skip


def test_profiles_are_those_of_the_table() -> None:
    assert set(profile_names()) == set(TABLE)
    for name, row in TABLE.items():
        profile = load_profile(name)
        model, cost = profile.model, profile.cost
        assert profile.name == name
        assert (
            model.layers,
            model.hidden,
            model.kv_heads * model.head_dim,
            model.vocab,
            model.rows,
            model.chunk,
        ) == row[:6]
        assert model.history == LADDERS.get(model.vision or model.family, LADDERS[model.chunk])
        ms = (cost.decode_us(model.rows), cost.chunk_us(0), cost.chunk_us(512), 1000 * cost.head_ms)
        assert ms == pytest.approx([1000 * value for value in row[6:]], abs=0.01)
        assert (cost.sync_call_ms, cost.submit_us, cost.d2d_us, cost.d2d_gb_s) == (0.07, 5, 10, 10)
        # the last one tuned, not the table's 1000
        assert (cost.bus_mb_s, cost.transfer_us, cost.unpinned_us) == (400, 20, 250)
        assert (profile.memory.cmm_mib, profile.memory.idle_cmm_mib) == (7040, 18)


@pytest.mark.parametrize(("name", "left_mib"), [("qwen3-0.6b-w8a16-pi5", 5068), ("qwen3-4b-w8a16-pi5", 691)])
def test_memory_left_after_loading_is_the_published_one(name: str, left_mib: int) -> None:
    profile = load_profile(name)
    model, memory = profile.model, profile.memory
    cache = model.layers * 2 * model.rows * model.kv_heads * model.head_dim * 2
    used = model.layers * memory.layer_cmm_bytes + memory.head_cmm_bytes + cache
    assert memory.cmm_mib - memory.idle_cmm_mib - used / 2**20 == pytest.approx(left_mib, abs=1)


def test_int4_decode_with_a_short_cache_is_the_measured_one() -> None:
    cost = load_profile("qwen3-0.6b-int4-pi5").cost
    assert (cost.decode_us(255), cost.decode_us(1023), cost.decode_us(1535), cost.decode_us(4095)) == (
        930,
        930,
        1050,
        1170,
    )


@pytest.mark.parametrize("text", ["", "[model]\n", "name = ", "[model]\nfamily = 'qwen3'\n"])
def test_a_malformed_profile_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(PackageError, match=r"mine\.toml"):
        load_profile(str(tmp_path / "mine.toml"))


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(PackageError, match="qwen3-4b-w8a16-pi5"):
        load_profile("qwen3-5b")


@pytest.fixture(scope="module")
def hollow_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hollow("qwen3-0.6b-w8a16-pi5", tmp_path_factory.mktemp("hollow") / "out")


def test_a_hollow_package_is_full_size_in_few_megabytes(hollow_package: Path) -> None:
    assert (hollow_package / EMBED_NAME).stat().st_size == 151936 * 1024 * 2
    on_disk = sum(path.stat().st_blocks * 512 for path in hollow_package.rglob("*"))
    assert on_disk < 6 << 20
    layers = [read_axmodel(path)[0] for path in hollow_package.glob("*_together.axmodel")]
    assert sorted(meta.layer for meta in layers if meta.layer is not None) == list(range(28))
    for meta in layers:
        assert meta.hollow and meta.decode_rows == (2047,) and meta.cost_decode_us == (1500,)
        assert meta.history == (*range(0, 1025, 128), 1536, 2047), "no group may read more rows than the cache has"
        assert meta.cost_chunk_us is not None and len(meta.cost_chunk_us) == len(meta.history)
        assert meta.cmm_bytes == load_profile("qwen3-0.6b-w8a16-pi5").memory.layer_cmm_bytes
        assert (meta.file_bytes, meta.p0_width) == (18397000, "hidden")
    path = next(hollow_package.glob("*_post.axmodel"))
    head, _ = read_axmodel(path)
    assert (head.vocab, head.cost_head_us, published_bytes(path)) == (151936, 7920, 169844000)


def test_a_hollow_package_can_be_what_no_profile_describes(tmp_path: Path) -> None:
    def change(meta: SimMeta) -> SimMeta:
        if meta.layer != 3:
            return meta
        costs = meta.cost_chunk_us or ()
        return replace(meta, tensors="K_cache=int8", history=meta.history[:2], cost_chunk_us=costs[:2])

    made = hollow("qwen3-0.6b-w8a16-pi5", tmp_path / "out", p0_width="kv", change=change)
    layers = {meta.layer: meta for meta in (read_axmodel(path)[0] for path in made.glob("*_together.axmodel"))}
    assert {meta.p0_width for meta in layers.values()} == {"kv"}
    assert layers[3].tensors == "K_cache=int8" and layers[3].history == (0, 128)
    assert layers[2].tensors is None and len(layers[2].history) == 11


def test_a_profile_may_have_several_decode_groups(tmp_path: Path) -> None:
    text = (PROFILE_DIR / "qwen3-0.6b-int4-pi5.toml").read_text()
    (tmp_path / "long.toml").write_text(text.replace("rows = 2047\n", "rows = 2047\nsmaller_rows = [255, 1535]\n", 1))

    def prune(meta: SimMeta) -> SimMeta:
        return replace(meta, decode_rows=(255, 2047), cost_decode_us=(930.0, 1170.0)) if meta.layer == 5 else meta

    made = hollow(str(tmp_path / "long.toml"), tmp_path / "out", change=prune)
    layers = sorted(made.glob("*_together.axmodel"))
    metas = [read_axmodel(path)[0] for path in layers]
    assert sorted({(meta.decode_rows, meta.cost_decode_us) for meta in metas}) == [
        ((255, 1535, 2047), (930, 1050, 1170)), ((255, 2047), (930, 1170))
    ]  # fmt: skip
    common = read_layers(layers)
    assert (common.decode_rows, common.cost_decode_us) == ((255, 2047), (930, 1170))


def test_several_decode_groups_and_the_narrow_row(tmp_path: Path) -> None:
    write_checkpoint(TINY, tmp_path / "hf")
    made = convert(tmp_path / "hf", tmp_path / "out", rows=[127, 255], chunk=64, p0_width="kv", progress=False)
    meta, _ = read_axmodel(next(made.glob("*_together.axmodel")))
    assert (meta.decode_rows, meta.history, meta.p0_width) == ((127, 255), (0, 64, 128), "kv")
    assert json.loads((made / "config.json").read_text())["axpress"]["rows"] == 255
    with pytest.raises(PackageError, match="--rows must be at least 1, not 127,0"):
        convert(tmp_path / "hf", tmp_path / "other", rows=[127, 0])


def test_every_id_of_a_hollow_package_is_printable(hollow_package: Path) -> None:
    tokenizer = Tokenizer.from_file(str(hollow_package / "tokenizer" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 151936
    texts = tokenizer.decode_batch([[number] for number in range(256, 151936)], skip_special_tokens=False)
    assert all(text.isprintable() and text for text in texts)
    assert len(set(texts)) == len(texts)
    assert {number: tokenizer.id_to_token(number) for number in (151643, 151645, 151668)} == {
        151643: "<|endoftext|>",
        151645: "<|im_end|>",
        151668: "</think>",
    }
    text = "Hello, what's the émoji 😀?\n\tdef f(x): return x"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert len(tokenizer.encode("Please explain how this works.").ids) < 12, "the merges do nothing"


@pytest.mark.parametrize("vocab", [MIN_VOCAB, 300, 384, 2048, 8192])
def test_small_vocabularies_are_covered_too(vocab: int) -> None:
    text = build_tokenizer(vocab)
    assert text == build_tokenizer(vocab), "not the same on every run"
    tokenizer = Tokenizer.from_str(text)
    assert tokenizer.get_vocab_size() == vocab
    assert all(tokenizer.id_to_token(number) is not None for number in range(vocab))
    for token, number in special_ids(vocab).items():
        assert tokenizer.encode(token).ids == [number]
    assert tokenizer.decode(tokenizer.encode("naïve 😀 zzz").ids) == "naïve 😀 zzz"


def test_a_vocabulary_without_room_for_the_bytes_is_refused() -> None:
    with pytest.raises(PackageError, match="too small"):
        build_tokenizer(MIN_VOCAB - 1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 1500), cols=st.integers(1, 40))
def test_int8_weights_are_off_by_half_a_scale_at_most(seed: int, rows: int, cols: int) -> None:
    rng = np.random.default_rng(seed)
    bits = to_bf16(rng.normal(0, 1, (rows, cols)).astype(np.float32) * np.exp(rng.normal(0, 4, (rows, 1))))
    bits[rng.integers(rows)] = 0
    sources = int8_tensors({"up": array_source(bits), "post_norm": array_source(bits[0])})
    assert [(name, source.dtype) for name, source in sources.items()] == [
        ("up_scale", "F32"), ("up", "I8"), ("post_norm", "BF16")
    ]  # fmt: skip
    scale, weights = (np.concatenate(list(sources[name].blocks())) for name in ("up_scale", "up"))
    values = from_bf16(bits).astype(np.float64)
    np.testing.assert_allclose(scale[values.any(axis=1)], np.abs(values).max(axis=1)[values.any(axis=1)] / 127, 1e-6)
    assert (np.abs(weights * scale[:, None].astype(np.float64) - values) <= 0.5001 * scale[:, None]).all()
    assert np.abs(weights).max() <= 127


def test_an_int8_package_has_half_the_bytes_and_says_what_it_is(tmp_path: Path) -> None:
    tiny = Tiny("llama", tied=True, vocab=3000, hidden=128)
    write_checkpoint(tiny, tmp_path / "hf")
    sizes = []
    for weights in ("bf16", "int8"):
        package = convert(tmp_path / "hf", tmp_path / weights, weights=weights, progress=False)
        assert json.loads((package / "config.json").read_text())["axpress"]["weights"] == weights
        sizes.append(sum(path.stat().st_size for path in package.glob("*.axmodel")))
        _, file = read_axmodel(next(package.glob("*_post.axmodel")))
        assert file.tensors["head"].dtype == {"bf16": "BF16", "int8": "I8"}[weights]
    assert sizes[1] < 0.55 * sizes[0]
    embedding = [(tmp_path / weights / EMBED_NAME).read_bytes() for weights in ("bf16", "int8")]
    assert embedding[0] == embedding[1]
    with pytest.raises(PackageError, match="int4"):
        convert(tmp_path / "hf", tmp_path / "other", weights="int4", progress=False)
