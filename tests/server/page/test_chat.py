"""The page at `/`, as a visitor's browser has it: a real Chromium against a real `axpress serve` of the demo model."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from browser import browser_needed
from page_visitor import (
    RAMBLE,
    STORY,
    WAIT,
    answer,
    open_page,
    say,
    serve,
    stop,
    take_complaint,
    text_of,
    until,
    until_served,
    until_some_text,
    until_state,
)  # fmt: skip
from server_process import RunningServer

# ---- chat ----


@browser_needed
def test_an_answer_streams_and_says_what_it_cost(page: Any) -> None:
    assert [tag.inner_text() for tag in page.locator("#tags .tag").all()] == ["emulated card", "toy model"]
    say(page, STORY)
    assert page.get_by_label("Message").input_value() == ""
    lengths = []
    for length in (5, 40, 90):
        until_some_text(page, length)
        lengths.append(len(text_of(page)))
    assert answer(page).get_attribute("aria-busy") == "true"
    until_state(page, "done")
    lengths.append(len(text_of(page)))
    assert lengths == sorted(set(lengths))
    figures = answer(page).locator(".figures").inner_text()
    assert re.search(
        r"prompt \d+ tokens.* · answer \d+ tokens · first after [\d.]+ s · this answer: [\d.]+ tokens/s, emulated",
        figures,
    )
    spoken = page.locator("#spoken").inner_text()
    assert spoken.endswith("End of the answer.")


@browser_needed
def test_stop_keeps_what_was_there_and_frees_the_card_and_retry_asks_again(page: Any, server: RunningServer) -> None:
    say(page, RAMBLE)
    until_some_text(page)
    page.get_by_role("button", name="Stop").click()
    until_state(page, "stopped")
    server.wait(server.idle, 30, "idle")
    stopped = text_of(page)
    assert stopped and "Stopped by you" in answer(page).locator(".figures").inner_text()
    assert page.get_by_role("button", name="Send").is_visible()
    answer(page).get_by_role("button", name="Retry").click()
    until_some_text(page, len(stopped) + 10)
    stop(page)
    assert text_of(page).startswith(stopped)  # greedy: the same, and more of it
    assert page.locator("#messages > li").count() == 2


@browser_needed
def test_a_reload_in_the_middle_keeps_the_conversation(page: Any) -> None:
    say(page, "Name three fruits.")
    until_state(page, "done")
    first = text_of(page)
    say(page, STORY)
    until_some_text(page, 30)
    page.reload()
    until_state(page, "cut")
    assert len(text_of(page)) >= 20 and "Cut off by a reload" in answer(page).locator(".figures").inner_text()
    assert page.locator(".assistant > .text").first.inner_text() == first
    answer(page).get_by_role("button", name="Retry").click()
    until_state(page, "done")
    page.reload()
    until(page, "document.querySelectorAll('#messages > li').length === 4")
    assert answer(page).get_attribute("data-state") == "done"


@browser_needed
def test_two_tabs_keep_a_conversation_each(page: Any, context: Any, server: RunningServer) -> None:
    other = open_page(context, server.url)
    say(page, "What is 2 + 3?")
    say(other, "Name three colours.")
    until_state(page, "done")
    until_state(other, "done")
    for tab, asked in ((page, "What is 2 + 3?"), (other, "Name three colours.")):
        tab.reload()
        until(tab, "document.querySelector('.bubble')")
        assert [bubble.inner_text() for bubble in tab.locator(".bubble").all()] == [asked]
    # A tab that opens the other's conversation (or is a duplicate of it) goes on with a copy.
    other.get_by_role("button", name="Chats").click()
    other.get_by_role("dialog").get_by_role("button", name="What is 2 + 3?", exact=True).click()
    say(other, "What is 4 + 4?")
    until_state(other, "done")
    assert other.locator(".bubble").count() == 2
    page.reload()
    until(page, "document.querySelector('.bubble')")
    assert page.locator(".bubble").count() == 1
    page.get_by_role("button", name="Chats").click()
    page.get_by_role("dialog").wait_for()
    titles = page.get_by_role("dialog").locator("li .title")
    assert sorted(titles.all_inner_texts()) == ["Name three colours.", "What is 2 + 3?", "What is 2 + 3?"]


@browser_needed
def test_settings_are_obeyed_and_copied(page: Any, server: RunningServer, tmp_path: Path) -> None:
    awkward = 'It\'s "quoted" $HOME `id` \\n %s é 漢 🙂\nsecond line'
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill(awkward)
    page.get_by_label("Max tokens").fill("3")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Top k").fill("5")
    page.get_by_label("Seed").fill("7")
    page.get_by_role("button", name="Save").click()
    assert awkward.splitlines()[1] in page.locator("#system-shown").inner_text()
    say(page, "Don't $(stop) 'here'")
    until_state(page, "done")
    assert "It ended at the token limit." in answer(page).locator(".figures").inner_text()
    shown = text_of(page)

    def copied(button: str) -> str:
        answer(page).get_by_role("button", name=button).click()
        until(page, "[...document.querySelectorAll('.actions button')].some(b => b.textContent === 'Copied')")
        return str(page.evaluate("navigator.clipboard.readText()"))

    curl = subprocess.run(["sh", "-c", copied("Copy as curl") + " -sS"], capture_output=True, text=True, timeout=30)
    assert curl.returncode == 0, curl.stderr
    chunks = [json.loads(line[6:]) for line in curl.stdout.splitlines() if line.startswith("data: {")]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]) == shown
    program = tmp_path / "ask.py"
    program.write_text(copied("Copy as Python"))
    python = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert python.returncode == 0, python.stderr
    assert python.stdout == shown + "\n"
    page.get_by_role("button", name="New chat").click()  # a new conversation begins with the same settings
    assert page.locator(".bubble").count() == 0 and page.locator("#system-shown").is_visible()


@browser_needed
def test_an_error_is_the_servers_sentence_with_a_way_to_retry(page: Any, context: Any) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Max tokens").fill("999999")
    page.get_by_role("button", name="Save").click()
    say(page, "Hello")
    until_state(page, "failed")
    assert "tokens" in answer(page).locator(".error").inner_text()
    assert "context" in answer(page).locator(".error").inner_text()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Max tokens").fill("")
    page.get_by_role("button", name="Save").click()
    answer(page).get_by_role("button", name="Retry").click()
    until_state(page, "done")
    assert page.locator(".error:visible").count() == 0 and page.locator("#messages > li").count() == 2
    take_complaint(context)


@browser_needed
def test_reasoning_is_folded_and_tool_calls_are_shown(page: Any) -> None:
    """The demo model does neither: chunks as other models' answers bring them, through the page's own reader."""
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Two and "},
        {"reasoning_content": "two."},
        {"content": "Four."},
        {
            "tool_calls": [
                {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a"'}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 2}"}}]},
    ]
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    say(page, "2 + 2?")
    until_state(page, "done")
    reasoning = answer(page).locator("details")
    assert not reasoning.locator(".text").is_visible()
    reasoning.locator("summary").click()
    assert reasoning.locator(".text").inner_text() == "Two and two."
    assert text_of(page) == "Four."
    assert "Calls the tool add" in answer(page).inner_text() and answer(page).locator("pre").inner_text() == '{"a": 2}'


# ---- the server goes and comes, keys ----


@browser_needed
def test_a_server_that_goes_is_said_and_one_that_comes_back_is_found(browser: Any, profile: Path) -> None:
    context = browser.new_context()
    context.set_default_timeout(WAIT)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(serve(profile, "--drain-timeout", "0.1"))
        page = open_page(context, first.url)
        say(page, STORY)
        until_some_text(page)
        first.stop()
        until_state(page, "failed")
        assert answer(page).locator(".error").inner_text()
        until(page, "document.querySelector('#notice').textContent.includes('does not answer')")
        port = first.port
    command = [*RunningServer.command, "--emu-profile", str(profile), "--port", str(port)]
    again = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(page, "document.querySelector('#notice-said').textContent === 'The server is ready again.'", 30_000)
        answer(page).get_by_role("button", name="Retry").click()
        until_state(page, "done")
    finally:
        context.close()
        again.terminate()
        assert again.wait(30) == 0


@browser_needed
def test_a_key_is_asked_for_kept_for_the_tab_and_a_wrong_one_is_said(browser: Any, profile: Path) -> None:
    key = "open-sesame-open-sesame"
    context = browser.new_context()
    context.set_default_timeout(WAIT)
    with serve(profile, environment={"AXPRESS_API_KEYS": key}) as server:
        page = context.new_page()
        page.goto(server.url)
        field = page.get_by_label("API key")
        field.wait_for()  # the dialog opens by itself
        field.fill("wrong-wrong-wrong-wrong")
        page.get_by_role("button", name="Save").click()
        until(page, "document.querySelector('#notice').textContent.toLowerCase().includes('key')")
        say(page, "Hello")
        until_state(page, "failed")
        assert "key" in answer(page).locator(".error").inner_text().lower()
        page.get_by_role("button", name="Settings").click()
        field.fill(key)
        page.get_by_role("button", name="Save").click()
        until_served(page)
        answer(page).get_by_role("button", name="Retry").click()
        until_state(page, "done")
        page.reload()
        until_served(page)
        stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
        assert key not in json.dumps(json.loads(stored)[0]) and json.loads(stored)[1]["axpress.key"] == key
        # the clipboard is not allowed here: the page says so, or copies
        answer(page).get_by_role("button", name="Copy as curl").click()
        until(
            page,
            "[...document.querySelectorAll('.actions button')].some(b => /Copied|Not allowed/.test(b.textContent))",
        )
        context.close()


# ---- for everybody ----


CUT_OFF = """() => [...document.querySelectorAll('body *')].filter(e => e.getClientRects().length && !e.closest('pre, .hidden, .skip')
  && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 90))"""


@browser_needed
def test_nothing_is_cut_off_sideways_at_any_width(page: Any) -> None:
    say(page, "W" * 300)
    until_some_text(page, 30)
    page.get_by_role("button", name="Stop").click()
    until_state(page, "stopped")
    for width in (320, 360, 768, 1440):
        page.set_viewport_size({"width": width, "height": 700})
        for view in ("card", "chat"):
            if width < 900:
                page.locator(f".switch button[data-view={view}]").click()
                assert page.locator("#card").is_visible() == (view == "card") != page.locator("#chat").is_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(CUT_OFF) == []
        for name in ("Chats", "Settings"):
            page.get_by_role("button", name=name).click()
            box = page.locator("dialog[open]").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
            page.keyboard.press("Escape")


@browser_needed
def test_everything_works_without_a_mouse(page: Any) -> None:
    press = page.keyboard.press
    press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the message box"
    press("Enter")
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.type("Hello")
    press("Shift+Enter")
    assert page.get_by_label("Message").input_value() == "Hello\n"
    page.keyboard.type(STORY)
    press("Enter")
    until_some_text(page)
    press("Escape")
    until_state(page, "stopped")
    assert page.evaluate("document.activeElement.id") == "prompt"

    def tab_to(name: str) -> None:
        for _ in range(30):
            press("Shift+Tab")
            if page.evaluate("document.activeElement.textContent.trim()") == name:
                return
        raise AssertionError(f"{name} cannot be reached")

    tab_to("Retry")
    press("Enter")
    until_state(page, "done")
    tab_to("Settings")
    press("Enter")
    assert page.evaluate("document.activeElement.name") == "system"
    press("Escape")
    assert page.evaluate("document.activeElement.id") == "open-settings"
    tab_to("New chat")
    press("Space")
    assert page.locator("#messages > li").count() == 0 and page.evaluate("document.activeElement.id") == "prompt"


# ---- the card ----

PIXELS = """canvas => {
  const copy = document.createElement('canvas');
  Object.assign(copy, { width: canvas.width, height: canvas.height });
  const pen = copy.getContext('2d', { willReadFrequently: true });
  pen.drawImage(canvas, 0, 0);
  const { data } = pen.getImageData(0, 0, copy.width, copy.height);
  const seen = {};
  for (let i = 0; i < data.length; i += 4) { const key = [...data.slice(i, i + 4)].join(); seen[key] = (seen[key] ?? 0) + 1; }
  return seen;
}"""


SHARING = (
    "[...document.querySelectorAll('#banks figcaption')].findIndex((one) => /[1-9]\\d* shared/.test(one.textContent))"
)
"""Which part of the memory has squares of several answers; -1: none."""


def colour(page: Any, name: str) -> str:
    """A colour of the page as pixels say it."""
    value = page.evaluate("name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()", name)
    return ",".join(str(int(value[i : i + 2], 16)) for i in (1, 3, 5)) + ",255"


@browser_needed
def test_the_row_map_shows_who_holds_what(page: Any, context: Any, server: RunningServer) -> None:
    shared, free = colour(page, "--row-shared"), colour(page, "--row-free")
    own = {colour(page, f"--own-{i}") for i in range(12)}
    other = open_page(context, server.url)
    for tab in (page, other):  # both begin alike
        say(tab, RAMBLE)
    until(page, "document.querySelector('#waiting').textContent === '2 running, 0 waiting'")
    until(page, f"{SHARING} >= 0")
    map_ = page.locator("#banks canvas").nth(page.evaluate(f"() => {SHARING}"))
    seen = map_.evaluate(PIXELS)
    assert seen.get(shared, 0) > 20 and seen.get(free, 0) > 500
    assert len(own & set(seen)) >= 1
    said = r"Map of the memory\. Part \d: [\d,]+ of [\d,]+ squares in use \(\d+ shared\), [\d,]+ cached, [\d,]+ free\."
    assert re.fullmatch(said, map_.get_attribute("aria-label"))
    assert (
        page.locator("#card-title").inner_text() == "Emulated card"
        and "emulated" in page.locator("#card-note").inner_text()
    )
    assert page.locator("#temperature").inner_text() == "45 °C"
    assert re.fullmatch(
        r"\d+ of [\d,]+ MiB", page.locator("#memory").inner_text() + " " + page.locator("#memory-note").inner_text()
    )
    for canvas in ("#speed-chart", "#width-chart"):
        assert len(page.locator(canvas).evaluate(PIXELS)) > 1
    for tab in (page, other):
        stop(tab)
    until(page, "!document.querySelector('#nobody').hidden")
    until(page, f"{SHARING} < 0")
    assert not own & set(map_.evaluate(PIXELS))


@browser_needed
def test_a_hidden_page_does_not_watch(page: Any, server: RunningServer) -> None:
    """What a browser does with a tab that is put away, said by the page itself: the stream ends, and begins again when
    it is looked at."""
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/live/stream")):
        page.evaluate(
            "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
    with page.expect_request("**/live/stream"):
        page.evaluate(
            "Object.defineProperty(document, 'hidden', { value: false, configurable: true });"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
