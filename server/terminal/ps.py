"""`axpress ps`: what runs on a server, in a line or as JSON."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

from .connection import Connection, ServerError
from .text import visible

GIB = 1 << 30
COLUMNS = ("MODEL", "CONTEXT", "CARD", "MEMORY", "RUNNING", "WAITING", "SINCE", "STATE")
NEEDS_KEY = "tells no more without a key: AXPRESS_API_KEY=KEY, or --api-key KEY"


def ps(connection: Connection, as_json: bool) -> int:
    """Prints it; returns the exit code. Raises ServerError."""
    facts = server_facts(connection)
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return 0
    loaded = [model for model in facts.get("models", ()) if "rows" in model]
    of_models = [{**facts, **model, "model": model["name"]} for model in loaded]
    rows = [COLUMNS, *map(_row, of_models if "models" in facts else [facts])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for text in filter(None, (facts["reason"], facts["degraded"] and f"degraded: {facts['degraded']}")):
        print(visible(text))
    return 0


def server_facts(connection: Connection) -> dict[str, Any]:
    """What a server says of itself; None for what it does not say (yet). Bytes, degrees Celsius, Unix seconds."""
    health = connection.health()
    if "model" not in health:
        raise ServerError(f"{connection.url} {NEEDS_KEY if 'status' in health else 'is no server of axpress'}")
    names = (
        "model", "context_length", "device", "emulated", "profile", "num_running", "max_running", "num_waiting",
        "max_queue", "num_banks", "rows_used", "rows",
    )  # fmt: skip
    card = health.get("card", {})
    total, free = card.get("total_cmm"), card.get("free_cmm")
    facts = {"url": connection.url, "status": health.get("status"), "reason": health.get("reason") or ""}
    facts |= {name: health.get(name) for name in names}
    facts["num_cards"] = len(health.get("cards", ())) or 1
    facts["degraded"] = health.get("degraded", "")
    if "models" in health:
        facts["models"] = [{k: v for k, v in model.items() if k != "stats"} for model in health["models"]]
    return facts | {
        "memory_bytes": total,
        "memory_used_bytes": None if total is None or free is None else total - free,
        "temperature_c": card.get("temperature_c"),
        "started_at": round(time.time() - health["uptime_seconds"]),
    }


def card_words(facts: dict[str, Any]) -> str:
    """Which card it is, or how many, for people; that it is emulated where it is."""
    if facts.get("num_cards", 1) > 1:
        return f"{facts['num_cards']} cards" + (", emulated" if facts["emulated"] else "")
    if not facts["emulated"]:
        return "?" if facts["device"] is None else f"card {facts['device']}"
    profile = str(facts["profile"] or "none").rpartition("/")[2].removesuffix(".toml")
    return "emulated" + (f" ({visible(profile)})" if profile != "none" else "")


def memory_words(used: int | None, total: int | None) -> str:
    """How much of the card's memory is used."""
    return "?" if used is None or total is None else f"{used / GIB:.1f} of {total / GIB:.1f} GiB"


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    def of(part: str, whole: str) -> str:
        return "?" if facts[part] is None else f"{facts[part]} of {facts[whole]}"

    since = datetime.fromtimestamp(facts["started_at"]).strftime("%Y-%m-%d %H:%M")
    return (
        visible(facts["model"]) or "?", str(facts["context_length"] or "?"), card_words(facts),
        memory_words(facts["memory_used_bytes"], facts["memory_bytes"]), of("num_running", "max_running"),
        of("num_waiting", "max_queue"), since, facts["status"],
    )  # fmt: skip
