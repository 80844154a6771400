"""Which tokenizer of a model directory belongs to its layers, and why: several packages carry two.

What is named wins (the configuration, the vendor's scripts); then what fits (sizes, ids, the names of layers and
folders). Where nothing tells, the choice is the person's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import PackageError
from ..files import read_json
from .package_config import TOKENIZER_KEYS, PackageConfig
from .package_tree import Tree, matches

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
TEXT_PATTERN = "*tokenizer*.txt"
COPY = "copy tokenizer.json and tokenizer_config.json of the original Hugging Face model into the directory"
MAX_SCRIPT = 1 << 18  # bytes of a script that are read


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the choice rests on. `names`: of the layers' folder and the package, nearest first; `prefix`: of the layer
    files; `embedding_bytes` and `rows` (None: unknown): of the embedding; `scripts`: the vendor's, beside it."""

    config: PackageConfig
    names: tuple[str, ...]
    prefix: str
    embedding_bytes: int
    rows: int | None
    scripts: tuple[Path, ...]


def tokenizer_candidates(tree: Tree, places: Iterable[Path], avoid: Iterable[Path] = ()) -> list[Path]:
    """The tokenizers of the first of the places that has any: directories of Hugging Face files and the vendor's .txt
    files. Hugging Face files in the place itself are its own; else it and its folders, else what lies one further down.
    `avoid`: directories of other builds."""
    avoided = set(avoid)
    for place in places:
        children = [child for child in tree.children(place) if child not in avoided]
        below = [inner for child in children for inner in tree.children(child) if inner not in avoided]
        for level in ([place], [place, *children], below):
            folders = [directory for directory in level if has_tokenizer(directory)]
            texts = [path for directory in level for path in tree.inside(directory, TEXT_PATTERN)]
            if folders or (texts and level != [place]):
                return folders + texts
    return []


def has_tokenizer(directory: Path) -> bool:
    """Whether the directory has the file that holds a Hugging Face tokenizer."""
    return any((directory / name).is_file() for name in TOKENIZER_FILES)


def outer_candidates(tree: Tree, avoid: Iterable[Path], evidence: Evidence) -> list[Path]:
    """The tokenizers in the directory above a folder of layers, which may hold other models too: those whose names say
    that they are tokenizers, or this model's."""
    avoided = set(avoid)
    level = [tree.root, *(child for child in tree.children(tree.root) if child not in avoided)]
    folders = [directory for directory in level if has_tokenizer(directory)]
    texts = [path for directory in level for path in tree.inside(directory, TEXT_PATTERN)]
    return [
        path for path in folders + texts
        if not contradicts(path, evidence.prefix)
        and (path == tree.root or "tokenizer" in path.name.lower() or _of_names([path], evidence))
    ]  # fmt: skip


def choose_tokenizer(candidates: list[Path], evidence: Evidence, root: Path) -> Path:
    """The directory of Hugging Face files, or the vendor's .txt file. PackageError: none, or nothing says which."""
    named = _named(evidence.config)
    if named is not None and named.is_dir():
        return named
    folders = [path for path in candidates if path.is_dir()]
    texts = [path for path in candidates if path not in folders]
    if named is not None:
        near = [path for path in folders if _goes_with(path, named) and not contradicts(path, evidence.prefix)]
        chosen = _narrow(near, evidence)
        return chosen[0] if len(chosen) == 1 else named
    chosen = _narrow(folders or texts, evidence)
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        name = evidence.config.text(*TOKENIZER_KEYS)
        why = f", and {name}, which {evidence.config.path} names, is missing" if name and "://" not in name else ""
        raise PackageError(f"{root} has no tokenizer (tokenizer.json, tokenizer.model or *_tokenizer.txt){why}: {COPY}")
    shown = ", ".join(_shown(path, root) for path in chosen[:5])
    raise PackageError(
        f"{root} has several tokenizers ({shown}) and nothing says which belongs to the model: keep one, or name it in"
        f" config.json as {TOKENIZER_KEYS[0]}"
    )


def _named(config: PackageConfig) -> Path | None:
    """What the configuration names, if it is here: a directory of Hugging Face files or a .txt file."""
    name = config.text(*TOKENIZER_KEYS)
    if name is None or "://" in name:
        return None
    path = config.resolve(name)
    if path.name in TOKENIZER_FILES and path.is_file():
        return path.parent
    if path.is_dir():
        return path if has_tokenizer(path) else None
    return path if path.is_file() and matches(path.name, "*.txt") else None


def _goes_with(folder: Path, named: Path) -> bool:
    """Whether Hugging Face files may be those of the .txt file that the configuration names: not if both names tell a
    family, and tell different ones."""
    mine, theirs = _family(_stem(folder)), _family(_stem(named))
    return not mine or not theirs or _same_family(mine, theirs)


def _narrow(candidates: list[Path], evidence: Evidence) -> list[Path]:
    """The candidates that the evidence leaves: each kind of it counts only where it tells some from others."""
    tests: list[Callable[[list[Path], Evidence], list[Path]]] = [
        _within_embedding, partial(_said_in, patterns=("*.sh", "*tokenizer*.py")), _script_names,
        partial(_said_in, patterns=("*.py",)), _same_sizes, _of_type, _of_names, _of_prefix, _not_another,
    ]  # fmt: skip
    for test in tests:
        if len(candidates) > 1:
            candidates = test(candidates, evidence) or candidates
    return candidates


def _within_embedding(candidates: list[Path], evidence: Evidence) -> list[Path]:
    """Those whose special tokens all lie in the embedding."""
    return [path for path in candidates if evidence.rows is None or _highest_id(path) < evidence.rows]


def _highest_id(path: Path) -> int:
    """The highest id of a tokenizer's special tokens; -1 where its files do not say."""
    if path.suffix.lower() == ".txt" and path.is_file():
        return max(_txt_special_ids(path), default=-1)
    decoder = _json(path / "tokenizer_config.json").get("added_tokens_decoder")
    ids = [int(key) for key in decoder if str(key).isdigit()] if isinstance(decoder, dict) else []
    added = [] if ids else _json(path / "tokenizer.json").get("added_tokens")
    if isinstance(added, list):
        ids += [entry["id"] for entry in added if isinstance(entry, dict) and isinstance(entry.get("id"), int)]
    return max(ids, default=-1)


def _txt_special_ids(path: Path) -> list[int]:
    """The ids on the third line of the vendor's text format."""
    with open(path, "rb") as file:
        lines = [file.readline(1 << 16) for _ in range(3)]
    return [int(word) for word in lines[2].split() if word.isdigit()] if lines[0].startswith(b"430 ") else []


def _said_in(candidates: list[Path], evidence: Evidence, patterns: tuple[str, ...]) -> list[Path]:
    """Those that the text of a script names as a path or a string."""
    texts = [script_text(path) for path in evidence.scripts if matches(path.name, *patterns)]
    return [path for path in candidates if any(_mentions(text, path.name) for text in texts)]


def _mentions(text: str, name: str) -> bool:
    """A plain word such as "tokenizer" counts only as a string or a part of a path."""
    if name.isalpha():
        return re.search(rf"[\"'/]{name}[\"'/]", text) is not None
    program = r"(?:_(?:uid|server|http|api))?\.py"  # the tokenizer's server, called after its folder
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?:{program})?(?![\w.-])", text) is not None


def _script_names(candidates: list[Path], evidence: Evidence) -> list[Path]:
    """Those that the vendor's tokenizer program is named after: qwen3_tokenizer_uid.py, deepseek-r1_tokenizer.py."""
    programs = [path.stem.lower() for path in evidence.scripts if matches(path.name, "*tokenizer*.py")]
    return [path for path in candidates if any(name.startswith(_base(path).lower()) for name in programs)]


def _same_sizes(candidates: list[Path], evidence: Evidence) -> list[Path]:
    """Those with a Hugging Face config.json beside them that describes an embedding of this size."""
    return [path for path in candidates if sidecar_shape(path, evidence.embedding_bytes) is not None]


def sidecar_shape(tokenizer: Path, embedding_bytes: int) -> tuple[int, int] | None:
    """(vocabulary, hidden size) as the original model's config.json beside the tokenizer says, if a bf16 embedding of
    that shape has so many bytes."""
    values = _json(tokenizer / "config.json") if tokenizer.is_dir() else {}
    vocab, hidden = values.get("vocab_size"), values.get("hidden_size")
    if not isinstance(vocab, int) or not isinstance(hidden, int):
        return None
    return (vocab, hidden) if 2 * vocab * hidden == embedding_bytes > 0 else None


def _of_type(candidates: list[Path], evidence: Evidence) -> list[Path]:
    return _begun_by(candidates, [evidence.config.text("tokenizer_type") or ""])


def _of_names(candidates: list[Path], evidence: Evidence) -> list[Path]:
    return _begun_by(candidates, [*evidence.names, evidence.config.text("model_name") or ""])


def _of_prefix(candidates: list[Path], evidence: Evidence) -> list[Path]:
    return _begun_by(candidates, [evidence.prefix])


def _begun_by(candidates: list[Path], names: Iterable[str]) -> list[Path]:
    """Those whose own name begins one of the names word by word: the longest such. "qwen3" begins "qwen3-4b-ax650"."""
    for name in names:
        words = _words(name.rpartition("/")[2])
        scores = {path: _common(_words(_stem(path)), words) for path in candidates}
        best = max(scores.values(), default=0.0)
        if best > 0:
            return [path for path, score in scores.items() if score == best]
    return []


def _common(stem: list[str], words: list[str]) -> float:
    """Words of `stem` if they begin `words`; less where a version is told less closely (qwen2 of qwen2.5)."""
    if not stem or len(stem) > len(words):
        return 0.0
    score = 0.0
    for mine, theirs in zip(stem, words, strict=False):
        if mine == theirs:
            score += 1
        elif mine.startswith(f"{theirs}.") or theirs.startswith(f"{mine}."):
            score += 0.5
        else:
            return 0.0
    return score


def _not_another(candidates: list[Path], evidence: Evidence) -> list[Path]:
    """Those whose names do not tell another family than the layers' do."""
    layers = _family(evidence.prefix)
    return [path for path in candidates if not (mine := _family(_stem(path))) or _same_family(mine, layers)]


def contradicts(tokenizer: Path, prefix: str) -> bool:
    """Whether names tell two generations of one family: qwen2.5_tokenizer for layers called qwen3_..."""
    mine, layers = _family(_stem(tokenizer)), _family(prefix)
    return mine is not None and layers is not None and mine[0] == layers[0] and not _same_family(mine, layers)


def _stem(path: Path) -> str:
    """What a tokenizer's name says of the model: "qwen2.5" of qwen2.5_tokenizer, nothing of tokenizer.txt."""
    return re.sub(r"[_. -]*tokenizers?[_. -]*", " ", _base(path).lower()).strip()


def _base(path: Path) -> str:
    return path.name[:-4] if path.name.lower().endswith(".txt") else path.name


def _words(name: str) -> list[str]:
    """Lower-case words; a version's parts stay together (qwen2_5 is qwen2.5, but not qwen3_4b)."""
    joined = re.sub(r"(?<=\d)_(?=\d+(?![a-z0-9]))", ".", name.lower())
    return [word for word in re.split(r"[^a-z0-9.]+", joined) if word]


def _family(name: str) -> tuple[str, str] | None:
    """Family and major version of a name: ("qwen", "2") of qwen2.5, ("gemma", "3") of gemma_3_270m."""
    found = re.match(r"([a-z]+)[^a-z0-9]*(\d*)", name.lower())
    return (found[1], found[2]) if found else None


def _same_family(one: tuple[str, str], other: tuple[str, str] | None) -> bool:
    return other is not None and one[0] == other[0] and (one[1] == other[1] or not one[1] or not other[1])


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def script_text(path: Path) -> str:
    """The beginning of a script; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_SCRIPT)
    except OSError:
        return ""


def _json(path: Path) -> dict[str, Any]:
    """A file that may tell something; it tells nothing where it is absent or not sound."""
    try:
        return read_json(path, {})
    except (PackageError, OSError):
        return {}
