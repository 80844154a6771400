"""Clients that ask a proxy before several servers, and what came of each request."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
from server_process import RunningServer

CLIENTS, REQUESTS, TOKENS = 8, 4, 150


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def listening(command: list[str], port: int, directory: Path, **more: str) -> Iterator[str]:
    """A program that serves `port`, in `directory`, with `more` in its environment: its address."""
    log = directory / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=directory, env={**os.environ, **more}, stdout=out, stderr=out)
        try:
            until = time.monotonic() + 120
            while not listens(port):
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def ask(client: openai.OpenAI, seed: int, stream: bool, model: str = "default") -> str:
    """The text of one answer, streamed or whole."""
    fields: Any = {
        "model": model,
        "messages": [{"role": "user", "content": f"tell me of river {seed}"}],
        "max_tokens": TOKENS,
        "seed": seed,
        "extra_body": {"ignore_eos": True},
    }
    if not stream:
        return str(client.chat.completions.create(**fields).choices[0].message.content)
    chunks = list(client.chat.completions.create(stream=True, **fields))
    assert chunks[-1].choices[0].finish_reason == "length"
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


class Load:
    """CLIENTS threads that ask REQUESTS each, every other one streamed; what came of each."""

    def __init__(self, url: str, key: str = "none", model: str = "default") -> None:
        self.url, self.key, self.model = url, key, model
        self.texts: dict[int, str] = {}
        self.errors: dict[int, Exception] = {}
        self.sent: list[object] = []
        """Requests of HTTP: more than answers, where the client tried again."""
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        http = openai.DefaultHttpxClient(event_hooks={"request": [self.sent.append]})
        with openai.OpenAI(base_url=self.url + "/v1", api_key=self.key, http_client=http) as client:
            for seed in range(number * REQUESTS, (number + 1) * REQUESTS):
                try:
                    self.texts[seed] = ask(client, seed, stream=seed % 2 == 0, model=self.model)
                except Exception as error:  # told by the test
                    self.errors[seed] = error

    def wait_for(self, count: int) -> None:
        """Until so many answers ended."""
        until = time.monotonic() + 120
        while len(self.texts) + len(self.errors) < count:
            assert time.monotonic() < until, f"{len(self.texts)} of {count} after 120 s"
            time.sleep(0.02)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()


def hollow_server(package: tuple[Path, Path], faults: str = "") -> RunningServer:
    """`axpress serve` of a hollow package and its profile, on a card with these faults."""
    environment = {"AXPRESS_EMU_FAULTS": faults}
    return RunningServer(package[0], "--emu-profile", package[1], check=False, environment=environment)


def lose_nothing(
    package: tuple[Path, Path],
    proxy: Callable[[list[RunningServer]], AbstractContextManager[str]],
    key: str = "none",
    model: str = "default",
) -> None:
    """Under load one of three servers is killed, one drained, the card of one fails: every whole answer comes, with its
    text; only streams that ran on the killed one end, with an error."""
    with ExitStack() as stack:
        killed, drained = (stack.enter_context(hollow_server(package)) for _ in range(2))
        fails = stack.enter_context(hollow_server(package, "axclrtEngineExecuteAsync@900=fail:0x8030070c"))
        with openai.OpenAI(base_url=drained.url + "/v1", api_key="none") as alone:
            expected = {seed: ask(alone, seed, stream=False) for seed in range(0, CLIENTS * REQUESTS, 7)}
        load = Load(stack.enter_context(proxy([killed, drained, fails])), key, model)
        killed.wait(lambda: killed.stats()["num_running"] > 0, 60, "asked")
        killed.process.kill()
        load.wait_for(CLIENTS * REQUESTS // 3)
        drained.process.send_signal(signal.SIGTERM)
        load.join()
        assert drained.process.wait(40) == 0
        asked = CLIENTS * REQUESTS
        whole = sum(seed % 2 for seed in load.errors)
        told = f"{asked} asked, half of them streamed: {len(load.texts)} answered, {whole} whole answers lost"
        ended = f"{len(load.errors) - whole} streams ended with an error"
        print(f"{told}, {ended}, {len(load.sent) - asked} repeated by the client")
        assert len(load.texts) + len(load.errors) == CLIENTS * REQUESTS
        assert {seed: load.texts.get(seed, text) for seed, text in expected.items()} == expected
        assert all(seed % 2 == 0 for seed in load.errors) and len(load.errors) <= CLIENTS, load.errors
        assert fails.health()[1]["recoveries"]["rungs"] == {"reopen": 1}
