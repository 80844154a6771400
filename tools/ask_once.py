"""Serves the toy with an installed `axpress` and asks it one thing: that an installation works. Prints what it saw.

    PYTHON tools/ask_once.py [--openai] [--patience X] [--program axpress]

PYTHON: of the environment where axpress is installed, or any with --program. --openai asks with OpenAI's own client,
which must be importable; otherwise Python's own library asks. Ends with an error where anything is not as it should be.
Needs nothing of this source, and no network."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

QUESTION = [{"role": "user", "content": "hi"}]


def ask(url: str) -> str:
    """The answer to a streamed request, by Python's own library."""
    body = json.dumps({"messages": QUESTION, "stream": True, "temperature": 0, "max_tokens": 40}).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        events = [line[6:] for line in reply.read().decode().splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]", events
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def ask_with_openai(url: str) -> str:
    """The same by OpenAI's client."""
    from openai import OpenAI

    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300) as client:
        stream = client.chat.completions.create(
            model="default", messages=QUESTION, stream=True, temperature=0, max_tokens=40
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--openai", action="store_true", help="ask with OpenAI's client")
    parser.add_argument("--patience", type=float, default=1.0, help="how many times slower than usual it may be")
    beside = str(Path(sys.executable).with_name("axpress"))
    parser.add_argument("--program", default=beside, help="axpress to serve with (default: the one beside this Python)")
    arguments = parser.parse_args()
    began = time.monotonic()
    process = subprocess.Popen(
        [arguments.program, "serve", "--port", "0"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "AXPRESS_MODELS": os.devnull},
    )  # fmt: skip
    guard = threading.Timer(90 * arguments.patience, process.kill)
    guard.start()
    try:
        log, url, listening = "", "", 0.0
        assert process.stderr is not None
        for line in process.stderr:
            log += line
            if found := re.search(r"listening on (http://\S+)", line):
                url, listening = found[1], time.monotonic() - began
            if "serving" in line and url:
                break
        else:
            raise SystemExit(f"the server did not start:\n{log}")
        ready = time.monotonic() - began
        answer = (ask_with_openai if arguments.openai else ask)(url)
        status = Path(f"/proc/{process.pid}/status").read_text()
        with urllib.request.urlopen(f"{url}/health", timeout=60) as reply:
            health = json.load(reply)
        assert answer and health["emulated"] is True, (answer, health)
        process.send_signal(signal.SIGTERM)
        log += process.stderr.read()
        assert process.wait() == 0, log
    finally:
        guard.cancel()
        process.kill()
        process.wait()
    resident = re.search(r"VmRSS:\s+(\d+)", status)
    memory = f", {int(resident[1]) >> 10} MB resident" if resident else ""
    client = "OpenAI's client" if arguments.openai else "urllib"
    print(f"served (emulated): listening after {listening:.2f} s, ready after {ready:.2f} s{memory};"
          f" {client} was answered {answer!r}")  # fmt: skip


if __name__ == "__main__":
    main()
