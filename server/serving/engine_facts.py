"""What /health and people are told of engines, and of their loading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from time import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from axpress.core.device.load_watch import LoadProgress
    from axpress.core.engine.engine import Engine
    from axpress.core.engine.engine_group import AnyEngine, EngineGroup
    from axpress.core.request import EngineInfo

    from ..settings import Settings
    from .watched_card import WatchedCard

SUMS = ("num_running", "num_waiting", "rows_used", "rows")


def engine_facts(engine: AnyEngine, stats: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Of the only model, on one card or on several."""
    engines, info = [one for _, one in engine.cards], engine.info
    best = next((one for one in engines if one.state == engine.state), engines[0])
    facts = {
        **recovery_facts(best),
        **_card_facts(best),
        "context_length": info.context_length,
        "runtime": info.runtime_version,
        "toy": settings.is_demo,
        **{name: stats.get(name, 0) for name in SUMS[:2]},
        "max_running": settings.max_running * len(engines),
        "max_queue": settings.max_queue * len(engines),
        **{name: stats.get(name, 0) for name in SUMS[2:]},
        "num_banks": sum(one.info.num_banks for one in engines),
        "exact": settings.exact,
        "stats": stats,
        "recoveries": _recoveries(engines),
    }
    if info.emulated:
        facts["note"] = "emulated: no card" + ("; a toy model" if settings.is_demo else "")
    if len(engines) > 1:
        facts["device"] = ", ".join(one.info.device for one in engines)
    return facts


def group_facts(group: EngineGroup, cards: Sequence[WatchedCard]) -> dict[str, Any]:
    """Of several cards, one by one, and what is the matter with some of them while others serve."""
    watched = {card.name: card for card in cards}
    told = [_one_of_several(name, engine, watched.get(name)) for name, engine in group.cards]
    told += [{"name": name, "status": "failed", "reason": str(error)} for name, error in group.missing.items()]
    hot = [f"card {one['name']} is too hot to work" for one in told if one["status"] == "hot"]
    return {"cards": told, "degraded": "; ".join(filter(None, (group.degraded, *hot)))}


def _one_of_several(name: str, engine: Engine, card: WatchedCard | None) -> dict[str, Any]:
    stats = engine.stats()
    hot = engine.state == "ready" and card is not None and card.monitor.policy.paused
    return {
        "name": name,
        "status": "hot" if hot else engine.state,
        "reason": engine.reason or "",
        **recovery_facts(engine),
        "device": engine.info.device,
        **{key: stats[key] for key in SUMS},
        "num_banks": engine.info.num_banks,
        "recoveries": _recoveries([engine]),
        "duty": 1.0 if card is None else round(card.duty, 3),
        "card": None if card is None else card.report,
        "stats": stats,
    }


def _recoveries(engines: Sequence[Engine]) -> dict[str, dict[str, int]]:
    rungs, faults = Counter[str](), Counter[str]()
    for engine in engines:
        rungs.update(engine.ladder.rungs)
        faults.update(engine.ladder.faults)
    return {"rungs": dict(rungs), "faults": dict(faults)}


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
    facts["recoveries"] = _recoveries([first])
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
