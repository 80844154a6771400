"""Models by name on one card: those that were given are there from the start and stay; those of the models directory
come when they are asked for, as far as the card's memory allows, and go when they are idle for long or others need the
room.

On the event loop, but for what says otherwise. Loads go one at a time, in the order in which the models were asked for.
Whoever needs room gets it from the one that was used longest ago, of those that have had the card as long as their
loading took; one that answers is let finish first, and takes no further requests meanwhile."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from axpress.core.device.card_memory import CMM_FLOOR
from axpress.core.errors import AxpressError, EngineClosed, QueueFull, RuntimeCallError

from ..http.errors import HttpError
from ..settings import Settings
from .hosted_model import HostedModel
from .memory_book import FILE, MemoryBook
from .model_names import DEFAULT, SHOWN
from .served_model import ServedModel

if TYPE_CHECKING:
    from axpress.core.device.load_watch import LoadProgress
    from axpress.core.engine.engine import Engine
    from axpress.core.recovery.shared_card import SharedCard

log = logging.getLogger("axpress.server")

MAX_LISTED = 24
"""Names that an error lists."""


class ModelPool:
    """`models`: all, the default one first. `check_stop` is called on loading threads and raises where the server ends;
    `failed` on an engine's thread when nothing brought the card back."""

    def __init__(
        self, settings: Settings, models: list[HostedModel], check_stop: Callable[[], None], failed: Callable[[], None]
    ) -> None:
        from axpress.core.engine.throttle import Throttle

        self.settings, self.models = settings, models
        self.loading: HostedModel | None = None
        self.progress: LoadProgress | None = None
        self._load_later = settings.load_later
        self.pulling = ""
        """The name of the model that is being pulled."""
        self.shared: SharedCard | None = None
        self.throttle = Throttle()
        self._book, self._check_stop, self._failed = MemoryBook(None), check_stop, failed
        self._news = asyncio.Event()
        self._closed: str | None = None
        self._slow: ThreadPoolExecutor

    @property
    def banks(self) -> int | None:
        """Caches of each model: the memory beside them is for other models, where such may come."""
        return self.settings.banks or (1 if self.settings.on_demand else None)

    # ---- on the loading thread ----

    def open(self, tell: Callable[[LoadProgress], None], holders: Callable[[], str | None]) -> None:
        """Opens the card with the models that are there from the start. Errors as for `Engine.open`."""
        from axpress.core.recovery.open_card import open_card

        s = self.settings
        first = [model for model in self.models if model.stays]
        self.shared = open_card(
            [model.settings.directory for model in first], s.effective_device, s.profile,
            {"speed": f"{s.emu_speed:g}"} if s.emu_speed is not None else None, tell,
            banks=self.banks, logits_slots=s.max_running, state_dir=s.state_dir, meanwhile=self._check_stop,
            holders=holders, like=self.models[0].settings.directory,
        )  # fmt: skip
        path = self.shared.ladder.attempts.path
        self._book = MemoryBook(path and path.with_name(FILE))
        for hosted, model in zip(first, list(self.shared.on_card.models), strict=True):
            self._serve(hosted, model)
            hosted.load_seconds = model.load_seconds

    def _serve(self, hosted: HostedModel, model: Any) -> None:
        """A loaded model gets its engine."""
        from axpress.core.engine.engine import Engine

        s = self.settings
        trace = s.trace and s.trace.with_stem(f"{s.trace.stem}-{hosted.name.replace('/', '-')}")
        hosted.engine = Engine(
            model, max_queue=s.max_queue, max_running=s.max_running, exact=s.exact, drafts=s.drafts,
            draft_history=s.draft_history, trace=trace, on_failure=self._failed, shared=self.shared,
            throttle=self.throttle,
        )  # fmt: skip
        hosted.served = ServedModel.of(hosted.engine, hosted.settings)
        hosted.state, hosted.loaded_at, hosted.num_loads = "ready", monotonic(), hosted.num_loads + 1
        self._book.note(model.package, self.banks or 1, model.card_bytes)

    def _load(self, hosted: HostedModel) -> None:
        from axpress.core.device.model_loader import runtime_of, want

        assert self.shared is not None
        wanted = want(hosted.settings.directory, self.banks, self.settings.max_running)
        device = self.settings.effective_device
        if self._load_later and self.shared.on_card.models:
            try:
                self._serve(hosted, self.shared.add_beside(wanted, self._tell, self._check_stop))
                return
            except RuntimeCallError as error:
                self._load_later = False
                log.warning(
                    "a model cannot be loaded beside others here (%s): from now on the card is opened again", error
                )
        runtime = partial(runtime_of, wanted.package, device)
        self._serve(hosted, self.shared.add(wanted, runtime, self._tell, self._check_stop))

    def _tell(self, progress: LoadProgress) -> None:
        if not progress.unanswered:
            self._check_stop()
        self.progress = progress

    # ---- by name ----

    @property
    def engines(self) -> list[Engine]:
        """Of the models that are on the card."""
        return [model.engine for model in self.models if model.engine is not None]

    @property
    def loaded(self) -> list[HostedModel]:
        """Those that are on the card, the one that was used last first."""
        there = [model for model in self.models if model.served is not None]
        return sorted(there, key=lambda model: -model.last_used) if self.settings.on_demand else there

    def find(self, name: str | None) -> HostedModel:
        """The model that a request means; without a name, or with the name "default", the first one, where models come
        and go the one that was used last. HttpError 404: there is none."""
        if name is None or name.casefold().removesuffix(":latest") == DEFAULT:
            return (self.loaded or self.models)[0]
        folded = name.casefold().removesuffix(":latest")
        named = [model for model in self.models if model.names.served.casefold().removesuffix(":latest") == folded]
        for model in named or self.models:
            if name in model.names:
                return model
        shown = name if len(name) <= SHOWN else name[:SHOWN] + "..."
        names = ", ".join(f"'{model.name}'" for model in self.models[:MAX_LISTED])
        more = f" and {len(self.models) - MAX_LISTED} more" if len(self.models) > MAX_LISTED else ""
        text = f"model '{shown}' not found: this server has {names}{more}."
        raise HttpError(404, text, param="model", code="model_not_found")

    async def take(self, hosted: HostedModel) -> ServedModel:
        """The model for a request, once it is there; it stays until `give`. Raises HttpError where it never fits,
        QueueFull, EngineClosed, and what its loading ended with."""
        if hosted.state == "ready":
            hosted.num_users += 1
        else:
            await self._wait_for(hosted)
        assert hosted.served is not None
        return hosted.served

    def give(self, hosted: HostedModel, keep: float | None = None) -> None:
        """The request is over. `keep`: so many seconds without another one the model stays."""
        hosted.num_users -= 1
        hosted.last_used = monotonic()
        if keep is not None:
            hosted.keep = keep
        self._news.set()

    async def _wait_for(self, hosted: HostedModel) -> None:
        """Until it is there; it counts as used then."""
        if self._closed is not None:
            raise EngineClosed(self._closed)
        if hosted not in self.models:  # deleted, since it was found
            raise HttpError(404, f"The model '{hosted.name}' is here no longer.", param="model", code="model_not_found")
        self._check_fits(hosted)
        waiting = sum(len(model.waiting) for model in self.models)
        if waiting >= self.settings.max_queue:
            seconds = max((model.load_seconds for model in self.models), default=0.0) or 10.0
            raise QueueFull(f"{waiting} requests are waiting for models to be loaded, as many as may", seconds)
        if not hosted.waiting:
            hosted.wanted_at = monotonic()
        if hosted.state == "idle":
            hosted.state = "waiting"
        future: asyncio.Future[AxpressError | None] = asyncio.get_running_loop().create_future()
        hosted.waiting.append(future)
        self._news.set()
        try:
            error = await future
        except BaseException:
            if future in hosted.waiting:
                hosted.waiting.remove(future)
            elif future.done() and not future.cancelled() and future.result() is None:
                hosted.num_users -= 1
            self._news.set()
            raise
        if error is not None:
            raise error

    def unload(self, hosted: HostedModel) -> None:
        """Somebody wants it gone, as soon as nobody uses it."""
        if hosted.state not in ("idle", "failed"):
            hosted.keep = 0.0
            self._news.set()

    def add(self, hosted: HostedModel) -> None:
        """One more can be asked for, or again."""
        if all(model.names.served != hosted.names.served for model in self.models):
            self.models.append(hosted)

    def remove(self, hosted: HostedModel) -> None:
        """It can be asked for no longer; it is not on the card."""
        self.models.remove(hosted)

    # ---- memory ----

    def _bytes(self, hosted: HostedModel) -> tuple[int, int]:
        if hosted.engine is not None and hosted.engine.model.card_bytes:
            return (hosted.engine.model.card_bytes,) * 2
        return self._book.need(hosted.package, self.banks or 1)

    @property
    def _room(self) -> int | None:
        """Bytes of the card that models may take together; None: the runtime does not tell."""
        free = self.shared.on_card.free_bytes if self.shared is not None else None
        return None if free is None else free - CMM_FLOOR

    def _check_fits(self, hosted: HostedModel) -> None:
        """HttpError where no room can ever be made."""
        room, need = self._room, self._bytes(hosted)[0]
        staying = sum(self._bytes(model)[0] for model in self.models if model.stays)
        if room is not None and need > room - staying:
            beside = f" beside the {staying >> 20} MiB of the models that stay" if staying else ""
            text = (
                f"model '{hosted.name}' does not fit on this card: it needs at least {need >> 20} MiB of its memory,"
                f" and there are {room >> 20} MiB{beside}."
            )
            raise HttpError(400, text, param="model", code="model_too_large")

    def _victims(self, hosted: HostedModel) -> list[HostedModel] | None:
        """Who has to go for it, longest unused first; None: nobody, there is room."""
        room = self._room
        if room is None:
            return None
        there = [model for model in self.models if model.engine is not None]
        least, likely = self._bytes(hosted)
        need = likely if likely <= room - sum(self._bytes(m)[1] for m in there if m.stays) else least
        missing = need + sum(self._bytes(model)[1] for model in there) - room
        if missing <= 0:
            return None
        now = monotonic()
        able = [model for model in there if not model.stays]
        able.sort(key=lambda model: (model.stays_until > now, model.num_users > 0, model.last_used))
        chosen: list[HostedModel] = []
        for model in able:
            if missing > 0:
                chosen.append(model)
                missing -= self._bytes(model)[1]
        return chosen

    # ---- how it is ----

    def banner(self) -> str:
        """One line for people."""
        assert self.shared is not None
        names = ", ".join(model.name for model in self.loaded) or "no model yet"
        where = " (emulated: no card)" if self.shared.on_card.card.emulated else ""
        more = len(self.models) - len(self.loaded)
        return f"serving {names}{where}" + (f"; {more} more when asked for" if more else "")

    def report(self) -> list[dict[str, Any]]:
        """All models for /health: the loaded ones, and those that are waited for, with what their engines count."""
        return [self._report(model) for model in self.models if model.engine is not None or model.state != "idle"]

    def _report(self, model: HostedModel) -> dict[str, Any]:
        now, engine = monotonic(), model.engine
        leaves = model.expires_at
        facts: dict[str, Any] = {
            "name": model.name,
            "status": model.state if engine is None or model.state != "ready" else engine.state,
            "stays": model.stays,
            "num_users": model.num_users,
            "waiting_for_load": len(model.waiting),
            "num_loads": model.num_loads,
            "load_seconds": round(model.load_seconds, 1),
            "card_bytes": self._bytes(model)[1],
            "leaves_in_seconds": None if leaves == math.inf or engine is None else round(max(0.0, leaves - now), 1),
        }
        if engine is None:
            return facts
        stats = engine.stats()
        return {
            **facts,
            "context_length": engine.info.context_length,
            "embeds": bool(engine.info.embedding_size),
            "reranks": model.served is not None and model.served.reranker is not None,
            "num_banks": engine.info.num_banks,
            "num_running": stats["num_running"],
            "num_waiting": stats["num_waiting"],
            "rows_used": stats["rows_used"],
            "rows": stats["rows"],
            "stats": stats,
        }

    # ---- who comes and who goes ----

    async def run(self, slow: ThreadPoolExecutor) -> None:
        """For the server's life. `slow`: where loads and unloads run."""
        self._slow = slow
        while True:
            self._news.clear()
            wait = await self._step()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if wait == math.inf else max(wait, 0.001)):
                    await self._news.wait()

    async def _step(self) -> float:
        """What is due; in how many seconds the next look is."""
        for model in self.models:
            if model.state == "waiting" and not model.waiting:  # they all left
                model.state = "idle"
            if model.state == "leaving":
                model.state = "ready"  # unless somebody needs its room still
        now, due = monotonic(), math.inf
        waiting = sorted((m for m in self.models if m.state == "waiting"), key=lambda model: model.wanted_at)
        if waiting:
            due = await self._make_room(waiting[0])
            if due == 0:
                await self._bring(waiting[0])
        for model in self.models:
            if model.state == "ready":
                model.tell()
                if not model.num_users and model.expires_at <= now:
                    log.info("%s was not used for a while", model.name)
                    await self._unload(model)
                due = min(due, model.expires_at - monotonic()) if model.state == "ready" else due
        return due

    async def _make_room(self, hosted: HostedModel) -> float:
        """0: there is. Else in how many seconds somebody may go; inf: when somebody's last answer has ended."""
        now = monotonic()
        while victims := self._victims(hosted):
            early = [model for model in victims if model.stays_until > now]
            for model in victims:
                if model not in early:
                    model.state = "leaving"
            idle = [model for model in victims if model.state == "leaving" and not model.num_users]
            if early or len(idle) < len(victims):
                return min((model.stays_until - now for model in early), default=math.inf)
            there = now - idle[0].loaded_at
            log.info("%s leaves the card for %s, after %.1f s there", idle[0].name, hosted.name, there)
            await self._unload(idle[0])
        return 0

    async def _bring(self, hosted: HostedModel) -> None:
        hosted.state, self.loading, begun = "loading", hosted, monotonic()
        log.info("loading %s: requests that wait for it: %d", hosted.name, len(hosted.waiting))
        try:
            await asyncio.get_running_loop().run_in_executor(self._slow, self._load, hosted)
        except Exception as exc:
            hosted.state = "idle"
            ours = isinstance(exc, AxpressError | OSError)
            log.error("%s was not loaded: %s", hosted.name, exc, exc_info=None if ours else exc)
            hosted.tell(_not_loaded(hosted, exc))
        else:
            hosted.load_seconds, hosted.loaded_at = monotonic() - begun, monotonic()
            hosted.last_used = hosted.loaded_at
            log.info("%s is there after %.1f s: requests that waited for it: %d", hosted.name, hosted.load_seconds,
                     len(hosted.waiting))  # fmt: skip
            hosted.tell()
        finally:
            self.loading = self.progress = None
            self._news.set()

    async def _unload(self, hosted: HostedModel) -> None:
        engine, hosted.engine, hosted.served = hosted.engine, None, None
        hosted.state = "waiting" if hosted.waiting else "idle"
        hosted.keep = None
        assert engine is not None
        try:
            await asyncio.get_running_loop().run_in_executor(self._slow, engine.close)
        except Exception as exc:  # whatever it is, others come and go
            ours = isinstance(exc, AxpressError)
            log.error("%s did not leave the card in order: %s", hosted.name, exc, exc_info=None if ours else exc)

    def close(self, why: str) -> None:
        """Nobody gets a model any more."""
        self._closed = why
        for model in self.models:
            model.tell(EngineClosed(why))


def _not_loaded(hosted: HostedModel, exc: Exception) -> AxpressError:
    if isinstance(exc, EngineClosed):
        return exc
    why = str(exc) if isinstance(exc, AxpressError | OSError) else "see the server's log"
    headers = {"retry-after": "10"}
    return HttpError(503, f"model '{hosted.name}' could not be loaded: {why}", code="model_not_loaded", headers=headers)
