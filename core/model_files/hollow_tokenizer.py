"""A small real byte-level BPE tokenizer whose ids cover any vocabulary: for hollow packages and tiny test models.

The first 256 ids are the bytes, then come merges trained on a short text, then made-up words that no text encodes to,
so that every id decodes to something printable. ChatML's special tokens have Qwen3's own ids where the vocabulary is
Qwen3's, else the last ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ..errors import PackageError

SPECIAL_TOKENS = (
    *(
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|object_ref_start|>",
        "<|object_ref_end|>",
        "<|box_start|>",
        "<|box_end|>",
    ),
    *(
        "<|quad_start|>",
        "<|quad_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ),
    *(
        "<tool_call>",
        "</tool_call>",
        "<|fim_prefix|>",
        "<|fim_middle|>",
        "<|fim_suffix|>",
        "<|fim_pad|>",
        "<|repo_name|>",
    ),
    *("<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
)
NUM_CONTROL = 14  # of SPECIAL_TOKENS: left out of decoded text; the others are text that a model writes
QWEN3_FIRST_SPECIAL = 151643
MIN_VOCAB = 256 + len(SPECIAL_TOKENS)

CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}"""

# Ordinary English for the merges: what a benchmark's or a smoke test's prompts are made of.
TEXT = """\
the of and to a in is it you that he was for on are with as his they be at one have this from or had by hot but some what there we
can out other were all your when up use word how said an each she which do their time if will way about many then them would write
like so these her long make thing see him two has look more day could go come did my sound no most number who over know water than
call first people may down side been now find any new work part take get place made live where after back little only round man year
came show every good me give our under name very through just form much great think say help low line before turn cause same mean
differ move right boy old too does tell sentence set three want air well also play small end put home read hand port large spell add
even land here must big high such follow act why ask men change went light kind off need house picture try us again animal point
mother world near build self earth father head stand own page should country found answer school grow study still learn plant cover
food sun four thought let keep eye never last door between city tree cross since hard start might story saw far sea draw left late
run don't while press close night real life few stop open seem together next white children begin got walk example ease paper often
always music those both mark book letter until mile river car feet care second group carry took rain eat room friend began idea fish
mountain north once base hear horse cut sure watch color face wood main enough plain girl usual young ready above ever red list though
feel talk bird soon body dog family direct pose leave song measure state product black short numeral class wind question happen
complete ship area half rock order fire south problem piece told knew pass farm top whole king size heard best hour better true during
hundred remember step early hold west ground interest reach fast five sing listen six table travel less morning ten simple several
vowel toward war lay against pattern slow center love person money serve appear road map science rule govern pull cold notice voice
The A In It You That He We What How Why When Where Who Which Can Could Please Write Tell Explain Describe List Give Show Hello Thanks
I am your assistant. You are a helpful assistant. What is the capital of France? How are you today? Please explain how this works.
Write a short story about a coyote who loves shopping. Count from 1 to 10: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10. What is 12 + 30? It is 42.
system user assistant model token tokens prompt answer question request response server card layer memory cache stream benchmark
{"name": "value", "items": [1, 2, 3], "ok": true, "none": null} def main(): return print(x) for i in range(100): import sys
"""


def special_ids(vocab: int) -> dict[str, int]:
    """Ids of SPECIAL_TOKENS in a vocabulary of `vocab` entries."""
    first = QWEN3_FIRST_SPECIAL if vocab >= QWEN3_FIRST_SPECIAL + len(SPECIAL_TOKENS) else vocab - len(SPECIAL_TOKENS)
    return {token: first + offset for offset, token in enumerate(SPECIAL_TOKENS)}


def build_tokenizer(vocab: int) -> str:
    """The text of a tokenizer.json with exactly `vocab` ids, the same on every run. PackageError when `vocab` is too
    small."""
    if vocab < MIN_VOCAB:
        raise PackageError(
            f"a vocabulary of {vocab} is too small for a byte-level tokenizer: it needs at least {MIN_VOCAB} entries"
        )
    special = special_ids(vocab)
    free = [number for number in range(vocab) if not special["<|endoftext|>"] <= number <= special["</think>"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens, merges = _trained(alphabet, limit=len(free))
    filler = _made_up_words(set(tokens))
    tokens += [next(filler) for _ in range(len(free) - len(tokens))]
    table = dict(zip(tokens, free, strict=True)) | special
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    document = json.loads(tokenizer.to_str())
    document["model"] |= {"vocab": dict(sorted(table.items(), key=lambda item: item[1])), "merges": merges}
    document["added_tokens"] = [_added(token, number, special["<|endoftext|>"]) for token, number in special.items()]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _trained(alphabet: list[str], limit: int) -> tuple[list[str], list[list[str]]]:
    """Tokens (bytes, then merged ones, at most `limit`) and the merges that make them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=limit, initial_alphabet=alphabet, special_tokens=[], show_progress=False)
    lines = [line for line in TEXT.splitlines() for line in (line, " " + line)]
    tokenizer.train_from_iterator(lines, trainer)
    merges = [list(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokens = dict.fromkeys(alphabet) | dict.fromkeys(left + right for left, right in merges)
    return list(tokens), merges


def _made_up_words(taken: set[str]) -> Iterator[str]:
    """Endless distinct words such as " bado", in the byte-level alphabet (where a space is written Ġ), none of them in
    `taken`."""
    syllables = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]
    for length in count(2):
        for number in range(len(syllables) ** length):
            parts = [syllables[number // len(syllables) ** place % len(syllables)] for place in range(length)]
            word = "Ġ" + "".join(parts)
            if word not in taken:
                yield word


def _added(token: str, number: int, first: int) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": token, **flags, "special": number - first < NUM_CONTROL}


def write_tokenizer(directory: Path, vocab: int) -> dict[str, int]:
    """Write tokenizer.json and tokenizer_config.json (ChatML template) into `directory`; returns the special tokens'
    ids."""
    (directory / "tokenizer.json").write_text(build_tokenizer(vocab), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return special_ids(vocab)
