"""What a plan says: memory, first token, rates and targets on paper, against sums done here, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny_models import Tiny, convert_tiny

from axpress.core.capacity.report import plan
from axpress.core.errors import PackageError, RequestError
from axpress.core.model_files.convert import EMBED_NAME
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.timing_profile import PROFILE_DIR

BIG, SMALL = "qwen3-1.7b-w8a16-pi5", "qwen3-0.6b-int4-pi5"
MIB = 1 << 20


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plan")
    return {name: hollow(name, folder / name) for name in (BIG, SMALL, "qwen3-4b-w8a16-pi5")}


@pytest.fixture(scope="module")
def big(packages) -> Path:
    return packages[BIG]


def changed_profile(tmp_path: Path, **numbers: object) -> str:
    """A copy of the 1.7B profile with other numbers; its path."""
    text = (PROFILE_DIR / f"{BIG}.toml").read_text()
    for key, value in numbers.items():
        text, count = re.subn(rf"(?m)^{key} = [^#\n]*", f"{key} = {value} ", text)
        assert count == 1, key
    path = tmp_path / "changed.toml"
    path.write_text(text)
    return str(path)


def published(folder: Path, layers: int = 28, hidden: int = 2048) -> Path:
    """A directory like a compiled model's: files of bytes that only a card can read."""
    folder.mkdir()
    for layer in range(layers):
        (folder / f"qwen3_p128_l{layer}_together.axmodel").write_bytes(b"\1" * 5000)
    (folder / "qwen3_post.axmodel").write_bytes(b"\1" * 7000)
    (folder / EMBED_NAME).write_bytes(bytes(2 * hidden * 64))
    (folder / "tokenizer.json").write_text("{}")
    config = {"tokens_embed_num": 64, "tokens_embed_size": hidden}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_memory_is_the_card_less_what_the_model_and_the_floor_take(big) -> None:
    budget = plan(big).budget
    weights = 28 * 101427135 + 311164928
    assert budget.weights == weights
    assert budget.row_bytes == 28 * 2 * 1024 * 2
    assert budget.free == pytest.approx((7040 - 18 - 64) * MIB - weights, abs=8 * MIB)
    assert (budget.fit, budget.banks) == (17, 8)
    assert "17 banks fit, 8 are used unless told otherwise: 16376 rows" in plan(big).render()


def test_one_client_alone_gets_layers_plus_head_and_little_else(big) -> None:
    figures = plan(big)
    layers_and_head = 28 * 3.2 + 16.2
    assert layers_and_head < figures.token_ms < 1.03 * layers_and_head
    assert f"{figures.tokens_per_s:.2f} tokens/s" in figures.render()


@pytest.mark.parametrize(("context", "history"), [(100, [0]), (128, [0]), (250, [0, 128]), (500, [0, 128, 256, 384])])
def test_the_first_token_is_the_chunks_of_the_prompt_and_one_head(big, context: int, history: list[int]) -> None:
    figures = plan(big, context=context)
    least = sum(28 * (5.8 + 0.0029 * p) for p in history) + 16.2
    assert least < figures.first_token_ms < 1.03 * least + 4 * len(history)
    assert len(figures.first_token_terms) == len(history)


def test_a_prompt_that_leaves_one_token_over_ends_with_a_single_pass(big) -> None:
    assert "(1 single passes)" in plan(big, context=129).first_token_terms[-1]
    assert plan(big, context=1).first_token_ms == pytest.approx(plan(big).token_ms)


def test_a_cached_prefix_saves_chunks(big) -> None:
    figures = plan(big, context=400, shared=300)
    assert figures.warm_tokens == 300
    assert figures.warm_first_token_ms == pytest.approx(28 * (5.8 + 0.0029 * 384) + 16.2, rel=0.03)
    assert figures.first_token_ms > 3 * figures.warm_first_token_ms


def test_clients_share_passes_where_that_pays_and_never_lose(packages) -> None:
    for package in packages.values():
        totals = [plan(package, clients=n, context=150, target_tokens=50).crowd.total_per_s for n in (1, 2, 4, 8)]
        assert totals == sorted(totals)
        assert totals[0] == pytest.approx(plan(package, context=150, target_tokens=50).tokens_per_s)


def test_the_gains_of_the_design_come_out(big) -> None:
    """The paper model behind the goals says 1.51, 2.26 and 2.90 for full banks; answers fill them only in the end."""
    for clients, least, most in ((4, 1.4, 1.75), (8, 2.1, 2.5), (16, 2.7, 3.3)):
        figures = plan(big, clients=clients, context=180, shared=150, target_tokens=70)
        assert least < figures.crowd.total_per_s / figures.tokens_per_s < most
        assert figures.crowd.rows == 150 + clients * 100


def test_shared_rows_are_worth_more_than_private_ones(big) -> None:
    totals = [plan(big, clients=8, context=200, target_tokens=50, shared=n).crowd.total_per_s for n in (0, 100, 200)]
    assert totals[0] < totals[1] < totals[2]


def test_more_conversations_than_a_bank_holds_take_more_banks(big) -> None:
    figures = plan(big, clients=12, context=500, target_tokens=100)
    assert figures.crowd.running == 12
    assert figures.crowd.banks >= 4
    assert figures.crowd.rows <= 2047


def test_more_conversations_than_all_banks_hold_wait(packages) -> None:
    crowd = plan(packages["qwen3-4b-w8a16-pi5"], clients=5, context=2000, target_tokens=100).crowd
    assert (crowd.running, crowd.banks) == (2, 2)
    assert (
        "2 run at once, 3 wait"
        in plan(packages["qwen3-4b-w8a16-pi5"], clients=5, context=2000, target_tokens=100).render()
    )


def test_where_no_chunk_group_reaches_clients_take_turns(packages) -> None:
    figures = plan(packages[SMALL], clients=8, context=300)
    assert figures.crowd.total_per_s == pytest.approx(figures.tokens_per_s)
    assert "no chunk group reaches so far back" in figures.render()


def test_a_target_is_judged_and_what_would_help_is_computed(big) -> None:
    figures = plan(big)
    text = figures.render()
    assert not figures.reachable
    assert figures.answer_s == pytest.approx((figures.first_token_ms + 99 * figures.token_ms) / 1e3)
    assert f"{figures.answer_s:.2f} s: not reachable" in text
    for option in ("cached prefix", "trimmed", "smaller decode group", "drafts"):
        assert option in text
    easy = plan(big, target_seconds=1.1 * figures.answer_s)
    assert easy.reachable
    assert "what would help" not in easy.render()


def test_a_published_smaller_cache_is_counted_on(packages) -> None:
    """The 4-bit 0.6B is known with 1,023 rows too: 28 layers x 0.24 ms less for each token."""
    assert "decode group of 1023 rows (published)" in plan(packages[SMALL]).render()
    assert "no published figure" in plan(packages[SMALL], context=1000).render()


def test_a_compiled_model_needs_the_profile_of_the_same_model(tmp_path: Path) -> None:
    package = published(tmp_path / "published")
    with pytest.raises(PackageError, match=f"only the card knows.*--profile.*{BIG}"):
        plan(package)
    with pytest.raises(PackageError, match=r"describes 36 layers of width 2560.*has 28 layers of width 2048"):
        plan(package, "qwen3-4b-w8a16-pi5")
    figures = plan(package, BIG)
    assert figures.budget.weights == 28 * 5000 + 7000
    assert figures.shape.rows == 2047
    assert f"profile {BIG}" in figures.render()


def test_a_converted_model_has_shapes_of_its_own_and_takes_times_from_the_profile(tmp_path: Path) -> None:
    package = convert_tiny(tmp_path, Tiny("qwen3", layers=3), rows=255, chunk=64, history=[0, 64, 128])
    with pytest.raises(PackageError, match="names no profile"):
        plan(package)
    figures = plan(package, BIG, context=100)
    assert figures.shape.layers == 3
    assert figures.shape.chunk_ms == pytest.approx({0: 5.8, 64: 5.8 + 0.0029 * 64, 128: 5.8 + 0.0029 * 128})
    assert figures.token_ms == pytest.approx(3 * 3.2 + 16.2, rel=0.05)


def test_a_model_that_does_not_fit_is_said_so(big, tmp_path: Path) -> None:
    assert "does not fit: " in plan(big, changed_profile(tmp_path, cmm_mib=2000)).render()
    tight = plan(big, changed_profile(tmp_path, cmm_mib=3200))
    assert tight.budget.banks == 0
    assert "not one bank fits" in tight.render()


def test_what_one_card_does_not_hold_is_planned_for_several(big, tmp_path: Path) -> None:
    small = changed_profile(tmp_path, cmm_mib=2200)
    one, two = plan(big, small, clients=2), plan(big, small, clients=2, cards=2)
    assert (one.budget.banks, one.cards_needed) == (0, 2) and two.budget.banks
    assert "it needs 2 cards: `axpress serve --split 0,1`" in one.render()
    assert "that of 2 cards which has least room" in two.render() and "it needs" not in two.render()
    assert two.budget.row_bytes == one.budget.row_bytes * 16 // 28
    assert two.crowd.banks == 2 and two.crowd.total_per_s > 1.9 * two.tokens_per_s


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"context": 2000}, "2100 rows, the model's cache has 2047; plan for at most 1947"),
        ({"clients": 0}, "clients is 0"),
        ({"context": 0}, "context is 0"),
        ({"target_tokens": 0}, "target tokens is 0"),
        ({"target_seconds": 0}, "0 seconds"),
        ({"target_seconds": float("nan")}, "nan seconds"),
        ({"context": 100, "shared": 101}, "101 shared tokens of a context of 100"),
        ({"target_tokens": 3000}, "the model's cache has 2047"),
    ],
)
def test_figures_that_cannot_be_are_refused(big, fields, words) -> None:
    with pytest.raises(RequestError, match=words):
        plan(big, **fields)


def test_a_directory_that_is_no_model_and_an_unknown_profile_are_refused(big, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="does not exist"):
        plan(tmp_path / "nothing")
    with pytest.raises(PackageError, match="no profile 'fast'"):
        plan(big, "fast")
