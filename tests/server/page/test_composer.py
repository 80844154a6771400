"""The message box and the settings: files of text, pictures, thinking, sampling, presets, keys."""

from __future__ import annotations

import base64
import io
from typing import Any

from browser import browser_needed, chromium_only
from page_visitor import DROP, STORY, answer, answer_with, ask, say, sent, until, until_some_text, until_state
from pictures import file, picture
from PIL import Image

EYES = {
    "parameters": "temperature 0.6", "capabilities": ["completion", "vision"],
    "model_info": {"general.architecture": "qwen3", "qwen3.vision.image_size": 64},
}  # fmt: skip
DRAWN = """() => [...document.querySelectorAll('#messages .picture')].map((canvas) =>
  [canvas.getAttribute('aria-label'), canvas.style.width, ...canvas.getContext('2d').getImageData(1, 1, 1, 1).data])"""


@browser_needed
def test_files_of_text_are_dropped_pasted_or_chosen_and_sent(page: Any) -> None:
    answer_with(page, "Read.")
    page.evaluate(DROP, ["one.py", list(b"print('```')\n"), "drop"])
    page.get_by_role("button", name="Remove one.py").wait_for()
    page.evaluate(DROP, ["two.txt", list("zwölf\n".encode()), "paste"])
    page.locator("#file").set_input_files({"name": "three.md", "mimeType": "text/markdown", "buffer": b"# Three"})
    page.get_by_role("button", name="Remove three.md").wait_for()
    page.evaluate(DROP, ["picture.png", [0x89, 0x50, 0, 0xFF], "drop"])
    refusal = page.locator("#files .error")
    refusal.wait_for()
    assert refusal.inner_text() == "Not taken: picture.png. Files of text of up to 1 MiB can be sent."
    page.get_by_role("button", name="Remove three.md").click()
    ask(page, "What is in them?")
    content = "File one.py:\n````\nprint('```')\n````\n\nFile two.txt:\n```\nzwölf\n```\n\nWhat is in them?"
    assert sent(page)[0]["messages"] == [{"role": "user", "content": content}]
    assert page.locator(".user summary").all_inner_texts() == ["one.py (13 characters)", "two.txt (6 characters)"]
    assert page.locator(".said").inner_text() == "What is in them?" and page.locator(".chip").count() == 0
    page.reload()
    page.locator(".user summary").first.click()
    assert page.locator(".user pre").first.inner_text() == "print('```')\n"


@browser_needed
def test_sampling_shows_the_packages_own_and_sends_what_was_chosen(page: Any) -> None:
    answer_with(page, "Yes.")
    page.get_by_role("button", name="Settings").click()
    shown = {
        name: page.get_by_label(name, exact=True).get_attribute("placeholder") for name in ("Temperature", "Top p")
    }
    parameters = page.evaluate(
        """async () => (await (await fetch('/api/show', { method: 'POST', body: '{"model":"default"}',
             headers: { 'content-type': 'application/json' } })).json()).parameters"""
    )
    package = dict(line.split() for line in parameters.splitlines())
    assert shown == {"Temperature": package["temperature"], "Top p": package["top_p"]}
    chosen = {
        "Temperature": 0.5, "Top p": 0.9, "Top k": 5, "Min p": 0.1, "Repetition penalty": 1.1, "Presence penalty": 0.2,
        "Frequency penalty": -0.3, "Max tokens": 9, "Seed": 7,
    }  # fmt: skip
    for label, value in chosen.items():
        page.get_by_label(label, exact=True).fill(str(value))
    page.get_by_label("Stop at").fill("END\nDONE")
    page.get_by_role("button", name="Keep as preset").click()
    page.get_by_role("textbox", name="Name of the preset").fill("Mine")
    page.get_by_role("button", name="Keep", exact=True).click()
    page.get_by_role("button", name="Save").click()
    ask(page, "Hello")
    wanted = {label.lower().replace(" ", "_"): value for label, value in chosen.items()}
    assert {**wanted, "stop": ["END", "DONE"]}.items() <= sent(page)[0].items()
    page.reload()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Preset", exact=True).select_option("Always the same")
    assert page.get_by_label("Temperature").input_value() == "0" and page.get_by_label("Seed").input_value() == ""
    page.get_by_label("Preset", exact=True).select_option("Mine")
    assert page.get_by_label("Seed").input_value() == "7"
    page.get_by_role("button", name="Delete preset").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    until(page, "![...document.querySelectorAll('#presets option')].some(o => o.value === 'Mine')")


@browser_needed
def test_thinking_can_be_switched_where_the_model_can_think(page: Any) -> None:
    assert not page.get_by_label("Thinking").is_visible()  # the demo model cannot
    page.route(
        "**/api/show",
        lambda route: route.fulfill(json={"parameters": "temperature 0.6", "capabilities": ["completion", "thinking"]}),
    )
    page.reload()
    page.get_by_label("Thinking").wait_for()
    answer_with(page, "Yes.")
    ask(page, "Hello")
    page.get_by_label("Thinking").select_option(label="off")
    ask(page, "Again")
    assert ["reasoning_effort" in body for body in sent(page)] == [False, True]
    assert sent(page)[1]["reasoning_effort"] == "none"
    assert sent(page, "/tokenize")[-1]["reasoning_effort"] == "none", "the meter counts what is sent"
    page.keyboard.press("Control+Shift+O")  # a new conversation begins as this one was
    assert page.get_by_label("Thinking").input_value() == "none"


@browser_needed
def test_escape_stops_an_answer(page: Any) -> None:
    say(page, STORY)
    until_some_text(page)
    page.keyboard.press("Escape")
    until_state(page, "stopped")
    assert "Stopped by you" in answer(page).locator(".figures").inner_text()


@browser_needed
def test_several_models_can_be_picked(page: Any) -> None:
    names = ["axpress-demo", "another"]
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [{"id": name} for name in names]}))
    answer_with(page, "Yes.")
    page.route("**/api/show", lambda route: route.fulfill(json={"parameters": "", "capabilities": []}))
    page.reload()
    page.get_by_label("Model", exact=True).select_option("another")
    ask(page, "Hello")
    assert sent(page)[0]["model"] == "another" and not page.locator("#model").is_visible()


def with_eyes(page: Any) -> Any:
    """The demo model as if it had eyes: what the page makes of that, not what a model sees."""
    page.route("**/api/show", lambda route: route.fulfill(json=EYES))
    page.route("**/tokenize", lambda route: route.fulfill(json={"count": 7}))
    page.reload()
    page.get_by_role("button", name="Add pictures or files of text").wait_for()
    return page


def opened(url: str) -> Image.Image:
    kind, _, data = url.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{(image.format or '').lower()}"
    return image


@browser_needed
def test_pictures_are_scaled_down_shown_kept_and_sent(page: Any) -> None:
    answer_with(with_eyes(page), "Seen.")
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone held upright
    large = file(Image.new("RGB", (1000, 500), (200, 30, 40)), "JPEG", exif=exif)
    small = file(Image.new("RGBA", (20, 10), (0, 0, 0, 0)))
    files = [{"name": "large.jpg", "mimeType": "image/jpeg", "buffer": large},
             {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"a note"},
             {"name": "small.png", "mimeType": "image/png", "buffer": small},
             {"name": "broken.png", "mimeType": "image/png", "buffer": small[:40]}]  # fmt: skip
    page.locator("#file").set_input_files(files)
    page.locator("#files .error").wait_for()
    assert page.locator("#files .error").inner_text() == (
        "Not taken: broken.png. Pictures, and files of text of up to 1 MiB, can be sent."
    )
    ask(page, "What is there?")
    (message,) = sent(page)[0]["messages"]
    first, second, text = message["content"]
    assert [part["type"] for part in message["content"]] == ["image_url", "image_url", "text"]
    assert text["text"].startswith("File notes.txt:") and text["text"].endswith("What is there?")
    phone = opened(first["image_url"]["url"])
    assert (phone.format, phone.size) == ("JPEG", (64, 128)), "twice what the model makes out, upright"
    see_through = opened(second["image_url"]["url"])
    assert (see_through.format, see_through.size, see_through.getpixel((3, 3))[:3]) == ("PNG", (20, 10), (255,) * 3)
    for again in (False, True):
        if again:
            page.reload()
        until(page, "[...document.querySelectorAll('#messages .picture')].filter((one) => one.width > 1).length === 2")
        (name, width, red, *_), (other, *_) = page.evaluate(DRAWN)
        assert (name, width, other) == ("large.jpg", "64px", "small.png") and red > 150
    until(page, "bodies.some((body) => body[0] === '/tokenize')")  # the meter counts what is sent


@browser_needed
def test_pictures_are_dropped_and_pasted_and_taken_away(page: Any) -> None:
    with_eyes(page)
    data = list(file(picture()))
    for name, way in (("one.png", "drop"), ("two.png", "paste")):
        page.evaluate(DROP, [name, data, way, "image/png"])
        page.get_by_role("button", name=f"Remove {name}").wait_for()
    page.get_by_role("button", name="Remove one.png").click()
    assert page.locator(".chip").count() == 1


@browser_needed
def test_a_model_without_eyes_is_offered_no_pictures(page: Any) -> None:
    assert page.get_by_role("button", name="Add files of text").is_visible()
    assert not page.locator("#camera").is_visible()


@browser_needed
@chromium_only
def test_a_picture_is_taken_with_the_camera(page: Any) -> None:
    answer_with(with_eyes(page), "Seen.")
    page.get_by_role("button", name="Take a picture").click()
    until(page, "document.querySelector('#camera-view video')?.videoWidth > 0")
    page.get_by_role("button", name="Take", exact=True).click()
    page.locator(".chip").wait_for()
    assert page.locator("dialog#camera-view").count() == 0
    page.get_by_role("button", name="Take a picture").click()
    page.locator("dialog#camera-view").get_by_role("button", name="Cancel").click()
    assert page.locator(".chip").count() == 1
    ask(page, "What is there?")
    image = opened(sent(page)[0]["messages"][0]["content"][0]["image_url"]["url"])
    assert image.format == "JPEG" and max(image.size) == 128
