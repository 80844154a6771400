"""What the vendor's text tokenizers leave out, by model family: how text is split before tokens are made, which control
tokens are shown in answers, what ends an answer, and the chat template (in a .jinja file of its own).

Written from the models' public documentation; `make tokenizers` compares each with the published tokenizer, where a
package registry has one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import PackageError

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
ORIGINAL = "copy tokenizer.json and tokenizer_config.json of the original Hugging Face model into the package"
# Control tokens that are part of the text of an answer: reasoning and calls are read from them.
_READ = r"</?think>|</?tool_call>|</?tool_response>"


def _words(numbers: str, marks: str = "") -> str:
    """Words with the sign before them, and `marks` within; `numbers`, signs with the line ends after them, blanks."""
    word = rf"[\p{{L}}{marks}]+" if marks else r"\p{L}+"
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?{word}|{numbers}| ?[^\s\p{{L}}{marks}\p{{N}}]+[\r\n]*|{_BLANKS}"


@dataclass(frozen=True, slots=True)
class Family:
    """One family. `types`: its names as tokenizer_type, in lower case without punctuation. `marks`: tokens that its
    tokenizers have, with their ids in the published ones where other families have the same tokens (None elsewhere).

    `pieces`: tokens are text with U+2581 for a space and bytes as a way out (sentencepiece); else tokens are bytes, and
    a text is split by each of `splits` in turn (regular expressions, or the name of a rule of the library). `prefix`:
    a space goes before each text. `shown`: control tokens that are not special, so that decoded text has them.
    `every_split`: a token is merged from whatever two tokens it consists of, not only from those it was made of."""

    name: str
    types: tuple[str, ...]
    marks: Mapping[str, int | None]
    ends: tuple[str, ...]
    bos: str | None = None
    adds_bos: bool = False
    pieces: bool = False
    splits: tuple[str, ...] = ()
    nfc: bool = False
    ignore_merges: bool = False
    every_split: bool = False
    prefix: bool = False
    shown: str = _READ

    def is_special(self, token: str) -> bool:
        """Whether decoded text leaves this control token out."""
        return re.fullmatch(self.shown, token, re.DOTALL) is None

    def template(self) -> str:
        """The source of the family's chat template."""
        return (Path(__file__).parent / f"{self.name}.jinja").read_text(encoding="utf-8")


_CHATML = {"<|im_start|>": None, "<|im_end|>": None}
_QWEN_SHOWN = rf"{_READ}|<\|(fim_\w+|repo_name|file_sep)\|>"
_HAN_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"

FAMILIES = (
    Family(
        "qwen2_5",
        ("qwen25", "qwen2"),
        _CHATML | {"<|im_start|>": 151644},
        ends=("<|im_end|>", "<|endoftext|>"),
        splits=(_words(r"\p{N}"),),
        nfc=True,
        shown=_QWEN_SHOWN,
    ),
    Family(
        "qwen3",
        ("qwen3",),
        _CHATML | {"<|im_start|>": 151644, "<think>": 151667, "</think>": 151668},
        ends=("<|im_end|>", "<|endoftext|>"),
        splits=(_words(r"\p{N}"),),
        nfc=True,
        shown=_QWEN_SHOWN,
    ),
    Family(
        "minicpm4",
        ("minicpm4", "minicpm3", "minicpm"),
        _CHATML | {"<s>": 1, "<|im_start|>": 73441},
        ends=("<|im_end|>", "</s>"),
        bos="<s>",
        adds_bos=True,
        pieces=True,
        prefix=True,
    ),
    Family(
        "minicpm5",
        ("minicpm5",),
        _CHATML | {"<s>": 0, "<|im_start|>": 130072, "<think>": 8},
        ends=("<|im_end|>", "</s>"),
        bos="<s>",
        splits=(r"\p{N}{1,3}", _words(r"\p{N}+")),
        ignore_merges=True,
        shown=rf"{_READ}|<unused_token_\d+>",
    ),
    Family(
        "hunyuan",
        ("hunyuan", "hymt", "hymt15"),
        {"<｜hy_begin▁of▁sentence｜>": None, "<｜hy_User｜>": None, "<｜hy_Assistant｜>": None},
        ends=("<｜hy_place▁holder▁no▁2｜>",),
        bos="<｜hy_begin▁of▁sentence｜>",
        splits=(
            r"\p{N}{1,3}",
            _HAN_AND_KANA,
            r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + _BLANKS,
        ),
    ),
    Family(
        "smollm2",
        ("smollm2", "smollm"),
        _CHATML | {"<|im_start|>": 1, "<|endoftext|>": 0},
        ends=("<|im_end|>",),
        bos="<|im_start|>",
        splits=("digits", "gpt2"),
    ),
    Family(
        "llama3",
        ("llama", "llama3"),
        {"<|begin_of_text|>": None, "<|start_header_id|>": None, "<|eot_id|>": None},
        ends=("<|eot_id|>", "<|end_of_text|>"),
        bos="<|begin_of_text|>",
        adds_bos=True,
        splits=(_words(r"\p{N}{1,3}"),),
        ignore_merges=True,
        every_split=True,
    ),
    Family(
        "llama3_1",
        ("llama", "llama3", "llama31", "llama32", "llama33"),
        {"<|begin_of_text|>": None, "<|start_header_id|>": None, "<|eot_id|>": None, "<|eom_id|>": None},
        ends=("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
        bos="<|begin_of_text|>",
        adds_bos=True,
        splits=(_words(r"\p{N}{1,3}"),),
        ignore_merges=True,
        every_split=True,
    ),
    Family(  # models with eyes: by their type only, since models of text have the same tokens
        "qwen2_5_vl",
        ("qwen25vl", "qwen2vl"),
        _CHATML | {"<|im_start|>": 151644},
        ends=("<|im_end|>", "<|endoftext|>"),
        splits=(_words(r"\p{N}"),),
        nfc=True,
        shown=_QWEN_SHOWN,
    ),
    Family(
        "qwen3_vl",
        ("qwen3vl",),
        _CHATML | {"<|im_start|>": 151644},
        ends=("<|im_end|>", "<|endoftext|>"),
        splits=(_words(r"\p{N}"),),
        nfc=True,
        shown=_QWEN_SHOWN,
    ),
    Family(
        "qwen3_5",
        ("qwen35vl", "qwen35"),
        _CHATML | {"<|im_start|>": 248045, "<think>": None, "<|image_pad|>": 248056},
        ends=("<|im_end|>", "<|endoftext|>"),
        splits=(_words(r"\p{N}", marks=r"\p{M}"),),
        nfc=True,
        shown=_QWEN_SHOWN,
    ),
    Family(
        "internvl3",
        ("internvl3", "internvl"),
        _CHATML | {"<|im_start|>": 151644, "<img>": None, "</img>": None, "<IMG_CONTEXT>": None},
        ends=("<|im_end|>", "<|endoftext|>"),
        splits=(_words(r"\p{N}"),),
        nfc=True,
        shown=_QWEN_SHOWN,
    ),
    Family(
        "smolvlm2",
        ("smolvlm2", "smolvlm"),
        {"<|im_start|>": 1, "<end_of_utterance>": None, "<fake_token_around_image>": None, "<global-img>": None},
        ends=("<end_of_utterance>",),
        bos="<|im_start|>",
        splits=("digits", "gpt2"),
    ),
    Family(
        "gemma3",
        ("gemma3", "gemma2", "gemma"),
        {"<bos>": None, "<start_of_turn>": None, "<end_of_turn>": None},
        ends=("<end_of_turn>", "<eos>"),
        bos="<bos>",
        adds_bos=True,
        pieces=True,
        every_split=True,
        shown=r"(?!<(pad|eos|bos|unk|(start|end)_of_(turn|image)|image_soft_token)>).*",
    ),
)

NAMES = (
    "Qwen2_5, Qwen3, Qwen3_5, their VL models, MiniCPM4, MiniCPM5, HunYuan, SmolLM2, SmolVLM2, InternVL3, LLaMA and"
    " Gemma3"
)


def choose_family(path: Path, tokenizer_type: str | None, control: Mapping[str, int]) -> Family:
    """The family of the text tokenizer at `path`: as the package's `tokenizer_type` says, else by its control tokens
    and their ids. Raises PackageError, saying what to copy, for an unknown type and for one that the file contradicts.
    """
    if tokenizer_type is None:
        found = [family for family in FAMILIES if _has_marks(family, control, exactly=True)]
        if not found:
            raise PackageError(
                f"{path}: a tokenizer in the vendor's text format, which lacks split rule and chat template; they"
                f" follow from tokenizer_type, which config.json does not give, and its tokens are of no family known"
                f" here ({NAMES}): {ORIGINAL}"
            )
    else:
        named = families_of(path, tokenizer_type)
        found = [family for family in named if _has_marks(family, control, exactly=False)]
        if not found:
            missing = next(token for token in named[0].marks if token not in control)
            raise PackageError(
                f"{path}: config.json says tokenizer_type {tokenizer_type!r}, but this tokenizer has no token"
                f" {missing}: it is another model's; {ORIGINAL}"
            )
    return max(found, key=lambda family: len(family.marks))


def families_of(path: Path, tokenizer_type: str) -> list[Family]:
    """The families that a package's `tokenizer_type` may mean. PackageError, saying what to copy: it is unknown."""
    named = [family for family in FAMILIES if re.sub("[^a-z0-9]", "", tokenizer_type.lower()) in family.types]
    if not named:
        raise PackageError(
            f"{path}: a tokenizer in the vendor's text format, which lacks split rule and chat template; those of"
            f" tokenizer_type {tokenizer_type!r} are not known here, only those of {NAMES}: {ORIGINAL}"
        )
    return named


def _has_marks(family: Family, control: Mapping[str, int], exactly: bool) -> bool:
    known = family.marks.items()
    return all(token in control and (not exactly or id in (None, control[token])) for token, id in known)
