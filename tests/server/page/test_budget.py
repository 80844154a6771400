"""What the page costs until somebody sees it: counted here, timed by bench/first_paint.py."""

from __future__ import annotations

from typing import Any

import pytest
from browser import browser_needed, chromium_only
from page_visitor import answer_with, ask, open_page, until
from server_process import RunningServer

SHIFTS = """() => {
  globalThis.shifts = [];
  const seen = (list) => list.getEntries().forEach((shift) => shift.hadRecentInput || shifts.push(
    [shift.value, ...shift.sources.map(({ node }) => (node?.outerHTML ?? node?.nodeName ?? '').slice(0, 80))]));
  new PerformanceObserver(seen).observe({ type: 'layout-shift', buffered: true });
}"""
BLOCKING = """() => performance.getEntriesByType('resource').filter((one) => one.renderBlockingStatus === 'blocking')
  .concat(performance.getEntriesByType('navigation')).map((one) => [one.name, one.encodedBodySize])"""
ALL = "() => performance.getEntriesByType('resource').map((one) => [one.name, one.encodedBodySize])"


def visit(context: Any, server: RunningServer) -> Any:
    """A page that has shown all that it shows by itself."""
    context.add_init_script(f"({SHIFTS})()")
    page = open_page(context, server.url)
    settled(page)
    return page


def settled(page: Any) -> None:
    until(page, "document.querySelector('#banks figcaption')?.textContent.includes('free')")
    page.evaluate("() => new Promise((go) => setTimeout(go, 600))")  # and the next picture, and the libraries


@browser_needed
@chromium_only
def test_little_stands_before_the_first_paint(context: Any, server: RunningServer) -> None:
    page = visit(context, server)
    blocking = page.evaluate(BLOCKING)
    assert len(blocking) <= 4, blocking  # the page itself and its three style sheets
    assert sum(size for _, size in blocking) < 40_000, blocking
    asked = page.evaluate(ALL)
    own = [one for one in asked if "/vendor/" not in one[0]]
    assert len(asked) <= 45 and sum(size for _, size in own) < 120_000, own
    assert sum(size for _, size in asked) < 320_000, asked


@browser_needed
@chromium_only
@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_moves_while_the_page_comes(context: Any, server: RunningServer, width: int) -> None:
    page = visit(context, server)
    page.set_viewport_size({"width": width, "height": 740})
    answer_with(page, "# One\n\n- two\n\n```python\nx = 1\n```\n" * 3)
    for again in (False, True):  # empty, and with a conversation
        page.reload()
        settled(page)
        assert page.evaluate("() => shifts") == [], again
        if not again:
            ask(page, "Hello")
