"""The engine's thread: passes while there is anything to do, and what it does about a card that fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, Protocol

from ..device.card_models import Model, check_card
from ..errors import (
    AxpressError,
    CardBeyondHelp,
    CardTrouble,
    EngineClosed,
    FailureKind,
    LogitsError,
    RuntimeCallError,
    failure_kind,
)
from ..recovery.bounded_call import CallHangs
from ..recovery.pass_watch import Abandoned, PassWatch
from ..recovery.shared_card import SharedCard
from ..recovery.turns import Turn
from ..request import FinishReason
from .scheduler import Scheduler
from .sequence import Sequence
from .snapshot import Live
from .throttle import Throttle

log = logging.getLogger(__name__)

State = Literal["ready", "recovering", "draining", "failed", "closed"]
ASK_SECONDS = 5.0  # the card may take so long to say how warm it is, or for a test
IDLE_SECONDS = 30.0  # after so long without a pass the card is tested


class Peers(Protocol):
    """Engines of the same model on other cards. All on the calling engine's thread."""

    def lost(self, engine: Any) -> None:
        """Its card failed: what was cached there is gone."""

    def hand_over(self, engine: Any) -> None:
        """Its card failed: who is there goes on elsewhere, as far as there is somewhere."""

    def fetch(self, engine: Any) -> None:
        """It has room: who waits elsewhere may come."""


class EngineLoop:
    """What the engine's thread does; `Engine` is the door to it."""

    def __init__(
        self,
        model: Model,
        shared: SharedCard,
        throttle: Throttle | None,
        peers: Peers | None,
        on_failure: Callable[[], None] | None,
        **options: Any,
    ) -> None:
        """`options`: the scheduler's."""
        self.model = model
        self.state: State = "ready"
        self.reason: str | None = None
        self.failure: FailureKind | None = None
        self.shared, self.ladder = shared, shared.ladder
        self._turn, self._opening = Turn(shared.turns), shared.opening
        self.exit_wanted = False  # a process started anew may do better
        self._peers, self._on_failure = peers, on_failure
        self._watch = PassWatch(self._hangs)
        self.scheduler = Scheduler(model, watch=self._watch, **options)
        self._change = threading.Condition(self.scheduler.lock)
        self._trouble: CardTrouble | None = None  # that somebody else saw
        self._memory_wanted = False
        self._wakes = 0  # times that somebody had news for the engine's thread; guarded by the lock
        self.throttle = throttle or Throttle()
        self.live = Live(self.scheduler, self.wake)
        self._thread: threading.Thread | None = None

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._main, name="axpress-engine", daemon=True)
        self._watch.start()
        self._thread.start()

    def wake(self) -> None:
        """Makes the engine look at its queue again. From any thread."""
        with self._change:
            self._notify()

    def _notify(self) -> None:
        self._wakes += 1
        self._change.notify_all()

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
        if self._peers is not None:
            self._peers.lost(self)
        self._hand_over()
        with suppress(EngineClosed):  # _gather looks at the state
            with self._turn.hold(self._meanwhile):
                self.shared.bring_back(self._opening, str(error), failure_kind(error), self._meanwhile)
                self._is_well()
            return
        self.live.quiet = False

    def _hand_over(self) -> None:
        """Where the card failed: whoever can goes on elsewhere."""
        if self._peers is not None and self.state in ("recovering", "failed"):
            self._peers.hand_over(self)

    @property
    def num_passes(self) -> int:
        """Passes so far."""
        totals = self.scheduler.counters.totals
        return totals["decode_passes"] + totals["chunk_passes"]

    def _meanwhile(self) -> None:
        """While the card is brought back, or others have it: deadlines hold, who looks sees something, and nobody waits
        in vain."""
        self.scheduler.drop_cancelled()
        self._hand_over()
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
        except (RuntimeCallError, LogitsError) as error:
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
            if self._peers is not None and self.scheduler.has_place:
                self._peers.fetch(self)
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
            self.exit_wanted = error.exit_wanted if isinstance(error, CardBeyondHelp) else self.ladder.may_exit()
        if isinstance(error, CardBeyondHelp):  # else what went wrong may go along
            self._hand_over()
        log.error("the engine stopped: %s", self.reason, exc_info=None if card_failed else error)
