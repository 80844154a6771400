"""What HTTP costs: 8 streams of 200 tokens/s, and how fast one stream can go.

    python bench/serving.py metronome [--streams 8] [--rate 200] [--seconds 10]
    python bench/serving.py engine [MODEL_DIR] [--tokens 20000]

`metronome`: tokens come from a clock, not from an engine; what is measured is the server alone: CPU time of its event
loop's thread and of its whole process (which includes the clock's thread), as a share of one core. `engine`: the real
engine on a hollow model on profile `none` (made on the fly unless MODEL_DIR is given), one stream. The server runs in a
child process; the client is this process and reads raw bytes."""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from axpress.core.device.model_loader import default_model
from axpress.core.model_files.model_package import open_package
from axpress.core.request import Delta, EngineInfo, GenerationRequest
from axpress.core.tokenizer.tokenizer import Tokenizer


class Metronome:
    """Stands where the engine stands and emits one token per running answer at a fixed rate. The demo model's
    tokenizer; no card."""

    def __init__(self, rate: float) -> None:
        self.info = EngineInfo("metronome", "a clock, no engine", True, "none", 0, 100_000, 1_000_000, "none")
        self.package = open_package(default_model())
        self.text = Tokenizer.open(
            self.package.tokenizer_path, eos_override=self.package.eos, bos_override=self.package.bos
        )
        self.state, self.reason = "ready", ""
        self._rate = rate
        self._running: list[_Ticking] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._tick, daemon=True).start()

    def submit_all(self, requests: list[GenerationRequest], sinks: list[Callable[[Delta], None]]) -> list[_Ticking]:
        """Start emitting."""
        answers = [_Ticking(request.max_tokens, sink) for request, sink in zip(requests, sinks, strict=True)]
        with self._lock:
            self._running += answers
        return answers

    def _tick(self) -> None:
        due = time.monotonic()
        while True:
            due += 1 / self._rate
            time.sleep(max(0.0, due - time.monotonic()))
            with self._lock:
                for answer in self._running:
                    answer.left -= 1
                    answer.sink(Delta(" token", 1, None if answer.left else "length"))
                self._running = [a for a in self._running if a.left > 0]

    def stats(self) -> dict[str, Any]:
        """Numbers for /health."""
        return {"num_running": len(self._running), "num_waiting": 0}

    def close(self, drain_s: float) -> None:
        """Nothing to close."""


class _Ticking:
    def __init__(self, left: int, sink: Callable[[Delta], None]) -> None:
        self.left = left
        self.sink = sink

    def cancel(self) -> None:
        """Stop emitting."""
        self.left = 1 if self.left > 0 else 0


def serve_child(model_dir: str | None, rate: float) -> int:
    """The child: a normal server plus /bench/cpu. Prints its port on stdout."""
    from sanic.response import json as respond

    from axpress.server import app as server
    from axpress.server.http import logs
    from axpress.server.serving.engine_service import Service
    from axpress.server.settings import Settings

    class MetronomeService(Service):
        def _open(self) -> Any:
            return Metronome(rate)

    logs.configure("warning")
    directory = Path(model_dir) if model_dir else default_model()
    settings = Settings(model_dir=directory, device="emu", profile="none", port=0)
    service = Service(settings) if model_dir else MetronomeService(settings)
    original, listen = server.make_app, server.listen

    def make_app(*arguments: Any) -> Any:
        app = original(*arguments)
        app.add_route(lambda _: respond({"loop": time.thread_time(), "process": time.process_time()}), "/bench/cpu")
        return app

    def announce(settings: Settings) -> socket.socket:
        sock = listen(settings)
        print(sock.getsockname()[1], flush=True)
        return sock

    server.make_app, server.listen = make_app, announce
    return server.serve(settings, service)


class Server:
    """The child process."""

    def __init__(self, model_dir: str | None, rate: float) -> None:
        command = [sys.executable, __file__, "child", *([model_dir] if model_dir else []), "--rate", str(rate)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        while self.get("/health")[0] != 200:
            time.sleep(0.1)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            raw = b"".join(iter(lambda: sock.recv(65536), b""))
        head, _, body = raw.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), json.loads(body)

    def stream(self, max_tokens: int) -> tuple[int, float]:
        """Chunks with text of one streamed answer, and seconds from the first to the last of them."""
        fields = {
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "max_tokens": max_tokens,
            "ignore_eos": True,
        }
        body = json.dumps({**fields, "temperature": 0, "stream_options": {"include_usage": True}}).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: [::1]\r\ncontent-type: application/json\r\ncontent-length:"
            f" {len(body)}\r\n\r\n"
        )
        count, first, last, tail = 0, 0.0, 0.0, b""
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            sock.sendall(head.encode() + body)
            while b"[DONE]" not in tail:
                data = sock.recv(1 << 20)
                if not data:
                    raise SystemExit(f"the stream broke off: {tail[-300:]!r}")
                last = time.perf_counter()
                first = first or (last if b'"content":"' in data else 0.0)
                tail = tail[-4000:] + data
            count = json.loads(tail[tail.rindex(b'data: {"id"') + 6 :].split(b"\n", 1)[0])["usage"]["completion_tokens"]
        return count, last - first


def metronome(streams: int, rate: float, seconds: float) -> None:
    """Print the share of a core that `streams` streams cost."""
    with Server(None, rate) as server:
        tokens = int(rate * (seconds + 2))
        threads = [threading.Thread(target=server.stream, args=(tokens,)) for _ in range(streams)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        before, begun = server.get("/bench/cpu")[1], time.monotonic()
        time.sleep(seconds)
        after, wall = server.get("/bench/cpu")[1], time.monotonic() - begun
        for thread in threads:
            thread.join()
    print(f"tokens from a metronome (no engine, no card): {streams} streams x {rate:g} tokens/s for {wall:.1f} s")
    for name in ("loop", "process"):
        spent = after[name] - before[name]
        each = spent / (streams * rate * wall)
        print(f"  {name:8} CPU {100 * spent / wall:5.2f} % of one core, {1e6 * each:5.1f} us per token")


def engine(model_dir: str | None, tokens: int) -> None:
    """Print the tokens/s of one stream from the real engine."""
    with tempfile.TemporaryDirectory() as scratch:
        if model_dir is None:
            from axpress.core.model_files.hollow import hollow

            model_dir = str(Path(scratch) / "hollow")
            hollow("qwen3-0.6b-w8a16-pi5", Path(model_dir))
        with Server(model_dir, 0) as server:
            limit = server.get("/health")[1]["context_length"] - 64
            rounds = max(1, round(tokens / limit))
            before = server.get("/bench/cpu")[1]
            results = [server.stream(min(tokens, limit)) for _ in range(rounds)]
            after = server.get("/bench/cpu")[1]
    count, spent = sum(n for n, _ in results), sum(s for _, s in results)
    loop, process = (after[name] - before[name] for name in ("loop", "process"))
    print(
        f"real engine, hollow model on the emulated card, profile none: one stream, {count} tokens in {rounds} answers"
    )
    print(
        f"  {count / spent:8.0f} tokens/s; CPU per token: loop {1e6 * loop / count:.1f} us, process"
        f" {1e6 * process / count:.1f} us"
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("metronome", "engine", "child"))
    parser.add_argument("model_dir", nargs="?")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--tokens", type=int, default=20_000)
    arguments = parser.parse_args()
    if arguments.what == "child":
        return serve_child(arguments.model_dir, arguments.rate)
    if arguments.what == "metronome":
        metronome(arguments.streams, arguments.rate, arguments.seconds)
    else:
        engine(arguments.model_dir, arguments.tokens)
    return 0


if __name__ == "__main__":
    sys.exit(main())
