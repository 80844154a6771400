"""How soon the page shows something: the demo model's server on loopback, Chromium with an empty cache each time.

    python bench/first_paint.py --loads 10

Once as this machine is, once with the browser's processor slowed down six times (Chromium's own throttle), as a phone
would be. The server is not slowed down. Prints medians; the goal is a first paint under 1 s."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from browser import launched_browser
from page_visitor import until_served
from server_process import RunningServer

GOAL_MS = 1000
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


def first_paint(browser: object, url: str, slowdown: int) -> tuple[float, float]:
    """Milliseconds until something is seen, and until the model's name is."""
    context = browser.new_context()
    page = context.new_page()
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slowdown})
    page.goto(url)
    until_served(page)
    found = page.evaluate(PAINT), page.evaluate("() => performance.now()")
    context.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--loads", type=int, default=10)
    loads = parser.parse_args().loads
    with RunningServer("--emu-profile", "none") as server, launched_browser() as browser:
        first_paint(browser, server.url, 1)  # what a browser does once
        for slowdown in (1, 6):
            times = [first_paint(browser, server.url, slowdown) for _ in range(loads)]
            paint, ready = (statistics.median(each) for each in zip(*times, strict=True))
            verdict = "met" if paint < GOAL_MS else "missed"
            print(f"browser slowed {slowdown}x: first paint {paint:.0f} ms (goal {GOAL_MS}: {verdict})", end="")
            print(f", model's name {ready:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
