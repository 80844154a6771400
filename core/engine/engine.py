"""The engine: one thread that runs passes while there is anything to do, and the door to it."""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from ..device.card_models import Model, check_card
from ..device.load_watch import Progress
from ..errors import (
    AxpressError,
    CardBeyondHelp,
    CardRecovering,
    CardTrouble,
    EngineClosed,
    FailureKind,
    LogitsError,
    QueueFull,
    RuntimeCallError,
    failure_kind,
)
from ..recovery.bounded_call import BoundedCall, CallHangs, Meanwhile, nothing
from ..recovery.ladder import RecoveryPolicy
from ..recovery.open_card import open_card, shared_card
from ..recovery.pass_watch import Abandoned, PassWatch
from ..recovery.shared_card import SharedCard
from ..recovery.turns import Turn
from ..request import EngineInfo, FinishReason, GenerationRequest, Sink
from .request_checks import check_request
from .scheduler import Scheduler
from .sequence import Generation, Sequence, SequenceState
from .snapshot import EngineSnapshot, Live
from .throttle import Throttle

log = logging.getLogger(__name__)

State = Literal["ready", "recovering", "draining", "failed", "closed"]
ASK_SECONDS = 5.0  # the card may take so long to say how warm it is, or for a test
IDLE_SECONDS = 30.0  # after so long without a pass the card is tested
CLOSE_SECONDS = 15.0  # for the engine's thread to end, and for the card to be freed, each


class Engine:
    """Serves one model. `submit` from any thread; answers arrive at each request's sink on the engine's own thread."""

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
    ) -> None:
        """`exact`: single decodes only, for cards whose graphs differ in the last bit. `drafts`: verify guessed tokens.
        `draft_history`: also guess them from the latest answers, so many tokens of them, of the same cache_salt.
        `trace`: write every pass to this file in Chrome's trace format. `recovery`: what is done about a card that
        fails; `state_dir`: where that is counted (None: see `attempts_file`); `on_failure` is called once, on the
        engine's thread, when nothing helped. `threaded` False: nothing runs by itself, the caller calls `step()`.
        `shared`: the card, where other engines have models on it, too; what is done about it is settled there.
        `throttle`: theirs together."""
        self.model, self.text, self.package = model, model.text, model.package
        self.max_queue = max_queue
        self.state: State = "ready"
        self.reason: str | None = None
        self.failure: FailureKind | None = None
        self.shared = shared or shared_card(model.on_card, recovery, state_dir)
        self.ladder = self.shared.ladder
        self._turn, self._opening = Turn(self.shared.turns), self.shared.opening
        self.exit_wanted = False  # a process started anew may do better
        self.card_left = False  # closed, but a thread hangs in a call to the card
        self._on_failure = on_failure
        self._watch = PassWatch(self._hangs)
        self.scheduler = Scheduler(
            model,
            max_running=max_running,
            exact=exact,
            drafts=drafts,
            draft_history=draft_history,
            trace=trace,
            watch=self._watch,
        )
        self._change = threading.Condition(self.scheduler.lock)
        self._trouble: CardTrouble | None = None  # that somebody else saw
        self._memory_wanted = False
        self._wakes = 0  # times that somebody had news for the engine's thread; guarded by the lock
        self._numbers = itertools.count(1)
        self.throttle = throttle or Throttle()
        self.live = Live(self.scheduler, self.wake)
        self.shared.members.append(self)
        self._thread = threading.Thread(target=self._main, name="axpress-engine", daemon=True) if threaded else None
        if self._thread is not None:
            self._watch.start()
            self._thread.start()

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
        **options: Any,
    ) -> list[Engine]:
        """Loads model directories on one card; an engine for each. A card that fails or hangs meanwhile is tried again,
        and rebooted. `meanwhile` is called while that is waited for, and may raise; `holders`: see LeftMemory. See
        `open_models` for errors, the constructor for `options`."""
        shared = open_card(
            directories, device, profile, settings, progress, banks=banks, logits_slots=max_running,
            recovery=options.get("recovery"), state_dir=options.pop("state_dir", None), meanwhile=meanwhile,
            holders=holders, split=split,
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
    def info(self) -> EngineInfo:
        """What is served, on what."""
        return self.model.info

    # ---- any thread ----

    def submit(self, request: GenerationRequest, sink: Sink) -> Generation:
        """Queues a request. Raises RequestError or ContextOverflow (can never be served), QueueFull (try later),
        EngineClosed."""
        return self.submit_all([request], [sink])[0]

    def submit_all(self, requests: list[GenerationRequest], sinks: list[Sink]) -> list[Generation]:
        """Queues several requests, all or none: choices of one prompt, or texts to embed or to score, which take one
        place in the queue. Raises as `submit`.

        Takes milliseconds for long prompts and rules, which keep nobody else waiting: not for an event loop."""
        for request in requests:
            check_request(request, self.info, self.package.vocab_size or self.info.vocab_size)
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
        scheduler, counters = self.scheduler, self.scheduler.counters
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

    def wake(self) -> None:
        """Makes the engine look at its queue again."""
        with self._change:
            self._notify()

    def _notify(self) -> None:
        self._wakes += 1
        self._change.notify_all()

    # ---- the engine's thread ----

    def _main(self, hanging: CallHangs | None = None) -> None:
        """`hanging`: what the thread before this one was given up for."""
        try:
            if hanging is None:
                self._with_card(self._bind_thread)
            else:
                self._recover(hanging)
            while self._gather():
                if self.throttle.allow():
                    self._with_card(self._run_pass)
        except Abandoned:
            return
        except BaseException as error:  # a library's panic is no Exception; whatever it was, nobody works here any more
            self._fail(error)
        self._turn.drop()
        self._end_all()
        if self.state == "failed" and self._on_failure is not None:
            self._on_failure()

    def _with_card(self, work: Callable[[], None]) -> None:
        """Does `work` when it is this engine's turn; not where the card was opened anew since the last one: what was
        there is lost then, and the plan of what to do with it."""
        with suppress(EngineClosed), self._turn.hold(self._meanwhile):  # closed: _gather looks at the state
            if self._opening == self.shared.opening and self.shared.sound and self.state != "recovering":
                work()
            else:
                self._catch_up()

    def _catch_up(self) -> None:
        """The card was opened anew for others, or is to be."""
        try:
            self.shared.check()
        except CardTrouble as trouble:
            self._recover(trouble)
            return
        self.scheduler.suspend()
        self._is_well()

    def _is_well(self) -> None:
        """The card computes: this thread may use it, and what was of the one before is over."""
        self._opening = self.shared.opening
        self._bind_thread()
        self.live.quiet = False
        self.scheduler.counters.last_progress = time.monotonic()
        with self._change:
            self._trouble = None
            if self.state == "recovering":
                self.state, self.reason = "ready", None

    def _bind_thread(self) -> None:
        """Before this thread's first call to a card that was opened. One that fails even there is brought back."""
        try:
            with self._watch.over("binding a thread", ASK_SECONDS):
                self.model.card.bind_thread()
        except RuntimeCallError as error:
            self._recover(error)

    def _run_pass(self) -> None:
        try:
            self.scheduler.run_pass()
        except (RuntimeCallError, LogitsError) as error:
            self._recover(error)

    def _hangs(self, what: str, seconds: float) -> None:
        """On the watchdog's thread: the engine's does not come back from a call. Another one takes its place."""
        self.model.program.abandon()
        self._turn.inherit()
        error = CallHangs(f"the card did not answer within {seconds:.1f} s during {what}")
        self._thread = threading.Thread(target=self._main, args=(error,), name="axpress-engine", daemon=True)
        self._thread.start()

    def _recover(self, error: AxpressError) -> None:
        """The card failed in whatever part of a pass: brings it back, then everybody goes on from the token they were
        at. Raises CardBeyondHelp."""
        self.scheduler.suspend()
        with self._change:
            if self.state == "closed":
                return
            if self.state == "ready":
                self.state, self.reason = "recovering", str(error)
        self.live.quiet = True
        with suppress(EngineClosed):  # _gather looks at the state
            with self._turn.hold(self._meanwhile):
                self.shared.bring_back(self._opening, str(error), failure_kind(error), self._meanwhile)
                self._is_well()
            return
        self.live.quiet = False

    @property
    def num_passes(self) -> int:
        """Passes so far."""
        totals = self.scheduler.counters.totals
        return totals["decode_passes"] + totals["chunk_passes"]

    def _meanwhile(self) -> None:
        """While the card is brought back, or others have it: deadlines hold, who looks sees something, and nobody waits
        in vain."""
        self.scheduler.drop_cancelled()
        if self.ladder.status is not None and self.state == "ready":  # others bring it back
            self.state, self.reason, self.live.quiet = "recovering", self.ladder.status.reason, True
        if self.live.asked:
            self.live.take_asked()
        if self.state == "closed":
            raise EngineClosed("the server is shutting down")

    def _drop_bank(self) -> None:
        self._memory_wanted = False
        try:
            self.scheduler.finish_passes()
            with self._watch.over("giving memory back", 2 * ASK_SECONDS):
                self.scheduler.drop_bank()
        except RuntimeCallError as error:
            self._recover(error)

    def _test_idle(self) -> None:
        """A card that fails while nobody asks for anything is noticed, and brought back, before somebody does."""
        try:
            with self._watch.over("a test of an idle card", 2 * ASK_SECONDS):
                check_card(self.model.program, round(ASK_SECONDS * 1000))
        except (RuntimeCallError, LogitsError) as error:
            self._recover(error)
        else:
            self.scheduler.counters.last_progress = time.monotonic()

    def step(self) -> bool:
        """Runs one pass on the calling thread; False when there is nothing to do. For an engine made with
        `threaded=False`."""
        self.scheduler.drop_cancelled()
        self.scheduler.admit()
        if not self.scheduler.num_running:
            return False
        self._with_card(self._run_pass)
        return True

    def _gather(self) -> bool:
        """Ends what was cancelled, takes in what fits, waits while there is nothing to do. False when the engine is to
        end."""
        while True:
            wakes = self._wakes  # what comes from here on is looked at in the next turn
            self.scheduler.drop_cancelled()
            if self._trouble is not None:
                self._recover(self._trouble)
            if self._memory_wanted:
                self._with_card(self._drop_bank)
            if self.live.asked:
                with self._watch.over("asking the card how it is", ASK_SECONDS):
                    self.live.take_asked()
            if self.state == "closed":
                return False
            self.scheduler.admit()
            if self.scheduler.num_running:
                return True
            with self._change:
                self._change.notify_all()  # close() waits for idleness
                idle = wakes == self._wakes and self.state != "closed" and not self._change.wait(IDLE_SECONDS)
            if idle:
                self._with_card(self._test_idle)

    def _end_all(self) -> None:
        """The engine ends: everybody who still waits or runs is told why."""
        reason: FinishReason = "error" if self.failure else "cancelled"
        error = self.reason if self.failure and self.reason else "the server is shutting down"
        failure = self.failure or FailureKind.CLOSED
        self.live.close(error)

        def tell(sequence: Sequence) -> None:
            sequence.end(reason, error=error, failure=failure)

        self.scheduler.end_all(tell)
        with self._change:
            self._change.notify_all()

    def _fail(self, error: BaseException) -> None:
        """Nothing more can be computed in this process."""
        card_failed = isinstance(error, AxpressError)
        self.failure = failure_kind(error)
        self.reason = str(error) if card_failed else f"internal error: {error!r}"
        with self._change:
            self.state = "failed"
            self.exit_wanted = isinstance(error, CardBeyondHelp) and error.exit_wanted
        log.error("the engine stopped: %s", self.reason, exc_info=None if card_failed else error)
