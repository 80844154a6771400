"""What a package's files say of sampling, as the vendor's program applies it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from axpress.core.errors import PackageError
from axpress.core.model_files.package_config import PackageConfig
from axpress.core.model_files.sampling_defaults import SamplingDefaults, read_sampling

OFF = {
    "enable_temperature": False, "temperature": 0.9, "enable_repetition_penalty": False, "repetition_penalty": 1.2,
    "penalty_window": 20, "enable_top_p_sampling": False, "top_p": 0.8, "enable_top_k_sampling": False, "top_k": 10,
}  # fmt: skip
FORM_A = OFF | {"enable_top_k_sampling": True, "top_k": 1}
FORM_B = OFF | {"enable_temperature": True, "enable_top_k_sampling": True, "top_k": 10}
FORM_C = OFF
QWEN = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "eos_token_id": [5]}


def read(directory: Path, post: Any = None, generation: Any = None, config: Any = None) -> SamplingDefaults:
    files = []
    for name, value in (("post_config.json", post), ("qwen3_tokenizer/generation_config.json", generation)):
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        if value is not None:
            path.write_text(value if isinstance(value, str) else json.dumps(value))
        files.append(path if value is not None else None)
    return read_sampling(files[0], PackageConfig(directory / "config.json", config or {}), files[1])


@pytest.mark.parametrize(
    ("post", "expected", "greedy"),
    [
        (FORM_A, {"top_k": 1}, True),
        (FORM_B, {"temperature": 0.9, "top_k": 10}, False),
        (FORM_C, {"temperature": 0.0}, True),
        (OFF | {"enable_top_p_sampling": True}, {"top_p": 0.8}, False),
        (FORM_B | {"enable_repetition_penalty": True}, {"temperature": 0.9, "top_k": 10, "repetition_penalty": 1.2,
                                                        "penalty_window": 20}, False),
        (FORM_B | {"presence_penalty": 0.5, "frequency_penalty": -0.25},
         {"temperature": 0.9, "top_k": 10, "presence_penalty": 0.5, "frequency_penalty": -0.25}, False),
        ({"enable_top_k_sampling": True}, {"top_k": 1}, True),
        ({"enable_repetition_penalty": True, "enable_top_p_sampling": True},
         {"repetition_penalty": 1.0, "penalty_window": 20, "top_p": 1.0}, False),
        (None, {}, False),
        ("", {}, False),
        (" \n", {}, False),
        ({}, {}, False),
    ],
)  # fmt: skip
def test_post_config(post: Any, expected: dict[str, Any], greedy: bool, tmp_path: Path) -> None:
    made = read(tmp_path, post)
    assert made.said() == expected and made.greedy is greedy
    assert set(expected) <= set(made.sources) and set(made.sources.values()) <= {"post_config.json"}


def test_the_tokenizers_folder_counts_where_post_config_is_silent(tmp_path: Path) -> None:
    made = read(tmp_path, None, QWEN)
    assert made.said() == {"temperature": 0.6, "top_p": 0.95, "top_k": 20} and not made.greedy
    assert set(made.sources.values()) == {"qwen3_tokenizer/generation_config.json"}
    assert read(tmp_path, "", QWEN) == made
    assert read(tmp_path, FORM_C, QWEN).said() == {"temperature": 0.0}
    assert read(tmp_path, FORM_A, QWEN).said() == {"top_k": 1}
    partly = read(tmp_path, {"enable_temperature": True, "temperature": 0.3}, QWEN)
    assert partly.said() == {"temperature": 0.3, "top_p": 0.95, "top_k": 20}
    assert partly.sources["temperature"] == "post_config.json" and partly.sources["top_k"].startswith("qwen3_")


def test_a_checkpoint_that_does_not_sample_is_greedy(tmp_path: Path) -> None:
    assert read(tmp_path, None, {"do_sample": False, "temperature": 0.6}).greedy
    assert read(tmp_path, None, {"temperature": 0.6}).said() == {"temperature": 0.6}
    assert read(tmp_path, None, {"repetition_penalty": 1.1}).said() == {"repetition_penalty": 1.1, "penalty_window": 0}
    assert read(tmp_path, None, {"repetition_penalty": 1.0, "eos_token_id": 2}).said() == {}


def test_stackflow_says_it_in_its_own_file(tmp_path: Path) -> None:
    made = read(tmp_path, None, QWEN, {"axmodel_num": 3, **FORM_B})
    assert made.said() == {"temperature": 0.9, "top_k": 10} and made.sources["top_k"] == "config.json"
    assert read(tmp_path, None, None, {"temperature": 0.7, "top_k": 50}).said() == {}, "no switch: not the runner's"


@pytest.mark.parametrize("value", ["hot", None, True, -1, float("inf")])
def test_a_value_that_is_no_number_is_named(value: Any, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"post_config\.json has temperature = "):
        read(tmp_path, FORM_B | {"temperature": value})
