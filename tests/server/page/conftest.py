"""A real Chromium against a real `axpress serve` of the demo model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import launched_browser
from page_visitor import WAIT, open_page, serve
from server_process import RunningServer, made_up_profile


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_profile(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def server(profile: Path) -> Iterator[RunningServer]:
    with serve(profile) as running:
        yield running


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[Any]:
    flags = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
    ]  # a camera that films a test picture
    with launched_browser(downloads, flags) as launched:
        yield launched


@pytest.fixture
def context(browser: Any, server: RunningServer) -> Iterator[Any]:
    """A browser window of its own. Nothing that its pages ask for may leave the server, and nothing may be complained
    about."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(WAIT)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    asked: list[str] = []
    complaints: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.complaints = complaints
    yield context
    context.close()
    assert asked and all(re.match(r"http://127\.0\.0\.1:\d+/", url) for url in asked), asked
    assert not complaints
    server.wait(server.idle, 30, "idle: a page that is closed leaves nothing running")


@pytest.fixture
def page(context: Any, server: RunningServer) -> Any:
    return open_page(context, server.url)
