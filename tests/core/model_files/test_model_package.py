"""Opening model directories: both published vintages, simulated ones, and everything that can be wrong with them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import Tiny, convert_tiny, write_checkpoint

from axpress.core.device.model_loader import open_model, open_tokenizer
from axpress.core.errors import PackageError
from axpress.core.model_files.convert import EMBED_NAME, convert
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.model_package import SamplingDefaults, open_package
from axpress.core.model_files.safetensors import write_safetensors
from axpress.core.tokenizer.tokenizer import Tokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 31457280\n"
VOCAB, HIDDEN, LAYERS = 500, 32, 4
CONFIG: dict[str, Any] = {
    "model_name": "Qwen3-Tiny",
    "tokenizer_type": "Qwen3",
    "url_tokenizer_model": "qwen3_tokenizer",
    "template_filename_axmodel": "qwen3-ax650/qwen3_p128_l%d_together.axmodel",
    "axmodel_num": LAYERS,
    "filename_post_axmodel": "qwen3-ax650/qwen3_post.axmodel",
    "filename_tokens_embed": f"qwen3-ax650/{EMBED_NAME}",
    "tokens_embed_num": VOCAB,
    "tokens_embed_size": HIDDEN,
}
POST = {
    "enable_temperature": True,
    "temperature": 0.7,
    "enable_repetition_penalty": True,
    "repetition_penalty": 1.2,
    "penalty_window": 20,
    "enable_top_p_sampling": False,
    "top_p": 0.8,
    "enable_top_k_sampling": True,
    "top_k": 10,
}


def publish(root: Path, config: dict[str, Any] | None = None) -> Path:
    """A directory laid out like a published one, its compiled files filled with noise; without `config` the older
    vintage."""
    folder = root / "qwen3-ax650"
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    for layer in range(LAYERS):
        (folder / f"qwen3_p128_l{layer}_together.axmodel").write_bytes(random.bytes(20_000 + 13 * layer))
    (folder / "qwen3_post.axmodel").write_bytes(random.bytes(30_000))
    (folder / EMBED_NAME).write_bytes(random.bytes(VOCAB * HIDDEN * 2))
    (root / "qwen3_tokenizer").mkdir()
    (root / "qwen3_tokenizer" / "tokenizer.json").write_text("{}")
    (root / "post_config.json").write_text(json.dumps(POST))
    if config is not None:
        (root / "config.json").write_text(json.dumps(config))
    return root


def layer_file(root: Path, layer: int) -> Path:
    return root / "qwen3-ax650" / f"qwen3_p128_l{layer}_together.axmodel"


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    return publish(tmp_path / "Qwen3-Tiny", CONFIG)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    return publish(tmp_path / "Qwen3-Tiny")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("converted")
    return convert_tiny(base, Tiny("qwen3", layers=3), rows=255, name="tiny")


@pytest.fixture
def simulated(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "tiny"))


def test_newer_vintage(newer: Path) -> None:
    package = open_package(newer)
    assert (package.name, package.num_layers, package.vocab_size, package.hidden_size) == (
        "Qwen3-Tiny",
        LAYERS,
        VOCAB,
        HIDDEN,
    )
    assert package.layer_files[2] == layer_file(newer, 2) and package.head_file.name == "qwen3_post.axmodel"
    assert package.tokenizer_path == newer / "qwen3_tokenizer" and package.tokenizer_type == "Qwen3"
    assert package.post_config == SamplingDefaults(temperature=0.7, top_k=10, repetition_penalty=1.2, penalty_window=20)
    assert not package.simulated and not package.hollow and package.profile is None and package.eos == ()
    assert package.device_bytes == sum(path.stat().st_size for path in (newer / "qwen3-ax650").glob("*.axmodel"))


@pytest.mark.parametrize("config", [None, "", "{}\n"], ids=["absent", "empty", "empty object"])
def test_older_vintage_by_file_pattern(older: Path, config: str | None) -> None:
    if config is not None:
        (older / "config.json").write_text(config)
    package = open_package(older)
    assert package.layer_files == tuple(layer_file(older, layer) for layer in range(LAYERS))
    assert (package.vocab_size, package.hidden_size, package.name) == (None, None, "Qwen3-Tiny")
    table = package.embedding(HIDDEN)
    assert table.shape == (VOCAB, HIDDEN) and table.array.dtype == np.uint16 and not table.array.flags.writeable
    with pytest.raises(PackageError, match=EMBED_NAME):
        package.embedding(HIDDEN + 2)


def test_everything_in_one_directory(older: Path) -> None:
    package = open_package(older)
    for path in [
        *package.layer_files,
        package.head_file,
        package.embed_file,
        package.tokenizer_path / "tokenizer.json",
    ]:
        path.rename(older / path.name)
    assert open_package(older).tokenizer_path == older
    assert open_package(older).embed_file == older / EMBED_NAME


def test_ten_and_more_layers_are_in_numeric_order(older: Path) -> None:
    for layer in range(LAYERS, 12):
        shutil.copy(layer_file(older, 0), layer_file(older, layer))
    assert [path.name for path in open_package(older).layer_files] == [
        layer_file(older, layer).name for layer in range(12)
    ]


def test_a_folder_that_was_renamed_after_publishing(newer: Path) -> None:
    for path in (newer / "qwen3-ax650").iterdir():
        path.rename(newer / path.name)
    assert open_package(newer).layer_files[0] == newer / "qwen3_p128_l0_together.axmodel"


def test_sampling_defaults(newer: Path) -> None:
    def defaults(**changes: Any) -> SamplingDefaults:
        (newer / "post_config.json").write_text(json.dumps(POST | changes))
        return open_package(newer).post_config

    assert defaults(enable_top_k_sampling=False).temperature == 0.0, (
        "neither top-k nor top-p: the vendor's runner is greedy"
    )
    assert defaults(enable_top_p_sampling=True).top_p == 0.8
    assert defaults(enable_temperature=False).temperature is None
    assert defaults(enable_repetition_penalty=False).repetition_penalty is None
    with pytest.raises(PackageError, match=r"post_config\.json.*temperature"):
        defaults(temperature="hot")
    (newer / "post_config.json").unlink()
    assert open_package(newer).post_config == SamplingDefaults()


def test_optional_keys(newer: Path) -> None:
    extra = {"system_prompt": "Be brief.", "eos": [7, 9], "bos": 3, "enable_thinking": False}
    (newer / "config.json").write_text(json.dumps(CONFIG | extra))
    package = open_package(newer)
    assert (package.system_prompt, package.eos, package.bos, package.enable_thinking) == ("Be brief.", (7, 9), 3, False)
    (newer / "config.json").write_text(json.dumps(CONFIG | {"eos": 7, "bos": True}))
    package = open_package(newer)
    assert (package.eos, package.bos) == ((7,), None)


def test_simulated_package(simulated: Path) -> None:
    package = open_package(simulated)
    assert package.simulated and not package.hollow and package.profile is None
    assert (package.num_layers, package.vocab_size, package.hidden_size, package.rows, package.chunk) == (
        3,
        384,
        64,
        255,
        128,
    )
    assert package.max_positions == 4096 and package.eos and package.post_config.temperature == 0.0
    assert package.embedding(64).shape == (384, 64)
    (simulated / "config.json").unlink()  # the files alone say the same
    bare = open_package(simulated)
    assert (bare.simulated, bare.vocab_size, bare.hidden_size, bare.rows) == (True, 384, 64, 255)


def test_hollow_package(tmp_path: Path) -> None:
    package = open_package(hollow("qwen3-4b-w8a16-pi5", tmp_path / "out"))
    assert package.hollow and package.simulated and package.profile == "qwen3-4b-w8a16-pi5"
    assert (package.num_layers, package.vocab_size, package.hidden_size, package.rows) == (36, 151936, 2560, 2559)
    assert 5.5e9 < package.device_bytes < 6.5e9, "what the card's memory is charged, not the files' few bytes"
    assert not package.embedding(2560)[123456].any()


@pytest.mark.parametrize(
    "silent", [{}, {"eos": []}, {"eos": False}, {"eos": None}, {"bos": True, "eos": True}, None], ids=str
)
def test_a_package_that_names_no_end_keeps_the_tokenizers(simulated: Path, silent: dict[str, Any] | None) -> None:
    own = Tokenizer.open(simulated / "tokenizer").eos_ids
    config = json.loads((simulated / "config.json").read_text())
    assert {*config.pop("eos")} != own, "or the test shows nothing"
    (simulated / "config.json").write_text("" if silent is None else json.dumps(config | silent))
    model = open_model(simulated, "emu", "none")
    try:
        assert model.text.eos_ids == own and own
    finally:
        model.close()


def test_a_checkpoint_without_ends_converts_to_a_package_without(tmp_path: Path) -> None:
    write_checkpoint(Tiny("qwen3", layers=1), tmp_path / "hf")
    for name in ("config.json", "generation_config.json"):
        path = tmp_path / "hf" / name
        if path.is_file():
            values = {key: value for key, value in json.loads(path.read_text()).items() if key != "eos_token_id"}
            path.write_text(json.dumps(values))
    package = convert(tmp_path / "hf", tmp_path / "out", rows=127, progress=False)
    assert "eos" not in json.loads((package / "config.json").read_text())
    assert open_tokenizer(open_package(package)).eos_ids


NAMES_DECIDE_NOTHING = {
    "a version in the name": {"model_name": "Qwen3.5-4B"},
    "a context in the name": {"model_name": "Qwen3-512ctx"},
    "a family that was refused once": {"tokenizer_type": "Gemma4"},
    "an encoder that is none": {"filename_image_encoder_axmodel": "", "vision_enabled": False, "vlm_type": "None"},
    "no layer count": {"axmodel_num": None},
}


@pytest.mark.parametrize("case", NAMES_DECIDE_NOTHING)
def test_names_and_switched_off_keys_refuse_nothing(newer: Path, case: str) -> None:
    _config(newer, **NAMES_DECIDE_NOTHING[case])
    assert open_package(newer).num_layers == LAYERS


def test_a_text_tokenizer_of_the_vendor_opens(newer: Path) -> None:
    shutil.rmtree(newer / "qwen3_tokenizer")
    (newer / "qwen3_tokenizer.txt").write_text("430 3\n0 0 0\n\n")
    _config(newer, url_tokenizer_model="qwen3_tokenizer.txt")
    package = open_package(newer)
    assert (package.tokenizer_path, package.tokenizer_type) == (newer / "qwen3_tokenizer.txt", "Qwen3")


# what can be wrong; each sentence names the file and says what to do


def _write_pointer(path: Path) -> None:
    path.write_text(POINTER.format("0" * 64))


def _truncate(path: Path, keep: float) -> None:
    os.truncate(path, int(path.stat().st_size * keep))


def _config(root: Path, **changes: Any) -> None:
    (root / "config.json").write_text(json.dumps(CONFIG | changes))


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "layer missing": (
        lambda root: layer_file(root, 2).unlink(),
        r"qwen3_p128_l2_together\.axmodel is missing: layer 2 of 4; download",
    ),
    "layers missing": (
        lambda root: [layer_file(root, k).unlink() for k in (1, 3)],
        r"_l1_.* is missing: layer 1 of 4 and 1 more",
    ),
    "layer is a pointer": (
        lambda root: _write_pointer(layer_file(root, 1)),
        r"_l1_.*Git LFS pointer.*31457280 bytes.*git lfs pull",
    ),
    "head is a pointer": (
        lambda root: _write_pointer(root / CONFIG["filename_post_axmodel"]),
        r"qwen3_post.*git lfs pull",
    ),
    "embedding is a pointer": (
        lambda root: _write_pointer(root / CONFIG["filename_tokens_embed"]),
        r"embed_tokens.*git lfs pull",
    ),
    "tokenizer is a pointer": (
        lambda root: _write_pointer(root / "qwen3_tokenizer/tokenizer.json"),
        r"tokenizer\.json.*git lfs pull",
    ),
    "config is a pointer": (lambda root: _write_pointer(root / "config.json"), r"config\.json.*git lfs pull"),
    "layer empty": (lambda root: layer_file(root, 0).write_bytes(b""), r"_l0_together\.axmodel is empty"),
    "layer cut": (
        lambda root: _truncate(layer_file(root, 3), 0.7),
        r"_l3_together\.axmodel has 14027 bytes.*cut short",
    ),
    "embedding cut": (
        lambda root: _truncate(root / CONFIG["filename_tokens_embed"], 0.5),
        r"embed_tokens.* has 16000 bytes, a vocabulary of 500 with rows of 32 needs 32000",
    ),
    "head missing": (lambda root: (root / CONFIG["filename_post_axmodel"]).unlink(), r"qwen3_post\.axmodel is missing"),
    "embedding missing": (lambda root: (root / CONFIG["filename_tokens_embed"]).unlink(), r"embed_tokens.* is missing"),
    "config is not JSON": (
        lambda root: (root / "config.json").write_text("{'a': 1}"),
        r"config\.json is not valid JSON",
    ),
    "config is a list": (
        lambda root: (root / "config.json").write_text("[]"),
        r"config\.json does not hold a JSON object",
    ),
    "wrong layer count": (
        lambda root: _config(root, axmodel_num=6),
        r"_l4_together\.axmodel is missing: layer 4 of 6 and 1 more",
    ),
    "absurd layer count": (lambda root: _config(root, axmodel_num=10**12), r"axmodel_num"),
    "name too long": (lambda root: _config(root, filename_post_axmodel="x" * 300), r"xxx.* cannot be read"),
    "bad layer count": (lambda root: _config(root, axmodel_num="four"), r"axmodel_num = 'four'"),
    "template without number": (lambda root: _config(root, template_filename_axmodel="a.axmodel"), r"one %d"),
    "bad vocabulary": (lambda root: _config(root, tokens_embed_num=-5), r"tokens_embed_num = -5"),
    "vision model": (lambda root: _config(root, tokenizer_type="Qwen3VL"), r"vision inputs: Qwen3VL.*not supported"),
    "vision encoder": (lambda root: _config(root, filename_image_encoder_axmodel="vit.axmodel"), r"vision"),
    "hybrid by layer types": (
        lambda root: _config(root, layer_types=["linear_attention", "full_attention"]),
        r"hybrid.*linear_attention",
    ),
    "hybrid by interval": (
        lambda root: _config(root, full_attention_interval=4),
        r"config\.json.*hybrid.*full_attention_interval.*not supported",
    ),
    "sliding window": (
        lambda root: _config(root, layer_types=["sliding_attention", "full_attention"]),
        r"sliding-window",
    ),
    "no tokenizer": (lambda root: shutil.rmtree(root / "qwen3_tokenizer"), r"no tokenizer.*tokenizer\.json"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_package_is_refused_in_one_sentence(newer: Path, case: str) -> None:
    damage, message = BROKEN[case]
    damage(newer)
    with pytest.raises(PackageError, match=message) as caught:
        open_package(newer)
    assert str(newer) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "counts"), [("other.json", True), ("qwen3_tokenizer", True), ("other.json", False)])
def test_sampling_defaults_that_are_missing_are_told_and_cost_no_more(newer: Path, name: str, counts: bool) -> None:
    _config(newer, post_config_path=name)
    if not counts:
        (newer / "post_config.json").unlink()
    opened = open_package(newer)
    assert f"names {name} as post_config_path, which is missing" in opened.warnings[0]
    assert (opened.post_config.top_k is not None) is counts is ("post_config.json counts" in opened.warnings[0])


def test_gaps_are_noticed_without_a_configuration(older: Path) -> None:
    layer_file(older, 1).unlink()
    with pytest.raises(PackageError, match=r"_l1_together\.axmodel is missing: layer 1 of 4"):
        open_package(older)


def test_two_models_in_one_directory_need_a_choice(older: Path) -> None:
    for layer in range(LAYERS):
        shutil.copy(layer_file(older, layer), older / f"other_p64_l{layer}_together.axmodel")
    with pytest.raises(PackageError, match="several models"):
        open_package(older)
    for number in range(65):
        shutil.copy(layer_file(older, 0), older / f"more{number}_p64_l0_together.axmodel")
    with pytest.raises(PackageError, match=r"\([^,)]+(, [^,)]+){4} and 62 more\)"):
        open_package(older)


def test_not_a_model_directory(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"nowhere does not exist"):
        open_package(tmp_path / "nowhere")
    with pytest.raises(PackageError, match=r"not a model directory"):
        open_package(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(PackageError, match=r"file is a file"):
        open_package(tmp_path / "file")
    write_checkpoint(Tiny("qwen3", layers=1), tmp_path / "hf")
    with pytest.raises(PackageError, match=r"Hugging Face checkpoint.*axpress convert"):
        open_package(tmp_path / "hf")


@pytest.mark.parametrize(
    ("name", "keep", "part"),
    [
        ("tiny_p128_l1_together.axmodel", 0.99, "cut short"),
        ("tiny_post.axmodel", 0.5, "cut short"),
        ("tiny_p128_l0_together.axmodel", 0.001, "sound"),
    ],
)
def test_a_cut_simulated_file_is_named(simulated: Path, name: str, keep: float, part: str) -> None:
    _truncate(simulated / name, keep)
    with pytest.raises(PackageError, match=part) as caught:
        open_package(simulated)
    assert name in str(caught.value)


def test_simulated_layers_that_do_not_belong_together(simulated: Path, tmp_path: Path) -> None:
    other = convert_tiny(tmp_path / "other", Tiny("qwen3", layers=3, ffn=64), rows=255, name="tiny")
    shutil.copy(other / "tiny_p128_l2_together.axmodel", simulated)
    with pytest.raises(PackageError, match=r"_l2_together\.axmodel does not belong.*ffn is 64, not 96"):
        open_package(simulated)
    shutil.copy(simulated / "tiny_p128_l0_together.axmodel", simulated / "tiny_p128_l2_together.axmodel")
    with pytest.raises(PackageError, match=r"holds layer 0 of 3, its place is layer 2 of 3"):
        open_package(simulated)


def test_a_configuration_that_contradicts_the_layers(simulated: Path) -> None:
    config = json.loads((simulated / "config.json").read_text())
    (simulated / "config.json").write_text(json.dumps(config | {"tokens_embed_size": 128, "tokens_embed_num": 192}))
    with pytest.raises(PackageError, match=r"tokens_embed_size 128, the layers take 64"):
        open_package(simulated)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_configuration_raises_anything_but_a_package_error(newer: Path, data: st.DataObject) -> None:
    keys = st.sampled_from(
        [*CONFIG, "eos", "bos", "layer_types", "text_config", "axpress", "post_config_path", "num_experts"]
    )
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    values = scalars | st.lists(st.integers() | st.text(max_size=3), max_size=3)
    changes = data.draw(
        st.dictionaries(keys, values | st.dictionaries(st.text(max_size=4), values, max_size=2), max_size=4)
    )
    _config(newer, **changes)
    try:
        open_package(newer)
    except PackageError as error:
        assert len(str(error)) > 20


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    metadata=st.dictionaries(
        st.sampled_from(["format", "kind", "hidden", "heads", "layer", "history", "hollow"]), st.text(max_size=12)
    )
)
def test_no_metadata_raises_anything_but_a_package_error(simulated: Path, metadata: dict[str, str]) -> None:
    path = simulated / "tiny_p128_l1_together.axmodel"
    write_safetensors(path, metadata, {})
    with pytest.raises(PackageError, match="_l1_"):
        open_package(simulated)
