"""The demo corpus: deterministic, every kind, a held-out part that shares no prompt with training, a checker that can
say no."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter

import pytest
from repository import ROOT

# the training scripts are not part of the installed package
sys.path.insert(0, str(ROOT / "tools" / "demo_model"))
import corpus

PACKAGE = ROOT / "core" / "demo" / "package"


def take(count: int, seed: int = 3, held_out: bool = False, kinds: list[str] | None = None) -> list[corpus.Dialogue]:
    return list(itertools.islice(corpus.stream(seed, held_out, kinds), count))


def prompt(dialogue: corpus.Dialogue) -> str:
    """All that the model is shown before the last answer; a remark without its product counts as the whole
    conversation."""
    return json.dumps(dialogue.messages()[:-1]).lower()


def test_same_seed_same_dialogues_other_seed_others() -> None:
    assert take(200, seed=1) == take(200, seed=1)
    assert take(200, seed=1) != take(200, seed=2)
    assert take(200, seed=1) != take(200, seed=1, held_out=True)


@pytest.mark.parametrize("held_out", [False, True])
def test_every_kind_comes_and_is_answered_right(held_out: bool) -> None:
    count: Counter[str] = Counter()
    for dialogue in take(1500, held_out=held_out):
        last = dialogue.turns[-1]
        count[last.kind] += 1
        assert corpus.check(last.expect, last.answer), last
    assert set(count) == set(corpus.KINDS)
    assert min(count.values()) > 3


def test_no_training_turn_has_a_held_out_key() -> None:
    for dialogue in take(2000):
        assert not any(corpus.held_out(turn.key) for turn in dialogue.turns), dialogue
    for dialogue in take(1000, held_out=True):
        assert corpus.held_out(dialogue.turns[-1].key)


def test_held_out_questions_never_occur_in_training() -> None:
    asked = {turn.user.lower().strip(" ?.!") for seed in (1, 2) for d in take(3000, seed=seed) for turn in d.turns}
    prompts = {prompt(d) for seed in (1, 2) for d in take(3000, seed=seed)}
    for dialogue in take(1500, seed=1000, held_out=True):
        last = dialogue.turns[-1]
        assert prompt(dialogue) not in prompts
        # "What is my name?", a friend's remark
        depends_on_earlier = any(turn.key == last.key for turn in dialogue.turns[:-1])
        assert depends_on_earlier or last.user.lower().strip(" ?.!") not in asked, last


def test_a_sum_is_held_out_in_both_orders() -> None:
    sums = {t.key for d in take(1500, kinds=["arithmetic"]) for t in d.turns if t.key.startswith("add|")}
    assert sums and all(int(a) <= int(b) for _, a, b in (key.split("|") for key in sums))


def test_about_a_tenth_is_held_out() -> None:
    part = sum(corpus.held_out(f"product|{i}") for i in range(5000)) / 5000
    assert 0.07 < part < 0.13


@pytest.mark.parametrize(
    ("expect", "right", "wrong"),
    [
        ({"number": 12}, "7 + 5 = 12.", "7 + 5 = 13."),
        ({"exact": "1, 2, 3."}, "1, 2, 3.", "1, 2, 4."),
        ({"list": "fruits", "count": 2}, "1. apple\n2. pear", "1. apple\n2. apple"),
        ({"list": "fruits", "count": 2}, "1. fig\n2. kiwi", "1. fig\n2. kiwi\n3. plum"),
        ({"list": "fruits", "count": 2}, "1. fig\n2. kiwi", "1. fig\n2. hammer"),
        ({"json": {"name": "hat"}}, '{"name": "hat"}', '{"name": "hat", "size": "small"}'),
        ({"json": {"name": "hat"}}, '{"name": "hat"}', '{"name": "hat"'),
        ({"product": "AirJump"}, "The AirJump is mine.", "The AirJump is good."),
        ({"product": "AirJump"}, "I want the AirJump.", "I want the AirDrop."),
        ({"product": "AirJump"}, "I want the AirJump. Now. Go.", "I want the AirJump. Now. Go. Run."),
        ({"all": ["fox", "lake"]}, "A fox came to the lake.", "A fox came."),
        ({"any": ["hi", "hello"]}, "Hi there!", "This is it."),
    ],
)
def test_check_says_yes_and_no(expect: dict[str, object], right: str, wrong: str) -> None:
    assert corpus.check(expect, right)
    assert not corpus.check(expect, wrong)


def test_package_is_small_and_flags_its_control_tokens_as_qwen3_does() -> None:
    files = [path for path in PACKAGE.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".axmodel"]) == 6
    assert sum(path.stat().st_size for path in files) < 15_000_000
    added = json.loads((PACKAGE / "tokenizer" / "tokenizer.json").read_text())["added_tokens"]
    special = {token["content"]: token["special"] for token in added}
    assert {name for name, flag in special.items() if flag} == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    assert {"<think>", "</think>", "<tool_call>", "</tool_call>"} <= {
        name for name, flag in special.items() if not flag
    }
