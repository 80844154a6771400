"""Opens a model directory, published or simulated, and checks everything that can be checked before the card is
touched."""

from __future__ import annotations

import mmap
import os
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PackageError
from ..files import check_not_pointer, read_json
from .hf_checkpoint import token_ids, unsupported_attention
from .simulated_axmodel import SimMeta, is_simulated, read_axmodel

LAYER_RE = re.compile(r"(?P<name>.+)_p\d+_l(?P<layer>\d+)_together\.axmodel")
# of the median layer file: compiled layers of one model differ by far less, a cut download by more
SMALLEST_LAYER = 0.9
MAX_LAYERS = 1000  # no model has as many; keeps a damaged number from becoming as many paths
MAX_DEPTH = 2  # directories below the package in which files are looked for
AGAIN = "download the model again"


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What post_config.json asks for when a request does not say; None: not said. temperature 0 means greedy."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    penalty_window: int | None = None


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A model directory that has passed the checks. Paths are absolute; sizes in elements, None where only the card can
    say.

    `tokenizer_path` is the directory with tokenizer.json or tokenizer.model. `eos` and `bos` override the tokenizer's
    when given. `rows`, `chunk` and `max_positions` are hints (simulated packages have them); the truth about shapes
    comes from the loaded layers. `device_bytes` is what layers and head are expected to take of the card's memory: the
    files' sizes, or what a simulated file says."""

    directory: Path
    name: str
    layer_files: tuple[Path, ...]
    head_file: Path
    embed_file: Path
    vocab_size: int | None
    hidden_size: int | None
    tokenizer_path: Path
    tokenizer_type: str | None
    post_config: SamplingDefaults
    eos: tuple[int, ...]
    bos: int | None
    system_prompt: str | None
    enable_thinking: bool | None
    simulated: bool
    hollow: bool
    profile: str | None
    rows: int | None
    chunk: int | None
    max_positions: int | None
    device_bytes: int

    @property
    def num_layers(self) -> int:
        """Number of transformer layers."""
        return len(self.layer_files)

    def embedding(self, hidden: int) -> np.ndarray:
        """The embedding table, bf16 bits as uint16 [vocab, hidden], mapped read-only (never read as a whole).

        `hidden` is the width the layers take. PackageError when the file cannot be a table of that width.
        """
        size = self.embed_file.stat().st_size
        if self.hidden_size not in (None, hidden) or size % (2 * hidden):
            known = self.hidden_size or f"unknown and it has {size} bytes"
            raise PackageError(
                f"{self.embed_file} does not fit the layers, which take rows of {hidden}: its width is {known}; {AGAIN}"
            )
        with open(self.embed_file, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # a token needs one row: reading ahead around it cost a millisecond in the middle of a step
        mapped.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(mapped, dtype="<u2").reshape(size // (2 * hidden), hidden)


def open_package(directory: str | os.PathLike[str]) -> ModelPackage:
    """Open the model directory: by its config.json, or by file patterns where that is absent or empty.

    Raises PackageError, one sentence with the file's name and what to do: anything missing, cut short, a Git LFS
    pointer, inconsistent, or of a kind that is not supported."""
    root = Path(directory).absolute()
    if not root.is_dir():
        what = "is a file, not a model directory" if root.exists() else "does not exist"
        raise PackageError(f"{root} {what}: give the directory of a compiled model (the one with the .axmodel files)")
    try:
        return _open(root)
    except OSError as error:
        raise PackageError(
            f"{error.filename or root} cannot be read ({error.strerror}): correct its name or permissions"
        ) from None


def _open(root: Path) -> ModelPackage:
    config = _read_config(root)
    _refuse_unsupported(config, root / "config.json")
    layers = _layer_files(root, config)
    head = _one_file(root, config, "filename_post_axmodel", "*_post.axmodel", "head (post model)")
    embed = _one_file(root, config, "filename_tokens_embed", "*.bfloat16.bin", "embedding")
    _check_files([*layers, head, embed])
    package = ModelPackage(
        directory=root,
        name=str(config.get("model_name") or root.name),
        layer_files=layers,
        head_file=head,
        embed_file=embed,
        vocab_size=_size(config, "tokens_embed_num", root),
        hidden_size=_size(config, "tokens_embed_size", root),
        tokenizer_path=_tokenizer(root, config),
        tokenizer_type=_text(config, "tokenizer_type"),
        post_config=_sampling(root, config),
        eos=token_ids(config.get("eos")),
        bos=next(iter(token_ids(config.get("bos"))), None),
        system_prompt=_text(config, "system_prompt"),
        enable_thinking=config["enable_thinking"] if isinstance(config.get("enable_thinking"), bool) else None,
        **_simulation(layers, head, config),
    )
    package = _with_meta(package)
    return _with_sizes(package)


def _read_config(root: Path) -> dict[str, Any]:
    path = root / "config.json"
    if path.is_file() and not path.read_bytes().strip():
        return {}
    config = read_json(path, {})
    if next(root.glob("*.safetensors"), None) and not _find(root, "*.axmodel"):
        raise PackageError(
            f"{root} is a Hugging Face checkpoint, not a compiled model: run `axpress convert {root} OUT_DIR` first"
        )
    return config


def _refuse_unsupported(config: Mapping[str, Any], where: Path) -> None:
    kind = unsupported_attention(config)
    if isinstance(config.get("text_config"), dict):
        kind = kind or unsupported_attention(config["text_config"])
    tokenizer = str(config.get("tokenizer_type", ""))
    plain = re.sub(r"[^a-z0-9]", "", f"{tokenizer} {config.get('model_name', '')}".lower())
    if tokenizer.upper().endswith("VL") or any(re.search(r"vision|image|vit_|vpm", key) for key in config):
        kind = kind or f"a model with vision inputs ({tokenizer or 'vision keys in its configuration'})"
    if "qwen35" in plain or "qwen3next" in plain:
        kind = kind or f"a hybrid model with linear attention ({tokenizer or config.get('model_name')})"
    if "gemma" in plain:
        kind = (
            kind
            or f"a model with sliding-window layers and shared keys and values "
            f"({tokenizer or config.get('model_name')})"
        )
    if kind:
        raise PackageError(
            f"{where} describes {kind}, which is not supported yet: use a plain Qwen2.5, Qwen3 or Llama-type text model"
        )


def _find(root: Path, pattern: str) -> list[Path]:
    """Files that match `pattern` in `root` or up to MAX_DEPTH directories below, nearest first, then by name."""
    found = [
        path for depth in range(MAX_DEPTH + 1) for path in sorted(root.glob("*/" * depth + pattern)) if path.is_file()
    ]
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]


def _resolve(root: Path, name: str) -> Path:
    """The file or directory that a configuration calls `name`: relative to the package, or beside config.json whatever
    folder it names."""
    given = root / name
    beside = root / Path(name).name
    return beside if not given.exists() and beside.exists() else given


def _layer_files(root: Path, config: Mapping[str, Any]) -> tuple[Path, ...]:
    template = _text(config, "template_filename_axmodel")
    if template is None:
        return _layers_by_pattern(root)
    count = _size(config, "axmodel_num", root)
    if count is None or count > MAX_LAYERS or template.count("%d") != 1:
        raise PackageError(
            f"{root / 'config.json'} must give axmodel_num and a template_filename_axmodel with one %d in it: {AGAIN}"
        )
    files = tuple(_resolve(root, template.replace("%d", str(layer))) for layer in range(count))
    _check_numbering({layer: path for layer, path in enumerate(files) if path.is_file()}, count, files[0])
    return files


def _layers_by_pattern(root: Path) -> tuple[Path, ...]:
    models: dict[tuple[Path, str], dict[int, Path]] = {}
    for path in _find(root, "*.axmodel"):
        if match := LAYER_RE.fullmatch(path.name):
            models.setdefault((path.parent, match["name"]), {})[int(match["layer"])] = path
    if not models:
        raise PackageError(
            f"{root} is not a model directory: there is no ..._l0_together.axmodel in it; give the directory that"
            " has one"
        )
    if len(models) > 1:
        names = _some(sorted(str((folder / name).relative_to(root)) for folder, name in models))
        raise PackageError(
            f"{root} holds several models ({names}) and no config.json that picks one: give the directory of one of"
            " them"
        )
    layers = next(iter(models.values()))
    count = max(layers) + 1
    _check_numbering(layers, count, next(iter(layers.values())))
    return tuple(layers[layer] for layer in range(count))


def _some(names: list[str], most: int = 5) -> str:
    """The names, or the first of them and how many there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _check_numbering(layers: Mapping[int, Path], count: int, example: Path) -> None:
    missing = [layer for layer in range(count) if layer not in layers]
    if missing:
        name = re.sub(r"_l\d+_", f"_l{missing[0]}_", example.name)
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise PackageError(f"{example.parent / name} is missing: layer {missing[0]} of {count}{more}; {AGAIN}")


def _one_file(root: Path, config: Mapping[str, Any], key: str, pattern: str, what: str) -> Path:
    name = _text(config, key)
    if name is not None:
        path = _resolve(root, name)
        if not path.is_file():
            raise PackageError(f"{path} is missing: config.json names it as the model's {what}; {AGAIN}")
        return path
    found = _find(root, pattern)
    if not found:
        raise PackageError(f"{root} has no {pattern}: the model's {what} is missing; {AGAIN}")
    if len(found) > 1:
        names = _some([path.name for path in found])
        raise PackageError(
            f"{root} has several files that could be the {what} ({names}): keep one, or name it in config.json as {key}"
        )
    return found[0]


def _check_files(files: list[Path]) -> None:
    """No pointers and nothing empty; `files` are the layers, the head and the embedding."""
    for path in files:
        check_not_pointer(path)
        if path.stat().st_size == 0:
            raise PackageError(f"{path} is empty: {AGAIN}")
    layers = files[:-2]
    middle = statistics.median(path.stat().st_size for path in layers)
    for path in layers:
        if path.stat().st_size < SMALLEST_LAYER * middle and not is_simulated(path):
            size = path.stat().st_size
            raise PackageError(
                f"{path} has {size} bytes, the model's other layers about {middle:.0f}: it was cut short, {AGAIN}"
            )


def _tokenizer(root: Path, config: Mapping[str, Any]) -> Path:
    """The directory that holds tokenizer.json or tokenizer.model."""
    candidates: list[Path] = []
    if (name := _text(config, "url_tokenizer_model")) is not None and "://" not in name:
        path = _resolve(root, name)
        candidates += [path / "tokenizer.json", path / "tokenizer.model"] if path.is_dir() else [path]
    candidates += [*_find(root, "tokenizer.json"), *_find(root, "tokenizer.model")]
    for path in candidates:
        if path.name in ("tokenizer.json", "tokenizer.model") and path.is_file():
            check_not_pointer(path)
            return path.parent
    original = "copy tokenizer.json and tokenizer_config.json of the original Hugging Face model into the directory"
    if vendor := [*_find(root, "*_tokenizer.txt"), *_find(root, "*tokenizer*.txt")]:
        raise PackageError(
            f"{vendor[0]} is a tokenizer in the vendor's own text format, which axpress does not read: {original}"
        )
    raise PackageError(f"{root} has no tokenizer (tokenizer.json or tokenizer.model): {original}")


def _sampling(root: Path, config: Mapping[str, Any]) -> SamplingDefaults:
    named = _text(config, "post_config_path")
    path = _resolve(root, named or "post_config.json")
    if named is not None and not path.is_file():
        raise PackageError(f"{path} is missing: config.json names it as post_config_path; {AGAIN}")
    values = read_json(path, {}) if path.is_file() and path.read_bytes().strip() else {}
    if not values:
        return SamplingDefaults()
    top_p = _number(values, "top_p", path) if values.get("enable_top_p_sampling") else None
    top_k = _number(values, "top_k", path) if values.get("enable_top_k_sampling") else None
    penalised = bool(values.get("enable_repetition_penalty"))
    temperature = _number(values, "temperature", path) if values.get("enable_temperature") else None
    if top_p is None and top_k is None:
        temperature = 0.0  # the vendor's runner takes the best token then, whatever the temperature
    window = _number(values, "penalty_window", path) if penalised and "penalty_window" in values else None
    return SamplingDefaults(
        temperature=temperature,
        top_p=top_p,
        top_k=None if top_k is None else int(top_k),
        repetition_penalty=_number(values, "repetition_penalty", path) if penalised else None,
        penalty_window=None if window is None else int(window),
    )


def _number(values: Mapping[str, Any], key: str, path: Path) -> float:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise PackageError(f"{path} has {key} = {value!r}, which is not a usable number: correct it")
    return float(value)


def _text(config: Mapping[str, Any], key: str) -> str | None:
    value = config.get(key)
    return value if isinstance(value, str) and value else None


def _size(config: Mapping[str, Any], key: str, root: Path) -> int | None:
    value = config.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise PackageError(f"{root / 'config.json'} has {key} = {value!r}, which is not a positive number: {AGAIN}")
    return value


def _simulation(layers: tuple[Path, ...], head: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ModelPackage that simulated packages fill; for others, their neutral values."""
    own = config.get("axpress")
    own = own if isinstance(own, dict) else {}
    # then all must be: a damaged one is named when it is read
    simulated = any(is_simulated(path) for path in (*layers, head))
    return {
        "simulated": simulated,
        "hollow": simulated and bool(own.get("hollow")),
        "profile": _text(own, "profile"),
        "rows": None,
        "chunk": None,
        "max_positions": _size(own, "max_positions", layers[0].parent),
        "device_bytes": sum(path.stat().st_size for path in (*layers, head)),
    }


def _with_meta(package: ModelPackage) -> ModelPackage:
    """Check the metadata of a simulated package's files against each other, and take sizes and costs from it."""
    if not package.simulated:
        return package
    metas = [read_axmodel(path)[0] for path in (*package.layer_files, package.head_file)]
    *layers, head = metas
    if head.layer is not None:
        raise PackageError(f"{package.head_file} is a layer, not a head: {AGAIN}")
    for number, (meta, path) in enumerate(zip(layers, package.layer_files, strict=True)):
        if meta.layer != number or meta.layers not in (0, len(layers)):
            raise PackageError(
                f"{path} holds layer {meta.layer} of {meta.layers}, its place is layer {number} of {len(layers)}:"
                f" {AGAIN}"
            )
        if difference := _difference(meta, layers[0]):
            raise PackageError(f"{path} does not belong to {package.layer_files[0].name}: its {difference}; {AGAIN}")
    if head.hidden != layers[0].hidden:
        raise PackageError(
            f"{package.head_file} takes rows of {head.hidden}, the layers give {layers[0].hidden}: {AGAIN}"
        )
    sizes = [
        meta.cmm_bytes or path.stat().st_size
        for meta, path in zip(metas, (*package.layer_files, package.head_file), strict=True)
    ]
    return replace(
        package,
        hidden_size=_agree(package, "tokens_embed_size", package.hidden_size, head.hidden),
        vocab_size=package.vocab_size or head.vocab,
        hollow=layers[0].hollow,
        profile=layers[0].profile or package.profile,
        rows=layers[0].decode_rows[-1],
        chunk=layers[0].chunk or None,
        device_bytes=sum(sizes),
    )


def _difference(meta: SimMeta, first: SimMeta) -> str | None:
    for field in fields(SimMeta):
        mine, other = getattr(meta, field.name), getattr(first, field.name)
        if (
            field.name not in ("layer", "cmm_bytes", "compiler")
            and not field.name.startswith("cost_")
            and mine != other
        ):
            return f"{field.name} is {mine}, not {other}"
    return None


def _agree(package: ModelPackage, key: str, configured: int | None, actual: int) -> int:
    if configured not in (None, actual):
        raise PackageError(
            f"{package.directory / 'config.json'} says {key} {configured}, the layers take {actual}: {AGAIN}"
        )
    return actual


def _with_sizes(package: ModelPackage) -> ModelPackage:
    """Check the embedding file's size, and derive the one of vocabulary and hidden size that is not known."""
    size, vocab, hidden = package.embed_file.stat().st_size, package.vocab_size, package.hidden_size
    if vocab and hidden and size != vocab * hidden * 2:
        raise PackageError(
            f"{package.embed_file} has {size} bytes, a vocabulary of {vocab} with rows of {hidden} needs"
            f" {vocab * hidden * 2}: {AGAIN}"
        )
    known = vocab or hidden
    if known and size % (2 * known):
        raise PackageError(
            f"{package.embed_file} has {size} bytes, which is no multiple of {2 * known}: it was cut short, {AGAIN}"
        )
    if known and not (vocab and hidden):
        vocab, hidden = vocab or size // (2 * known), hidden or size // (2 * known)
    return replace(package, vocab_size=vocab, hidden_size=hidden)
