"""A card that fails under a real server: clients see a pause; or, where nothing helps, the process ends for its
supervisor. The card is emulated."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from server_process import RunningServer, chat, hollow_package, http_post, note_exits, openai_client

from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine
from axpress.core.errors import RuntimeCallError
from axpress.server.serving.watched_card import WatchedCard
from axpress.server.settings import Settings

PROMPT = [{"role": "user", "content": "tell me of the sea"}]
LONG: dict[str, Any] = {"max_tokens": 300, "seed": 7, "extra_body": {"ignore_eos": True}}
"""About 1.5 seconds on the made-up card."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return hollow_package(tmp_path_factory.mktemp("recovery"))


class Hasty(RunningServer):
    """One for which a second is long enough for a file to be loaded, half of one for a call to come back, and two for a
    card that was rebooted."""

    program = """
from functools import partial
from axpress.core.device import load_watch
from axpress.core.recovery import open_card
quick = partial(open_card.RecoveryPolicy, settle=0.5, backoff=0.1, max_backoff=0.2, enumerate=2.0)
load_watch.LOAD_SECONDS, open_card.RecoveryPolicy = 1.0, quick
import axpress.server.__main__
"""
    command = (sys.executable, "-c", program, "serve")


def serve(
    package: tuple[Path, Path],
    *options: object,
    faults: str = "",
    reboot_ms: int = 0,
    server: type[RunningServer] = RunningServer,
) -> RunningServer:
    environment = {"AXPRESS_EMU_FAULTS": faults, "AXPRESS_EMU_REBOOT_MS": str(reboot_ms)}
    return server(package[0], "--emu-profile", package[1], *options, environment=environment, check=False)


@pytest.fixture(scope="module")
def expected(package: tuple[Path, Path]) -> str:
    """What a card without faults answers."""
    with serve(package) as server:
        return whole(server)


def whole(server: RunningServer) -> str:
    reply = openai_client(server).chat.completions.create(model="default", messages=PROMPT, **LONG)
    return str(reply.choices[0].message.content)


def streamed(server: RunningServer) -> str:
    chunks = openai_client(server).chat.completions.create(model="default", messages=PROMPT, stream=True, **LONG)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


RUNGS = {
    "axclrtEngineExecuteAsync@900=fail:0x8030070c": "reopen",
    "axclrtEngineExecuteAsync@900=hang": "reopen",
    "axclrtSynchronizeStreamWithTimeout@300=block": "reopen",
    "device=offline@2000": "reboot",
}


@pytest.mark.parametrize("faults", RUNGS)
def test_a_client_gets_the_same_text_and_sees_a_pause(package: tuple[Path, Path], expected: str, faults: str) -> None:
    with serve(package, faults=faults, reboot_ms=2000) as server:
        answers: list[str] = []
        clients = [threading.Thread(target=lambda how=how: answers.append(how(server))) for how in (streamed, whole)]
        for client in clients:
            client.start()
        seen, models, ready = set(), set(), set()
        while any(client.is_alive() for client in clients):
            status, body = server.health()
            seen.add((status, body["status"]))
            models.add(server.request("GET", "/v1/models")[0])
            ready.add(server.request("GET", "/readyz")[0])
            assert server.request("GET", "/livez")[::2] == (200, b'{"status":"alive"}\n')
            time.sleep(0.02)
        assert answers == [expected] * 2
        assert seen <= {(200, "ready"), (200, "recovering")} and models == {200}
        assert ready <= {200, 503}  # 503 while it recovers, which may be over between two questions
        recovery = server.health()[1]["recoveries"]
        assert set(recovery["rungs"]) == {RUNGS[faults]}
        assert f'axpress_recoveries_total{{rung="{RUNGS[faults]}"}}'.encode() in server.request("GET", "/metrics")[2]
        assert server.stop() == 0
        assert "the card works again" in server.log and "Traceback" not in server.log


def test_a_stream_is_kept_alive_while_the_card_reboots(package: tuple[Path, Path]) -> None:
    with serve(package, faults="device=offline@2000", reboot_ms=7000) as server, server.raw() as sock:
        sock.sendall(http_post(chat(stream=True, max_tokens=300, ignore_eos=True)))
        raw = b""
        while b"[DONE]" not in raw:
            got = sock.recv(65536)
            assert got, raw[-300:]
            raw += got
        assert b"\r\n: waiting\n\n\r\n" in raw
        assert b'"error"' not in raw


def test_sigterm_ends_a_recovery(package: tuple[Path, Path]) -> None:
    with serve(package, "--drain-timeout", "1", faults="device=offline@2000", reboot_ms=60000) as server:
        with server.raw() as sock:
            sock.sendall(http_post(chat(stream=True, max_tokens=300, ignore_eos=True)))
            server.wait(lambda: server.health()[1]["status"] == "recovering", 30, "recovering")
            facts = server.health()[1]["recovery"]
            assert facts["kind"] == "card_lost" and facts["trying"]
            assert server.stop() == 0
        assert "Traceback" not in server.log


def test_a_card_beyond_help_is_told_once_and_ends_the_process(package: tuple[Path, Path], tmp_path: Path) -> None:
    options = ("--state-dir", tmp_path)
    note_exits(tmp_path, 2)
    for stream in (True, False):
        with serve(package, *options, faults="device=dead@2000", server=Hasty) as server, server.raw() as sock:
            sock.sendall(http_post(chat(stream=stream, max_tokens=900, ignore_eos=True)))
            raw = b""
            while b'"error"' not in raw:
                got = sock.recv(65536)
                assert got, raw
                raw += got
            assert raw.startswith(b"HTTP/1.1 200 " if stream else b"HTTP/1.1 500 ") and b"server_error" in raw
            if stream:
                assert server.process.wait(40) == 75
                continue
            status, body = server.health()  # restarts did not help: it stays and says so
            assert status == 503 and body["status"] == "failed" and "device" in body["reason"]
            status, _, document = server.post(chat())
            assert status == 503 and "failed" in document["error"]["message"]
            assert server.stop() == 1
            assert "power must be cut" in server.log and "Traceback" not in server.log
    tried = [name for name, _ in json.loads((tmp_path / "recovery.json").read_text())["attempts"]]
    assert tried.count("exit") == 3


LOAD = "axclrtEngineLoadFromFile"
NO_REBOOT = "axclrtRebootDevice@1+=fail:0x80300187"


@pytest.mark.parametrize("faults", [f"{LOAD}@2=block; {NO_REBOOT}", f"{LOAD}@1+=fail:0x8030070c"])
def test_a_first_load_that_cannot_be_had_ends_the_process(
    package: tuple[Path, Path], tmp_path: Path, faults: str
) -> None:
    environment = {"AXPRESS_EMU_FAULTS": faults, "AXPRESS_EMU_HANG_MS": "600000"}
    options = (package[0], "--emu-profile", package[1], "--state-dir", tmp_path)
    with Hasty(*options, environment=environment, ready=False, check=False) as server:
        assert server.process.wait(60) == 75
        assert "cannot serve this model" in server.log and "Traceback" not in server.log
    tried = [name for name, _ in json.loads((tmp_path / "recovery.json").read_text())["attempts"]]
    assert tried[-1] == "exit"


def test_a_card_that_the_monitor_finds_lost_is_brought_back(package: tuple[Path, Path]) -> None:
    engine = Engine.open(package[0], "emu", "none")
    card = WatchedCard(lambda: engine.model.card, lambda: [engine], engine.throttle, Settings())
    try:
        assert card.read() is not None
        Emulator().set("faults", "axclrtGetDeviceProperties@1=fail:0x80300181")
        with pytest.raises(RuntimeCallError, match="0x80300181"):
            card.read()
        until = time.monotonic() + 60
        while not engine.ladder.rungs:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert dict(engine.ladder.faults) == {"card_lost": 1}
    finally:
        Emulator().set("faults", "")
        engine.close()
