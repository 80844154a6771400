"""The vendor's tokenizer in one .txt file: the same ids, bytes and control tokens as the Hugging Face tokenizer that it
was made from. (`make tokenizers` compares the published tokenizers themselves.)"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import published_tokenizers
import pytest
import sentencepiece
import tokenizers
import vendor_tokenizers
from chat_templates import QWEN, random_package
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nasty_texts import nasty_texts
from published_tokenizers import BYTE_LEVEL, GEMMA_USER, UNMERGED

from axpress.core.device.model_loader import open_tokenizer
from axpress.core.errors import PackageError
from axpress.core.model_files.model_package import open_package
from axpress.core.tokenizer.families import FAMILIES, choose_family
from axpress.core.tokenizer.tokenizer import Tokenizer
from axpress.core.tokenizer.vendor_file import read_vendor_file
from axpress.core.tokenizer.vendor_vocabulary import family_spec

COUNT = 1500
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
WRITERS: dict[str, Callable[..., Path]] = {
    "huggingface": vendor_tokenizers.huggingface,
    "huggingface-coded": lambda *args: vendor_tokenizers.huggingface(*args, coded=True),
    "tiktoken": vendor_tokenizers.tiktoken,
}


class Case:
    """A vendor's file and the tokenizer.json folder that it was made from, both opened, and the reference library."""

    def __init__(self, directory: Path, name: str, writer: str) -> None:
        published = BYTE_LEVEL[name]
        spec = published_tokenizers.byte_level(name)
        ids = {entry["content"]: entry["id"] for entry in spec["added_tokens"]}
        self.tokenizer_type = published.tokenizer_type
        self.control = [*published.special, *published.shown]
        self.special = {ids[token] for token in published.special}
        self.stops = {ids[token] for token in published.stops}
        self.reference = tokenizers.Tokenizer.from_str(json.dumps(spec))
        directory.mkdir(parents=True)
        (directory / "tokenizer.json").write_text(json.dumps(spec))
        self.folder = Tokenizer.open(directory)
        self.path = WRITERS[writer](directory / "tokenizer.txt", spec, [min(self.stops)])
        self.text = Tokenizer.open(self.path, tokenizer_type=self.tokenizer_type, embedding_rows=2000)


@pytest.fixture(scope="module", params=[f"{name}/{writer}" for name in BYTE_LEVEL for writer in WRITERS])
def case(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name, writer = request.param.split("/")
    return Case(tmp_path_factory.mktemp("vendor") / "files", name, writer)


def test_ids_equal_on_nasty_texts(case: Case) -> None:
    for text in (*nasty_texts(COUNT, case.control), f"a{UNMERGED} b", f"{UNMERGED}s"):
        assert case.text.encode(text, control=True) == case.reference.encode(text, add_special_tokens=False).ids, text


@given(text=st.text(max_size=60))
@QUICK
def test_ids_equal_on_any_text(case: Case, text: str) -> None:
    assert case.text.encode(text, control=True) == case.reference.encode(text, add_special_tokens=False).ids


def test_everything_else_equals_the_folder(case: Case) -> None:
    """What grammars, detokenizers, stop strings and prompts are made of."""
    text, folder = case.text, case.folder
    assert text.pieces.data == folder.pieces.data and text.special_ids == folder.special_ids == case.special
    assert text.added_tokens == folder.added_tokens and text.lead == folder.lead
    assert text._vocabulary.ids == folder._vocabulary.ids
    assert text.eos_ids == case.stops, "the file's stop token, and those that the family has besides"


def test_merges_are_those_of_the_published_file(case: Case) -> None:
    spec = json.loads((case.path.parent / "tokenizer.json").read_text())
    family = choose_family(case.path, case.tokenizer_type, dict.fromkeys(case.control, 0))
    assert [list(pair) for pair in family_spec(read_vendor_file(case.path), family)["model"]["merges"]] == [
        list(pair) for pair in spec["model"]["merges"]
    ]


def test_text_that_spells_control_tokens_is_text(case: Case) -> None:
    ids = {case.text.encode_control(token) for token in case.control}
    for text in nasty_texts(300, case.control, seed=5):
        encoded = case.text.encode(text)
        assert ids.isdisjoint(encoded) and encoded == case.folder.encode(text)
    spelled = "".join(case.control)
    quiet = case.text.render([{"role": "user", "content": "x"}])
    loud = case.text.render([{"role": "user", "content": spelled}])
    assert [i for i in loud if i in ids] == [i for i in quiet if i in ids]
    assert spelled in case.text.decode(loud, skip_special_tokens=False)


@pytest.mark.parametrize("cased", [True, False])
def test_bert(tmp_path: Path, cased: bool) -> None:
    spec = published_tokenizers.word_pieces(cased)
    reference = tokenizers.Tokenizer.from_str(json.dumps(spec))
    path = vendor_tokenizers.tiktoken(tmp_path / "bert.txt", spec, [3], kind=2)
    text = Tokenizer.open(path)
    for sample in nasty_texts(COUNT, ["[SEP]", "[MASK]"]):
        ids = reference.encode(sample, add_special_tokens=False).ids
        assert text.encode(sample, control=True) == ids
        assert text.decode(ids) == reference.decode(ids)
    assert text.eos_ids == {3} and not text.can_render


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    base = tmp_path_factory.mktemp("gemma")
    names = {"pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>"}
    numbers: dict[str, Any] = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}
    model = published_tokenizers.piece_model(base / "tokenizer.model", False, GEMMA_USER, names | numbers)
    pieces = vendor_tokenizers.model_pieces(model)
    own = [place for place, piece in enumerate(pieces) if piece[0] in GEMMA_USER]
    path = vendor_tokenizers.sentencepieces(
        base / "tokenizer.txt", pieces, [0, 1, 2, 3, *own, len(pieces)], [1], [2], ["<image_soft_token>"], True
    )
    return path, sentencepiece.SentencePieceProcessor(model_file=str(model))


def test_gemma_pieces(gemma: tuple[Path, Any]) -> None:
    path, reference = gemma
    text = Tokenizer.open(path, tokenizer_type="Gemma3")
    # In a text, U+2581 is a space for sentencepiece, but part of an added token in the published tokenizer.json.
    for sample in (sample for sample in nasty_texts(COUNT, GEMMA_USER) if "\u2581" not in sample):
        ids = reference.EncodeAsIds(sample)
        assert text.encode(sample, control=True) == ids, sample
        assert text.decode(ids, skip_special_tokens=False) == sample
    turns = {text.encode_control(token) for token in ("<start_of_turn>", "<end_of_turn>")}
    assert text.eos_ids == {1, text.encode_control("<end_of_turn>")} and text.begin == [2]
    assert text.special_ids == {0, 1, 2, 3, *turns, text.encode_control("<image_soft_token>")}


def test_pieces_with_a_prefix(tmp_path: Path) -> None:
    """MiniCPM 3 and 4: a space before each text, control tokens after the pieces, a piece that is a plain space."""
    model = published_tokenizers.piece_model(tmp_path / "tokenizer.model", True)
    pieces = vendor_tokenizers.model_pieces(model)
    low = min(score for _, score, _ in pieces)
    marks = ["<|im_end|>", "<|im_start|>"]
    end, start = len(pieces) + 1, len(pieces) + 2
    path = vendor_tokenizers.sentencepieces(
        tmp_path / "tokenizer.txt", [*pieces, (" ", low - 1, 1)], [0, 1, 2, end, start], [2], [1], marks
    )
    text = Tokenizer.open(path, tokenizer_type="MiniCPM4")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(model))
    for sample in nasty_texts(COUNT):
        ids = reference.EncodeAsIds(sample)
        assert text.encode(sample) == ids, sample
        assert text.decode(ids) == sample.replace("\u2581", " ")
    assert text.eos_ids == {2, end} and text.begin == [1] and text.token_bytes(len(pieces)) == b" "
    user = reference.EncodeAsIds("user\nhi")
    ids = text.render([{"role": "user", "content": "hi"}])
    assert ids[: len(user) + 3] == [1, start, *user, end]
    path = vendor_tokenizers.sentencepieces(path, pieces, [0, 1, 2, end - 1, start - 1], [2], [], marks)
    text = Tokenizer.open(path, tokenizer_type="MiniCPM4")
    assert text.begin == [] and text.bos_id == 1, "a file without a prefix: no begin token before a plain text"


def test_coded_pieces(tmp_path: Path, gemma: tuple[Path, Any]) -> None:
    """Pieces and merges of a tokenizer.json, as newer converters write them: kind 3, but not byte-level."""
    path, _ = gemma
    text = Tokenizer.open(path, tokenizer_type="Gemma3")
    spec = json.loads(text._vocabulary._tokenizer.to_str())  # type: ignore[attr-defined]
    names = {secret: name for name, secret in text._vocabulary._names.items()}  # type: ignore[attr-defined]
    for entry in spec["added_tokens"]:
        entry["content"] = names.get(entry["content"], entry["content"])
    spec["model"]["vocab"] = {names.get(token, token): i for token, i in spec["model"]["vocab"].items()}
    coded = vendor_tokenizers.huggingface(tmp_path / "coded.txt", spec, [1], coded=True)
    again = Tokenizer.open(coded, tokenizer_type="Gemma3")
    for sample in nasty_texts(300, GEMMA_USER):
        assert again.encode(sample, control=True) == text.encode(sample, control=True)
    assert again.begin == [2] and again.eos_ids == text.eos_ids


@pytest.mark.parametrize(("name", "family"), [("Qwen2_5", "qwen2_5"), ("qwen2.5", "qwen2_5"), ("Llama3.2", "llama3_1")])
def test_types_are_compared_without_case_and_punctuation(name: str, family: str) -> None:
    marks = {token: 1 for member in FAMILIES if member.name == family for token in member.marks}
    assert choose_family(Path("x.txt"), name, marks).name == family


@pytest.mark.parametrize(
    ("tokens", "family"),
    [
        ({"<|im_start|>": 151644, "<|im_end|>": 151645}, "qwen2_5"),
        ({"<|im_start|>": 151644, "<|im_end|>": 151645, "<think>": 151667, "</think>": 151668}, "qwen3"),
        ({"<|im_start|>": 73441, "<|im_end|>": 73440, "<s>": 1}, "minicpm4"),
        ({"<|im_start|>": 130072, "<|im_end|>": 130073, "<s>": 0, "<think>": 8}, "minicpm5"),
        ({"<|im_start|>": 1, "<|im_end|>": 2, "<|endoftext|>": 0}, "smollm2"),
        ({"<｜hy_begin▁of▁sentence｜>": 5, "<｜hy_User｜>": 6, "<｜hy_Assistant｜>": 7}, "hunyuan"),
        ({"<|begin_of_text|>": 5, "<|start_header_id|>": 6, "<|eot_id|>": 7}, "llama3"),
        ({"<|begin_of_text|>": 5, "<|start_header_id|>": 6, "<|eot_id|>": 7, "<|eom_id|>": 8}, "llama3_1"),
        ({"<bos>": 2, "<start_of_turn>": 105, "<end_of_turn>": 106}, "gemma3"),
        ({"<|im_start|>": 248045, "<|im_end|>": 248046, "<think>": 248068, "</think>": 248069}, None),
        ({}, None),
    ],
)
def test_without_a_type_the_tokens_tell(tokens: dict[str, int], family: str | None) -> None:
    if family is None:
        with pytest.raises(PackageError, match=r"x\.txt.*tokenizer_type.*copy tokenizer\.json"):
            choose_family(Path("x.txt"), None, tokens)
    else:
        assert choose_family(Path("x.txt"), None, tokens).name == family


def qwen(directory: Path) -> tuple[Path, list[str]]:
    """A good file of Qwen3's, and its lines."""
    path = vendor_tokenizers.huggingface(directory / "tokenizer.txt", published_tokenizers.byte_level("qwen3"), [0])
    return path, path.read_text().split("\n")


@pytest.mark.parametrize(
    ("tokenizer_type", "rows", "reason"),
    [
        ("GLM5", None, r"'GLM5' are not known.*copy tokenizer\.json and tokenizer_config\.json"),
        ("Qwen9", None, "'Qwen9' are not known"),
        ("LLaMA", None, r"'LLaMA', but this tokenizer has no token <\|begin_of_text\|>.*copy"),
        ("HunYuan", None, "has no token <｜hy_begin▁of▁sentence｜>"),
        (None, None, "config.json does not give"),
        ("Qwen3", 500, r"has 914 tokens, but the model's embedding has 500 rows.*copy"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, tokenizer_type: str | None, rows: int | None, reason: str) -> None:
    path, _ = qwen(tmp_path)
    with pytest.raises(PackageError, match=reason) as caught:
        Tokenizer.open(path, tokenizer_type=tokenizer_type, embedding_rows=rows)
    assert str(path) in str(caught.value)


def test_control_tokens_beyond_the_embedding_are_left_out(tmp_path: Path) -> None:
    path, _ = qwen(tmp_path)
    text = Tokenizer.open(path, tokenizer_type="Qwen3", embedding_rows=914)
    with pytest.raises(PackageError, match="has no token <think>"):
        Tokenizer.open(path, tokenizer_type="Qwen3", embedding_rows=911)
    spec = published_tokenizers.byte_level("qwen3")
    spec["added_tokens"].append(spec["added_tokens"][-1] | {"id": 914, "content": "<beyond>"})
    wider = vendor_tokenizers.huggingface(tmp_path / "wider.txt", spec, [0])
    narrowed = Tokenizer.open(wider, tokenizer_type="Qwen3", embedding_rows=914)
    assert narrowed.vocab_size == text.vocab_size == 914 and narrowed.encode("<beyond>") == text.encode("<beyond>")


def _damage() -> Iterator[tuple[str, Callable[[list[str]], list[str]], str]]:
    def put(place: int, line: str) -> Callable[[list[str]], list[str]]:
        return lambda lines: [*lines[:place], line, *lines[place + 1 :]]

    yield "magic", put(0, "431 3"), "not a tokenizer in the vendor's text format"
    yield "kind", put(0, "430 7"), "its kind is b'7'; known are 0 to 3"
    yield "counts", put(1, "14 1"), "line 2 should be 3 numbers"
    yield "ids", put(2, "1 2 x"), "line 3 is not a list of numbers"
    yield "too few ids", put(2, "1 2 3"), "line 3 should be 15 numbers.* has 3"
    yield "id beyond", put(2, " ".join(["5000"] * 15)), "line 3 has the id 5000, but there are 914 tokens"
    yield "two ids", put(300, "b64:IQ=="), "two ids"
    yield "base64", put(300, "b64:I!"), "line 301 is not base64"
    yield "cut in tokens", lambda lines: lines[:500], "cut short: line 4 announces 914 tokens, 496 are there"
    yield "cut in merges", lambda lines: lines[:1000], "cut short: line 4 announces .* merges"
    yield "merge of three", put(930, "a b c"), "line 931 is not a merge of two tokens"
    yield "more", lambda lines: [*lines, "more"], "there is more after line"
    yield "pointer", lambda lines: ["version https://git-lfs.github.com/spec/v1"], "Git LFS pointer"
    yield "empty", lambda lines: [""], "not a tokenizer in the vendor's text format"


@pytest.mark.parametrize(("damage", "reason"), [case[1:] for case in _damage()], ids=[case[0] for case in _damage()])
def test_damage_is_named(tmp_path: Path, damage: Callable[[list[str]], list[str]], reason: str) -> None:
    path, lines = qwen(tmp_path)
    path.write_text("\n".join(damage(lines)))
    with pytest.raises(PackageError, match=reason) as caught:
        Tokenizer.open(path, tokenizer_type="Qwen3")
    assert str(path) in str(caught.value)


def test_kinds_that_the_family_does_not_have(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<0x0A>", 0.0, 6), ("a", -1.5, 1), ("b", -2.25, 1)]
    marks = ["<|im_start|>", "<|im_end|>"]
    path = vendor_tokenizers.sentencepieces(tmp_path / "u.txt", pieces, [0, 1, 2, 6, 7], [2], [1], marks)
    with pytest.raises(PackageError, match=r"u\.txt: its scores are those of a unigram model.*copy"):
        Tokenizer.open(path, tokenizer_type="MiniCPM4")
    path = vendor_tokenizers.sentencepieces(tmp_path / "q.txt", pieces, [6, 7], [2], [], marks)
    with pytest.raises(PackageError, match=r"of kind 0 \(sentencepiece\); a tokenizer of qwen2_5 is made of bytes"):
        Tokenizer.open(path, tokenizer_type="Qwen2_5")
    spec = published_tokenizers.byte_level("qwen2_5")
    spec["added_tokens"][0]["content"] = "<s>"
    path = vendor_tokenizers.huggingface(tmp_path / "m.txt", spec, [0])
    with pytest.raises(PackageError, match="a tokenizer of minicpm4 is made of pieces of text"):
        Tokenizer.open(path, tokenizer_type="MiniCPM4")


def test_ids_without_a_token(tmp_path: Path) -> None:
    """The converter writes <unk> for them; they decode to nothing, as in the folder."""
    spec = published_tokenizers.byte_level("qwen3")
    spec["added_tokens"][-1]["id"] += 3
    path = vendor_tokenizers.huggingface(tmp_path / "tokenizer.txt", spec, [0])
    text = Tokenizer.open(path, tokenizer_type="Qwen3")
    last = spec["added_tokens"][-1]["id"]
    assert text.encode_control("</think>") == last and text.token_bytes(last - 1) == b""
    assert text.encode("</think>", control=True) == [last]
    spec = published_tokenizers.byte_level("minicpm5")
    unknown = next(entry for entry in spec["added_tokens"] if entry["content"] == "<unk>")
    hole, unknown["id"] = unknown["id"], spec["added_tokens"][-1]["id"] + 1
    path = vendor_tokenizers.huggingface(tmp_path / "tokenizer.txt", spec, [0], coded=True)
    text = Tokenizer.open(path, tokenizer_type="MiniCPM5")
    assert text.encode_control("<unk>") == unknown["id"] and text.token_bytes(hole) == b""


def test_a_template_beside_the_file_goes_before_the_familys(tmp_path: Path) -> None:
    path, _ = qwen(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "from config", "eos_token": "odd"}))
    text = Tokenizer.open(path, tokenizer_type="Qwen3")
    assert text.decode(text.render([{"role": "user", "content": "hi"}])) == "from config"
    (tmp_path / "chat_template.jinja").write_text("from jinja, ends with {{ eos_token }}")
    text = Tokenizer.open(path, tokenizer_type="Qwen3", eos_override=["<|im_end|>"])
    shown = text.decode(text.render([{"role": "user", "content": "hi"}]), skip_special_tokens=False)
    assert shown == "from jinja, ends with <|im_end|>" and text.eos_ids == {text.encode_control("<|im_end|>")}


def test_a_package_whose_tokenizer_is_a_txt_file(tmp_path: Path) -> None:
    """Through the package's config.json: its type, its embedding's size, no ids of ends."""
    folder = random_package(tmp_path, QWEN)
    spec = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
    end = next(entry["id"] for entry in spec["added_tokens"] if entry["content"] == "<|im_end|>")
    expected = open_tokenizer(open_package(folder))
    shutil.rmtree(folder / "tokenizer")
    vendor_tokenizers.huggingface(folder / "qwen3_tokenizer.txt", spec, [end])
    config = json.loads((folder / "config.json").read_text()) | {"url_tokenizer_model": "qwen3_tokenizer.txt"}
    del config["eos"]
    (folder / "config.json").write_text(json.dumps(config))
    text = open_tokenizer(open_package(folder))
    assert text.pieces.data == expected.pieces.data and end in text.eos_ids
    messages = [{"role": "user", "content": "hi <|im_end|>"}]
    assert text.render(messages, enable_thinking=False) == expected.render(messages, enable_thinking=False)
    (folder / "config.json").write_text(json.dumps(config | {"tokenizer_type": "Qwen9"}))
    with pytest.raises(PackageError, match=r"qwen3_tokenizer\.txt.*'Qwen9'.*copy"):
        open_tokenizer(open_package(folder))
