"""An engine's counters and gauges as one dictionary, and those of several together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from .scheduler import Scheduler
from .sequence import SequenceState


def stats_of(scheduler: Scheduler) -> dict[str, Any]:
    """See `Engine.stats`."""
    counters = scheduler.counters
    totals = dict(counters.totals)
    return {
        **totals,
        "steps": totals["decode_passes"] + totals["chunk_passes"],
        "seconds": dict(counters.seconds),
        "widths": list(counters.widths),
        "num_running": scheduler.num_running,
        "num_waiting": scheduler.num_in(SequenceState.WAITING, SequenceState.PREEMPTED),
        "rows_used": sum(b.pool.num_used for b in scheduler.banks),
        "rows": sum(b.pool.num_rows for b in scheduler.banks),
        "rows_by_bank": [b.pool.num_used for b in scheduler.banks],
        "evicted_rows": sum(b.evicted_rows for b in scheduler.banks),
        "moved_rows": sum(b.moved_rows for b in scheduler.banks),
        "seconds_since_progress": time.monotonic() - counters.last_progress,
    }


def sum_of(several: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of several engines: sums, lists one after the other; the seconds since the last pass of any of them that has
    answers to compute, else of any."""
    total: dict[str, Any] = {}
    for stats in several:
        for name, value in stats.items():
            if isinstance(value, dict):
                total[name] = {key: total.get(name, {}).get(key, 0) + n for key, n in value.items()}
            else:
                total[name] = value if name not in total else total[name] + value
    busy = [stats for stats in several if stats["num_running"]]
    total["seconds_since_progress"] = min(stats["seconds_since_progress"] for stats in busy or several)
    return total
