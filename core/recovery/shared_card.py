"""The card that engines run on, one or several: whose turn it is, what is done when it fails, and which models are on
it. When it is opened again, for whichever reason, what everybody had there is lost: each engine sees that before its
next pass (`opening`), and its answers go on from the token they were at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from ..device.card_models import CardModels, Model, Wanted, check_card
from ..device.load_watch import Progress
from ..errors import (
    AxpressError,
    CardBeyondHelp,
    CardTrouble,
    EngineClosed,
    FailureKind,
    LogitsError,
    RuntimeCallError,
    RuntimeUnavailable,
)
from .attempts import AttemptLog
from .bounded_call import BoundedCall, CallHangs, Meanwhile, nothing
from .first_load import Try, load_first
from .ladder import Ladder, RecoveryPolicy
from .turns import Turn, Turns

log = logging.getLogger(__name__)


class Member(Protocol):
    """An engine on the card."""

    @property
    def num_passes(self) -> int:
        """So far."""

    def report_trouble(self, kind: FailureKind, why: str) -> None:
        """See Engine."""


class SharedCard:
    """`opening` counts how often the card was opened again, or its caches cleared. But for `turns`, whoever calls has
    the turn."""

    def __init__(self, on_card: CardModels, policy: RecoveryPolicy, attempts: AttemptLog) -> None:
        self.on_card, self.turns = on_card, Turns()
        self.ladder = Ladder(on_card, policy, attempts)
        self.members: list[Member] = []
        self.opening = 0
        self._unfinished: CardTrouble | None = None  # somebody was bringing it back, and ended
        self._beyond_help: CardBeyondHelp | None = None
        self._num_passes_before = 0  # of engines that are gone

    @property
    def sound(self) -> bool:
        """Whether it can be used, as far as is known."""
        return self._unfinished is None and self._beyond_help is None

    def check(self) -> None:
        """Raises CardTrouble where it was left as it was in the middle of being opened, CardBeyondHelp for good."""
        if self._beyond_help is not None:
            raise self._beyond_help
        if self._unfinished is not None:
            raise self._unfinished

    def bring_back(self, seen: int, why: str, kind: FailureKind, meanwhile: Meanwhile = nothing) -> None:
        """Until the card computes again, for all; nothing, where somebody did that since it was opened the `seen`-th
        time. Raises CardBeyondHelp, or what `meanwhile` raises."""
        if self._beyond_help is not None:
            raise self._beyond_help
        if seen != self.opening and self._unfinished is None:
            return
        self._unfinished = CardTrouble(why, kind)
        num_passes = self._num_passes_before + sum(member.num_passes for member in self.members)
        try:
            self.ladder.climb(why, kind, num_passes, meanwhile)
        except CardBeyondHelp as error:
            self._beyond_help = error
            for member in self.members:
                member.report_trouble(error.kind, str(error))
            raise
        self._unfinished = None
        self.opening += 1

    def leave(self, member: Member, model: Model) -> None:
        """An engine ends: what its model has on the card is freed, and the card with the last one. Waits for the
        turn."""
        with Turn(self.turns).hold():
            if member in self.members:
                self.members.remove(member)
                self._num_passes_before += member.num_passes
            self.on_card.remove(model)

    def add_beside(self, wanted: Wanted, progress: Progress | None = None, meanwhile: Meanwhile = nothing) -> Model:
        """Loads one more model file by file, between passes of those that are there: for runtimes that load something
        once something ran. Where that fails the others go on; a card that fails is brought back for them."""
        turn, seen = Turn(self.turns), self.opening

        @contextmanager
        def gate() -> Iterator[None]:
            with turn.hold(meanwhile):
                self.check()
                if seen != self.opening:
                    raise RuntimeUnavailable("the card was opened anew while a model was being loaded: try again")
                yield

        loading = Try(lambda tell: self.on_card.load_beside(wanted, gate, turn.hold, tell), progress)
        try:
            return loading.result()
        except CallHangs as error:
            turn.inherit()
            with turn.hold(meanwhile):
                self.bring_back(self.opening, str(error), error.kind, meanwhile)
            raise
        except (RuntimeCallError, LogitsError):
            with turn.hold(meanwhile):
                self._look()
            raise

    def _look(self) -> None:
        """Somebody's load failed: whether the card still computes for the others. Where it does not, one of them brings
        it back."""
        check_ms = round(self.ladder.policy.check * 1000)

        def look() -> None:
            self.on_card.card.bind_thread()
            for model in self.on_card.models:
                check_card(model.program, check_ms)

        try:
            BoundedCall("looking at the card", look).result(2 * self.ladder.policy.check)
        except AxpressError as error:
            for member in self.members[:1]:
                member.report_trouble(error.kind, str(error))

    def add(
        self,
        wanted: Wanted,
        runtime: Callable[[], tuple[str, int, bool]],
        progress: Progress | None = None,
        meanwhile: Meanwhile = nothing,
    ) -> Model:
        """Loads one more model: closes the card and opens it with all of them, since many runtimes load nothing once
        something ran. Waits for the turn. Where that fails, those that were there are loaded again, before the error
        is raised (see load_first)."""
        policy, check_ms = self.ladder.policy, round(self.ladder.policy.check * 1000)

        def load(*adding: Wanted) -> None:
            BoundedCall("freeing the card", lambda: self.on_card.close(1000)).result(policy.settle)
            opened = load_first(
                lambda tell: self.on_card.load_again(None, check_ms, tell, adding),
                runtime, policy, self.ladder.attempts, progress, meanwhile,
            )  # fmt: skip
            self.on_card.adopt(opened)

        with Turn(self.turns).hold(meanwhile):
            if self.members or self._beyond_help:
                self.check()
            self._unfinished = CardTrouble("the models on the card were being changed", FailureKind.CARD_FAILED)
            self.opening += 1
            try:
                load(wanted)
            except (AxpressError, OSError) as error:
                log.error("%s is not loaded: %s", wanted.package.name, error)
                if not isinstance(error, EngineClosed):
                    load()
                    self._unfinished = None
                raise
            self._unfinished = None
            return self.on_card.models[-1]
