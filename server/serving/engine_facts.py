"""What /health and people are told of engines, and of their loading."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from time import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from axpress.core.device.load_watch import LoadProgress
    from axpress.core.engine.engine import Engine
    from axpress.core.request import EngineInfo

    from ..settings import Settings

SUMS = ("num_running", "num_waiting", "rows_used", "rows")


def engine_facts(engine: Engine, stats: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Of the only one."""
    info = engine.info
    facts = {
        **recovery_facts(engine),
        **_card_facts(engine),
        "context_length": info.context_length,
        "runtime": info.runtime_version,
        "toy": settings.is_demo,
        **{name: stats.get(name, 0) for name in SUMS[:2]},
        "max_running": settings.max_running,
        "max_queue": settings.max_queue,
        **{name: stats.get(name, 0) for name in SUMS[2:]},
        "num_banks": info.num_banks,
        "exact": settings.exact,
        "stats": stats,
        "recoveries": {"rungs": dict(engine.ladder.rungs), "faults": dict(engine.ladder.faults)},
    }
    if info.emulated:
        facts["note"] = "emulated: no card" + ("; a toy model" if settings.is_demo else "")
    return facts


def engines_facts(engines: list[Engine], settings: Settings) -> dict[str, Any]:
    """Of several on one card: what is true of all, and sums."""
    sums: Counter[str] = Counter()
    for engine in engines:
        stats = engine.stats()
        sums.update({name: stats[name] for name in SUMS})
    facts: dict[str, Any] = {
        **{name: sums[name] for name in SUMS},
        "max_running": settings.max_running,
        "max_queue": settings.max_queue,
        "exact": settings.exact,
    }
    if not engines:
        return facts
    first = next((engine for engine in engines if engine.state != "ready"), engines[0])
    facts |= {**recovery_facts(first), **_card_facts(first), "runtime": first.info.runtime_version}
    facts["recoveries"] = {"rungs": dict(first.ladder.rungs), "faults": dict(first.ladder.faults)}
    if first.info.emulated:
        facts["note"] = "emulated: no card"
    return facts


def loading_facts(now: LoadProgress, beside_others: bool) -> dict[str, Any]:
    """Of a model on its way; the reason is the same for people. `beside_others`: no reason for others not to ask."""
    facts = {f.name: getattr(now, f.name) for f in fields(now)}
    for key in ("seconds", "seconds_left"):
        facts[key] = None if facts[key] is None else round(facts[key], 1)
    return {"loading": facts} | ({} if beside_others else {"reason": f"the model is being loaded: {now}"})


def banner(info: EngineInfo, name: str, settings: Settings) -> str:
    """What is served, on what."""
    where = f"card {info.device}"
    if info.emulated:
        where = "emulated: no card" + (f", paced like {info.profile}" if info.profile not in (None, "none") else "")
    toy = "; a toy model" if settings.is_demo else ""
    return f"serving {name} ({where}{toy}), context {info.context_length} tokens"


def _card_facts(engine: Engine) -> dict[str, Any]:
    info = engine.info
    return {"device": info.device, "emulated": info.emulated, "profile": info.profile}


def recovery_facts(engine: Engine) -> dict[str, Any]:
    """Of a card that is being brought back."""
    status = engine.ladder.status
    if status is None or engine.state not in ("recovering", "draining"):
        return {}
    now = time()
    wait = None if status.next_try is None else round(max(status.next_try - now, 0.0), 1)
    facts = {"kind": status.kind.value, "seconds": round(now - status.since, 1), "trying": status.trying}
    return {
        "reason": f"the card is being brought back: {status.reason}",
        "recovery": {**facts, "next_try_seconds": wait},
    }
