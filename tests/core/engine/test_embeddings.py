"""Embeddings: those of transformers, the same bits in whatever company, and through failures."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from collecting import Collector
from embedding_models import NAME, TINY, embedding_package, published_layout, reference, reference_vectors
from tiny_models import Tiny, convert_tiny

from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine
from axpress.core.errors import ContextOverflow, PackageError, RequestError
from axpress.core.model_files.convert import convert
from axpress.core.model_files.model_package import open_package
from axpress.core.recovery.ladder import RecoveryPolicy
from axpress.core.request import GenerationRequest

ROWS, CHUNK, HISTORY = 111, 16, [0, 16, 32, 48, 64, 80]
SIZES = [
    TINY,
    Tiny("qwen3", hidden=128, heads=2, kv_heads=1, head_dim=128, layers=3, vocab=640, tied=True, theta=1e6),
    Tiny("qwen3", hidden=96, heads=6, kv_heads=2, head_dim=32, layers=1, vocab=512),
]


def make_prompts() -> list[list[int]]:
    """Texts of many lengths; half of them begin with one of two instructions."""
    rnd = random.Random(7)
    heads = [[], [], *([rnd.randrange(5, 250) for _ in range(n)] for n in (20, 37))]
    return [heads[i % 4] + [rnd.randrange(5, 250) for _ in range(rnd.choice((1, 5, 15, 16, 40)))] for i in range(20)]


def open_engine(package: Path, **options: object) -> Engine:
    fields = {"banks": 1, "max_running": 8, "threaded": False, **options}
    return Engine.open(package, "emu", "none", **fields)


def embed(engine: Engine, prompts: list[list[int]], **fields: object) -> np.ndarray:
    """All at once; the vectors in order."""
    answers = [Collector() for _ in prompts]
    fields = {"dimensions": engine.info.embedding_size, **fields}
    engine.submit_all([GenerationRequest(prompt, **fields) for prompt in prompts], answers)
    while engine.step():
        engine.scheduler.check_integrity()
    for answer in answers:
        assert (answer.reason, answer.text, answer.num_tokens) == ("stop", "", 0), answer.error
    return np.array([answer.deltas[-1].embedding for answer in answers])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedding_package(tmp_path_factory.mktemp("embeddings"), rows=ROWS, chunk=CHUNK, history=HISTORY)


@pytest.fixture(scope="module")
def alone(package: Path) -> np.ndarray:
    """What each prompt gives token by token, with nothing shared and nobody else there."""
    engine = open_engine(package, max_running=1, exact=True)
    vectors = [embed(engine, [prompt], cache_salt=bytes([i]))[0] for i, prompt in enumerate(make_prompts())]
    engine.close()
    return np.array(vectors)


@pytest.fixture
def engine(package: Path, alone: np.ndarray) -> Iterator[Engine]:
    engine = open_engine(package, max_running=16)
    yield engine
    engine.close()


@pytest.mark.parametrize("tiny", SIZES, ids=lambda tiny: tiny.label)
def test_equal_to_transformers(tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model, tokenizer = reference(tmp_path / NAME, tiny)
    engine = open_engine(convert(tmp_path / NAME, tmp_path / "package", rows=ROWS, chunk=CHUNK, progress=False))
    texts = ["What is 7 + 5?", "", "hello there world", "Instruct: find it\nQuery: " + "over and over " * 6]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    end = engine.text.encode_control("<|endoftext|>")
    assert prompts == [[*engine.text.encode(text), end] for text in texts]
    for dimensions in (tiny.hidden, 32):
        mine = embed(engine, prompts, dimensions=dimensions)
        theirs = reference_vectors(model, prompts, dimensions)
        assert mine.dtype == np.float32 and mine.shape == theirs.shape == (len(texts), dimensions)
        assert np.allclose(np.linalg.norm(mine, axis=1), 1, atol=1e-6)
        assert ((mine * theirs).sum(axis=1) > 0.9999).all()
        assert np.abs(mine[0] @ mine[1:].T).max() < 0.999, "all texts are alike: the model shows nothing"
    engine.close()


def test_company_changes_no_bit(engine: Engine, alone: np.ndarray) -> None:
    prompts = make_prompts()
    assert np.array_equal(embed(engine, prompts), alone)
    stats = engine.stats()
    num_tokens = sum(map(len, prompts))
    assert stats["chunk_queries"] + stats["decode_passes"] < num_tokens, "no instruction was shared"
    assert stats["cached_tokens"] > 0 and stats["generated_tokens"] == 0
    shuffled = random.Random(1).sample(range(len(prompts)), len(prompts))
    assert np.array_equal(embed(engine, [prompts[i] for i in shuffled]), alone[shuffled])  # nearly all of it cached


def test_rows_run_out(package: Path, alone: np.ndarray) -> None:
    engine = open_engine(package, max_running=16)
    answers = [Collector() for _ in range(40)]
    prompts = [prompt[::-1] for prompt in make_prompts()]
    expected = [embed(engine, [prompt])[0] for prompt in prompts]
    engine.scheduler.set_bank_rows(1, ROWS)
    for i, answer in enumerate(answers):
        request = GenerationRequest(prompts[i % 20], dimensions=64, cache_salt=bytes([i]), client=bytes([i]))
        engine.submit(request, answer)
    bank = engine.scheduler.banks[0]
    preempted = 0
    while engine.step():
        engine.scheduler.check_integrity()
        if len(bank.sequences) > 2 and preempted < 10:
            engine.scheduler._preempt(bank)  # as where the rows run out
            preempted += 1
            engine.scheduler._room_changed = True
    assert preempted == 10
    for i, answer in enumerate(answers):
        assert np.array_equal(answer.deltas[-1].embedding, expected[i % 20])
    engine.close()


@pytest.mark.parametrize("fault", ["nan@any:30", "nan@head:2", "device=offline@40"])
def test_a_card_that_fails(package: Path, alone: np.ndarray, fault: str) -> None:
    engine = open_engine(package, recovery=RecoveryPolicy(backoff=0.0))
    Emulator().set("faults", fault)
    try:
        assert np.array_equal(embed(engine, make_prompts()), alone)
    finally:
        Emulator().set("faults", "")
    assert engine.stats()["repeated_passes"] + sum(engine.ladder.rungs.values()) > 0, "nothing failed"
    engine.close()


@pytest.mark.parametrize("gives", ["norm_as_output", "both"])
def test_heads_that_give_it_otherwise(gives: str, tmp_path: Path, alone: np.ndarray) -> None:
    made = embedding_package(tmp_path, head_gives=gives, rows=ROWS, chunk=CHUNK, history=HISTORY)
    engine = open_engine(made)
    assert np.array_equal(embed(engine, make_prompts()[:4]), alone[:4])
    engine.close()


def test_a_head_tells_what_the_package_does_not(tmp_path: Path, alone: np.ndarray) -> None:
    made = embedding_package(tmp_path, head_gives="norm_as_output", rows=ROWS, chunk=CHUNK, history=HISTORY)
    config = json.loads((made / "config.json").read_text())
    del config["is_embedding"]
    (made / "config.json").write_text(json.dumps(config))
    assert not open_package(made).embeds
    engine = open_engine(made)
    assert np.array_equal(embed(engine, make_prompts()[:4]), alone[:4])
    engine.close()


def test_a_package_as_published(tmp_path: Path, alone: np.ndarray) -> None:
    made = published_layout(embedding_package(tmp_path, rows=ROWS, chunk=CHUNK, history=HISTORY))
    engine = open_engine(made)
    assert engine.package.tokenizer_path.name == "tokenizer.txt" and engine.text.has_control("<|endoftext|>")
    assert engine.package.matryoshka is True and engine.info.model == "AXERA-TECH/Qwen3-Embedding-0.6B"
    assert np.array_equal(embed(engine, make_prompts()[:4]), alone[:4])
    engine.close()


def test_a_head_of_logits_alone_is_refused(tmp_path: Path) -> None:
    made = embedding_package(tmp_path, head_gives="logits", rows=ROWS, chunk=CHUNK, history=HISTORY)
    with pytest.raises(PackageError, match=r"512 logits.*ret_postnorm"):
        open_engine(made)


def test_a_whole_context_is_a_text(engine: Engine) -> None:
    prompt = [5 + i % 200 for i in range(ROWS)]
    assert embed(engine, [prompt]).shape == (1, 64)
    with pytest.raises(ContextOverflow, match=f"{ROWS + 1} tokens"):
        embed(engine, [[*prompt, 1]])


def test_many_texts_wait_as_one_and_let_others_in(package: Path) -> None:
    engine = open_engine(package, max_running=2, max_queue=2)
    many = [Collector() for _ in range(50)]
    engine.submit_all([GenerationRequest([9, 8, 7, i], dimensions=64) for i in range(50)], many)
    one = Collector()
    engine.submit(GenerationRequest([1, 2, 3], dimensions=64), one)
    while one.reason is None:
        assert engine.step()
    assert sum(answer.reason is not None for answer in many) < 10
    while engine.step():
        pass
    assert all(answer.reason == "stop" for answer in many)
    engine.close()


def test_each_model_does_its_own(package: Path, tmp_path: Path) -> None:
    engine = open_engine(package)
    with pytest.raises(RequestError, match="generates no text: it is an embedding model"):
        engine.submit(GenerationRequest([1, 2]), Collector())
    with pytest.raises(RequestError, match="1 to 64 values, not 65"):
        engine.submit(GenerationRequest([1, 2], dimensions=65), Collector())
    engine.close()
    chat = open_engine(convert_tiny(tmp_path, Tiny("qwen3"), rows=ROWS, chunk=CHUNK, history=HISTORY))
    with pytest.raises(RequestError, match="makes no embeddings: it generates text"):
        chat.submit(GenerationRequest([1, 2], dimensions=8), Collector())
    chat.close()
