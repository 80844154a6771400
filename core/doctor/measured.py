"""A probe's report in the terms of a timing profile: what was measured, and a profile file made of it."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PackageError
from ..model_files.timing_profile import load_profile
from .battery.report import results

MIB = 1 << 20
COSTS = ("head_ms", "sync_call_ms", "submit_us", "d2d_us", "d2d_gb_s", "bus_mb_s", "transfer_us", "unpinned_us",
         "load_file_ms", "load_mb_s")  # fmt: skip
MEMORY = ("cmm_mib", "idle_cmm_mib", "layer_cmm_bytes", "head_cmm_bytes")
TEMPLATE = """\
# {kind} by `axpress doctor --probe`, {report[started]}, axpress {report[axpress]}.
# Package {package[name]}; library {identity[library]}, card {firmware}.
# Host: {host[machine]} {host[board]}, kernel {host[kernel]}, link {links}.
name = {name}

[model]   # family, heads, kv_heads, head_dim, ffn: * assumed, a compiled model does not show them
family = "qwen3"
layers = {package[layers]}
hidden = {load[hidden]}
heads = {heads}
kv_heads = {kv_heads}
head_dim = {head_dim}
ffn = {ffn}
vocab = {package[vocabulary]}
rows = {rows}
chunk = {chunk}
history = {history}
layer_file_bytes = {layer_bytes}
head_file_bytes = {head_bytes}

[cost]   # times of one layer, without the cost of the call
decode_rows = {decode_rows}
decode_layer_ms = {decode_ms}
chunk_history = {chunk_history}
chunk_layer_ms = {chunk_ms}
{costs}

[memory]
{memory}
"""
ASSUMED_CALL_MS = 0.07  # where nothing was executed in a stream, calls and work cannot be told apart


@dataclass(frozen=True)
class Measured:
    """Costs under the names of a profile's [cost] and [memory]; `assumed`: which of them no experiment has told."""

    decode_layer_ms: dict[int, float]
    chunk_layer_ms: dict[int, float]
    chunk: int
    values: dict[str, float]
    assumed: frozenset[str]


def measured(report: dict[str, Any]) -> Measured:
    """The report's costs. PackageError: the experiments that a profile needs did not come to their end."""
    found = {name: results(report, name) for name in ("identity", "transfers", "streams", "load", "costs")}
    needed = {"identity": "cmm_total", "transfers": "right_bytes", "load": "hidden", "costs": "head_groups"}
    if lacking := [name for name, key in needed.items() if key not in found[name]]:
        raise PackageError(
            f"this report has no results of {', '.join(lacking)}: run `axpress doctor MODEL_DIR --probe` again"
        )
    groups, head = found["costs"]["layer_groups"], found["costs"]["head_groups"][0]
    assumed = set()
    call_ms = _call_ms([*groups, head])
    if call_ms is None:
        call_ms = ASSUMED_CALL_MS
        assumed.add("sync_call_ms")
    width = next((group["width"] for group in groups if group["width"] > 1), 0)
    values = {"head_ms": _alone(head, call_ms), "sync_call_ms": call_ms}
    values |= _loading(found["load"]["files"])
    values |= _bus(found["transfers"], found["streams"], call_ms) | _on_card(found["streams"], call_ms)
    values["submit_us"] = statistics.median(g["submit_us"] for g in groups) if "submit_us" in groups[0] else 5.0
    if "submit_us" not in groups[0]:
        assumed.add("submit_us")
    return Measured(
        decode_layer_ms={g["history"]: _alone(g, call_ms) for g in groups if g["width"] == 1},
        chunk_layer_ms={g["history"]: _alone(g, call_ms) for g in groups if g["width"] == width and width},
        chunk=width,
        values=values | _memory(found["identity"], found["load"]["files"]),
        assumed=frozenset(assumed),
    )


def _call_ms(costs: list[dict[str, float]]) -> float | None:
    """What a synchronous call adds to its execute: the difference to executes in a stream."""
    added = [cost["least_ms"] - cost["queued_ms"] for cost in costs if "queued_ms" in cost]
    return max(round(statistics.median(added), 4), 0.0) if added else None


def _alone(cost: dict[str, float], call_ms: float) -> float:
    """Milliseconds of an execute without the cost of the call."""
    return round(cost.get("queued_ms", max(cost["ms"] - call_ms, 0.001)), 4)


def _bus(single: dict[str, Any], queued: dict[str, Any], call_ms: float) -> dict[str, float]:
    """Transfers: the fixed cost of each, and the rate."""
    small, large = "64", str(MIB)

    def cost(way: str, size: str) -> float:
        if f"{way}_queued" in queued:
            return float(queued[f"{way}_queued"][size]["each_us"])
        return float(single[f"{way}_pinned_us"][size]) - 1e3 * call_ms

    each = {way: {size: cost(way, size) for size in (small, large)} for way in ("up", "down")}
    rates = [(MIB - 64) / max(cost[large] - cost[small], 1e-3) for cost in each.values()]
    fixed = max(statistics.mean(cost[small] for cost in each.values()), 0.01)
    own = statistics.mean(single[f"{way}_own_us"][small] - single[f"{way}_pinned_us"][small] for way in ("up", "down"))
    return {"bus_mb_s": statistics.mean(rates), "transfer_us": fixed, "unpinned_us": max(own, 0.0) + fixed}


def _on_card(queued: dict[str, Any], call_ms: float) -> dict[str, float]:
    """Copies from the card to itself."""
    small, large = "2048", str(4 * MIB)
    if "on_card_queued" in queued:
        cost = {size: queued["on_card_queued"][size]["each_us"] for size in (small, large)}
    else:
        cost = {size: queued["on_card_us"][size] - 1e3 * call_ms for size in (small, large)}
    rate = (4 * MIB - 2048) / max(cost[large] - cost[small], 1e-3)  # bytes a microsecond
    return {"d2d_us": max(cost[small] - 2048 / rate, 0.01), "d2d_gb_s": rate / 1e3}


def _loading(files: list[dict[str, Any]]) -> dict[str, float]:
    """A line through what loading each file took: so much a file, and a rate (0: the bytes made no difference)."""
    sizes, took = ([file[key] for file in files] for key in ("bytes", "seconds"))
    slope, fixed = np.polyfit(sizes, took, 1) if len(set(sizes)) > 1 else (0.0, statistics.mean(took))
    if slope <= 0 or fixed < 0:
        return {"load_file_ms": 1e3 * statistics.mean(took), "load_mb_s": 0.0}
    return {"load_file_ms": 1e3 * float(fixed), "load_mb_s": 1e-6 / float(slope)}


def _memory(identity: dict[str, Any], files: list[dict[str, Any]]) -> dict[str, float]:
    head, *layers = (file["cmm_bytes"] for file in files)
    return {
        "cmm_mib": identity["cmm_total"] // MIB,
        "idle_cmm_mib": (identity["cmm_total"] - identity["cmm_free"]) // MIB,
        "layer_cmm_bytes": int(statistics.mean(layers)),
        "head_cmm_bytes": head,
    }


def write_profile(report: dict[str, Any], name: str) -> Path:
    """Writes NAME.toml (or the path NAME, where it has a slash) and loads it back.

    PackageError: the report lacks what a profile needs, or the file is there already.
    """
    path = Path(name if "/" in name else f"{name}.toml")
    if path.exists():
        raise PackageError(f"{path} is there already: choose another name, or remove it")
    path.write_text(profile_text(report, path.stem), encoding="utf-8")
    load_profile(str(path.absolute()))
    return path


def profile_text(report: dict[str, Any], name: str) -> str:
    """The profile as TOML, in the format of core/profiles."""
    costs, load = measured(report), results(report, "load")
    head_dim = next(size for size in (128, 64, 32, 16, 8, 4, 2, 1) if load["cache_width"] % size == 0)
    kv_heads = load["cache_width"] // head_dim
    numbers = {key: f"{round(value, 4)}" for key, value in costs.values.items()}
    for key in costs.assumed:
        numbers[key] += "   # * assumed: no experiment told"
    decode, chunk = costs.decode_layer_ms, costs.chunk_layer_ms or {0: max(costs.decode_layer_ms.values())}
    return TEMPLATE.format(
        kind="MODELLED: measured on the EMULATED card" if report["emulated"] else "Measured on a card",
        report=report, host=report["host"], links=", ".join(report["host"]["links"]) or "unknown",
        package=report["package"], identity=results(report, "identity"),
        firmware=results(report, "identity").get("firmware", "without a version"), load=load, name=json.dumps(name),
        heads=max(load["hidden"] // head_dim // kv_heads, 1) * kv_heads, kv_heads=kv_heads, head_dim=head_dim,
        ffn=3 * load["hidden"], rows=max(decode), chunk=costs.chunk, history=sorted(costs.chunk_layer_ms),
        decode_rows=list(decode), decode_ms=list(decode.values()), chunk_history=list(chunk),
        chunk_ms=list(chunk.values()), costs="\n".join(f"{key} = {numbers[key]}" for key in COSTS),
        layer_bytes=load["files"][1]["bytes"], head_bytes=load["files"][0]["bytes"],
        memory="\n".join(f"{key} = {numbers[key]}" for key in MEMORY),
    )  # fmt: skip
