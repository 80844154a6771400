"""`axpress check`: everything about a model directory that can be known without a card."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from axpress.core.device.card_memory import CMM_FLOOR
from axpress.core.device.model_loader import open_tokenizer
from axpress.core.errors import PackageError
from axpress.core.model_files import ModelPackage, inspect_package
from axpress.core.model_files.layer_blocks import MOST_CARDS, block_bytes
from axpress.core.model_files.model_package import package_family
from axpress.core.model_files.package_survey import Survey
from axpress.core.model_files.rerank_models import FLAG
from axpress.core.model_files.simulated_axmodel import read_axmodel, read_layers
from axpress.core.tokenizer.families import families_of
from axpress.core.tokenizer.vendor_tokenizer import is_vendor_file

MIB = 1 << 20
CARD_MIB = 7022  # free on an AX650N card with nothing on it, as published
SMALLEST_LAYER = 1 << 16  # bytes: a compiled layer has more


def check(directory: Path, as_json: bool) -> int:
    """Prints the report on `directory`; 0 if it opens, 1 if not."""
    report = report_on(directory)
    print(json.dumps(report, indent=2, ensure_ascii=False) if as_json else render(report))
    return 0 if report["opens"] else 1


def report_on(directory: Path) -> dict[str, Any]:
    """What `axpress check --json` prints. Paths are relative to `directory`; what is not known is null.

    `opens` says what `axpress serve` would say before it touches a card: a tokenizer that does not load is a reason,
    too. Of a tree of placeholders only names and sizes can be judged, and the content of its tokenizer is not."""
    package, found = inspect_package(directory)
    refused, odd = _tokenizer_trouble(package) if package else ([], [])
    problems, warnings = [*found.problems, *refused], [*found.warnings, *odd]
    loads = not any("the tokenizer does not load" in text for text in refused + odd)
    sampling = asdict(package.post_config if package else found.sampling)
    return {
        "opens": not problems,
        "reason": problems[0] if problems else None,
        "name": package.name if package else found.name,
        "aliases": list(package.aliases if package else found.aliases),
        "layers_dir": _relative(found.build.directory if found.build else None, found.root),
        "tokenizer": _relative(found.tokenizer, found.root),
        "num_layers": found.build.count if found.build else None,
        "family": package.family if package else package_family(found),
        "sampling": {**sampling, "greedy": found.sampling.greedy},
        "tokenizer_type": found.config.text("tokenizer_type"),
        "embeds": package.embeds if package else found.embeds,
        "reranks": package.reranks if package else found.config.asks(FLAG) is not None,
        "head": _relative(found.head, found.root),
        "embedding": _relative(found.embedding_path, found.root),
        "shapes": _shapes(package, found),
        "memory": _memory(package, found),
        "simulated": package.simulated if package else None,
        "tokenizer_loads": loads if package else None,
        "further_reasons": problems[1:],
        "warnings": warnings,
    }


def _relative(path: Path | None, root: Path) -> str | None:
    return None if path is None else os.path.relpath(path, root)


def _shapes(package: ModelPackage | None, found: Survey) -> dict[str, Any]:
    """Sizes in elements. Only a simulated package's files tell all of them: for others the card does, once loaded."""
    embedding = package.embedding_file if package else found.embedding
    shapes: dict[str, Any] = {
        "hidden": embedding.hidden if embedding else None,
        "vocab": embedding.rows if embedding else None,
        "embedding_dtype": embedding.dtype if embedding else None,
        "chunk": found.build.chunk if found.build else None,
        **dict.fromkeys(("kv_dim", "rows", "decode_rows", "history", "head_vocab")),
    }
    if package is not None and package.simulated:
        layer, head = read_layers(package.layer_files), read_axmodel(package.head_file)[0]
        shapes |= {
            "chunk": layer.chunk or None,
            "kv_dim": layer.kv_heads * layer.head_dim,
            "rows": layer.decode_rows[-1],
            "decode_rows": list(layer.decode_rows),
            "history": list(layer.history),
            "head_vocab": head.vocab,
        }
    return shapes


def _memory(package: ModelPackage | None, found: Survey) -> dict[str, int | None]:
    """Bytes: what layers and head take of the card at least, and what the embedding maps of the host's."""
    return {
        "card_bytes": package.device_bytes if package else None,
        "cards": _cards_needed(package) if package else None,
        "embedding_bytes": found.embedding.num_bytes if found.embedding else None,
    }


def _cards_needed(package: ModelPackage) -> int | None:
    """The least number of cards that its layers have to be split over, and what it takes on each fits; None: no such
    number."""
    most = (CARD_MIB << 20) - CMM_FLOOR
    numbers = range(1, 1 + min(MOST_CARDS, package.num_layers))
    return next((n for n in numbers if max(block_bytes(package, n)) <= most), None)


def _tokenizer_trouble(package: ModelPackage) -> tuple[list[str], list[str]]:
    """What keeps the package's tokenizer from being opened, and what is odd about it."""
    path, kind = package.tokenizer_path, package.tokenizer_type
    try:
        if kind is not None and is_vendor_file(path):
            families_of(path, kind)
    except PackageError as error:
        return [f"the tokenizer does not load: {error}"], []
    try:
        text = open_tokenizer(package)
    except PackageError as error:
        said = f"the tokenizer does not load: {error}"
        if _is_placeholder(package):
            return [], [f"{package.layer_files[0]} is a placeholder without content, so only names count here; {said}"]
        return [said], []
    if package.vocab_size and text.vocab_size > package.vocab_size:
        return [], [f"the tokenizer has {text.vocab_size} tokens, the embedding only {package.vocab_size} rows"]
    return [], []


def _is_placeholder(package: ModelPackage) -> bool:
    """Whether the first layer cannot be a compiled one: too small, or zeros where a file's header would be."""
    if package.simulated:
        return False
    with open(package.layer_files[0], "rb") as file:
        start = file.read(SMALLEST_LAYER)
    return len(start) < SMALLEST_LAYER or not any(start)


def _ladder(value: Any) -> Any:
    """A long list by its ends."""
    if not isinstance(value, list) or len(value) <= 16:
        return value
    return f"[{value[0]}, {value[1]}, {value[2]} ... {value[-1]}] ({len(value)})"


def render(report: dict[str, Any]) -> str:
    """The report for a person."""
    shapes, memory, sampling = report["shapes"], report["memory"], report["sampling"]
    said = {
        name: sampling[name] for name in sampling if name not in ("sources", "greedy") and sampling[name] is not None
    }
    known = {name: _ladder(value) for name, value in shapes.items() if value is not None}
    rows = [
        ("opens", "yes" if report["opens"] else f"no: {report['reason']}"),
        ("name", report["name"]),
        ("answers to", ", ".join(report["aliases"])),
        ("layers", f"{report['num_layers']} in {report['layers_dir']}" if report["layers_dir"] else None),
        ("head", report["head"]),
        ("embedding", report["embedding"]),
        ("tokenizer", report["tokenizer"]),
        ("family", report["family"]),
        ("kind", _kind(report)),
        ("shapes", ", ".join(f"{name} {value}" for name, value in known.items()) if report["layers_dir"] else None),
        ("sampling", _sampling(said, sampling) if report["opens"] else None),
        ("card memory", _card_memory(memory)),
    ]
    lines = [f"{what + ':':<13}{value}" for what, value in rows if value]
    lines += [f"{'also:':<13}{text}" for text in report["further_reasons"]]
    return "\n".join(lines + [f"{'warning:':<13}{text}" for text in report["warnings"]])


def _kind(report: dict[str, Any]) -> str | None:
    if report["embeds"]:
        return "an embedding model: it generates no text"
    return "a reranker: it ranks documents, and generates text, too" if report["reranks"] else None


def _card_memory(memory: dict[str, int | None]) -> str | None:
    if not memory["card_bytes"]:
        return None
    text, cards = f"at least {memory['card_bytes'] / MIB:.0f} MiB", memory["cards"]
    if cards == 1:
        return text
    if cards is None:
        return f"{text}: more than {MOST_CARDS} cards of {CARD_MIB} MiB have, whatever of it is on each"
    names = ",".join(map(str, range(cards)))
    return f"{text}, a card has {CARD_MIB} MiB: it needs {cards} cards (`axpress serve --split {names}`)"


def _sampling(said: dict[str, Any], sampling: dict[str, Any]) -> str:
    values = ", ".join(f"{name} {value:g} ({sampling['sources'].get(name)})" for name, value in said.items())
    greedy = "; greedy unless a request asks otherwise" if sampling["greedy"] else ""
    return f"{values}{greedy}" if values else "nothing said: what requests say, or the model's plain distribution"
