"""A conversation that outgrows the model's context does not end: the oldest turns can be left out."""

from __future__ import annotations

import re
from typing import Any

from browser import browser_needed
from page_visitor import answer, ask, open_page, say, take_complaint, until, until_state
from server_process import RunningServer

LONG = "The quick brown fox jumps over the lazy dog. " * 15


def meter(page: Any) -> tuple[int, int]:
    words = page.locator("#context-said").inner_text()
    used, size = re.fullmatch(r"([\d,]+) of ([\d,]+) tokens of context", words).groups()  # type: ignore[union-attr]
    return int(used.replace(",", "")), int(size.replace(",", ""))


@browser_needed
def test_a_full_context_is_shown_and_is_no_dead_end(context: Any) -> None:
    with RunningServer("--emu-profile", "none") as fast:
        page = open_page(context, fast.url)
        fill_up(page, context)
        page.close()


def fill_up(page: Any, context: Any) -> None:
    assert not page.locator("#context").is_visible()
    page.get_by_label("Message").fill("Hello there")
    page.locator("#context").wait_for()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Max tokens").fill("8")
    page.get_by_role("button", name="Save").click()
    few, size = meter(page)
    assert 0 < few < 100 and not page.get_by_label("leave out the oldest turns").is_visible()
    ask(page, f"1 {LONG}")
    until(page, "document.querySelector('#context-bar').value > 0.1")
    used = meter(page)[0]
    usage = answer(page).locator(".figures").inner_text()
    cost = [int(n.replace(",", "")) for n in re.findall(r"(?:prompt|answer) ([\d,]+) token", usage)]
    assert abs(used - sum(cost)) <= 8, "what the prompt and the answer took is what is full now"
    for number in range(2, 20):
        say(page, f"{number} {LONG}")
        until(page, "['done', 'failed'].includes([...document.querySelectorAll('.assistant')].at(-1)?.dataset.state)")
        if answer(page).get_attribute("data-state") == "failed":
            break
    assert f"context is {size}" in answer(page).locator(".error").inner_text().replace(",", "")
    take_complaint(context)
    questions = page.locator(".user").count()
    answer(page).get_by_role("button", name="Leave out the oldest turns").click()
    until_state(page, "done")
    assert page.locator(".user").count() == questions, "all messages are still there to be read"
    left = page.locator(".left-out").count()
    assert left >= 2 and page.locator(".first-seen").count() == 1
    until(page, "document.querySelector('#leave-out').checked")
    assert meter(page)[0] < size
    ask(page, f"again {LONG}")  # and on it goes, by itself
    assert page.locator(".left-out").count() > left
    page.reload()
    page.locator(".first-seen").wait_for()
