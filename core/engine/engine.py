"""The door to the engine, which is one thread that runs passes while there is anything to do: engine_loop."""

from __future__ import annotations

import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from ..device.card_models import Model
from ..device.load_watch import Progress
from ..errors import CardRecovering, CardTrouble, EngineClosed, FailureKind, QueueFull
from ..recovery.bounded_call import BoundedCall, CallHangs, Meanwhile, nothing
from ..recovery.ladder import RecoveryPolicy
from ..recovery.open_card import open_card, shared_card
from ..recovery.shared_card import SharedCard
from ..request import EngineInfo, GenerationRequest, Sink
from ..vision.prepared import EncoderInput
from .engine_loop import EngineLoop, Peers, State
from .request_checks import check_images, check_request
from .sequence import Generation, Sequence, SequenceState
from .snapshot import EngineSnapshot
from .stats import stats_of
from .throttle import Throttle

log = logging.getLogger(__name__)

CLOSE_SECONDS = 15.0  # for the engine's thread to end, and for the card to be freed, each


class Engine(EngineLoop):
    """Serves one model on one card. `submit` from any thread; answers arrive at each request's sink on the engine's own
    thread."""

    def __init__(
        self,
        model: Model,
        *,
        max_queue: int = 32,
        max_running: int = 16,
        exact: bool = False,
        drafts: bool = True,
        draft_history: int = 0,
        trace: Path | None = None,
        recovery: RecoveryPolicy | None = None,
        state_dir: Path | None = None,
        on_failure: Callable[[], None] | None = None,
        threaded: bool = True,
        shared: SharedCard | None = None,
        throttle: Throttle | None = None,
        peers: Peers | None = None,
        numbers: Iterator[int] | None = None,
    ) -> None:
        """`exact`: single decodes only, for cards whose graphs differ in the last bit. `drafts`: verify guessed tokens.
        `draft_history`: also guess them from the latest answers, so many tokens of them, of the same cache_salt.
        `trace`: write every pass to this file in Chrome's trace format. `recovery`: what is done about a card that
        fails; `state_dir`: where that is counted (None: see `attempts_file`); `on_failure` is called once, on the
        engine's thread, when nothing helped. `threaded` False: nothing runs by itself, the caller calls `step()`.
        `shared`: the card, where other engines have models on it, too; what is done about it is settled there.
        `throttle`: theirs together. `peers`: engines of the same model on other cards, whose requests have their
        `numbers` from one source: see EngineGroup."""
        super().__init__(
            model, shared or shared_card(model.on_card, recovery, state_dir), throttle, peers, on_failure,
            max_running=max_running, exact=exact, drafts=drafts, draft_history=draft_history, trace=trace,
        )  # fmt: skip
        self.text, self.package = model.text, model.package
        self.max_queue = max_queue
        self.card_left = False  # closed, but a thread hangs in a call to the card
        self._numbers = numbers or itertools.count(1)
        self.shared.members.append(self)
        self.shared.ladder.resume()
        if threaded:
            self._begin()

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        device: str | int = "auto",
        profile: str | None = None,
        max_queue: int = 32,
        settings: dict[str, str] | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Engine:
        """Loads a model directory and starts serving it; blocks until a token can be had. See `open_several`."""
        return cls.open_several([directory], device, profile, max_queue, settings, progress, **options)[0]

    @classmethod
    def open_several(
        cls,
        directories: list[str | os.PathLike[str]],
        device: str | int = "auto",
        profile: str | None = None,
        max_queue: int = 32,
        settings: dict[str, str] | None = None,
        progress: Progress | None = None,
        *,
        banks: int | None = None,
        max_running: int = 16,
        meanwhile: Meanwhile = nothing,
        holders: Callable[[], str | None] = lambda: None,
        split: tuple[int, ...] = (),
        device_id: int | None = None,
        **options: Any,
    ) -> list[Engine]:
        """Loads model directories on one card; an engine for each. A card that fails or hangs meanwhile is tried again,
        and rebooted. `meanwhile` is called while that is waited for, and may raise; `holders`: see LeftMemory. See
        `open_models` for `device_id` and errors, the constructor for `options`."""
        shared = open_card(
            directories, device, profile, settings, progress, banks=banks, logits_slots=max_running,
            recovery=options.get("recovery"), state_dir=options.pop("state_dir", None), meanwhile=meanwhile,
            holders=holders, split=split, device_id=device_id,
        )  # fmt: skip
        engines: list[Engine] = []
        try:
            for model in list(shared.on_card.models):
                engines.append(cls(model, max_queue=max_queue, max_running=max_running, shared=shared, **options))
            return engines
        except BaseException:
            for engine in engines:
                engine.close()
            shared.on_card.close()
            raise

    @property
    def encoder_input(self) -> EncoderInput | None:
        """What the model's vision encoder takes; None: it has no eyes."""
        encoder = self.model.program.encoder
        return None if encoder is None else encoder.input

    @property
    def cards(self) -> list[tuple[str, Engine]]:
        """Engines by the names of their cards, as a group has them: this one, whose card needs no name."""
        return [("", self)]

    @property
    def info(self) -> EngineInfo:
        """What is served, on what."""
        return self.model.info

    # ---- any thread ----

    def submit(self, request: GenerationRequest, sink: Sink) -> Generation:
        """Queues a request. Raises RequestError or ContextOverflow (can never be served), QueueFull (try later),
        EngineClosed."""
        return self.submit_all([request], [sink])[0]

    def check(self, request: GenerationRequest) -> None:
        """Raises RequestError or ContextOverflow where the request can never be served."""
        check_request(request, self.info, self.package.vocab_size or self.info.vocab_size)
        if request.images:
            program = self.model.program
            check_images(request, program.encoder, program.shape.axes, self.scheduler.costs)

    def submit_all(self, requests: list[GenerationRequest], sinks: list[Sink]) -> list[Generation]:
        """Queues several requests, all or none: choices of one prompt, or texts to embed or to score, which take one
        place in the queue. Raises as `submit`.

        Takes milliseconds for long prompts and rules, which keep nobody else waiting: not for an event loop."""
        for request in requests:
            self.check(request)
        numbers = [next(self._numbers) for _ in requests]
        batches = [
            number if request.generates else numbers[0] for number, request in zip(numbers, requests, strict=True)
        ]
        places = len(set(batches))
        with self._change:
            self._check_room(places)  # before anything is made in vain
        generations = [
            Generation(number, request, sink, self.wake, batch)
            for number, request, sink, batch in zip(numbers, requests, sinks, batches, strict=True)
        ]
        sequences = [self.scheduler.make_sequence(generation) for generation in generations]
        with self._change:
            self._check_room(places)
            self.scheduler.add(sequences)
            self._notify()
        return generations

    def _check_room(self, count: int) -> None:
        """Raises EngineClosed or QueueFull where `count` more requests cannot wait here. The caller holds the lock."""
        recovering = self.state == "recovering"
        if self.state != "ready" and not recovering:
            raise EngineClosed(f"the engine is {self.state}" + (f": {self.reason}" if self.reason else ""))
        scheduler = self.scheduler
        num_waiting, max_running = len({s.generation.batch for s in scheduler.waiting}), scheduler.max_running
        idle = max(0, max_running - scheduler.num_running) if not scheduler.num_in(SequenceState.PREEMPTED) else 0
        if num_waiting + count <= self.max_queue + idle:
            return
        if recovering:
            raise CardRecovering(
                f"the card failed and is being brought back; {num_waiting} requests wait for it already"
            )
        wait = max(1.0, scheduler.counters.mean_seconds * (num_waiting + 1) / max_running)
        waiting = max(0, num_waiting - idle)  # the first of them are about to run
        more = f", this one brings {count}" if count > 1 else ""
        are = "request is" if waiting == 1 else "requests are"
        raise QueueFull(
            f"{waiting} {are} waiting{more} and the queue holds {self.max_queue}; try again in {wait:.0f} s", wait
        )

    def stats(self) -> dict[str, Any]:
        """Counters and gauges: requests, tokens, rows, passes and seconds by kind, drafts, preemptions, seconds since
        the last pass. Waits for nothing."""
        return stats_of(self.scheduler)

    def snapshot(self, wait_s: float = 2.0) -> EngineSnapshot:
        """What the engine is at (see `live`). Waits for the pass that runs; TimeoutError where that takes longer than
        `wait_s` seconds, EngineClosed once the engine ended. `live.ask()` is the same without waiting."""
        return self.live.take() if self._thread is None else self.live.ask().result(wait_s)

    def close(self, drain_s: float = 0.0) -> None:
        """Stops taking requests, lets running and waiting ones finish for `drain_s` seconds, ends the rest, frees the
        card. One that does not let itself be freed in time is left (`card_left`)."""
        with self._change:
            if self.state == "closed":
                return
            if self.state in ("ready", "recovering"):
                self.state = "draining"
            self._change.notify_all()
            self._change.wait_for(lambda: not self.scheduler.num_unfinished, timeout=max(0.0, drain_s))
            self.state = "closed"
            self._change.notify_all()
        if self._thread is None:
            self._end_all()
            self.scheduler.close()
            self.shared.leave(self, self.model)
            return
        alone = self.shared.members == [self]
        if alone:
            self.ladder.stop(0)
        until = time.monotonic() + CLOSE_SECONDS
        while self._thread.is_alive() and time.monotonic() < until:  # another one may take its place
            self._thread.join(0.1)
        self._watch.close()
        self.scheduler.close()
        hangs = self._thread.is_alive() or (alone and not self.ladder.stop(CLOSE_SECONDS))
        freeing = BoundedCall("freeing the card", self._free_card)
        try:
            freeing.result(0.0 if hangs else CLOSE_SECONDS)
        except CallHangs:
            self._leave_card()

    def _free_card(self) -> None:
        """Once nobody is in a call to it: in a process that goes on it can be opened again then."""
        assert self._thread is not None
        self._thread.join()
        if self.shared.members == [self]:
            self.ladder.stop(math.inf)
        self.shared.leave(self, self.model)

    def _leave_card(self) -> None:
        self.card_left = True
        log.error("a call to the card does not return, so it is left as it is. Should it not answer the next program"
                  " either, cut its power")  # fmt: skip

    def report_trouble(self, kind: FailureKind, why: str) -> None:
        """Somebody saw what no pass shows, or not yet: a link that is lost, a card that is not listed any more, memory
        that shrinks. Recovery begins between two passes, on an idle engine at once; where it is under way, or over,
        nothing does. From any thread."""
        with self._change:
            if self.state == "ready":
                self._trouble = CardTrouble(why, kind)
                self._notify()

    def give_up_memory(self) -> bool:
        """The card is short of memory: before the next pass one bank is given back, with what is cached there, and who
        lives in it goes on elsewhere. False where there is only one. From any thread."""
        if len(self.scheduler.banks) == 1:
            return False
        self._memory_wanted = True
        self.wake()
        return True

    def adopt(self, sequences: list[Sequence], states: tuple[State, ...] = ("ready",)) -> bool:
        """Takes over, from an engine of the same model, sequences that left it (`Scheduler.release`): they go on from
        the token they were at. False, where this engine is in none of these states. From any thread."""
        with self._change:
            if self.state not in states:
                return False
            for sequence in sequences:
                sequence.generation.wake = self.wake
            self.scheduler.adopt(sequences)
            self._notify()
        return True

    def give_waiting(self, wanted: Collection[Sequence]) -> list[Sequence]:
        """Those of `wanted` that still wait for their first place leave; none where the engine ends or recovers. From
        any thread."""
        with self._change:
            return self.scheduler.release(wanted, begun=False) if self.state == "ready" else []

    # ---- for those who have no thread ----

    def step(self) -> bool:
        """Runs one pass on the calling thread; False when there is nothing to do. For an engine made with
        `threaded=False`."""
        self.scheduler.drop_cancelled()
        self.scheduler.admit()
        if not self.scheduler.num_running:
            return False
        self._with_card(self._run_pass)
        return True
