"""What the page says of the server and the card: loading, hot, idle, whose answer is whose; for every width and eye."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from browser import browser_needed
from page_visitor import (
    RAMBLE,
    STORY,
    WAIT,
    answer,
    answer_with,
    ask,
    open_page,
    say,
    serve,
    stop,
    text_of,
    until,
    until_some_text,
    until_state,
)  # fmt: skip
from server_process import RunningServer, chat

from axpress.core.model_files.hollow import hollow


def notice(page: Any) -> str:
    return str(page.locator("#notice-said").inner_text())


@browser_needed
def test_loading_is_said_with_a_bar_and_a_message_waits_for_it(browser: Any, tmp_path: Path) -> None:
    name = "qwen3-0.6b-w8a16-pi5"
    package = hollow(name, tmp_path / "package")
    context = browser.new_context()
    context.set_default_timeout(WAIT)
    with RunningServer(package, "--emu-profile", name, "--emu-speed", "16", ready=False) as server:
        page = context.new_page()
        page.goto(server.url)
        until(page, "document.querySelector('#notice-said').textContent.includes('being loaded')")
        say(page, "Hello")
        until_state(page, "waiting")
        assert "Waits until the model can answer." in answer(page).locator(".figures").inner_text()
        until(page, "document.querySelector('#notice-bar').value > 0.05")
        assert re.search(r"\d+ of \d+ files.* Messages wait until then\.", notice(page))
        assert page.locator("#notice").get_attribute("class") == "good"
        until_some_text(page, 1)
        assert not page.locator("#notice-bar").is_visible()
        stop(page)
    context.close()


@browser_needed
def test_a_hot_card_is_said(browser: Any, profile: Path) -> None:
    context = browser.new_context()
    context.set_default_timeout(WAIT)
    with serve(profile, environment={"AXPRESS_EMU_FAULTS": "temperature=91000"}, ready=False) as server:
        page = open_page(context, server.url)
        until(page, "document.querySelector('#notice-said').textContent.includes('too hot to work: 91 °C')")
        assert page.locator("#notice-bar").is_visible() and page.locator("#temperature-note").inner_text() == "hot"
        say(page, "Hello")
        until_state(page, "waiting")
        stop(page)
    context.close()


@browser_needed
def test_several_cards_are_shown_by_name_and_one_that_fails_is_said(browser: Any, profile: Path) -> None:
    context = browser.new_context()
    context.set_default_timeout(WAIT)
    faults = {"AXPRESS_EMU_FAULTS": "2:device=offline@2300; 1:temperature=61000", "AXPRESS_EMU_REBOOT_MS": "60000"}
    with serve(profile, "--device", "emu:0,1", "--drain-timeout", "0.1", environment=faults) as server:
        page = open_page(context, server.url)
        until(page, "document.querySelectorAll('#banks figcaption').length === 4")
        names = [str(name).partition(":")[0] for name in page.locator("#banks figcaption").all_inner_texts()]
        assert names[0] == "Card 0, part 1" and page.locator("#card-title").inner_text() == "Emulated cards"
        until(page, "document.querySelector('#temperature').textContent === '61 °C'")  # of the warmer one
        with ThreadPoolExecutor(6) as clients:  # more than one card is sent
            for number in range(6):
                clients.submit(server.post, chat(f"{number} is a number", max_tokens=60, ignore_eos=True))
        until(page, "document.querySelector('#card-states').textContent.includes('Card 1 is being brought back')")
        assert "the others answer meanwhile" in page.locator("#card-states").inner_text()
        assert notice(page) == ""
        say(page, "Hello")
        until_some_text(page, 1)
        stop(page)
    context.close()


WORDS = {
    "recovering": "being brought back",
    "failed": "cannot answer",
    "stalled": "not brought a token",
    "draining": "being shut down",
}


@browser_needed
@pytest.mark.parametrize("status", WORDS)
def test_what_ails_the_server_is_said_in_words(page: Any, status: str) -> None:
    said = page.evaluate(
        """async status => {
          const { noticeStatus } = await import('/page/notice.js');
          noticeStatus({ status, reason: 'the card is gone', picture: null });
          return document.querySelector('#notice-said').textContent;
        }""",
        status,
    )
    assert WORDS[status] in said and said.endswith("(the card is gone)")


POINT_EVERYWHERE = """(expected) => {
  const said = new Set();
  for (const canvas of document.querySelectorAll('#banks canvas')) {
    const { x, y, width, height } = canvas.getBoundingClientRect();
    for (let down = 1; down < height; down += 9) for (let right = 1; right < width; right += 9) {
      canvas.dispatchEvent(new PointerEvent('pointermove', { clientX: x + right, clientY: y + down }));
      said.add(document.querySelector('#pointed').textContent.split(': ').at(-1));
    }
  }
  return expected.every((words) => said.has(words));
}"""
"""Whether the map says each of the words expected of one of its squares at least. Not every square is asked: an
answer has many in a row, and a busy machine has other things to do while the answers run."""


@browser_needed
def test_ones_own_answer_and_speed_are_told_from_everybodys(page: Any, context: Any, server: RunningServer) -> None:
    assert page.locator("#speed").inner_text() == page.locator("#width").inner_text() == "–", "nothing goes on"
    other = open_page(context, server.url)
    say(page, RAMBLE)
    say(other, f"Once more: {RAMBLE}")
    for tab in (page, other):
        until(tab, "document.querySelectorAll('#running tbody tr').length === 2")
        until(tab, "document.querySelectorAll('#running .own').length === 1")
    until(page, "document.querySelector('#speed').textContent !== '–'")
    numbers = [tab.locator("#running .own th").inner_text() for tab in (page, other)]
    assert len(set(numbers)) == 2 and all("yours" in number for number in numbers)
    of_others = f"answer {numbers[1].removesuffix('yours')}"
    # Waited for: an answer that has just begun shares all its rows, and the map is a moment older than the table. Free
    # squares may be gone by then: what was said before stays cached.
    page.wait_for_function(POINT_EVERYWHERE, arg=[f"your answer, to “{RAMBLE[:60]}…”", of_others])
    for tab in (page, other):
        stop(tab)
    page.keyboard.press("Control+Shift+O")
    ask(page, STORY)
    assert re.search(r"this answer: [\d.]+ tokens/s", answer(page).locator(".figures").inner_text())
    until(page, "document.querySelector('#speed').textContent === '–'")
    until(page, "document.querySelector('#width').textContent === '–'")


@browser_needed
def test_a_very_large_memory_is_drawn_in_few_squares(page: Any) -> None:
    """32,767 tokens, of which the last 100 are cached: as many squares as a person can point at."""
    said, height, pointed = page.evaluate(
        """async () => {
          const { showBanks } = await import('/page/rows.js');
          const counts = { free: 32667, idle: 100, shared: 0 };
          showBanks([{ rows: 32767, ...counts, runs: [0, 32667, -1, 100] }], []);
          const map = document.querySelector('#banks canvas');
          const cell = 3; // pixels of the smallest square
          const point = (x, y) => map.dispatchEvent(new PointerEvent('pointermove', { clientX: x, clientY: y }));
          const box = map.getBoundingClientRect();
          const words = new Set();
          for (let y = box.top; y < box.bottom; y += cell)
            for (let x = box.left; x < box.right; x += cell) {
              point(x, y);
              words.add(document.querySelector('#pointed').textContent);
            }
          return [map.getAttribute('aria-label'), box.height, [...words]];
        }"""
    )
    assert "0 of 32,767 tokens in use (0 shared), 100 cached, 32,667 free; each square is 8 tokens." in said
    squares = {word for word in pointed if word}
    assert len(squares) == 4096 and sum("cached, not in use" in square for square in squares) in (12, 13)
    assert 0 < height < 600


@browser_needed
def test_how_far_a_long_prompt_is_read_is_said(page: Any) -> None:
    say(page, RAMBLE * 2)
    figures = answer(page).locator(".figures")
    words = page.wait_for_function(
        "() => /reads the conversation: ([1-9]\\d*) of (\\d+) tokens/"
        ".exec(document.querySelector('.figures')?.textContent.replaceAll(',', ''))"
    )
    read, of = map(int, words.json_value()[1:])
    assert 0 < read < of
    assert page.locator(".retry").is_disabled(), "nothing is changed while an answer grows"
    stop(page)
    assert "reads" not in figures.inner_text() and page.locator(".retry").is_enabled()


@browser_needed
def test_a_visitor_reads_what_the_squares_are_and_the_answers_first(page: Any) -> None:
    page.set_viewport_size({"width": 1400, "height": 900})
    card = page.locator("#card")
    assert "Each square is one token that the card remembers." in card.inner_text()
    assert not re.search(r"\b(bank|row|batch)", card.inner_text(), re.I)
    tops = [page.locator(name).bounding_box()["y"] for name in ("#running-title", ".legend", "#banks")]
    assert tops == sorted(tops) and tops[1] < 800, "the colours' meaning is on the first screen"


EVERYTHING = (
    "## Title\n\n- [ ] box\n\n| a | b |\n|---|---|\n| 1 | $x^2$ |\n\n```python\n# remark\nx = 'text' + 1\n```\n\n$$y$$"
)


def axe(page: Any) -> list[str]:
    """What axe finds wrong."""
    checks = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing: pip install .[test]")
    found = checks.Axe().run(page).response["violations"]
    return [f"{v['id']}: {node['html'][:150]} {node['failureSummary']}" for v in found for node in v["nodes"]]


@browser_needed
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_axe_finds_nothing(page: Any, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 740})
    assert axe(page) == []
    say(page, RAMBLE)
    until_some_text(page)
    assert axe(page) == []
    stop(page)
    answer_with(page, EVERYTHING)
    ask(page, "Everything")
    answer(page).locator(".katex").first.wait_for()
    answer(page).locator(".hljs-string").wait_for()
    page.locator("#messages > li").nth(3).get_by_role("button", name="Retry").click()
    until_state(page, "done")
    assert "Title" in text_of(page) and axe(page) == []
    for name in ("Chats", "Settings"):
        page.get_by_role("button", name=name).click()
        page.locator("dialog[open]").wait_for()
        assert axe(page) == []
        page.keyboard.press("Escape")
    if width < 900:
        page.get_by_role("button", name="Card").click()
        assert axe(page) == []
