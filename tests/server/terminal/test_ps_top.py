"""`axpress ps` and `axpress top` against a server on the emulated card."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from own_terminal import Terminal
from server_process import RunningServer, chat, hollow_package

from axpress.server.cli import main
from axpress.server.terminal.connection import Connection
from axpress.server.terminal.top import MAX_BANKS, Watch


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    package, profile = hollow_package(tmp_path_factory.mktemp("ps"))
    with RunningServer(package, "--emu-profile", profile, environment={"AXPRESS_API_KEYS": "secret-key"}) as running:
        yield running


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXPRESS_API_KEY", "secret-key")


def test_ps(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    def known() -> Any:
        capsys.readouterr()
        assert main(["ps", "--url", server.url, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    server.wait(lambda: known()["memory_bytes"], 30, "asked about its memory")
    assert main(["ps", "--url", server.url]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["MODEL", "CONTEXT", "CARD", "MEMORY", "RUNNING", "WAITING", "SINCE", "STATE"]
    words = row.split()
    assert words[:4] == ["test-hollow-hollow", "1023", "emulated", "(test-hollow)"] and " GiB " in row
    assert "0 of 16" in row and "0 of 32" in row and words[-1] == "ready"
    told = known()
    assert (told["model"], told["context_length"], told["emulated"]) == ("test-hollow-hollow", 1023, True)
    assert told["memory_used_bytes"] < told["memory_bytes"] == 7040 << 20
    assert 0 <= time.time() - told["started_at"] < 600


def test_who_has_no_key_is_told_so(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("ps", "top"):
        assert main([command, "--url", server.url, "--api-key", "wrong"]) == 1
        assert capsys.readouterr().err == (
            f"axpress: {server.url} tells no more without a key: AXPRESS_API_KEY=KEY, or --api-key KEY\n"
        )
        assert main([command, "--url", "http://127.0.0.1:1"]) == 1
        assert capsys.readouterr().err.startswith("axpress: cannot reach 127.0.0.1:1")


def test_top_once(server: RunningServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    body = json.dumps(chat(max_tokens=2)).encode()
    server.request(
        "POST", "/v1/chat/completions", body, {"content-type": "application/json", "x-api-key": "secret-key"}
    )
    assert main(["top", "--once", "--url", server.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "test-hollow-hollow  emulated (test-hollow)" in lines[0] and all(len(line) <= 80 for line in lines)
    text = "\n".join(lines)
    for part in (
        f"server    {server.url}  ready",
        "answers   0 of 16, 0 of 32 waiting",
        " tokens/s ",
        " C, memory ",
        " of 1023 rows",
    ):
        assert part in text
    assert "\x1b" not in text


@pytest.mark.parametrize("leave", ["q", "\x03"])
def test_top_in_a_terminal(server: RunningServer, leave: str) -> None:
    with Terminal("top", "--url", server.url) as terminal:
        terminal.until("q ends")
        terminal.until("q ends")  # drawn once more
        terminal.type(leave)
        assert terminal.ends() == 0
    assert "\x1b[?1049h" in terminal.text and "\x1b[?1049l" in terminal.text and "^C" not in terminal.text


def picture(answers: int, banks: int) -> dict[str, Any]:
    running = [
        {"number": n, "state": "answer", "bank": None if n else 0, "prompt_tokens": 100, "cached": 50, "generated": n}
        for n in range(answers)
    ]
    used = {"rows": 2047, "free": 1000, "idle": 500, "shared": 47, "runs": []}
    free = {"rows": 2047, "free": 2047, "idle": 0, "shared": 0, "runs": []}
    return {
        "status": "hot", "reason": "answers wait until the card is below 80 C " * 9, "model": "m\x1b[31m" * 30,
        "device": "0", "emulated": False, "profile": None, "max_running": 256, "max_queue": 32,
        "picture": {
            "running": running, "num_waiting": 7, "tokens_per_s": 12.5, "passes": [[8, 3], [2, 1]],
            "banks": [free] * (banks - 1) + [used],
            "card": {"temperature_c": 81.5, "memory_bytes": None, "memory_free_bytes": None},
        },
    }  # fmt: skip


class Looked(Connection):
    """Shows a picture of nothing."""

    live: dict[str, Any]

    def get(self, path: str) -> dict[str, Any]:
        return self.live


@pytest.mark.parametrize(("answers", "banks"), [(0, 1), (5, 2), (200, 9)])
def test_a_frame_fits_its_terminal(answers: int, banks: int) -> None:
    connection = Looked("http://card.example")
    connection.live = picture(answers, banks)
    watch = Watch(connection)
    watch.look()
    for width, height in ((80, 24), (200, 60)):
        lines = [str(line) for line in watch.frame(width, height).renderables]
        assert len(lines) <= height and max(map(len, lines)) <= width
        text = "\n".join(lines)
        assert "\x1b" not in text and "81.5 C, memory ?" in text and "1047 of 2047 rows" in text
        assert "the last 2 carried 5.0 tokens of 2.0 answers each" in text and "12.5 tokens/s" in text
        assert (f"and {banks - MAX_BANKS} caches more" in text) == (banks > MAX_BANKS)
        shown = sum(" answer  " in line and "100" in line for line in lines)
        more = [line for line in lines if line.strip().endswith(" more") and "caches" not in line]
        assert shown + (int(more[0].split()[1]) if more else 0) == answers
        assert shown == answers or len(lines) == height
