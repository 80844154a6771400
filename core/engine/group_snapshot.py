"""A picture of several engines, one a card, as of one: their banks one after the other."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace

from ..kv_cache.row_pool import Rows
from .engine import Engine
from .snapshot import CardShare, CardState, EngineSnapshot, Running


class GroupLive:
    """Takes pictures of all engines together. From any thread."""

    def __init__(self, engines: Sequence[Engine], names: Sequence[str]) -> None:
        self._engines, self._names = engines, names  # which grow

    def ask(self) -> Future[EngineSnapshot]:
        """A picture, as soon as all have taken theirs; without those that ended. EngineClosed (in the future) once all
        have."""
        engines = list(self._engines)
        asked = [engine.live.ask() for engine in engines]
        together: Future[EngineSnapshot] = Future()
        left, lock = len(asked), threading.Lock()

        def one_came(_: Future[EngineSnapshot]) -> None:
            nonlocal left
            with lock:
                left -= 1
            if left:
                return
            with suppress(InvalidStateError):  # cancelled by its asker
                try:
                    together.set_result(
                        joined(engines, self._names, [None if f.exception() else f.result() for f in asked])
                    )
                except ValueError:  # there is none
                    together.set_exception(asked[0].exception())

        for future in asked:
            future.add_done_callback(one_came)
        return together


def joined(
    engines: Sequence[Engine], names: Sequence[str], pictures: Sequence[EngineSnapshot | None]
) -> EngineSnapshot:
    """One picture of several; None: of an engine that ended. ValueError where there is none."""
    there = [picture for picture in pictures if picture is not None]
    latest = max(there, key=lambda one: one.at)
    rates = [one.tokens_per_s for one in there if one.tokens_per_s is not None]
    running: list[Running] = []
    banks: list[Rows] = []
    for picture in there:
        before = len(banks)
        running += [one if one.bank is None else replace(one, bank=one.bank + before) for one in picture.running]
        banks += picture.banks
    shares = [
        CardShare(name, engine.info.device, engine.state, 0 if one is None else len(one.banks),
                  CardState() if one is None else one.card)
        for name, engine, one in zip(names, engines, pictures, strict=False)
    ]  # fmt: skip
    return EngineSnapshot(
        at=latest.at,
        running=sorted(running, key=lambda one: one.number),
        num_waiting=sum(one.num_waiting for one in there),
        tokens_per_s=round(sum(rates), 2) if rates else None,
        widths=latest.widths,
        banks=banks,
        card=there[0].card,
        cards=tuple(shares),
    )
