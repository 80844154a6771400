"""A browser for the tests of pages: Chromium, or with AXPRESS_BROWSER=firefox an unchanged Firefox (`make firefox`)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAME = os.environ.get("AXPRESS_BROWSER", "chromium")
PROGRAMS = {"chromium": ("chromium", "chromium-browser", "google-chrome"), "firefox": ("firefox-esr", "firefox")}
PROGRAM = next(filter(None, map(shutil.which, PROGRAMS[NAME])), None)
browser_needed = pytest.mark.skipif(PROGRAM is None, reason=f"the page's tests need a browser: apt install {NAME}")
chromium_only = pytest.mark.skipif(NAME != "chromium", reason="only Chromium can be asked this")
CLIPBOARD = {"dom.events.testing.asyncClipboard": True}
"""Firefox asks a person before a page reads the clipboard."""


@contextmanager
def launched_browser(downloads: Path | None = None, flags: Sequence[str] = ()) -> Iterator[Any]:
    """Playwright's Browser, closed in the end. `downloads`: where files go that pages make; `flags`: Chromium's."""
    from playwright.sync_api import sync_playwright

    flags = [*flags, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as started:
        if NAME == "firefox":  # by WebDriver BiDi, as it comes; Playwright's usual way needs a Firefox of its own
            browser = started.firefox.launch(
                channel="moz-firefox", executable_path=PROGRAM, firefox_user_prefs=CLIPBOARD, downloads_path=downloads
            )
        else:
            browser = started.chromium.launch(executable_path=PROGRAM, args=flags)
        yield browser
        browser.close()


def download(page: Any, downloads: Path, press: Callable[[], None]) -> str:
    """The text of the file that the page makes when `press` is called."""
    if NAME == "chromium":
        with page.expect_download() as started:
            press()
        return Path(started.value.path()).read_text()
    press()  # Playwright does not see Firefox's
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for file in downloads.iterdir():
            if file.suffix != ".part" and (text := file.read_text()):
                file.unlink()
                return text
        time.sleep(0.05)
    raise AssertionError("nothing was saved")
