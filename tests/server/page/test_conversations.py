"""Conversations in the browser: none is lost unless somebody says so; each message can be changed, and both versions
stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from browser import browser_needed, download
from page_visitor import answer_with, ask, open_page, press_under, said, sent, until, until_state
from server_process import RunningServer


def titles(page: Any) -> list[str]:
    return [str(title) for title in page.locator("#chats .title").all_inner_texts()]


def open_chats(page: Any) -> None:
    page.keyboard.press("Control+k")
    page.get_by_label("Search in chats").wait_for()


@browser_needed
def test_all_conversations_stay_and_are_found_by_their_words(page: Any) -> None:
    answer_with(page, "Pears are in the *cellar*.")
    for number in range(35):
        ask(page, f"Question {number}")
        page.keyboard.press("Control+Shift+O")
        until(page, "document.querySelectorAll('#messages > li').length === 0")
    page.reload()
    open_chats(page)
    until(page, "document.querySelectorAll('#chats .title').length === 35")
    assert titles(page)[0] == "Question 34"
    page.get_by_label("Search in chats").fill("question 17")
    until(page, "document.querySelectorAll('#chats .title').length === 1")
    page.get_by_label("Search in chats").fill("CELLAR pears")  # what answers say, too
    until(page, "document.querySelectorAll('#chats .title').length === 35")
    page.get_by_label("Search in chats").fill("apples")
    page.get_by_text("None has these words.").wait_for()
    page.get_by_label("Search in chats").fill("question 17")
    until(page, "document.querySelectorAll('#chats .title').length === 1")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('.said')?.textContent === 'Question 17'")


@browser_needed
def test_renaming_and_deleting_ask_first(page: Any) -> None:
    answer_with(page, "Yes.")
    ask(page, "First")
    open_chats(page)
    page.get_by_role("button", name="Rename First").click()
    page.get_by_role("textbox", name="Name of the conversation").fill("About fruit")
    page.get_by_role("button", name="Rename", exact=True).click()
    until(page, "document.querySelector('#chats .title').textContent === 'About fruit'")
    page.get_by_role("button", name="Delete About fruit").click()
    assert "cannot be brought back" in page.get_by_role("alertdialog").inner_text()
    page.get_by_role("alertdialog").get_by_role("button", name="Cancel").click()
    assert titles(page) == ["About fruit"]
    page.get_by_role("button", name="Delete About fruit").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    page.get_by_text("None yet.").wait_for()
    page.keyboard.press("Escape")
    assert said(page) == []  # the one on show, too
    page.reload()
    open_chats(page)
    assert titles(page) == []


@browser_needed
def test_export_and_import_bring_everything_along(
    page: Any, context: Any, server: RunningServer, downloads: Path, tmp_path: Path
) -> None:
    answer_with(page, "One\n\n```\ncode\n```")
    ask(page, "Ask")
    answer_with(page, "Two")
    press_under(page, 1, "Retry")
    until_state(page, "done")
    open_chats(page)
    saved: dict[str, Path] = {}
    for button, name in (("JSON Ask", "json"), ("Markdown Ask", "md"), ("Export all", "all")):
        saved[name] = tmp_path / name
        saved[name].write_text(download(page, downloads, page.get_by_role("button", name=button).click))
    assert saved["md"].read_text() == "# Ask\n\n## You\n\nAsk\n\n## Answer\n\nTwo\n"
    assert json.loads(saved["all"].read_text()) == json.loads(saved["json"].read_text())
    other = context.browser.new_context()
    visitor = open_page(other, server.url)
    open_chats(visitor)
    visitor.locator("#import-file").set_input_files(saved["all"])
    visitor.get_by_text("1 conversation read in.").wait_for()
    visitor.get_by_role("button", name="Ask", exact=True).click()
    until(visitor, "document.querySelectorAll('.assistant').length === 1")
    assert said(visitor) == ["Ask", "Two"]
    press_under(visitor, 1, "‹")  # the first answer came along
    assert said(visitor)[1].startswith("One")
    open_chats(visitor)
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps({"messages": [{"role": "user", "content": "From elsewhere"}]}))
    for path, words in ((plain, "1 conversation read in."), (saved["md"], "is no JSON file")):
        visitor.locator("#import-file").set_input_files(path)
        visitor.get_by_text(words).wait_for()
    assert sorted(titles(visitor)) == ["Ask", "From elsewhere"]
    other.close()


@browser_needed
def test_every_message_can_be_changed_and_both_versions_stay(page: Any) -> None:
    answer_with(page, "Blue.")
    ask(page, "Colour of the sky?")
    answer_with(page, "Green.")
    ask(page, "And of grass?")
    press_under(page, 0, "Edit")
    field = page.get_by_label("Text of the message")
    assert field.input_value() == "Colour of the sky?"
    field.fill("Colour of snow?")
    answer_with(page, "White.")
    field.press("Control+Enter")
    until_state(page, "done")
    assert said(page) == ["Colour of snow?", "White."]
    assert [m["content"] for m in sent(page)[-1]["messages"]] == ["Colour of snow?"]
    press_under(page, 0, "‹")
    assert said(page) == ["Colour of the sky?", "Blue.", "And of grass?", "Green."]
    press_under(page, 1, "Retry")  # not the last one
    until_state(page, "done")
    assert said(page) == ["Colour of the sky?", "White."]
    press_under(page, 1, "Edit")
    page.get_by_label("Text of the message").fill("Light blue.")
    page.get_by_role("button", name="Keep").click()
    assert said(page) == ["Colour of the sky?", "Light blue."]
    assert page.locator(".place").all_inner_texts() == ["1 of 2", "3 of 3"]
    page.reload()
    until(page, "document.querySelectorAll('#messages > li').length === 2")
    assert said(page) == ["Colour of the sky?", "Light blue."]
    press_under(page, 1, "‹")
    press_under(page, 1, "‹")
    assert said(page) == ["Colour of the sky?", "Blue.", "And of grass?", "Green."]
    press_under(page, 2, "Delete")
    page.get_by_role("alertdialog", name="Delete this message and the 1 message after it?").wait_for()
    page.get_by_role("alertdialog").get_by_role("button", name="Cancel").click()
    assert len(said(page)) == 4
    press_under(page, 2, "Delete")
    page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    until(page, "document.querySelectorAll('#messages > li').length === 2")
    press_under(page, 0, "Delete")
    page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    until(page, "document.querySelector('.said').textContent === 'Colour of snow?'")


@browser_needed
def test_arrow_up_changes_the_last_question_and_escape_leaves_it(page: Any) -> None:
    answer_with(page, "Yes.")
    ask(page, "Question one")
    page.get_by_label("Message").press("ArrowUp")
    field = page.get_by_label("Text of the message")
    assert field.input_value() == "Question one"
    field.press("Escape")
    assert said(page) == ["Question one", "Yes."]
    page.get_by_label("Message").fill("x")
    page.get_by_label("Message").press("ArrowUp")  # goes up in what is being written
    assert page.get_by_label("Text of the message").count() == 0


@browser_needed
def test_what_an_earlier_page_kept_is_taken_over(page: Any) -> None:
    old = {
        "id": "old1",
        "updated": 1_700_000_000_000,
        "settings": {"system": "Be brief"},
        "messages": [
            {"role": "user", "content": "From before"},
            {"role": "assistant", "content": "Still here", "state": "done"},
        ],
    }
    page.evaluate("old => localStorage.setItem('axpress.chat.old1', JSON.stringify(old))", old)
    page.reload()
    open_chats(page)
    page.get_by_role("button", name="From before", exact=True).click()
    until(page, "document.querySelectorAll('#messages > li').length === 2")
    assert said(page) == ["From before", "Still here"]
    assert page.locator("#system-shown").inner_text().endswith("Be brief")
    assert page.evaluate("Object.keys(localStorage)") == []
