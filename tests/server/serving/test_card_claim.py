"""Two servers on one card, or on one port: the second says who holds it. And how root's helper is asked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from server_process import RunningServer, note_exits

from axpress.core.errors import RuntimeUnavailable
from axpress.server.http.port_holder import port_holder
from axpress.server.serving import card_claim
from axpress.server.serving.card_claim import claim_card
from axpress.server.serving.card_reset import VARIABLE, ask_for_reset

OPTIONS = ("--emu-profile", "none", "--state-dir")


def test_a_second_server_says_who_has_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_claim, "CLAIM_SECONDS", 0.1)
    with RunningServer(*OPTIONS, tmp_path) as server:
        pid = server.process.pid
        with pytest.raises(RuntimeUnavailable, match=f"served by process {pid} "):
            claim_card(tmp_path, 0, True, lambda: None)
        with RunningServer(*OPTIONS, tmp_path, ready=False, check=False) as second:
            second.wait(lambda: f"card 0 is served by process {pid}: waiting" in second.log, 30, "told")
            server.stop()  # which relieves it
            second.wait(lambda: second.health()[0] == 200, 60, "ready")
            second.process.kill()  # which leaves no claim
            second.process.wait()
            assert f"process {pid} had card 0" not in second.log
    claims = [claim_card(folder, 0, True, lambda: None) for folder in (tmp_path, tmp_path / "other")]
    assert [claim.after_crash for claim in claims] == [True, False]
    for claim in claims:
        claim.give_up()
    claim = claim_card(tmp_path, 0, True, lambda: None)
    assert not claim.after_crash
    claim.give_up()


def test_who_listens_on_a_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert port_holder(port).startswith(f"process {os.getpid()} (")
        command = [sys.executable, "-m", "axpress.server", "serve", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1 and f"; process {os.getpid()} (" in done.stderr
    assert port_holder(port) == ""


def test_the_helper_is_asked_when_restarts_did_not_help(tmp_path: Path) -> None:
    note_exits(tmp_path, 3)
    environment = {"AXPRESS_EMU_FAULTS": "axclrtEngineLoadFromFile@1+=fail:0x8030070c"}
    environment[VARIABLE] = str(tmp_path / "reset")
    with RunningServer("--state-dir", tmp_path, ready=False, check=False, environment=environment) as server:
        server.process.wait(60)
        assert server.process.returncode == 75
    assert "0x8030070c" in (tmp_path / "reset").read_text() and "root's helper was asked" in server.log


def test_the_helper_is_asked_twice_an_hour_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not ask_for_reset(tmp_path, "lost")  # there is none
    monkeypatch.setenv(VARIABLE, str(tmp_path / "reset"))
    assert [ask_for_reset(tmp_path, "lost") for _ in range(3)] == [True, True, False]
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere" / "reset"))
    assert not ask_for_reset(tmp_path / "other", "lost")
