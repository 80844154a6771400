"""Where a probe's report differs from what the emulated card assumes and from a timing profile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import PackageError
from ..model_files.timing_profile import Profile, load_profile, profile_names
from .battery.report import results
from .measured import COSTS, MEMORY, MIB, Measured, measured

CLOSE = 0.15  # share by which a cost may differ
NO_BUS_US = 5.0  # a copy that takes less has not crossed a bus: an emulated card without a profile


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing: what is assumed, what the card showed (empty: the report does not say), and whether they agree."""

    subject: str
    assumed: str
    seen: str
    agrees: bool

    def line(self) -> str:
        """As text."""
        if not self.seen:
            return f"unknown  {self.subject}: assumed {self.assumed}"
        if self.agrees:
            return f"agrees   {self.subject}: {self.seen}"
        return f"DIFFERS  {self.subject}: assumed {self.assumed}, this card: {self.seen}"


@dataclass(frozen=True, slots=True)
class Assumption:
    """Something that the emulated card does by default: `setting` changes it, `read` finds it in a report."""

    subject: str
    assumed: str
    setting: str
    read: Callable[[dict[str, Any]], str]


def _empty_cache(report: dict[str, Any]) -> str:
    load = results(report, "load")
    width = load.get("empty_cache_width")
    if width is None or load["hidden"] == load["cache_width"]:
        return ""
    return {load["hidden"]: "hidden size", load["cache_width"]: "size of K and V"}.get(width, f"{width}")


def _rows(aligned: bool) -> Callable[[dict[str, Any]], str]:
    def read(report: dict[str, Any]) -> str:
        groups = [rows for name, rows in results(report, "in_place").items() if name.startswith("decode_")]
        seen = {row["result"] for rows in groups for row in rows.values() if row["multiple_of_2k"] is aligned}
        return ", ".join(sorted(seen))

    return read


def _value(test: str, *keys: str) -> Callable[[dict[str, Any]], str]:
    def read(report: dict[str, Any]) -> str:
        value: Any = results(report, test)
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return "" if value is None else str(value)

    return read


def _chunks(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The comparisons of chunks with decodes: of each layer, without history and over it."""
    layers = [layer for name, layer in results(report, "chunks").items() if name.startswith("layer_")]
    return [layer[part] for layer in layers for part in ("first_chunk", "later_chunk") if part in layer]


def _written(report: dict[str, Any]) -> str:
    written = [chunk["hidden_written"] for chunk in _chunks(report)]
    return ("always" if all(written) else "not always") if written else ""


def _exact(report: dict[str, Any]) -> str:
    """Of what the chunks have written."""
    chunks = _chunks(report)
    bytes_differ = [chunk[f"{name}_bytes_differ"] for chunk in chunks for name in ("k", "v")]
    written = [chunk for chunk in chunks if chunk["hidden_written"]]
    bytes_differ += [chunk["hidden_bytes_differ"] for chunk in written]
    if not any(bytes_differ):
        return "equal, bit for bit" if chunks else ""
    worst = max((str(chunk["hidden_difference"]) for chunk in written), default="of K and V only")
    return f"different in up to {100 * max(bytes_differ):.2g} % of bytes, hidden state by {worst}"


def _pinned(report: dict[str, Any]) -> str:
    copies = results(report, "transfers")
    if "up_own_us" not in copies or copies["up_pinned_us"]["64"] < NO_BUS_US:
        return ""
    return "faster" if copies["up_own_us"]["64"] > 1.5 * copies["up_pinned_us"]["64"] else "no faster"


def _loads(report: dict[str, Any]) -> str:
    loads = results(report, "usage").get("loads")
    return "" if loads is None else "yes" if loads else "no"


def _first_id(report: dict[str, Any]) -> str:
    devices = results(report, "identity").get("devices")
    return "" if not devices else str(devices[0])


def _left(report: dict[str, Any]) -> str:
    before, after = results(report, "identity").get("cmm_free"), results(report, "costs").get("cmm_free_before")
    if before is None or after is None:
        return ""
    return "nothing" if before - after < MIB else f"{(before - after) // MIB} MiB"


ASSUMPTIONS = (
    Assumption("width of the empty cache of a chunk without history", "hidden size", "", _empty_cache),
    Assumption("decode rows in place at multiples of 2 KiB", "works", "INPLACE_DECODE", _rows(True)),
    Assumption("decode rows in place at other offsets", "lost", "INPLACE_UNALIGNED", _rows(False)),
    Assumption("chunk rows in place", "lost", "INPLACE_CHUNK", _value("in_place", "chunk", "result")),
    Assumption("executes in a stream", "works", "ASYNC", _value("queued_executes", "executes_async")),
    Assumption("a submission comes back", "at once", "ASYNC", _value("queued_executes", "submitting")),
    Assumption("copies on the card in a stream", "works", "ASYNC", _value("streams", "on_card_async")),
    Assumption("async calls by a thread without a context", "works", "", _value("streams", "async_without_context")),
    Assumption("chunks write their hidden state", "always", "NARROW_OUTPUT", _written),
    Assumption("chunks and decodes", "equal, bit for bit", "", _exact),
    Assumption("the runtime's host memory against the process's own", "faster", "HOST_MEMORY", _pinned),
    Assumption("axclrtEngineGetUsage loads the model", "yes", "", _loads),
    Assumption("axclrtEngineSetDynamicBatchSize", "works", "", _value("batch_size", "set_batch_size")),
    Assumption("a head loaded after layers", "refused", "HEAD_FIRST", _value("order", "head_after_layers")),
    Assumption("a layer loaded after an execute", "refused", "LATE_LOAD", _value("late", "load_after_execute")),
    Assumption("the first card's id", "1", "DEVICE_ID", _first_id),
    Assumption("a second axclInit after axclFinalize", "works", "", _value("start_and_end", "opens_again")),
    Assumption("memory left behind by a process that loaded models", "nothing", "", _left),
)  # fmt: skip
"""The defaults of csrc/emu/README.md that a report can confirm or refute."""


def compare_assumptions(report: dict[str, Any]) -> list[Comparison]:
    """Every assumption of the emulated card."""
    made = []
    for assumption in ASSUMPTIONS:
        seen = assumption.read(report)
        unclear = seen.startswith("unclear")
        setting = f" (AXPRESS_EMU_{assumption.setting})" if assumption.setting else ""
        agrees = seen == assumption.assumed
        made.append(Comparison(assumption.subject + setting, assumption.assumed, "" if unclear else seen, agrees))
    return made


def nearest_profile(report: dict[str, Any]) -> Profile | None:
    """The shipped profile of a model of the same shape, where several are, the one whose decode is closest; None: no
    such model."""
    shape = (report["package"]["layers"], results(report, "load").get("hidden"))
    fitting = [
        profile
        for profile in map(load_profile, profile_names())
        if (profile.model.layers, profile.model.hidden) == shape
    ]
    if not fitting:
        return None
    ms = max(measured(report).decode_layer_ms.values())
    return min(fitting, key=lambda profile: abs(profile.cost.decode_us(profile.model.rows) / 1e3 - ms))


def compare_profile(report: dict[str, Any], profile: Profile) -> list[Comparison]:
    """Every cost of the profile against the report's. PackageError: the report has no costs."""
    costs = measured(report)
    pairs = [(f"{key}", float(getattr(profile.cost, key)), costs.values[key]) for key in COSTS]
    pairs += [(key, float(getattr(profile.memory, key)), costs.values[key]) for key in MEMORY]
    pairs += [
        (f"decode_layer_ms over {rows} rows", profile.cost.decode_us(rows) / 1e3, ms)
        for rows, ms in costs.decode_layer_ms.items()
    ]
    pairs += _chunk_pairs(profile, costs)
    return [
        Comparison(
            f"{profile.name}: {name}",
            _number(assumed),
            f"{_number(seen)}{f' ({100 * (seen / assumed - 1):+.0f} %)' if assumed else ''}",
            abs(seen - assumed) <= CLOSE * max(abs(assumed), 1e-9),
        )
        for name, assumed, seen in pairs
    ]


def _chunk_pairs(profile: Profile, costs: Measured) -> list[tuple[str, float, float]]:
    if not costs.chunk_layer_ms or costs.chunk != profile.model.chunk:
        return []
    at, ms = list(costs.chunk_layer_ms), list(costs.chunk_layer_ms.values())
    return [
        (f"chunk_layer_ms over {rows} rows", profile.cost.chunk_us(rows) / 1e3, float(np.interp(rows, at, ms)))
        for rows in profile.model.history
        if rows <= max(at)
    ]


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def compare(report: dict[str, Any], profile_name: str | None) -> list[Comparison]:
    """Assumptions, then costs against the profile (None: the nearest). PackageError: no such profile, or no costs."""
    made = compare_assumptions(report)
    if profile_name is not None:
        return made + compare_profile(report, load_profile(profile_name))
    try:
        profile = nearest_profile(report)
    except PackageError:  # a report that broke off: what it has is still compared
        return made
    return made + (compare_profile(report, profile) if profile else [])
