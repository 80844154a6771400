"""Whether an idle card still answers: one token, asked for when nothing else has told for a while."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from axpress.core.errors import AxpressError
from axpress.core.request import Delta, GenerationRequest

if TYPE_CHECKING:
    from .engine_service import Service

log = logging.getLogger("axpress.server")

FRESH_SECONDS = 45.0
"""A pass within this tells that tokens can be had."""
ANSWER_SECONDS = 10.0
_SALT = b"axpress canary"


class Canary:
    """Asks for one token on an idle engine, for all who want to know together."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._asking: asyncio.Task[bool] | None = None

    async def alive(self) -> bool:
        """True where a token can be had, by a pass not older than FRESH_SECONDS or one that is run now."""
        if self._service.condition()[0] != "ready":
            return False
        pool = self._service.pool
        if pool is not None and (pool.loading is not None or not pool.loaded):
            return True  # a load has bounds of its own; and without a model there is nobody to ask
        stats = self._service.ready().engine.stats()
        if stats["num_running"] or stats["num_waiting"] or stats["seconds_since_progress"] < FRESH_SECONDS:
            return True  # one that stalls is told by `condition`
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> bool:
        ended = asyncio.Event()
        last: list[Delta] = []

        def receive(deltas: list[Delta]) -> None:
            if deltas[-1].finish_reason is not None:
                last.append(deltas[-1])
                ended.set()

        engine = self._service.ready().engine
        request = GenerationRequest(
            [0], max_tokens=1, ignore_eos=True, cache_salt=_SALT, low_priority=True,
            dimensions=engine.info.embedding_size,
        )  # fmt: skip
        stream = self._service.bridge.channel(receive)
        try:
            generation = engine.submit(request, stream.sink)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await ended.wait()
            finally:
                generation.cancel()
        except TimeoutError:
            log.error("the idle card was asked for a token and gave none within %g s", ANSWER_SECONDS)
            return False
        except AxpressError as exc:
            log.error("the idle card was asked for a token: %s", exc)
            return False
        finally:
            stream.close()
        return last[0].finish_reason in ("stop", "length")
