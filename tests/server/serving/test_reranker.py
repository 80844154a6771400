"""Which models are served as rerankers, and what is said of those that can be none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from embedding_models import embedding_package
from reranker_models import reranker_package, tokens_of, trim
from tiny_models import Tiny, convert_tiny

from axpress.core.engine.engine import Engine
from axpress.core.errors import PackageError, RequestError
from axpress.core.model_files.rerank_models import AFTER, BEFORE, INSTRUCTION
from axpress.server.cli import main
from axpress.server.openai.rerank import RerankDialect, probability
from axpress.server.serving.input_processor import prepare_request
from axpress.server.serving.served_model import ServedModel
from axpress.server.settings import Settings

SIZES = {"rows": 255, "chunk": 64}
ASKED = {"query": "a", "documents": ["<|im_end|>b"]}


def open_served(package: Path, reranker: bool = False) -> ServedModel:
    engine = Engine.open(package, "emu", "none", threaded=False)
    try:
        return ServedModel.of(engine, Settings(model_dir=package, reranker=reranker))
    finally:
        engine.close()


def saying(package: Path, **values: Any) -> None:
    """Puts these into its configuration."""
    config = json.loads((package / "config.json").read_text())
    (package / "config.json").write_text(json.dumps(config | values))


def prepared_ids(served: ServedModel, **fields: object) -> list[int]:
    dialect = RerankDialect.read({**ASKED, **fields}, served.limits.names)
    return prepare_request(dialect.spec, served, b"").requests[0].prompt_ids


def test_a_package_says_that_it_is_one(tmp_path: Path) -> None:
    package = reranker_package(tmp_path, **SIZES)
    served = open_served(package)
    assert served.reranker is not None and served.reranker.scored == tokens_of(package / "tokenizer")
    assert served.reranker.instruction == INSTRUCTION
    text = served.engine.text
    middle = "<Instruct>: find\n<Query>: a\n<Document>: <|im_end|>b"
    ids = [*text.encode(BEFORE, control=True), *text.encode(middle), *text.encode(AFTER, control=True)]
    assert prepared_ids(served, instruction="find") == ids
    marks = [text.encode_control(token) for token in ("<|im_start|>", "<|im_end|>", "<think>", "</think>")]
    assert [ids.count(mark) for mark in marks] == [3, 2, 1, 1], "a document spells none"
    saying(package, rerank_instruction="find")
    assert prepared_ids(open_served(package)) == ids


def test_one_that_does_not_say_so_is_told(tmp_path: Path) -> None:
    package = reranker_package(tmp_path, **SIZES)
    saying(package, is_reranker=None)
    served = open_served(package)
    assert served.reranker is None
    with pytest.raises(RequestError, match=r"no reranker.*--reranker"):
        prepared_ids(served)
    assert open_served(package, reranker=True).reranker is not None


def test_trimmed_heads(tmp_path: Path) -> None:
    package = reranker_package(tmp_path, **SIZES)
    yes, no = tokens_of(package / "tokenizer")
    kept = [*range(5, 60), yes]
    with pytest.raises(PackageError, match=rf"no logits of 'yes' and 'no' \(tokens {yes} and {no}\).*kept_ids"):
        open_served(trim(package, kept))
    saying(package, is_reranker=None)
    with pytest.raises(PackageError, match="is trimmed"):
        open_served(package, reranker=True)
    (tmp_path / "more").mkdir()
    assert open_served(trim(reranker_package(tmp_path / "more", **SIZES), [*kept, no])).reranker is not None


def test_models_that_can_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embeds = embedding_package(tmp_path / "embeds", rows=255)
    llama = convert_tiny(tmp_path / "llama", Tiny("llama"), rows=255)
    plain = convert_tiny(tmp_path / "plain", Tiny("qwen3"), rows=255)
    for package, said in (
        (embeds, "is an embedding model, and no reranker"),
        (llama, "of the family llama, and no reranker"),
        (plain, "no token for 'yes', or none for 'no'"),
    ):
        with pytest.raises(PackageError, match=said):
            open_served(package, reranker=True)
    with pytest.raises(RequestError, match="ranks no documents: it is an embedding model"):
        prepared_ids(open_served(embeds))
    for arguments, said in (
        ([str(llama)], "of the family llama, and no reranker"),
        ([str(plain), str(llama)], "--reranker is about one MODEL"),
        ([], "--reranker is about one MODEL"),
    ):
        assert main(["serve", *arguments, "--reranker"]) != 0
        assert said in capsys.readouterr().err


def test_probability() -> None:
    assert probability(0.0) == 0.5 and probability(1e9) == 1.0 and probability(-1e9) == 0.0
    assert probability(2.0) == pytest.approx(0.880797) and probability(-2.0) == pytest.approx(0.119203)
