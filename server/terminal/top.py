"""`axpress top`: the card, live in a terminal. Needs rich."""

from __future__ import annotations

import os
import select
import sys
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from .connection import Connection, ServerError
from .line_editor import keys_wait
from .ps import NEEDS_KEY, card_words, memory_words
from .text import visible

SECONDS, FIRST_SECONDS = 1.0, 0.5
"""Between two looks, and between the first two: a rate takes two."""
HEIGHTS = "▁▂▃▄▅▆▇█"
ROWS = {"of answers": ("█", "green"), "shared": ("▓", "cyan"), "kept for later": ("░", "yellow"), "free": ("·", "dim")}
MAX_BANKS = 4
LABEL = 10
"""Columns of the words on the left."""


def top(connection: Connection, once: bool) -> int:
    """Draws until q or Ctrl-C; with `once`, or where there is no terminal, prints one picture. Returns the exit code.
    Raises ServerError where there is nothing to draw at first."""
    console, watch = Console(), Watch(connection)
    watch.look()
    time.sleep(FIRST_SECONDS)
    watch.look()
    if once or not console.is_terminal:
        console.print(watch.frame(console.width, 24))
        return 0
    with suppress(KeyboardInterrupt), keys_wait(), Live(console=console, screen=True, auto_refresh=False) as live:
        live.update(watch.frame(*console.size), refresh=True)
        while not _q_within(SECONDS):
            try:
                watch.look()
                watch.trouble = ""
            except ServerError as error:
                watch.trouble = str(error)
            live.update(watch.frame(*console.size), refresh=True)
    return 0


def _q_within(seconds: float) -> bool:
    """Waits so long, or until somebody presses q."""
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return False
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and os.read(sys.stdin.fileno(), 64) in (b"q", b"Q", b"\x04", b"")


class Watch:
    """What was seen of a server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._live: dict[str, Any] = {}
        self._rates: deque[float] = deque(maxlen=300)
        self.trouble = ""
        """Why the picture is an old one."""

    def look(self) -> None:
        """Once more. ServerError: it stays as it was."""
        try:
            live = self._connection.get("/live")
        except ServerError as error:
            if error.status in (401, 403):
                raise ServerError(f"{self._connection.url} {NEEDS_KEY}") from None
            raise
        if "picture" not in live:
            raise ServerError(f"{self._connection.url} is no server of axpress")
        self._live = live
        if live["picture"] is not None:
            self._rates.append(live["picture"]["tokens_per_s"] or 0.0)

    def frame(self, width: int, height: int) -> Group:
        """The picture for a terminal of that size."""
        live, picture = self._live, self._live["picture"]
        state = live["status"] + (f": {visible(live['reason'])}" if live["reason"] else "")
        lines = [
            Text.assemble(
                (visible(live["model"]) or "?", "bold"), f"  {card_words(live | {'num_cards': _num_cards(picture)})}"
            )
        ]
        lines.append(_line("server", f"{self._connection.url}  "))
        lines[1].append(self.trouble or state, "" if state == "ready" and not self.trouble else "red")
        if picture is not None:
            lines += self._facts(live, picture, width)
            banks = list(enumerate(picture["banks"]))
            fullest = sorted(sorted(banks, key=lambda bank: bank[1]["free"])[:MAX_BANKS], key=lambda bank: bank[0])
            names = _bank_names(picture)
            lines += [_bar(names[number], bank, width) for number, bank in fullest]
            lines.append(_legend(len(banks)))
            lines += _answers(picture["running"], height - len(lines) - 2)
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
            line.truncate(width)
        return Group(*lines, Text(), Text("q ends", "dim"))

    def _facts(self, live: dict[str, Any], picture: dict[str, Any], width: int) -> Iterable[Text]:
        card, rate = picture["card"], picture["tokens_per_s"]
        yield _line("answers", f"{len(picture['running'])} of {live['max_running']}, {picture['num_waiting']} of"
                               f" {live['max_queue']} waiting")  # fmt: skip
        yield _line("speed", f"{'?' if rate is None else f'{rate:.1f}':>6} tokens/s  {self._heights(width - 30)}")
        for one in picture.get("cards") or [{"name": "", "state": "ready", "card": card}]:
            yield _card_line(one["name"], one["state"], one["card"])
        passes = picture["passes"]
        tokens, answers = (sum(counts) / max(len(passes), 1) for counts in zip(*passes, (0, 0), strict=True))
        yield _line("passes", f"the last {len(passes)} carried {tokens:.1f} tokens of {answers:.1f} answers each")

    def _heights(self, width: int) -> str:
        """The latest rates as a line of bars."""
        rates = list(self._rates)[-max(width, 1) :]
        most = max([*rates, 1e-9])
        return "".join(HEIGHTS[min(int(rate / most * len(HEIGHTS)), len(HEIGHTS) - 1)] for rate in rates)


def _num_cards(picture: dict[str, Any] | None) -> int:
    return len((picture or {}).get("cards", ())) or 1


def _bank_names(picture: dict[str, Any]) -> list[str]:
    """With several cards: card and number there."""
    if not picture.get("cards"):
        return [str(number) for number in range(len(picture["banks"]))]
    return [f"{card['name']}.{number}" for card in picture["cards"] for number in range(card["num_banks"])]


def _card_line(name: str, state: str, card: dict[str, Any]) -> Text:
    used = None if card["memory_free_bytes"] is None else card["memory_bytes"] - card["memory_free_bytes"]
    warmth = "?" if card["temperature_c"] is None else f"{card['temperature_c']:.1f}"
    line = _line(f"card {name}".rstrip(), f"{warmth:>6} C, memory {memory_words(used, card['memory_bytes'])}")
    return line if state == "ready" else line.append(f"  {state}", "red")


def _line(label: str, text: str, style: str = "") -> Text:
    return Text.assemble((f"{label:<{LABEL}}", "dim"), (text, style))


def _bar(name: str, bank: dict[str, int], width: int) -> Text:
    """Whose the rows of a bank are."""
    rows, length = bank["rows"], max(width - LABEL - 22, 10)
    counts = (rows - bank["free"] - bank["idle"] - bank["shared"], bank["shared"], bank["idle"], bank["free"])
    line, before = _line(f"cache {name}", ""), 0
    for count, (mark, style) in zip(counts, ROWS.values(), strict=True):
        line.append(mark * (round((before + count) * length / rows) - round(before * length / rows)), style)
        before += count
    return line.append(f"  {rows - bank['free']} of {rows} rows")


def _legend(num_banks: int) -> Text:
    line = Text(" " * LABEL)
    for name, (mark, style) in ROWS.items():
        line.append(mark, style).append(f" {name}  ")
    return line.append(f"and {num_banks - MAX_BANKS} caches more" if num_banks > MAX_BANKS else "")


def _answers(running: list[dict[str, Any]], room: int) -> Iterable[Text]:
    """A line an answer, as many as there is room for."""
    yield Text(f"{'answer':>8} {'doing':<8}{'prompt':>8}{'cached':>8}{'answered':>10}{'cache':>7}", "dim")
    shown = running if len(running) <= room - 1 else running[: max(room - 2, 0)]
    for answer in shown:
        bank = "-" if answer["bank"] is None else answer["bank"]
        yield Text(
            f"{answer['number']:>8} {answer['state']:<8}{answer['prompt_tokens']:>8}{answer['cached']:>8}"
            f"{answer['generated']:>10}{bank:>7}"
        )
    if len(shown) < len(running):
        yield Text(f"{'':>8} and {len(running) - len(shown)} more", "dim")
