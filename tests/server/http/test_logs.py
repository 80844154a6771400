"""Log lines in their three forms; floods of one line; a standard error that nobody reads; a line for every request."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from server_process import RunningServer, chat

from axpress.server.http.logs import FORMATTERS, REPEAT_SECONDS, REPEATS, Format, LogWriter

KEY = "canary-key-0123456789"


def record(level: int = logging.INFO, text: str = "a\nb", **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("axpress.request", level, "", 0, text, None, None)
    made.__dict__.update(extra)
    return made


@pytest.mark.parametrize(
    ("form", "level", "line"),
    [
        ("text", logging.INFO, r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d info    axpress\.request: a\\nb"),
        ("journal", logging.INFO, r"<6>axpress\.request: a\\nb"),
        ("journal", logging.WARNING, r"<4>axpress\.request: a\\nb"),
        ("journal", logging.ERROR, r"<3>axpress\.request: a\\nb"),
        ("journal", logging.DEBUG, r"<7>axpress\.request: a\\nb"),
    ],
)
def test_forms_of_a_line(form: Format, level: int, line: str) -> None:
    assert re.fullmatch(line, FORMATTERS[form]().format(record(level)))


def test_json_has_the_fields_and_one_line_a_record() -> None:
    text = FORMATTERS["json"]().format(record(fields={"status": 404, "path": "/\x1b"}))
    document = json.loads(text)
    assert document["status"] == 404 and document["path"] == "/\\x1b" and document["message"] == "a\\nb"
    assert "\n" not in text and document["level"] == "info"


def written(lines: list[logging.LogRecord]) -> list[str]:
    """What a LogWriter makes of these."""
    reads, writes = os.pipe()
    writer = LogWriter(FORMATTERS["text"](), writes)
    for line in lines:
        writer.handle(line)
    writer.flush()
    os.close(writes)
    with os.fdopen(reads) as file:
        return file.read().splitlines()


def test_repeats_are_counted_instead_of_written() -> None:
    many = [record(text=f"refused {n}", repeat=(404, "not_found")) for n in range(REPEATS + 30)]
    late = record(text="later", repeat=(404, "not_found"))
    late.created += REPEAT_SECONDS + 1
    others = [record(text="other", repeat=(401, "invalid_api_key")), record(text="answered")]
    lines = written([*many, *others, late])
    assert len([line for line in lines if "refused" in line]) == REPEATS
    assert any("other" in line for line in lines) and any("answered" in line for line in lines)
    assert "30 more lines like this one" in lines[-1] and "later" in lines[-2]


def test_a_standard_error_that_nobody_reads_stops_nothing() -> None:
    command = [sys.executable, "-m", "axpress.server", "serve", "--emu-profile", "none", "--port", "0"]
    process = subprocess.Popen([*command, "--log-level", "debug"], stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        heard = b""
        while b"listening" not in heard or b"serving" not in heard:
            heard += os.read(process.stderr.fileno(), 65536)
        port = re.search(rb"listening on http://[^:]+:(\d+)", heard)
        assert port is not None
        server = RunningServer.__new__(RunningServer)
        server.port = int(port[1])
        for _ in range(1500):  # a pipe holds fewer lines
            assert server.request("GET", "/livez")[0] == 200
        assert server.post(chat(max_tokens=3))[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()  # type: ignore[union-attr]


def test_every_request_leaves_one_line_without_what_is_secret(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"alice:{KEY}\n")
    keys.chmod(0o600)
    own = {"authorization": f"Bearer {KEY}", "x-request-id": "mine-1"}
    with RunningServer("--emu-profile", "none", "--api-keys", keys, "--log-format", "json") as server:
        assert server.post(chat("secret words", max_tokens=3), **own)[0] == 200
        assert server.post(chat("secret words", max_tokens=-3), **own)[0] == 400
        assert server.request("GET", f"/nowhere/{KEY}?q={KEY}", headers=own)[0] == 404
        assert server.post(chat("secret words"))[0] == 401
        with server.raw() as sock:
            sock.sendall(b"NONSENSE\r\n\r\n")
            assert b" 400 " in sock.recv(100)
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.lines if line.startswith("{")]
    told = [line for line in lines if line["logger"] == "axpress.request" and line["path"] != "/health"]
    assert [(line["status"], line["code"], line["key"]) for line in told] == [
        (200, None, "alice"),
        (400, "invalid_value", "alice"),
        (404, "not_found", "alice"),
        (401, "invalid_api_key", None),
        (400, "bad_request", None),
    ]
    assert [line["request_id"] for line in told[:3]] == ["mine-1"] * 3
    assert told[0]["generated_tokens"] > 0 and told[0]["outcome"] in ("stop", "length") and told[0]["seconds"] > 0
    assert told[2]["path"] == "/*/*"
    assert KEY not in server.log and "secret" not in server.log


def test_hangup_without_a_key_file_changes_nothing() -> None:
    with RunningServer("--emu-profile", "none") as server:
        server.process.send_signal(signal.SIGHUP)
        server.wait(lambda: "SIGHUP" in server.log, 30, "told")
        assert server.post(chat(max_tokens=2))[0] == 200
        time.sleep(0.05)
        assert server.process.poll() is None
