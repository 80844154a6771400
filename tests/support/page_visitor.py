"""What a visitor of the page at `/` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from browser import NAME
from server_process import RunningServer

STORY = "Tell me a short story."
"""The demo model tells some 60 tokens, which take about 2 seconds here."""
RAMBLE = "The quick brown fox jumps over the lazy dog. " * 60
"""What makes the demo model talk on and on: an answer to it has to be stopped."""
WAIT = 60_000  # ms
DROP = """([name, bytes, kind, type = '']) => {
  const files = new DataTransfer();
  files.items.add(new File([new Uint8Array(bytes)], name, { type }));
  const event = new Event(kind, { bubbles: true, cancelable: true });
  event[kind === 'drop' ? 'dataTransfer' : 'clipboardData'] = files; // Firefox lets no program paste
  document.querySelector('#prompt').dispatchEvent(event);
}"""
"""Drops a file of this name and type on the message box, or pastes it there."""


def serve(profile: Path, *flags: object, **options: Any) -> RunningServer:
    """The demo model on the emulated card, slow enough to be watched."""
    return RunningServer("--emu-profile", profile, "--emu-speed", "0.4", "--banks", "2", *flags, **options)


NOTE_BODIES = """() => {
  const real = fetch;
  globalThis.bodies = [];
  globalThis.fetch = (path, options) => {
    if (options?.body) bodies.push([path, JSON.parse(options.body)]);
    return real(path, options);
  };
}"""
"""A page of which this is run first keeps what it sends: Firefox does not tell it from outside."""


def open_page(context: Any, url: str) -> Any:
    page = context.new_page()
    page.add_init_script(f"({NOTE_BODIES})()")
    page.goto(url)
    until_served(page)
    return page


def say(page: Any, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def answer(page: Any) -> Any:
    return page.locator("#messages .assistant").last


def text_of(page: Any) -> str:
    return str(answer(page).locator("> .text").inner_text())


def until(page: Any, expression: str, timeout: int = WAIT) -> None:
    """Waits for a JavaScript expression to be true. As a function: the page's policy forbids Playwright to evaluate
    text."""
    page.wait_for_function(f"() => {expression}", timeout=timeout)


def until_state(page: Any, state: str) -> None:
    until(page, f"[...document.querySelectorAll('.assistant')].at(-1)?.dataset.state === '{state}'")


def until_some_text(page: Any, length: int = 10) -> None:
    until(page, f"[...document.querySelectorAll('.assistant > .text')].at(-1)?.textContent.length >= {length}")


def until_served(page: Any) -> None:
    """The page has heard from the server."""
    until(page, "document.querySelector('#model').textContent !== ''")


def sent(page: Any, path: str = "/v1/chat/completions") -> list[dict[str, Any]]:
    """What the page has sent there since it was loaded."""
    found: list[dict[str, Any]] = page.evaluate("path => bodies.filter((b) => b[0] === path).map((b) => b[1])", path)
    return found


def answer_with(page: Any, text: str) -> None:
    """From now on every question is answered with `text`, in small pieces, as a model might. The demo model writes no
    Markdown."""

    def answer(route: Any) -> None:
        pieces = [{"content": text[i : i + 7]} for i in range(0, len(text), 7)]
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in ({"role": "assistant"}, *pieces)
        ]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        route.fulfill(content_type="text/event-stream", body=body)

    page.route("**/v1/chat/completions", answer)


def ask(page: Any, text: str) -> None:
    """Asks and waits for the end of the answer."""
    before = page.locator("#messages > li").count()
    say(page, text)
    until(page, f"document.querySelectorAll('#messages > li').length >= {before + 2}")
    until_state(page, "done")


def stop(page: Any) -> None:
    """Stops the answer."""
    page.keyboard.press("Escape")
    until_state(page, "stopped")


def press_under(page: Any, index: int, name: str) -> None:
    """Presses a button under the message of that index."""
    page.locator("#messages > li").nth(index).get_by_role("button", name=name, exact=True).click()


def said(page: Any) -> list[str]:
    """The texts of all messages on show."""
    texts = page.locator("#messages .said, #messages .assistant > .text").all_inner_texts()
    return [str(text).strip() for text in texts]


def take_complaint(context: Any) -> None:
    """Chromium says of a refused request that it is one; there must be just this."""
    of_chromium = ["Failed to load resource: the server responded with a status of 400 (Bad Request)"]
    assert context.complaints == (of_chromium if NAME == "chromium" else [])
    context.complaints.clear()
