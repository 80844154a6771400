"""The Sanic application: routes, limits and lifecycle put together."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import signal
import socket
import sys
from typing import Any
from uuid import uuid4

from sanic import Sanic
from sanic.config import Config
from sanic.request import Request
from sanic.response import BaseHTTPResponse, HTTPResponse

from .docs.routes import ROUTES
from .http.access import Access, GuardedProtocol, mark
from .http.connections import SafeRequest, check_head, watch_slow_senders
from .http.errors import ShapedErrors
from .http.port_holder import port_holder
from .http.routing import JSON, register
from .monitor.live import Feed
from .notify import Notifier, Supervised
from .openai.response_store import ResponseStore
from .serving.canary import Canary
from .serving.engine_service import Service
from .settings import Settings

log = logging.getLogger("axpress.server")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,128}")
FOREVER = 10.0**9
"""Sanic's own response timeout counts from the last byte sent; ours are total, so its one is out of the way."""


def make_app(settings: Settings, service: Service | None = None) -> Sanic:
    """A Sanic app that serves `settings`. One per process: Sanic keeps a registry of them."""
    access = Access(settings)  # first: Sanic keeps an app that was made, whatever becomes of it
    path = settings.store_responses
    responses = None if path is None else ResponseStore(path, *settings.store_limit)
    app = Sanic(
        "axpress",
        config=_config(settings),
        configure_logging=False,
        error_handler=ShapedErrors(route.error for route in ROUTES),
        request_class=SafeRequest,
    )
    app.ctx.service = service or Service(settings)
    app.ctx.access = access
    app.ctx.responses = responses
    app.ctx.connections = set()
    app.ctx.signalled = False
    app.ctx.live = Feed(app.ctx.service)
    app.ctx.canary = Canary(app.ctx.service)
    register(app, ROUTES)
    app.on_response(_request_id)
    app.on_response(mark)
    app.on_response(_end_line)
    app.signal("http.lifecycle.read_head")(_read_head)
    app.after_server_start(_start)
    app.before_server_stop(_stop)
    return app


def _config(settings: Settings) -> Config:
    config = Config(env_prefix=None)
    config.update(
        {
            "REQUEST_MAX_SIZE": settings.max_body,
            "REQUEST_TIMEOUT": max(1, int(settings.read_timeout)),
            "RESPONSE_TIMEOUT": FOREVER,
            "KEEP_ALIVE_TIMEOUT": max(1, int(settings.keep_alive)),
            "GRACEFUL_SHUTDOWN_TIMEOUT": 2.0,
            "GRACEFUL_TCP_CLOSE_TIMEOUT": 1.0,
            "ACCESS_LOG": False,
            "AUTO_EXTEND": False,
            "MOTD": False,
        }
    )
    return config


async def _read_head(head: bytes, **_: Any) -> None:
    check_head(head)


async def _request_id(request: Request, response: HTTPResponse) -> None:
    """x-request-id: the client's own when it is harmless, else a new one."""
    own = request.headers.getone("x-request-id", "")
    request.ctx.request_id = own if _REQUEST_ID.fullmatch(own) else str(uuid4())
    response.headers["x-request-id"] = request.ctx.request_id


async def _end_line(_: Request, response: BaseHTTPResponse) -> None:
    """JSON ends with its line: a shell's prompt does not stick to it."""
    if isinstance(response, HTTPResponse) and response.content_type == JSON and response.body:
        response.body += b"\n"


async def _start(app: Sanic) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _signalled, app)
    loop.add_signal_handler(signal.SIGHUP, app.ctx.access.reload)
    app.ctx.notifier = Notifier()
    app.ctx.supervised = Supervised(app.ctx.service, app.ctx.canary, app.ctx.notifier)
    app.ctx.tasks = [
        loop.create_task(work) for work in (_begin(app), watch_slow_senders(app), app.ctx.supervised.run())
    ]


def _signalled(app: Sanic) -> None:
    app.ctx.signalled = True
    if app.state.is_running:
        app.stop(terminate=False)


async def _begin(app: Sanic) -> None:
    """Announce and load. Not before Sanic has started: a stop that comes earlier is lost in its start-up."""
    while not app.state.is_running:
        await asyncio.sleep(0.001)
    _announce(app)
    if app.ctx.signalled:
        app.stop(terminate=False)
    else:
        await _load(app)


def _announce(app: Sanic) -> None:
    settings: Settings = app.ctx.service.settings
    host, port = app.ctx.address
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    what = "the demo model, emulated: no card; a toy model" if settings.is_demo else str(settings.directory)
    if app.ctx.service.pool is not None:
        what = ", ".join(str(path) for path in (settings.model_dir, *settings.more_models) if path is not None)
        what = " and ".join(filter(None, (what, "the models directory" if settings.on_demand else "")))
    print(f"axpress: {what}\naxpress: listening on http://{authority}", file=sys.stderr, flush=True)
    app.ctx.access.announce(host)


async def _load(app: Sanic) -> None:
    service: Service = app.ctx.service
    service.end = lambda: app.stop(terminate=False)
    await service.start()
    if service.exit_code and service.state == "failed":
        app.stop(terminate=False)


async def _stop(app: Sanic) -> None:
    """Runs after the first SIGTERM or SIGINT, while the server still listens and answers 503."""
    service: Service = app.ctx.service
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, service.hurry)  # Sanic has put the deadly defaults back
    app.ctx.supervised.stopping()
    await service.stop()
    app.ctx.live.close()
    if app.ctx.responses is not None:
        app.ctx.responses.close()
    for task in app.ctx.tasks:
        task.cancel()
    app.ctx.notifier.close()


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises OSError in words when the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        sock = socket.create_server((settings.host, settings.port), family=family, backlog=128)
    except OSError as exc:
        holder = port_holder(settings.port) if exc.errno == errno.EADDRINUSE else ""
        more = f"; {holder} has it" if holder else ""
        raise OSError(f"cannot listen on {settings.host} port {settings.port}: {exc.strerror or exc}{more}") from exc
    sock.setblocking(False)
    return sock


def serve(settings: Settings, service: Service | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the process's exit code. Where a call to the card does not return, or a
    model is being pulled, the process ends here: Python would wait for that thread."""
    app = make_app(settings, service)
    sock = listen(settings)
    app.ctx.address = sock.getsockname()[:2]
    app.run(sock=sock, single_process=True, motd=False, access_log=False, protocol=GuardedProtocol)
    pool = app.ctx.service.pool
    if app.ctx.service.card_hangs or (pool is not None and pool.pulling):  # a download goes on where it was, next time
        logging.shutdown()
        os._exit(app.ctx.service.exit_code)
    return int(app.ctx.service.exit_code)
