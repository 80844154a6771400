"""What each pass carried, as a Chrome trace (chrome://tracing, ui.perfetto.dev), so that a person can see it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..kv_cache.cache_bank import CacheBank
from ..request import EngineInfo
from .pass_planner import StepPlan
from .sequence import ScheduledSequence, Sequence

log = logging.getLogger(__name__)


class Trace:
    """A trace file. One track for each bank's passes and one for each answer; the file is readable even if it is not
    closed. Where it cannot be written any more, the disk being full, tracing ends, and nothing else."""

    def __init__(self, path: Path, info: EngineInfo) -> None:
        self._file = open(path, "w")  # noqa: SIM115 - lives as long as the engine
        self._path, self._lock = path, threading.Lock()
        self._file.write("[\n")
        about = f"{info.model} on {info.device}, profile {info.profile}"
        self._write({"name": "process_name", "ph": "M", "pid": 1, "args": {"name": about}})

    def add_pass(
        self,
        started: float,
        kind: str,
        bank: CacheBank[Sequence],
        planned: StepPlan,
        scheduled: Iterable[ScheduledSequence],
        num_heads: int,
    ) -> None:
        """A pass that began at `started` (perf_counter seconds) and has just ended."""
        ended = time.perf_counter()
        times = {"ts": round(started * 1e6, 1), "dur": round((ended - started) * 1e6, 1), "ph": "X", "pid": 1}
        members: list[dict[str, int]] = [
            {
                "answer": s.sequence.generation.id,
                "tokens": s.num_tokens,
                "drafts": s.num_drafts,
                "cached": s.sequence.num_cached,
            }
            for s in scheduled
        ]
        width = sum(m["tokens"] + m["drafts"] for m in members)
        args = {
            "group": planned.slot,
            "queries": width,
            "heads": num_heads,
            "rows_used": bank.pool.num_used,
            "answers": members,
        }
        self._write({"name": f"{kind} {width}", "tid": f"bank {bank.index}", "args": args, **times})
        for member in members:
            self._write({"name": kind, "tid": f"answer {member['answer']}", "args": member, **times})

    def _write(self, event: dict[str, Any]) -> None:
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.write(json.dumps(event) + ",\n")
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.warning("%s cannot be written (%s): passes are not traced any more", self._path, error.strerror)
        with suppress(OSError):
            self._file.close()  # which tries to write the rest again

    def close(self) -> None:
        """Ends the file."""
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.write("{}]\n")
                self._file.close()
            except OSError as error:
                self._give_up(error)
