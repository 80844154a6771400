"""What a package asks for where a request does not say how to sample: post_config.json as the vendor's program applies
it, and where that is silent the generation_config.json beside a Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import PackageError
from ..files import read_json
from .package_config import AGAIN, PackageConfig

SWITCHES: dict[
    str, dict[str, float | int]
] = {  # of post_config.json: the values they switch, and what the vendor's program takes where one is missing
    "enable_temperature": {"temperature": 1.0},
    "enable_top_p_sampling": {"top_p": 1.0},
    "enable_top_k_sampling": {"top_k": 1},
    "enable_repetition_penalty": {"repetition_penalty": 1.0, "penalty_window": 20},
}
WITHOUT_SWITCH = ("frequency_penalty", "presence_penalty")  # on when not 0
WHOLE_NUMBERS = ("top_k", "penalty_window")
WHOLE_CONTEXT = 0  # penalty_window of Hugging Face's penalty, which looks at every token


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """None: not said, or switched off. temperature 0, as top_k 1, means greedy. `sources`: the file that decided each
    value, also one that switched it off."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    penalty_window: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0 or self.top_k == 1

    def said(self) -> dict[str, float | int]:
        """The values that are not None, by the names that requests use."""
        names = [item.name for item in fields(self) if item.name != "sources"]
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def read_sampling(post_file: Path | None, config: PackageConfig, generation_file: Path | None) -> SamplingDefaults:
    """`post_file` and `generation_file`: None if there is none. A configuration of StackFlow holds the keys itself.
    PackageError: a value that is no usable number."""
    values: Mapping[str, Any] = _values(post_file)
    if post_file is None or not values:
        post_file, values = config.path, config.values
    made = _switched(values, post_file)
    sources = dict.fromkeys(made, post_file.name)
    generation = _generation(generation_file)
    silent = {name: value for name, value in generation.items() if name not in made}
    if generation_file is not None:
        sources |= dict.fromkeys(silent, f"{generation_file.parent.name}/{generation_file.name}")
    made |= silent
    decided = any(switch in values for switch in SWITCHES) and "temperature" not in silent
    if decided and made.get("top_p") is None and made.get("top_k") is None:
        # without top-k or top-p the vendor's runner takes the best token, whatever the temperature
        made["temperature"], sources["temperature"] = 0.0, post_file.name
    return SamplingDefaults(**made, sources=sources)  # type: ignore[arg-type]


def _switched(values: Mapping[str, Any], path: Path) -> dict[str, float | int | None]:
    """Each value that post_config.json decides: None where its switch is off."""
    made: dict[str, float | int | None] = {}
    for switch, defaults in SWITCHES.items():
        if switch in values:
            on = bool(values[switch])
            made |= {name: _number({**defaults, **values}, name, path) if on else None for name in defaults}
    for name in WITHOUT_SWITCH:
        if values.get(name):
            made[name] = _number(values, name, path, least=-1e9)
    return made


def _values(path: Path | None) -> dict[str, Any]:
    if path is None or not path.read_bytes().strip():
        return {}
    return read_json(path)


def _generation(path: Path | None) -> dict[str, float | int]:
    """What Hugging Face's generation_config.json says of sampling; its penalty looks at the whole context."""
    values = _values(path)
    if path is None or not values:
        return {}
    if values.get("do_sample") is False:
        return {"temperature": 0.0}
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
    found = {name: _number(values, name, path) for name in names if values.get(name) is not None}
    if found.get("repetition_penalty", 1.0) == 1.0:
        found.pop("repetition_penalty", None)
    else:
        found["penalty_window"] = WHOLE_CONTEXT
    return found


def _number(values: Mapping[str, Any], key: str, path: Path, least: float = 0) -> float | int:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e9:
        raise PackageError(f"{path} has {key} = {value!r}, which is not a usable number: correct it, or {AGAIN}")
    return int(value) if key in WHOLE_NUMBERS else float(value)
