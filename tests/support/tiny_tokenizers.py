"""Small tokenizers of the kinds that models come with, trained here, with chat templates of our own in the same
conventions."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "Hello, world! How are you today? The quick brown fox jumps over the lazy dog's tail, and we're all fine.",
    (
        "a < b and b > c | x = [1, 22, 333]; if (x < 10) { return 'user' + \"assistant\"; }\n\tprint(system)\r\n\n "
        " indented   text  "
    ),
    "你好，世界。今天天气很好。 こんにちは世界 안녕하세요 héllo naïve café Ünïcödé Привет мир 👋🏽 🎉 e\u0301",
    "<p>html & tags</p> <think and tool> [INST] im_end im_start eot_id user_end </s> <s> <0x0A>",
] * 20
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_SPLIT = QWEN_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

CHATML = """
{%- macro shown(content) %}
    {%- if content is string %}{{- content }}
    {%- else %}{%- for part in content %}{{- part.text }}{%- endfor %}{%- endif %}
{%- endmacro %}
{%- if tools %}
    {{- '<|im_start|>system\\nYou may call functions within <tool_call></tool_call>:' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant', 'tool'] %}
        {{- raise_exception('Unexpected role: ' + message.role) }}
    {%- endif %}
    {%- set content = shown(message.content or '') %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + content + '\\n</tool_response><|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set reasoning = message.reasoning_content or '' %}
        {%- if not reasoning and '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if reasoning and loop.last %}{{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' }}{%- endif %}
        {%- generation %}{{- content }}{%- endgeneration %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' ~ call.function.name ~ '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {%- if content.startswith('/skip') %}{%- continue %}{%- endif %}
        {{- '<|im_start|>' + message.role + '\\n' + content.replace('/no_think', '') + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
HEADERS = """{{ bos_token }}{% for message in messages %}
{% set text = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' %}
{{ text }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""
ROLE_TOKENS = """{% for message in messages %}{{ '<|' + message.role + '|>' + '\\n' + message.content + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""
INST = """{{ bos_token }}{% for message in messages %}
{%- if message.role == 'assistant' %}{{ ' ' + message.content + eos_token }}
{%- else %}{{ '[INST] ' + message.content + ' [/INST]' }}{% endif %}
{%- endfor %}"""

QWEN_TOKENS = (
    ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
)
LLAMA_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), ()
PHI_TOKENS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), ()
BYTE_TOKENS = tuple(f"<0x{b:02X}>" for b in range(256))


def _save(directory: Path, tokenizer: Tokenizer, config: dict[str, Any]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | config)
    )
    return directory


def _add(tokenizer: Tokenizer, tokens: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in tokens[0]])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in tokens[1]])


def _byte_level(split: str, nfc: bool, ignore_merges: bool, words: str = "") -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [*CORPUS, *[words] * 20], trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def qwen(directory: Path, words: str = "") -> Path:
    """Byte-level BPE with NFC, ChatML, reasoning and tools, in Qwen3's manner. `words` are among those it learns."""
    tokenizer = _byte_level(QWEN_SPLIT, nfc=True, ignore_merges=False, words=words)
    _add(tokenizer, QWEN_TOKENS)
    return _save(
        directory, tokenizer, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": CHATML}
    )


def llama3(directory: Path) -> Path:
    """Byte-level BPE with ignore_merges and a post-processor that adds the begin token, in Llama 3's manner."""
    tokenizer = _byte_level(LLAMA_SPLIT, nfc=False, ignore_merges=True)
    _add(tokenizer, LLAMA_TOKENS)
    bos = "<|begin_of_text|>"
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return _save(
        directory,
        tokenizer,
        {"bos_token": bos, "eos_token": {"__type": "AddedToken", "content": "<|eot_id|>"}, "chat_template": HEADERS},
    )


def phi(directory: Path) -> Path:
    """A template that builds its control tokens from the role; tokens that swallow the blanks after them."""
    tokenizer = _byte_level(QWEN_SPLIT, nfc=False, ignore_merges=False)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True, rstrip=True) for t in PHI_TOKENS[0]])
    tokenizer.add_tokens([AddedToken("   ", normalized=False), AddedToken("\n\n", normalized=False)])
    return _save(
        directory, tokenizer, {"eos_token": "<|end|>", "chat_template": [{"name": "default", "template": ROLE_TOKENS}]}
    )


def metaspace(directory: Path, prepend: str = "normalizer") -> Path:
    """BPE with byte fallback in Llama 2's manner. `prepend`: "normalizer", or a scheme of the Metaspace
    pre-tokenizer."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    control = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=control + list(BYTE_TOKENS), show_progress=False)
    tokenizer.train_from_iterator([line for line in CORPUS if "你" not in line], trainer)
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = [e for e in spec["added_tokens"] if e["content"] in control]
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tail = [decoders.ByteFallback(), decoders.Fuse()]
    if prepend == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = None  # type: ignore[assignment]
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), *tail, decoders.Strip(" ", 1, 0)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
        tokenizer.decoder = decoders.Sequence([decoders.Metaspace(prepend_scheme=prepend), *tail])
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": INST}
    return _save(directory, tokenizer, config)


def unigram(directory: Path) -> Path:
    """A lattice tokenizer whose vocabulary spells its control tokens."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _save(
        directory, tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": INST}
    )


def sentence_piece(directory: Path) -> Path:
    """A tokenizer.model with byte fallback, control symbols and user-defined symbols."""
    directory.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(line for text in CORPUS for line in text.splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=560,
        byte_fallback=True,
        character_coverage=0.98,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        control_symbols=["<turn>"],
        user_defined_symbols=["[INST]", "[/INST]", "\u2581\u2581\u2581"],
        minloglevel=2,
    )
    (directory / "tokenizer.model").write_bytes(model.getvalue())
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": INST, "legacy": False}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory
