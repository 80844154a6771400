"""GET /live and /live/stream: what the card is doing, for people who watch. Numbers only: no text, no tokens, no names
of clients."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
from sanic.request import Request
from sanic.response import HTTPResponse

from axpress.core.engine.snapshot import FREE, IDLE, EngineSnapshot
from axpress.core.errors import EngineClosed
from axpress.core.kv_cache.row_pool import Rows

from ..http.errors import HttpError
from ..http.routing import JSON
from ..serving.engine_service import Service

log = logging.getLogger("axpress.server")

EVENTS = "text/event-stream; charset=utf-8"
PERIOD = 0.5
"""Seconds between two looks at the engine while somebody watches."""
HEARTBEAT = 10.0
"""Seconds of silence after which a comment says that the connection lives."""
MAX_VIEWERS = 32
PICTURE_SECONDS = 1.5
"""How long to wait for a pass to end; after that the picture before is told again."""
MAX_RUNS = 2048
"""Of a bank in one document: no cache of up to 2,048 rows can have more."""
_FACTS = (
    "status", "reason", "model", "device", "emulated", "toy", "profile", "context_length", "num_banks", "max_running",
    "max_queue",
)  # fmt: skip


def describe(health: dict[str, Any], picture: EngineSnapshot | None) -> dict[str, Any]:
    """The document of /live: what /health says of model and card, and the picture (null while there is no engine to
    look at)."""
    facts: dict[str, Any] = {name: health.get(name) for name in _FACTS}
    if picture is None:
        return {**facts, "picture": None}
    return {
        **facts,
        "picture": {
            "running": picture.running,
            "num_waiting": picture.num_waiting,
            "tokens_per_s": picture.tokens_per_s,
            "passes": picture.widths,
            "banks": [describe_bank(owners) for owners in picture.banks],
            "card": picture.card,
            "cards": picture.cards,
        },
    }


def describe_bank(owners: Rows) -> dict[str, Any]:
    """A bank's rows: how many, and `runs`: holder, length, holder, length ... from row 0 on, holders as in
    `core.engine.snapshot.FREE`. Of more than MAX_RUNS runs neighbours are told as one, as whoever has most of them."""
    coarse, width = owners, 1
    while len(starts := np.flatnonzero(np.diff(coarse, prepend=coarse[0] - 1))) > MAX_RUNS:
        width *= 2
        whole = np.sort(owners[: len(owners) // width * width].reshape(-1, width), axis=1)
        coarse = np.append(whole[:, width // 2], owners[len(whole) * width :][:1])
    runs = np.empty(2 * len(starts), np.int64)
    runs[0::2] = coarse[starts]
    runs[1::2] = np.diff(starts * width, append=len(owners))
    return {
        "rows": len(owners),
        "free": int((owners == FREE).sum()),
        "idle": int((owners == IDLE).sum()),
        "shared": int((owners < IDLE).sum()),
        "runs": runs.tolist(),
    }


class Viewer:
    """One who watches: the latest event not yet sent to it. One that reads slowly misses some, and holds no more memory
    for that."""

    def __init__(self, first: bytes | None) -> None:
        self._next = first
        self._wake = asyncio.Event()
        self._over = False
        if first is not None:
            self._wake.set()

    def offer(self, event: bytes) -> None:
        """Replaces what was not sent yet."""
        self._next = event
        self._wake.set()

    def end(self) -> None:
        """No more events."""
        self._over = True
        self._wake.set()

    async def next(self) -> bytes | None:
        """The next event, or a comment after a long silence; None at the end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT):
                await self._wake.wait()
        self._wake.clear()
        if self._over:
            return None
        event, self._next = self._next, None
        return event or b": nothing changed\n\n"


class Feed:
    """Looks at the engine for all viewers together, while there are any."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._viewers: set[Viewer] = set()
        self._task: asyncio.Task[None] | None = None
        self._latest: bytes | None = None
        self._picture: EngineSnapshot | None = None
        self._closed = False

    def join(self) -> Viewer:
        """A new viewer; `leave` it in the end. HttpError where there are too many, or the server ends."""
        if self._closed:
            raise EngineClosed("the server is shutting down")
        if len(self._viewers) >= MAX_VIEWERS:
            text = f"{MAX_VIEWERS} viewers are watching already, as many as this server allows; close one, or ask /live"
            text += " once in a while."
            raise HttpError(429, text, code="too_many_viewers", headers={"retry-after": "10"})
        viewer = Viewer(self._latest)
        self._viewers.add(viewer)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._watch())
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """The viewer is gone."""
        self._viewers.discard(viewer)
        if not self._viewers and self._task is not None:
            self._task.cancel()
            self._task = self._latest = None

    def close(self) -> None:
        """The server ends: so do all streams."""
        self._closed = True
        for viewer in self._viewers:
            viewer.end()
        if self._task is not None:
            self._task.cancel()

    async def facts(self) -> dict[str, Any]:
        """What to tell now."""
        picture = await self._look()
        return describe(self._service.health()[1], picture)

    async def document(self) -> bytes:
        """The same as JSON."""
        return orjson.dumps(await self.facts())

    async def _look(self) -> EngineSnapshot | None:
        try:
            engine = self._service.ready().engine
            self._picture = await asyncio.wait_for(asyncio.wrap_future(engine.live.ask()), PICTURE_SECONDS)
        except EngineClosed:
            self._picture = None
        except TimeoutError:
            pass  # a long pass, or a card that hangs: /health's status tells which
        return self._picture

    async def _watch(self) -> None:
        try:
            while True:
                event = b"data: " + await self.document() + b"\n\n"
                if event != self._latest:
                    self._latest = event
                    for viewer in self._viewers:
                        viewer.offer(event)
                await asyncio.sleep(PERIOD)
        except Exception:  # they come again, and so does the next try
            log.exception("the live view failed")
            for viewer in self._viewers:
                viewer.end()


async def get_live(request: Request) -> HTTPResponse:
    """What the card is doing, once."""
    feed: Feed = request.app.ctx.live
    return HTTPResponse(await feed.document(), headers={"cache-control": "no-store"}, content_type=JSON)


async def stream_live(request: Request) -> HTTPResponse | None:
    """The same as server-sent events, about two a second while something changes, until the client leaves or the server
    ends."""
    feed: Feed = request.app.ctx.live
    stall = request.app.ctx.service.settings.stall_timeout
    viewer = feed.join()
    try:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        if request.method == "HEAD":
            return HTTPResponse(headers=headers, content_type=EVENTS)
        response: Any = await request.respond(content_type=EVENTS, headers=headers)
        while (event := await viewer.next()) is not None:
            async with asyncio.timeout(stall):
                await response.send(event)
        await response.eof()
    except TimeoutError:
        request.transport.abort()  # type: ignore[attr-defined]  # a client that does not read
    finally:
        feed.leave(viewer)
    return None
