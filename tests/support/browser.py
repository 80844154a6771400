"""A browser for the tests of pages: Chromium, or with AXPRESS_BROWSER=firefox an unchanged Firefox (`make firefox`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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
def launched_browser() -> Iterator[Any]:
    """Playwright's Browser, closed in the end."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as started:
        if NAME == "firefox":  # by WebDriver BiDi, as it comes; Playwright's usual way needs a Firefox of its own
            browser = started.firefox.launch(
                channel="moz-firefox", executable_path=PROGRAM, firefox_user_prefs=CLIPBOARD
            )
        else:
            browser = started.chromium.launch(executable_path=PROGRAM, args=flags)
        yield browser
        browser.close()
