"""What a package's own configuration says: the runner's config.json, or StackFlow's mode_<name>.json.

Names of keys are the vendor's; a Hugging Face config.json in its place is kept too, for what it says of the model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import PackageError
from ..files import read_json
from .package_tree import Tree

AGAIN = "download the model again"
TEMPLATE = "template_filename_axmodel"
TOKENIZER_KEYS = ("url_tokenizer_model", "filename_tokenizer_model")
RUNNER_KEYS = (
    *(TEMPLATE, "axmodel_num", "filename_post_axmodel", "filename_tokens_embed", "tokens_embed_num"),
    *("tokens_embed_size", "tokenizer_type", "model_name", *TOKENIZER_KEYS),
)
# of one build: not those of another build in a directory below
BUILD_KEYS = (
    *(TEMPLATE, "axmodel_num", "filename_post_axmodel", "filename_tokens_embed", "tokens_embed_num"),
    *("tokens_embed_size", "model_name", "axpress"),
)
NO = (None, False, 0, "", "0", "none", "false", "no", "off", "null")


@dataclass(frozen=True, slots=True)
class PackageConfig:
    """`values` by key, empty if the package has no configuration; `path`: the file they are from, or would be in."""

    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    directory: Path | None = None
    """That file names are relative to; None: the file's own."""

    @property
    def base(self) -> Path:
        return self.directory or self.path.parent

    @property
    def is_runner(self) -> bool:
        """Whether the runner wrote it, not Hugging Face's library."""
        return any(key in self.values for key in RUNNER_KEYS)

    def text(self, *keys: str) -> str | None:
        """The first of the keys that has a text; None: none of them."""
        found = (self.values.get(key) for key in keys)
        return next((value for value in found if isinstance(value, str) and value), None)

    def size(self, key: str) -> int | None:
        """A positive number. PackageError if it is something else."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise PackageError(f"{self.path} has {key} = {value!r}, which is not a positive number: {AGAIN}")
        return value

    def asks(self, *keys: str) -> str | None:
        """The first key whose value is anything but a no (absent, false, 0, empty, "none")."""
        return next((key for key in keys if key in self.values and not is_no(self.values[key])), None)

    def resolve(self, name: str) -> Path:
        """The file or directory that the configuration calls `name`: where it says, or beside the configuration, or one
        of these in other letters; the first of these where none exists."""
        name = name.replace("\\", "/")
        places = [self.base / name, self.base / Path(name).name]
        existing = [path for path in places if path.exists()]
        return next(iter(existing or [path for place in places if (path := other_case(place))]), places[0])

    def without_build(self) -> PackageConfig:
        """What holds for other builds of the same model too."""
        kept = {key: value for key, value in self.values.items() if key not in BUILD_KEYS}
        return PackageConfig(self.path, kept, self.directory)


def is_no(value: Any) -> bool:
    """Whether a value switches off what its key names."""
    return value in ([], {}) or (value.lower() if isinstance(value, str) else value) in NO


def parse_devices(said: object, where: str) -> tuple[int, ...]:
    """Indexes of cards, as `devices` of a configuration or AXLLM_DEVICES says them: [0, 1] or "0,1". PackageError."""
    items = said.strip("[] ").split(",") if isinstance(said, str) else said
    try:
        if not isinstance(items, list):
            raise ValueError
        indexes = tuple(int(item) for item in items if not isinstance(item, bool | float))
        if len(indexes) != len(items) or len(set(indexes)) != len(indexes) or any(index < 0 for index in indexes):
            raise ValueError
    except (TypeError, ValueError):
        raise PackageError(f"{where} {said!r} is no list of different cards, such as [0, 1]") from None
    return indexes


def other_case(path: Path) -> Path | None:
    """The one file beside `path` whose name differs in the case of its letters only, or None."""
    if not path.parent.is_dir():
        return None
    found = [other for other in path.parent.iterdir() if other.name.lower() == path.name.lower()]
    return found[0] if len(found) == 1 else None


def read_config(tree: Tree, directory: Path) -> PackageConfig:
    """The configuration of the package in `directory` of the tree, empty if it has none. PackageError: unreadable."""
    path = directory / "config.json"
    config = PackageConfig(path, _object(path))
    if config.is_runner:
        return config
    modes = [mode for file in _mode_files(tree, directory) if (mode := _mode(file, directory))]
    named = [mode for mode in modes if str(mode.values["mode"]).lower() == directory.name.lower()]
    chosen = named or modes
    return chosen[0] if len(chosen) == 1 else config


def _object(path: Path) -> dict[str, Any]:
    """A JSON file that may be absent or empty."""
    if not path.is_file() or path.stat().st_size == 0 or (path.stat().st_size < 64 and not path.read_bytes().strip()):
        return {}
    return read_json(path)


def _mode_files(tree: Tree, directory: Path) -> list[Path]:
    """StackFlow's mode files: beside the layers, or in the folder of all models' modes beside the package."""
    own = tree.inside(directory, "mode_*.json", f"{re.sub(r'[][*?]', '?', directory.name)}.json")
    named = f"mode_{directory.name}.json"
    outer = [directory.parent / "models" / named, directory.parent / named]
    return own + [path for path in outer if path.is_file()]


def _mode(path: Path, directory: Path) -> PackageConfig | None:
    values = _object(path)
    inner = values.get("mode_param")
    if not isinstance(inner, dict):
        return None
    mode = values.get("mode") if isinstance(values.get("mode"), str) else path.stem.removeprefix("mode_")
    outer: dict[str, Any] = {key: values[key] for key in ("type", "homepage") if key in values}
    return PackageConfig(path, {"model_name": mode} | outer | inner | {"mode": mode}, directory)
