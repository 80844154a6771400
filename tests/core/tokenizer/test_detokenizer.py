"""Tokens back to text as they arrive: whole characters, the reference's text, and no part of a stop string."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tiny_tokenizers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from axpress.core.errors import RequestError
from axpress.core.tokenizer.detokenizer import StopChecker, check_stop
from axpress.core.tokenizer.tokenizer import Tokenizer

QUICK = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
BYTE_LEVEL = ("qwen", "llama3", "phi")
SPACED = ("metaspace", "metaspace-first", "metaspace-never", "unigram")
MIXED = "Hello  world, 你好 👋🏽👨‍👩‍👧 e\u0301 안녕 Привет naïve\n\n\t  end "


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("detokenize")
    made = {
        name: getattr(tiny_tokenizers, name)(base / name)
        for name in (*BYTE_LEVEL, "metaspace", "unigram", "sentence_piece")
    }
    for scheme in ("first", "never"):
        made[f"metaspace-{scheme}"] = tiny_tokenizers.metaspace(base / scheme, scheme)
    return made


@pytest.fixture(scope="session")
def texts(directories: dict[str, Path]) -> dict[str, Tokenizer]:
    return {name: Tokenizer.open(path) for name, path in directories.items()}


@pytest.fixture(scope="session")
def originals(directories: dict[str, Path]) -> dict[str, HfTokenizer]:
    return {name: HfTokenizer.from_file(str(directories[name] / "tokenizer.json")) for name in (*BYTE_LEVEL, *SPACED)}


def pushed(text: Tokenizer, ids: list[int], **kwargs: Any) -> list[str]:
    detokenizer = text.detokenizer(**kwargs)
    return [*map(detokenizer.push, ids), detokenizer.flush()]


@pytest.mark.parametrize("name", BYTE_LEVEL)
@given(data=st.data(), skip=st.booleans())
@QUICK
def test_any_ids_of_byte_level_equal_reference(
    name: str, texts: dict[str, Tokenizer], originals: dict[str, HfTokenizer], data: st.DataObject, skip: bool
) -> None:
    """Random ids are mostly invalid UTF-8: the replacement characters must be the reference's, too."""
    text = texts[name]
    ids = data.draw(st.lists(st.integers(0, text.vocab_size - 1) | st.integers(0, 255), max_size=30))
    expected = originals[name].decode(ids, skip_special_tokens=skip)
    assert text.decode(ids, skip_special_tokens=skip) == expected
    assert "".join(pushed(text, ids, skip_special_tokens=skip)) == expected


@pytest.mark.parametrize("name", [*BYTE_LEVEL, *SPACED])
@given(content=st.text(max_size=30) | st.just(MIXED))
@QUICK
def test_valid_text_equals_reference(
    name: str, texts: dict[str, Tokenizer], originals: dict[str, HfTokenizer], content: str
) -> None:
    text = texts[name]
    ids = text.encode(content)
    assert "".join(pushed(text, ids)) == originals[name].decode(ids)


@pytest.mark.parametrize("name", [*BYTE_LEVEL, *SPACED])
def test_pushes_are_whole_characters(name: str, texts: dict[str, Tokenizer]) -> None:
    text = texts[name]
    ids = text.encode(MIXED)
    pieces = pushed(text, ids)
    assert "\ufffd" not in "".join(pieces[:-1]) or "<unk>" in map(text.id_to_text, ids)
    assert pieces[-1] == ""
    if name not in ("unigram",):
        assert len(ids) > len([p for p in pieces if p]), "some character must span tokens for this test to say anything"


@given(content=st.text(st.characters(codec="utf-8", exclude_characters="\u2581\0"), max_size=30) | st.just(MIXED))
@QUICK
def test_sentencepiece_model_equals_its_library(
    directories: dict[str, Path], texts: dict[str, Tokenizer], content: str
) -> None:
    text = texts["sentence_piece"]
    library = sentencepiece.SentencePieceProcessor(model_file=str(directories["sentence_piece"] / "tokenizer.model"))
    ids = text.encode(content)
    if "[INST]" not in content and "[/INST]" not in content:
        assert ids == library.encode(content)
    assert "".join(pushed(text, ids)) == text.decode(ids) == library.decode(ids) == content


def test_leading_space_is_dropped_once(texts: dict[str, Tokenizer]) -> None:
    for name in ("metaspace", "metaspace-first", "sentence_piece"):
        text = texts[name]
        ids = text.encode("a b")
        assert "".join(pushed(text, [1, *ids, *ids])) == "a b a b"
        assert text.id_to_text(ids[0]) == " a", "a token by itself keeps its space"


def test_bytes_that_cannot_become_a_character(texts: dict[str, Tokenizer]) -> None:
    ids = {b: texts["metaspace"].encode_control(f"<0x{b:02X}>") for b in range(256)}
    detokenizer = texts["metaspace"].detokenizer()
    shown = [detokenizer.push(ids[b]) for b in (0x41, 0xE4, 0xBD, 0x42, 0xFF, 0xF0, 0x9F, 0x91, 0x8B, 0xE4)]
    assert shown == ["A", "", "", "\ufffdB", "\ufffd", "", "", "", "👋", ""]
    assert detokenizer.flush() == "\ufffd"


def test_ids_without_a_token_are_nothing(texts: dict[str, Tokenizer]) -> None:
    for text in texts.values():
        for token_id in (-1, text.vocab_size, 2**62):
            assert text.decode([token_id]) == text.id_to_text(token_id) == ""
            assert text.token_bytes(token_id) == b""


def test_special_tokens_by_request_only(texts: dict[str, Tokenizer]) -> None:
    text = texts["qwen"]
    ids = [text.encode_control(t) for t in ("<think>", "<|im_end|>")]
    assert text.decode(ids) == "<think>"
    assert text.decode(ids, skip_special_tokens=False) == "<think><|im_end|>"


@given(
    content=st.lists(st.sampled_from(["hello", "world", "unaffable", ",", "!", "un", "x"]), max_size=12).map(" ".join)
)
@QUICK
def test_other_decoders_follow_their_own_rules(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    """WordPiece is neither bytes nor marked spaces: the library's decoder is asked, two words at a time."""
    tokenizer = HfTokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        ["hello world unaffable , !"] * 9,
        trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]"], show_progress=False),
    )
    directory = tmp_path_factory.mktemp("wordpiece")
    tokenizer.save(str(directory / "tokenizer.json"))
    text = Tokenizer.open(directory)
    ids = text.encode(content)
    assert ids == tokenizer.encode(content).ids
    assert "".join(pushed(text, ids)) == tokenizer.decode(ids)


def first_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """What must be shown, by trying every end."""
    for end in range(len(text) + 1):
        found = [s for s in stops if text[:end].endswith(s)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(
    text=st.text("ab<|é", max_size=24),
    stops=st.lists(st.text("ab<|é", min_size=1, max_size=5), max_size=4),
    cuts=st.lists(st.integers(0, 24), max_size=8),
)
@settings(max_examples=500, deadline=None)
def test_stop_strings_for_every_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    edges = sorted({0, len(text), *(c for c in cuts if c < len(text))})
    checker = StopChecker(stops)
    expected, matched = first_stop(text, stops)
    shown = ""
    for start, stop in pairwise(edges):
        shown += checker.push(text[start:stop])
        assert expected.startswith(shown), "showed a part of a stop string"
        if checker.matched is None:
            held = next((n for n in range(stop, 0, -1) if any(s.startswith(text[stop - n : stop]) for s in stops)), 0)
            assert shown == text[: stop - held], "held back more, or less, than what may become a stop string"
    assert shown + checker.flush() == expected
    assert checker.matched == matched


@settings(max_examples=200, deadline=None)
@given(st.text("<think>/x \n", max_size=30), st.lists(st.integers(0, 30), max_size=4), st.sampled_from(["", "<think>"]))
@example("\n<think>x</think>yx", [3, 9], "<think>")
@example("x<think>", [], "<think>")
def test_stop_strings_after_a_text_that_may_not_come(text: str, cuts: list[int], begin: str) -> None:
    checker = StopChecker(["x"], "</think>", begin)
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    shown = "".join(checker.push(text[a:b]) for a, b in pairwise(bounds)) + checker.flush()
    waits = text.lstrip().startswith(begin)
    from_here = 0 if not waits else text.find("</think>") + len("</think>") if "</think>" in text else len(text)
    end = text.find("x", from_here)
    assert shown == (text if end < 0 else text[:end])
    assert checker.matched == (None if end < 0 else "x")


def test_every_split_of_a_stop_string_over_tokens(texts: dict[str, Tokenizer]) -> None:
    text, stop = texts["qwen"], "\nUser 你好:"
    for content in ("abc" + stop + "tail", "abc\nUser 你好 tail", stop, "abc" + stop):
        ids = text.encode(content)
        for chunk in range(1, len(ids) + 1):
            detokenizer, checker, shown = text.detokenizer(), StopChecker((stop, "never")), ""
            for at in range(0, len(ids), chunk):
                shown += checker.push("".join(map(detokenizer.push, ids[at : at + chunk])))
            shown += checker.push(detokenizer.flush()) + checker.flush()
            assert shown == content.split(stop)[0]
            assert (checker.matched == stop) is (stop in content)


def test_long_stop_strings_cost_the_same_per_character() -> None:
    checker = StopChecker(["a" * 200_000 + "b"])
    shown = "".join(checker.push("a" * 50) for _ in range(4_100))
    assert shown == "a" * 5_000, "exactly the text that the stop string cannot reach any more"
    assert checker.push("b") == ""
    assert checker.matched is not None and checker.flush() == ""


def test_empty_stop_strings_are_refused() -> None:
    with pytest.raises(RequestError) as caught:
        check_stop(["x", ""])
    assert caught.value.param == "stop"
    assert check_stop(["x", "y", "x"]) == ("x", "y")


def test_sentencepiece_user_symbols_are_text_for_clients(texts: dict[str, Tokenizer]) -> None:
    text = texts["sentence_piece"]
    symbol = text.encode_control("[INST]")
    assert symbol not in text.encode("[INST] hi")
    assert text.decode(text.encode("[INST] hi")) == "[INST] hi"
    ids = text.render([{"role": "user", "content": "[INST] <s> hi"}])
    assert ids.count(symbol) == 1 and ids.count(1) == 1
    assert text.decode(ids, skip_special_tokens=False) == "<s>[INST] [INST] <s> hi [/INST]"
