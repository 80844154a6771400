"""Tokenizers as the families publish them in tokenizer.json (normalizer, split, decoder, control tokens), with small
vocabularies trained here."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
from nasty_texts import nasty_texts
from tokenizers import Tokenizer, models, trainers

Spec = dict[str, Any]
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = WORDS.replace("NUMBERS", r"\p{N}")
LLAMA = WORDS.replace("NUMBERS", r"\p{N}{1,3}")
DEEPSEEK = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
THREE_NUMBERS = r"\p{N}{1,3}"
HAN_AND_KANA = "[一-龥\u3040-ゟ゠-ヿ]+"
UNMERGED = " Qzxjk"  # a word that no merges lead to
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}

QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|vision_pad|>")
QWEN2_5_SHOWN = ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|repo_name|>", "<|file_sep|>")
QWEN3_SHOWN = (*QWEN2_5_SHOWN, "<tool_response>", "</tool_response>", "<think>", "</think>")
LLAMA_SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|start_header_id|>")
LLAMA_SPECIAL += ("<|end_header_id|>", "<|eot_id|>")
HUNYUAN_SPECIAL = ("<｜hy_begin▁of▁sentence｜>", "<｜hy_end▁of▁sentence｜>", "<｜hy_User｜>", "<｜hy_Assistant｜>")
HUNYUAN_SPECIAL += tuple(f"<｜hy_place▁holder▁no▁{n}｜>" for n in (2, 3, 8))


@dataclass(frozen=True, slots=True)
class Published:
    """`tokenizer_type`: what a package says; `special` and `shown`: control tokens left out of decoded text, or not;
    `stops`: what the model's generation_config.json says ends an answer."""

    tokenizer_type: str
    splits: tuple[str | Spec, ...]
    special: tuple[str, ...]
    stops: tuple[str, ...]
    shown: tuple[str, ...] = ()
    nfc: bool = False
    ignore_merges: bool = False
    every_split: bool = False


BYTE_LEVEL = {
    "qwen2_5": Published("Qwen2_5", (QWEN,), QWEN_SPECIAL, ("<|im_end|>", "<|endoftext|>"), QWEN2_5_SHOWN, nfc=True),
    "qwen3": Published("Qwen3", (QWEN,), QWEN_SPECIAL, ("<|im_end|>", "<|endoftext|>"), QWEN3_SHOWN, nfc=True),
    "minicpm5": Published(
        "MiniCPM5",
        (THREE_NUMBERS, WORDS.replace("NUMBERS", r"\p{N}+")),
        ("<s>", "</s>", "<|im_sep|>", "<|im_start|>", "<|im_end|>", "<unk>", "/think", "/no_think"),
        ("</s>", "<|im_end|>"),
        ("<think>", "</think>", "<unused_token_0>"),
        ignore_merges=True,
    ),
    "hunyuan": Published(
        "HunYuan", (THREE_NUMBERS, HAN_AND_KANA, DEEPSEEK), HUNYUAN_SPECIAL, ("<｜hy_place▁holder▁no▁2｜>",)
    ),
    "smollm2": Published(
        "SmolLM2",
        ({"type": "Digits", "individual_digits": True}, BYTES | {"use_regex": True}),
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>"),
        ("<|im_end|>",),
    ),
    "llama3": Published(
        "LLaMA", (LLAMA,), LLAMA_SPECIAL, ("<|eot_id|>", "<|end_of_text|>"), ignore_merges=True, every_split=True
    ),
    "llama3_1": Published(
        "LLaMA",
        (LLAMA,),
        (*LLAMA_SPECIAL, "<|eom_id|>", "<|python_tag|>"),
        ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
        ignore_merges=True,
        every_split=True,
    ),
}


def _pre_tokenizer(published: Published) -> Spec:
    steps = [
        {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False}
        if isinstance(split, str)
        else split
        for split in published.splits
    ]
    last = [] if steps[-1]["type"] == "ByteLevel" else [BYTES]
    return {"type": "Sequence", "pretokenizers": [*steps, *last]}


def byte_level(name: str, vocab_size: int = 900) -> Spec:
    """The tokenizer.json of one of BYTE_LEVEL."""
    published = BYTE_LEVEL[name]
    empty = json.loads(Tokenizer(models.BPE(ignore_merges=published.ignore_merges)).to_str())
    empty |= {"normalizer": {"type": "NFC"} if published.nfc else None, "pre_tokenizer": _pre_tokenizer(published)}
    tokenizer = Tokenizer.from_str(json.dumps(empty | {"decoder": BYTES}))
    alphabet = [chr(c) for c in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x144))]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(nasty_texts(3000, seed=7), trainer)
    spec: Spec = json.loads(tokenizer.to_str())
    if published.ignore_merges:
        spec["model"]["vocab"][UNMERGED.replace(" ", "Ġ")] = len(spec["model"]["vocab"])
    if published.every_split:
        spec["model"]["merges"] = _every_split(spec["model"]["vocab"])
    return _with_added(spec, published.special, published.shown)


def _every_split(vocab: dict[str, int]) -> list[list[str]]:
    """Merges as Llama's were made from its list of tokens."""
    merges = []
    for token in sorted(vocab, key=vocab.__getitem__):
        halves = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        both = [pair for pair in halves if pair[0] in vocab and pair[1] in vocab]
        merges += [list(pair) for pair in sorted(both, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))]
    return merges


def _with_added(spec: Spec, special: tuple[str, ...], shown: tuple[str, ...]) -> Spec:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    next_id = len(spec["model"]["vocab"])
    known = spec["model"]["vocab"]
    for token in (*special, *shown):
        token_id = known.get(token)
        if token_id is None:
            token_id, next_id = next_id, next_id + 1
        spec["added_tokens"].append(flags | {"id": token_id, "content": token, "special": token in special})
    return spec


def word_pieces(cased: bool) -> Spec:
    """The tokenizer.json of a BERT model."""
    control = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    spec = json.loads(Tokenizer(models.WordPiece(unk_token="[UNK]")).to_str())
    spec["normalizer"] = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    spec["normalizer"] |= {"strip_accents": None, "lowercase": not cased}
    spec |= {
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    }
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    trainer = trainers.WordPieceTrainer(vocab_size=1500, special_tokens=control, show_progress=False)
    tokenizer.train_from_iterator(nasty_texts(2000, seed=7, drawn=0), trainer)
    return dict(json.loads(tokenizer.to_str()))


GEMMA_USER = (
    "<start_of_turn>",
    "<end_of_turn>",
    "\n\n",
    "\n\n\n",
    "\u2581\u2581",
    "\u2581\u2581\u2581",
    "<table>",
    "<unused0>",
)


def piece_model(path: Path, prefix: bool, user: tuple[str, ...] = (), control: dict[str, str] | None = None) -> Path:
    """A tokenizer.model of byte-pair merges; `prefix`: a space goes before a text; `user`: user-defined pieces."""
    model = io.BytesIO()
    lines = [
        line for text in nasty_texts(2000, seed=7, drawn=0) for line in text.split("\n") if line and "\x00" not in line
    ]
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=2000,
        byte_fallback=True,
        character_coverage=1.0,
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=list(user),
        minloglevel=2,
        **(control or {}),
    )
    path.write_bytes(model.getvalue())
    return path
