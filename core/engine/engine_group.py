"""Several cards with the same model, as one engine: a thread each, and a router that places each request.

A card that fails hands its answers to the others at once, and they go on there from the token they were at; when it
computes again it takes part again. Where all fail, everybody waits for the first that comes back."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..device.emulator import Emulator
from ..device.load_watch import LoadProgress, Progress
from ..device.model_loader import runtime_of
from ..device.runtime import device_ids
from ..errors import AxpressError, EngineClosed, FailureKind, QueueFull
from ..model_files.model_package import open_package
from ..recovery.attempts import attempts_file
from ..recovery.bounded_call import Meanwhile, nothing
from ..request import EngineInfo, GenerationRequest, Sink
from ..vision.prepared import EncoderInput
from .engine import Engine, State
from .group_snapshot import GroupLive
from .router import Request, Router
from .sequence import Generation
from .sequence import Sequence as Answer
from .sequence_images import keyed_tokens
from .stats import sum_of

log = logging.getLogger(__name__)

STATES: tuple[State, ...] = ("ready", "recovering", "draining", "failed", "closed")
"""Best first: a group is in the state of its best engine."""
LOOKED_AT = 8  # of those that wait elsewhere, whenever a card has a place
GAIN = 0.8  # one that waits moves where it costs at most so much of what it costs where it is


class EngineGroup:
    """Serves one model on several cards; for those who ask it is one engine."""

    def __init__(self, on_failure: Callable[[], None] | None = None) -> None:
        """`on_failure` is called once, on an engine's thread, when nothing helped with any of the cards. Empty: see
        `open`, `join`."""
        self.engines: list[Engine] = []
        self.names: list[str] = []
        """Of their cards, as they were asked for: an engine keeps it where a spare card takes over."""
        self.missing: dict[str, AxpressError] = {}
        """Cards that the model could not be loaded on, and why."""
        self.live = GroupLive(self.engines, self.names)
        self.numbers = itertools.count(1)
        """Of requests, on whichever card."""
        self._router = Router()
        self._on_failure = on_failure
        self._telling = threading.Lock()
        self._told = False

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        devices: Sequence[str | int],
        profile: str | None = None,
        max_queue: int = 32,
        settings: dict[str, str] | None = None,
        progress: Progress | None = None,
        *,
        meanwhile: Meanwhile = nothing,
        state_dir: Path | None = None,
        holders: Sequence[Callable[[], str | None]] = (),
        on_failure: Callable[[], None] | None = None,
        trace: Path | None = None,
        **options: Any,
    ) -> EngineGroup:
        """Loads a model directory on each of these cards, on all at the same time; blocks until a token can be had from
        each. A card on which that fails is done without, unless it is the last one. `progress` is told how far the
        slowest is. `holders`: one for each card. Others: see `Engine.open`; what is done about a card is counted in a
        folder of its own in `state_dir`."""
        group, slowest = cls(on_failure), _Slowest(progress)
        ids, emulated = _device_ids(directory, devices)
        path = attempts_file(state_dir, emulated)

        def open_one(index: int, device: str | int) -> Engine | None:
            own = None if path is None else path.parent / f"card-{index}"
            try:
                return Engine.open(
                    directory, device, profile, max_queue, settings, slowest.of(index), meanwhile=meanwhile,
                    state_dir=own, holders=holders[index] if holders else lambda: None, on_failure=group._one_failed,
                    peers=group, numbers=group.numbers, device_id=ids[index],
                    trace=trace and trace.with_stem(f"{trace.stem}-{index}"), **options,
                )  # fmt: skip
            except AxpressError as error:
                if isinstance(error, EngineClosed):  # the server ends
                    raise
                group.missing[card_name(device)] = error
                return None
            finally:
                slowest.done(index)

        with ThreadPoolExecutor(len(devices), "axpress-card") as pool:
            opening = [pool.submit(open_one, index, device) for index, device in enumerate(devices)]
        errors = [error for call in opening if (error := call.exception()) is not None]
        for device, call in zip(devices, opening, strict=True):
            if call.exception() is None and (engine := call.result()) is not None:
                group.join(engine, card_name(device))
        if errors or not group.engines:
            group.close()
            raise errors[0] if errors else next(iter(group.missing.values()))
        for name, error in group.missing.items():
            log.error("card %s is done without: %s", name, error)
        group._one_failed()  # all may have, meanwhile
        return group

    def join(self, engine: Engine, name: str) -> None:
        """One more card. Its engine was made with this group as `peers`, and its `numbers`."""
        index = len(self.engines)
        self._router.join(engine.scheduler)
        engine.scheduler.on_answer = lambda answer: self._router.learn(index, answer.tokens, answer.cache_salt)
        engine.ladder.in_use = lambda: [other.model.card.device for other in self.engines if other is not engine]
        self.engines.append(engine)
        self.names.append(name)

    # ---- as of one engine ----

    @property
    def info(self) -> EngineInfo:
        """What is served; `device`: of the first card."""
        return self.engines[0].info

    @property
    def encoder_input(self) -> EncoderInput | None:
        """See Engine."""
        return self.engines[0].encoder_input

    @property
    def cards(self) -> list[tuple[str, Engine]]:
        """Engines by the names of their cards."""
        return list(zip(self.names, self.engines, strict=True))

    @property
    def text(self) -> Any:
        """Its tokenizer."""
        return self.engines[0].text

    @property
    def package(self) -> Any:
        """Its files."""
        return self.engines[0].package

    @property
    def _best(self) -> Engine:
        return min(self.engines, key=lambda engine: STATES.index(engine.state))

    @property
    def state(self) -> State:
        """That of the best."""
        return self._best.state

    @property
    def reason(self) -> str | None:
        """Why the best is not ready."""
        return self._best.reason

    @property
    def failure(self) -> FailureKind | None:
        """Of the best, where nothing helped with any."""
        return self._best.failure

    @property
    def exit_wanted(self) -> bool:
        """Whether a process started anew may do better, where nothing helped with any."""
        return self.state == "failed" and any(engine.exit_wanted for engine in self.engines)

    @property
    def card_left(self) -> bool:
        """Whether a thread hangs in a call to any card."""
        return any(engine.card_left for engine in self.engines)

    @property
    def degraded(self) -> str:
        """What is the matter with some of the cards, while others serve; empty: nothing."""
        told = [f"card {name} {_WORDS[e.state]}: {e.reason}" for name, e in self.cards if e.state in _WORDS]
        told += [f"card {name} could not be used: {error}" for name, error in self.missing.items()]
        return "; ".join(told) if self.state == "ready" else ""

    def stats(self) -> dict[str, Any]:
        """Sums of all engines': see `Engine.stats`."""
        return sum_of([engine.stats() for engine in self.engines])

    def submit(self, request: GenerationRequest, sink: Sink) -> Generation:
        """See Engine."""
        return self.submit_all([request], [sink])[0]

    def submit_all(self, requests: list[GenerationRequest], sinks: list[Sink]) -> list[Generation]:
        """See Engine. All go to one card, the best for the first of them; what waits there in vain moves later."""
        first = requests[0]
        self.engines[0].check(first)
        tokens = keyed_tokens(first)
        wanted = Request(tokens, first.cache_salt, first.max_tokens if first.generates else 0)
        refused: AxpressError | None = None
        for index in self._router.best(wanted, self._takers()):
            try:
                generations = self.engines[index].submit_all(requests, sinks)
            except (QueueFull, EngineClosed) as error:
                refused = refused or error
                continue
            for request in requests:
                self._router.learn(index, keyed_tokens(request), request.cache_salt)
            return generations
        assert refused is not None
        raise refused

    def _takers(self) -> list[int]:
        """Cards that take requests: those that are ready, and not too hot to work, else those that are being brought
        back, else the best of them, which says why not."""
        ranks = [(STATES.index(engine.state), engine.throttle.paused) for engine in self.engines]
        return [index for index, rank in enumerate(ranks) if rank == min(ranks)]

    def close(self, drain_s: float = 0.0) -> None:
        """See Engine; all at the same time."""
        if self.engines:
            with ThreadPoolExecutor(len(self.engines), "axpress-close") as pool:
                for closing in [pool.submit(engine.close, drain_s) for engine in self.engines]:
                    closing.result()

    # ---- on the engines' threads ----

    def lost(self, engine: Engine) -> None:
        """Its card failed: what was cached there is gone."""
        if engine in self.engines:  # else the others are still being loaded
            self._router.forget(self.engines.index(engine))

    def hand_over(self, engine: Engine) -> None:
        """Its card failed: who is there goes on elsewhere. Who had nonsense for an answer stays as long as the card may
        come back: it may be the prompt's own."""
        failed = engine.state == "failed"
        states: tuple[State, ...] = ("ready", "recovering") if failed else ("ready",)
        targets = [i for i, other in enumerate(self.engines) if other is not engine and other.state in states]
        targets = [i for i in targets if self.engines[i].state == "ready"] or targets
        if not targets:
            return
        scheduler = engine.scheduler
        with scheduler.lock:
            wanted = [s for s in (*scheduler.preempted, *scheduler.waiting) if failed or not s.num_bad]
            leaving = scheduler.release(wanted, begun=True)
        for answer in leaving:
            if not self._move(answer, targets, states):
                with scheduler.lock:
                    scheduler.adopt([answer])
        if leaving:
            log.warning("%s failed: %d answers go on elsewhere", engine.info.device, len(leaving))

    def fetch(self, engine: Engine) -> None:
        """It has room: takes over who waits elsewhere, where that costs less."""
        if engine.throttle.paused:
            return
        for other in self.engines:
            if other is not engine and other.state == "ready" and other.scheduler.waiting:
                self._fetch_from(other, engine)

    def _fetch_from(self, other: Engine, engine: Engine) -> None:
        there, here = self.engines.index(other), self.engines.index(engine)
        with other.scheduler.lock:
            waiting = other.scheduler.waiting[:LOOKED_AT]
        for answer in waiting:
            if not engine.scheduler.has_place:
                return
            request = Request.of(answer)
            if self._router.seconds(here, request) > GAIN * self._router.seconds(there, request):
                continue
            if other.give_waiting([answer]):
                self._move(answer, [here], STATES)
                engine.scheduler.admit()

    def _move(self, answer: Answer, targets: list[int], states: tuple[State, ...]) -> bool:
        """To the best of `targets` that takes it."""
        for index in self._router.best(Request.of(answer), targets):
            if self.engines[index].adopt([answer], states):
                self._router.learn(index, answer.tokens, answer.cache_salt)
                return True
        return False

    def _one_failed(self) -> None:
        """On the thread of an engine that nothing helped."""
        with self._telling:
            last = bool(self.engines) and self.state == "failed" and not self._told
            self._told = self._told or last
        if last and self._on_failure is not None:
            self._on_failure()


AnyEngine = Engine | EngineGroup
_WORDS = {"recovering": "is being brought back", "failed": "failed for good"}


def _device_ids(directory: str | os.PathLike[str], devices: Sequence[str | int]) -> tuple[list[int | None], bool]:
    """What the runtime calls each of the cards (None: it lists fewer), and whether they are emulated. Found out while
    nobody uses them: later the list may lack some, and the others' places change."""
    which = [runtime_of(open_package(directory), device) for device in devices]
    library, _, emulated = which[0]
    places, listed = [index for _, index, _ in which], device_ids(library)
    if emulated and len(listed) <= max(places):
        Emulator(library).set("devices", max(places) + 1)
        listed = device_ids(library)
    return [listed[place] if place < len(listed) else None for place in places], emulated


def card_name(device: str | int) -> str:
    """Of a card, as it was asked for: "1" of 1 and of "emu:1"."""
    return str(device).rpartition(":")[2]


class _Slowest:
    """Of several loadings, the progress of the one that is furthest behind."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._latest: dict[int, LoadProgress] = {}

    def of(self, index: int) -> Progress | None:
        """What is to be told of one of them."""
        if self._progress is None:
            return None
        tell = self._progress

        def told(now: LoadProgress) -> None:
            self._latest[index] = now
            tell(min(list(self._latest.values()), key=lambda one: (not one.unanswered, one.mib_done)))

        return told

    def done(self, index: int) -> None:
        """It is over, however."""
        self._latest.pop(index, None)
