"""A real `axpress serve` in a process of its own on a free loopback port, for the server's tests."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repository import PATIENCE

if TYPE_CHECKING:
    import openai

PROFILE = """name = "test-hollow"
[model]
family = "qwen3"
layers = 2
hidden = 64
heads = 2
kv_heads = 1
head_dim = 32
ffn = 128
vocab = 2048
rows = 1023
chunk = 128
history = [0, 128, 256, 384, 512]
[cost]
decode_rows = [1023]
decode_layer_ms = [2.0]
chunk_history = [0, 512]
chunk_layer_ms = [2.0, 3.0]
head_ms = 1.0
sync_call_ms = 0.07
submit_us = 5
d2d_us = 10
d2d_gb_s = 10
bus_mb_s = 400
transfer_us = 20
unpinned_us = 1000
[memory]
cmm_mib = 7040
idle_cmm_mib = 18
layer_cmm_bytes = 1000000
head_cmm_bytes = 1000000
"""
"""A small made-up card: about 5 ms a token, so that tests can act while an answer runs."""


def made_up_profile(directory: Path) -> Path:
    """PROFILE as a file in `directory`."""
    profile = directory / "test-hollow.toml"
    profile.write_text(PROFILE)
    return profile


def hollow_package(directory: Path) -> tuple[Path, Path]:
    """A small hollow model in `directory`: the package and the profile that paces it."""
    from axpress.core.model_files.hollow import hollow

    profile = made_up_profile(directory)
    return hollow(str(profile), directory / "package"), profile


def tiny_package(directory: Path) -> tuple[Path, Path]:
    """A tiny random model with real arithmetic in `directory`: the package, and the profile of the same made-up
    card."""
    from tiny_models import Tiny, convert_tiny

    history = [0, 32, 64, 128, 256]  # narrow chunks, so that the arithmetic takes less time than the made-up card
    package = convert_tiny(directory, Tiny("qwen3", layers=2), rows=511, chunk=32, history=history)
    return package, made_up_profile(directory)


def note_exits(state_dir: Path, count: int) -> None:
    """As if so many processes before had ended, for a card that they could not bring back."""
    exits = [("exit", time.time())] * count
    (state_dir / "recovery.json").write_text(json.dumps({"attempts": exits}))


class RunningServer:
    """`axpress serve` with `arguments`; use as a context manager. `stop` tells how it ended and what it logged."""

    command = (sys.executable, "-m", "axpress.server", "serve")

    def __init__(
        self, *arguments: object, ready: bool = True, check: bool = True, environment: dict[str, str] | None = None
    ) -> None:
        command = [*self.command, *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "default", **(environment or {})},
        )
        self.lines: list[str] = []
        self._check = check
        self._listening = threading.Event()
        self.port = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(60 * PATIENCE) or not self.port:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not start:\n" + self.log)
        if ready:
            self.wait(lambda: self.health()[0] == 200, 60, "ready")

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.lines.append(line)
                if match := re.search(r"listening on http://\S+:(\d+)", line):
                    self.port = int(match[1])
                    self._listening.set()
        self._listening.set()

    @property
    def log(self) -> str:
        """What it wrote to stderr so far."""
        return "".join(self.lines)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(self, *exc: object) -> None:
        code = self.stop()
        if self._check and exc[0] is None:
            assert code == 0, f"exit code {code}\n{self.log}"
            trouble = re.findall(r".*(?:Traceback|unexpected|Warning: ).*\n.*", self.log)
            assert not trouble, trouble

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(40 * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not end:\n" + self.log) from None
        self._reader.join(5 * PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> None:
        """Until `condition()` is true."""
        until = time.monotonic() + seconds * PATIENCE
        while not condition():
            assert self.process.poll() is None, "the server ended:\n" + self.log
            assert time.monotonic() < until, f"not {what} after {seconds} s: {self.health()}\n{self.log}"
            time.sleep(0.01)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a fresh connection: status, headers (lower case), body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def post(self, document: object, **headers: str) -> tuple[int, dict[str, str], Any]:
        """POST a chat request (bytes go as they are); the body comes back parsed."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        status, head, raw = self.request(
            "POST", "/v1/chat/completions", body, {"content-type": "application/json", **headers}
        )
        return status, head, json.loads(raw)

    def health(self) -> tuple[int, dict[str, Any]]:
        """GET /health."""
        status, _, raw = self.request("GET", "/health")
        return status, json.loads(raw)

    def stats(self) -> dict[str, Any]:
        """The engine's counters: passes (`steps`), tokens of answers that ended (`generated_tokens`), and more."""
        stats: dict[str, Any] = self.health()[1]["stats"]
        return stats

    def process_status(self, name: str) -> int:
        """A figure that the system has of the process: VmRSS and VmHWM in KiB, Threads."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    def idle(self) -> bool:
        """True when the card has nothing to do and no answer is open."""
        body = self.health()[1]
        return body["num_running"] == 0 and body["num_waiting"] == 0 and body["num_answers"] == 0

    @contextlib.contextmanager
    def cut_short(self, most: int) -> Iterator[None]:
        """What begins inside is over soon after its end: fewer than `most` tokens come of it, and no pass runs any
        more."""
        before = self.stats()["generated_tokens"]
        yield
        self.wait(self.idle, 30, "idle")
        stats = self.stats()
        assert stats["generated_tokens"] - before < most
        time.sleep(0.1)
        assert self.stats()["steps"] == stats["steps"]

    def raw(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30 * PATIENCE)


def openai_client(server: RunningServer, key: str = "none") -> openai.OpenAI:
    """OpenAI's own client, which does not try again."""
    import openai  # not above: it takes a second, and most tests do without

    return openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0)


def async_openai_client(server: RunningServer) -> openai.AsyncOpenAI:
    """The same for asyncio."""
    import openai

    return openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def post(server: RunningServer, path: str, **fields: Any) -> tuple[int, Any]:
    """Status and parsed answer of a POST of these fields."""
    status, _, raw = server.request("POST", path, json.dumps(fields).encode(), {"content-type": "application/json"})
    return status, json.loads(raw)


def send_hundred_megabytes(sock: socket.socket) -> int:
    """How many bytes were taken before the other end had enough."""
    block, sent = b"x" * (1 << 20), 0
    try:
        for _ in range(100):
            sock.sendall(block)
            sent += len(block)
    except OSError:
        pass
    return sent


def chat(content: str = "hi", **fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"messages": [{"role": "user", "content": content}], **fields}


def http_post(document: object) -> bytes:
    """A chat request as it goes over the wire."""
    body = json.dumps(document).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length:"
        f" {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def events(raw: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of a server-sent event stream that ends with [DONE]."""
    blocks = raw.decode().split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""], raw[-300:]
    for block in blocks[:-2]:
        assert block.startswith("data: "), block
        yield json.loads(block[6:])
