"""The engine's life as the server sees it: load, serve, drain, close; and the numbers that /health tells."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from axpress.core.errors import (
    AxpressError,
    CardBeyondHelp,
    EngineClosed,
    EngineFailed,
    FailureKind,
    PackageError,
    RuntimeUnavailable,
    failure_kind,
)

from ..exit_codes import CARD, CONFIGURATION
from ..settings import Settings
from .answer_metrics import AnswerMetrics
from .card_claim import Claim, claim_card
from .card_monitor import CardMonitor
from .card_reset import ask_for_reset
from .engine_bridge import EngineBridge
from .engine_facts import banner, engine_facts, engines_facts, group_facts, loading_facts
from .hosted_model import hosted_models
from .lenient import Lenience
from .model_pool import ModelPool
from .pictures import PictureRoom
from .served_model import ServedModel
from .watched_card import WatchedCard

if TYPE_CHECKING:
    from axpress.core.device.backend import CardHandle
    from axpress.core.device.load_watch import LoadProgress
    from axpress.core.engine.engine import Engine
    from axpress.core.engine.engine_group import AnyEngine, EngineGroup

log = logging.getLogger("axpress.server")

CARD_FAILURES = (FailureKind.CARD_LOST, FailureKind.CARD_HUNG, FailureKind.CARD_FAILED, FailureKind.BAD_OUTPUT)
RECOVERY_SECONDS = 30.0
"""A recovery of so many seconds is no reason for a health check to turn away: requests wait."""
STALLED_SECONDS = 30.0
"""No token for this long while answers run means that none can be had; far above any step, below the card's own
time-outs."""
LOAD_STOP_SECONDS = 6.0
"""After SIGTERM the model file that is being loaded may still take so long, or the probe that runs."""
CLOSE_SECONDS = 30.0
"""Freeing the card may take so long. Nobody can end a call into the runtime that does not return."""


class Service:
    """State: loading -> ready -> draining -> closed, or failed. Everything but the loading itself runs on the loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lenience = Lenience() if settings.lenient else None
        self.state = "loading"
        self.reason = "the model is being loaded"
        self.exit_code = 0
        self.card_hangs = False
        """Set at the end where a thread was left behind in a call to the card: it must not be waited for."""
        self.end: Callable[[], None] = lambda: None
        """Makes the process end in order; set by the application."""
        self.num_answers = 0
        self.answers = AnswerMetrics()
        self._told = ("loading", monotonic())
        self._told_failed = False
        self._progress: LoadProgress | None = None
        self._busy_since = monotonic()
        self.started = monotonic()
        self.created = time()
        self._engine: AnyEngine | None = None
        self._group: EngineGroup | None = None
        """The same, where it has several cards."""
        self._claims: list[Claim] = []
        self.cards: list[WatchedCard] = []
        """In use, from the end of the loading on."""
        self._served: ServedModel | None = None
        self._loading: asyncio.Future[AnyEngine | None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self.pool: ModelPool | None = None
        """Where requests choose among models; else there is one, whose engine is `_engine`."""
        if settings.several:
            self.pool = ModelPool(settings, hosted_models(settings), self._check_stop, self._tell_failed)
        self._coming_and_going: asyncio.Task[None] | None = None
        self.bridge: EngineBridge
        self._loop: asyncio.AbstractEventLoop
        # Loading and closing block for seconds; preparing prompts must not hold up running answers, and a prepared
        # request not wait until others are. One thread each.
        self._slow = ThreadPoolExecutor(1, "axpress-load")
        self.preparing = ThreadPoolExecutor(1, "axpress-prepare")
        self.submitting = ThreadPoolExecutor(1, "axpress-submit")
        self.pictures = PictureRoom(settings)

    async def start(self) -> None:
        """Load the model in a thread; returns when that ended, well or not. Sets `exit_code` when waiting cannot
        help."""
        loop = asyncio.get_running_loop()
        self.bridge = EngineBridge(loop)
        self._loop = loop
        self._loading = loop.run_in_executor(self._slow, self._open)
        try:
            self._engine = await asyncio.shield(self._loading)
            if self._engine is not None:
                self._served = await loop.run_in_executor(self._slow, ServedModel.of, self._engine, self.settings)
        except Exception as exc:
            self._fail(exc)
            return
        self.cards = self._watched_cards()
        for card in self.cards:
            card.monitor.start()
        if self.pool is not None:
            self._coming_and_going = loop.create_task(self.pool.run(self._slow))
        if self.state == "loading":
            self.state, self.reason = "ready", ""
            log.info("%s", self.banner())

    def _watched_cards(self) -> list[WatchedCard]:
        pool, settings = self.pool, self.settings
        if pool is not None:
            shared = pool.shared
            assert shared is not None
            return [WatchedCard(lambda: shared.on_card.card, lambda: pool.engines, pool.throttle, settings)]
        assert self._engine is not None
        return [
            WatchedCard(partial(_card_of, engine), partial(list, [engine]), engine.throttle, settings, name)
            for name, engine in self._engine.cards
        ]

    @property
    def monitor(self) -> CardMonitor | None:
        """Of the first card."""
        return self.cards[0].monitor if self.cards else None

    @property
    def _engines(self) -> list[AnyEngine]:
        """Of all models."""
        if self.pool is not None:
            return list(self.pool.engines)
        return [] if self._engine is None else [self._engine]

    def _open(self) -> AnyEngine | None:
        from axpress.core.device.model_loader import cards_of, devices_of, runtime_of
        from axpress.core.engine.engine import Engine
        from axpress.core.engine.engine_group import EngineGroup
        from axpress.core.model_files.model_package import open_package

        s = self.settings
        first = self.pool.models[0].settings.directory if self.pool is not None else s.directory
        devices = [s.effective_device]
        if s.effective_device != "axengine":
            package = open_package(first)
            devices = devices_of(package, s.effective_device)
            split = s.split or cards_of([package], s.effective_device)
            emulated = runtime_of(package, devices[0])[2]
            for card in split or [runtime_of(package, device)[1] for device in devices]:
                self._claims.append(claim_card(s.state_dir, card, emulated, self._check_stop))
        if self.pool is not None:
            self.pool.open(self._loads, self._holders)
            return None
        options: dict[str, Any] = {
            "settings": {"speed": f"{s.emu_speed:g}"} if s.emu_speed is not None else None, "progress": self._loads,
            "max_running": s.max_running, "banks": s.banks, "exact": s.exact, "drafts": s.drafts,
            "draft_history": s.draft_history, "trace": s.trace, "meanwhile": self._check_stop,
            "state_dir": s.state_dir, "on_failure": self._tell_failed,
        }  # fmt: skip
        if len(devices) == 1:
            return Engine.open(
                s.directory, devices[0], s.profile, s.max_queue, holders=self._holders, split=s.split, **options
            )
        holders = [claim.holders for claim in self._claims]
        self._group = EngineGroup.open(s.directory, devices, s.profile, s.max_queue, holders=holders, **options)
        return self._group

    def _holders(self) -> str | None:
        """See Claim."""
        return next((told for claim in self._claims or [Claim()] if (told := claim.holders()) != ""), "")

    def _loads(self, progress: LoadProgress) -> None:
        """Called on other threads. Ends the loading before the next file where the server is told to stop."""
        if self.state != "loading" and not progress.unanswered:
            raise EngineClosed("the server was told to stop while the model was being loaded")
        self._progress = progress

    def _loading_facts(self) -> dict[str, Any]:
        """What /health says of a model on its way; the reason is the same for people."""
        now = self._progress
        if self.state == "ready" and self.pool is not None and self.pool.loading is not None:
            now = self.pool.progress
        elif self.state != "loading":
            now = None
        return {} if now is None else loading_facts(now, beside_others=self.state == "ready")

    def _fail(self, exc: Exception) -> None:
        if self.state != "loading" and isinstance(exc, EngineClosed):
            return
        self.state = "failed" if self.state == "loading" else self.state
        self.reason = str(exc) if isinstance(exc, AxpressError | OSError) else f"{type(exc).__name__} while loading"
        if isinstance(exc, AxpressError | OSError):
            log.error("cannot serve this model: %s", exc)
        else:
            log.error("cannot serve this model", exc_info=exc)
        # Wrong files stay wrong: end. A process started anew may do better with a card, but not again and again.
        if isinstance(exc, PackageError | RuntimeUnavailable | OSError):
            self.exit_code = CONFIGURATION if isinstance(exc, PackageError) else 1
        elif isinstance(exc, CardBeyondHelp):
            self.card_hangs = exc.kind is FailureKind.CARD_HUNG
            wanted = exc.exit_wanted or ask_for_reset(self.settings.state_dir, self.reason)
            self.exit_code = CARD if wanted else 0
        elif failure_kind(exc) in CARD_FAILURES:  # past the loading, where nothing more is tried
            self.exit_code = 1

    def _check_stop(self) -> None:
        """Called on the loading thread while a card is waited for."""
        if self.state not in ("loading", "ready"):
            raise EngineClosed("the server was told to stop while the model was being loaded")

    def _tell_failed(self) -> None:
        """Called on the engine's thread."""
        self._loop.call_soon_threadsafe(self._engine_failed)

    def _engine_failed(self) -> None:
        """Nothing brought the card back, or an engine stopped for an error of its own."""
        if self._told_failed:
            return
        self._told_failed = True
        engine = next((engine for engine in self._engines if engine.state == "failed"), None)
        exit_wanted = engine is not None and (
            engine.exit_wanted
            or (engine.failure in CARD_FAILURES and ask_for_reset(self.settings.state_dir, engine.reason or ""))
        )
        if not exit_wanted:
            cure = "the card's power must be cut" if engine and engine.failure in CARD_FAILURES else "see why above"
            log.error("restarts did not help either: %s. Until then every request is refused", cure)
            return
        log.error("ending with exit code %d, to be started again", CARD)
        self.exit_code = CARD
        self.end()

    @property
    def load_hangs(self) -> bool:
        """Whether the card has not done in time what it was asked for by the loading."""
        return self._progress is not None and bool(self._progress.unanswered)

    @property
    def served_name(self) -> str:
        """The model's name in answers; where there are several, that of the default one."""
        if self.pool is not None:
            return self.pool.find(None).name
        return self._served.name if self._served else (self.settings.model_name or "")

    @property
    def served(self) -> ServedModel | None:
        """The model as requests see it, from the end of its loading on; where there are several, the default one."""
        if self.pool is not None:
            return next((model.served for model in self.pool.loaded), None)
        return self._served

    @property
    def has_eyes(self) -> bool:
        """Whether a model that can be asked for takes pictures."""
        if self.pool is not None:
            return any(model.has_eyes for model in self.pool.models)
        return self._served is not None and self._served.eyes is not None

    def begin_answer(self) -> None:
        """An accepted request is on its way until `end_answer`."""
        # A card that hangs still has the answer whose client left: its silence goes on being counted.
        if not self.num_answers and not any(engine.stats()["num_running"] for engine in self._engines):
            self._busy_since = monotonic()
        self.num_answers += 1

    def end_answer(self) -> None:
        """It is over, however it ended."""
        self.num_answers -= 1

    def ready(self) -> ServedModel:
        """The model as requests see it, or EngineClosed with the reason why no token can be had."""
        served = self.served
        if self.state == "ready" and served is not None and served.engine.state in ("ready", "recovering"):
            return served
        self.check_open()
        raise EngineClosed("No model is on the card right now: ask one that /v1/models lists.")

    def check_open(self) -> None:
        """Raises EngineClosed with the reason where no token of any model can be had."""
        broken = [engine for engine in self._engines if engine.state not in ("ready", "recovering")]
        if self.state == "ready" and not broken:
            return
        failed = "failed" in (self.state, *(engine.state for engine in broken))
        raise (EngineFailed if failed else EngineClosed)(self._why_not())

    def _why_not(self) -> str:
        state, reason = self.state, self._loading_facts().get("reason", self.reason)
        for engine in self._engines if state == "ready" else ():
            if state in ("ready", "recovering"):
                state, reason = engine.state, engine.reason or ""
        return f"No answers right now ({state})" + (f": {reason}." if reason else ".")

    def banner(self) -> str:
        """One line for people: what is served, on what."""
        if self.pool is not None and self.state == "ready":
            return self.pool.banner()
        if self._engine is None:
            return f"{self.state}: {self.reason}"
        return banner(self._engine.info, self.served_name, self.settings)

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and body of /health: 200 when a token can be had, or can be waited for since a moment ago."""
        stats = self._engine.stats() if self._engine is not None else {}
        status, reason = self.condition(stats)
        body: dict[str, Any] = {"status": status, "reason": reason, "model": self.served_name}
        body["since_seconds"] = round(monotonic() - self._told[1], 1)
        body |= self._loading_facts()
        if self._engine is not None:
            body |= engine_facts(self._engine, stats, self.settings)
            if self._group is not None:
                body |= group_facts(self._group, self.cards)
        elif self.pool is not None:
            body |= {**engines_facts(self.pool.engines, self.settings), "models": self.pool.report()}
        if (card := next((card.report for card in self.cards if card.report), None)) is not None:
            body["card"] = card
        body["num_answers"] = self.num_answers
        body["uptime_seconds"] = round(monotonic() - self.started, 1)
        seconds = body.get("recovery", {}).get("seconds", 0.0)
        fine = body["status"] == "ready" or (body["status"] == "recovering" and seconds < RECOVERY_SECONDS)
        return (200 if fine else 503), body

    def condition(self, stats: dict[str, Any] | None = None) -> tuple[str, str]:
        """The state in a word, "ready" exactly when a token can be had, and the reason why not, or "". A change since
        the last look is logged. `stats`: the engine's, where they are at hand."""
        status, reason = self.state, self._loading_facts().get("reason", self.reason)
        if status != "ready":
            return self._tell(status, reason)
        for engine in self._engines:
            status, reason = engine.state, engine.reason or ""
            if status != "ready":
                return self._tell(status, reason)
        if self.cards and all(card.monitor.policy.paused for card in self.cards):
            return self._tell("hot", f"answers wait until the card is below {self.settings.heat[1]:g} C")
        for engine in self._engines if self.pool is None or self.pool.loading is None else ():
            told = stats or engine.stats()
            # Silence before the card had anything to do says nothing.
            silent = min(told.get("seconds_since_progress") or 0.0, monotonic() - self._busy_since)
            if told.get("num_running", 0) and silent > STALLED_SECONDS:
                return self._tell("stalled", f"no token for {silent:.0f} seconds")
        return self._tell(status, reason)

    def _tell(self, status: str, reason: str) -> tuple[str, str]:
        was, since = self._told
        if status != was:
            self._told = (status, monotonic())
            weight = logging.INFO if status in ("ready", "draining", "closed") else logging.WARNING
            log.log(
                weight, "%s after %.1f seconds of %s%s", status, self._told[1] - since, was, reason and f": {reason}"
            )
        return status, reason

    def hurry(self) -> None:
        """A second signal: do not wait for running answers any longer."""
        self._hurry.set()

    async def stop(self) -> None:
        """Drain and close the card in order. Safe to call more than once; each call waits for the same end."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        begun = monotonic()
        self.state, self.reason = "draining", "the server is shutting down"
        if self.pool is not None:
            self.pool.close(self.reason)
        if self._loading is not None and not self._loading.done():
            log.info("shutting down: the model file that is being loaded may take %g s more", LOAD_STOP_SECONDS)
            await self._within(self._loading, LOAD_STOP_SECONDS)
        if self.num_answers:
            log.info(
                "shutting down: %d answers may go on for %g seconds", self.num_answers, self.settings.drain_timeout
            )
        while self.num_answers and monotonic() - begun < self.settings.drain_timeout and not self._hurry.is_set():
            await asyncio.sleep(0.02)
        if self._coming_and_going is not None:
            self._coming_and_going.cancel()
            loading = asyncio.get_running_loop().run_in_executor(self._slow, lambda: None)
            await self._within(loading, LOAD_STOP_SECONDS)  # what is being loaded ends before its next file
        for card in self.cards:
            await asyncio.to_thread(card.monitor.stop)
        if self._loading is not None and self._loading.done() and self._loading.exception() is None:
            self._engine = self._engine or self._loading.result()
        for engine in self._engines:
            await self._close(engine)
        until = monotonic() + 2.0
        while self.num_answers and monotonic() < until:  # the cut answers tell their clients
            await asyncio.sleep(0.02)
        self.state, self.reason = "closed", "the server was shut down"
        if self._loading is not None:  # a signal can come before it begins
            self.bridge.close()
        for executor in (self._slow, self.preparing, self.submitting):
            executor.shutdown(wait=False)
        self.pictures.close()
        if not self.card_hangs:
            for claim in self._claims:
                claim.give_up()
        log.info("closed after %.1f seconds", monotonic() - begun)

    async def _close(self, engine: AnyEngine) -> None:
        """Close the card. One that failed is closed as far as it lets itself, and makes the exit code 1."""
        if engine.state == "failed":
            self.exit_code = self.exit_code or 1
        closing = asyncio.get_running_loop().run_in_executor(self._slow, engine.close, 0.0)
        await self._within(closing, CLOSE_SECONDS)
        if not closing.done():
            return
        self.card_hangs = self.card_hangs or engine.card_left
        try:
            closing.result()
        except Exception as exc:
            self.exit_code = 1
            trace = None if isinstance(exc, AxpressError) else exc
            log.error("the card could not be closed in order: %s", exc, exc_info=trace)

    async def _within(self, work: asyncio.Future[Any], seconds: float) -> None:
        """Waits for work on the card, at most so long; what does not end by then is left behind."""
        done, _ = await asyncio.wait([work], timeout=seconds)
        if not done:
            self.card_hangs, self.exit_code = True, 1
            log.error("the card has not answered within %g s: it is left as it is. Should the next program"
                      " have no answer either, cut its power", seconds)  # fmt: skip


def _card_of(engine: Engine) -> CardHandle:
    return engine.model.card
