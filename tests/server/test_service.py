"""The server as a service: what a notify socket hears, and the unit that `axpress service install` writes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from server_process import RunningServer, note_exits

from axpress.server.service_command import make_unit


class Listener:
    """What systemd would hear."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(60)
        self.heard: list[str] = []

    def until(self, word: str) -> list[str]:
        """All lines heard up to one that begins so."""
        while not any(line.startswith(word) for line in self.heard):
            self.heard += self._socket.recv(4096).decode().splitlines()
        return self.heard

    def close(self) -> None:
        self._socket.close()


def test_systemd_hears_of_loading_readiness_life_and_the_end(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
    try:
        with RunningServer("--emu-profile", "none", environment=environment) as server:
            heard = listener.until("READY=1")
            assert heard.index("READY=1") > next(i for i, line in enumerate(heard) if line.startswith("STATUS=loading"))
            assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in heard)
            listener.until("WATCHDOG=1")
            assert any(line.startswith("STATUS=ready: ") for line in listener.heard)
            assert server.stop() == 0
            assert "STOPPING=1" in listener.until("STOPPING=1")
    finally:
        listener.close()


def test_a_server_whose_card_fails_is_not_called_ready(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    environment["AXPRESS_EMU_FAULTS"] = "axclrtEngineLoadFromFile@1+=fail:0x8030070c"
    note_exits(tmp_path, 3)  # so that this one stays
    try:
        with RunningServer("--state-dir", tmp_path, ready=False, check=False, environment=environment) as server:
            listener.until("STATUS=failed")
            assert not {"READY=1", "WATCHDOG=1"} & set(listener.heard)
            server.stop(signal.SIGTERM)
    finally:
        listener.close()


@pytest.fixture(autouse=True)
def no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXPRESS_MODELS", str(tmp_path / "none"))


def unit(*arguments: str, user: bool = False, systemd: int = 257, keys: str | None = None) -> str:
    return make_unit(arguments, Namespace(api_keys=keys, model_dir=None), user, systemd).text()


def test_the_unit_takes_arguments_apart_and_keys_as_a_credential() -> None:
    text = unit("--model-name", "50% $HOME", "--api-keys", "/etc/keys file", keys="/etc/keys file")
    assert '--model-name "50%% $$HOME" --log-format journal --api-keys %d/api-keys\n' in text
    assert "LoadCredential=api-keys:/etc/keys file\n" in text
    assert "RestartSteps=" in text and "RestartSteps=" not in unit(systemd=252)
    assert "DynamicUser=" not in unit(user=True) and "WantedBy=default.target" in unit(user=True)


def test_the_model_is_found_when_the_unit_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = Namespace(api_keys=None, model_dir=Path("model"))
    text = make_unit(["--port", "80", "model"], settings, False, 257).text()
    assert f"axpress.server serve {tmp_path}/model --port 80 --log-format" in text
    with pytest.raises(OSError, match="nowhere"):
        make_unit(["nowhere"], Namespace(model_dir=Path("nowhere")), False, 257)


def test_the_helper_looks_where_the_server_writes() -> None:
    made = make_unit([], Namespace(api_keys=None, model_dir=None), False, 252, helper=True)
    assert "Environment=AXPRESS_CARD_RESET=%S/axpress/card-reset\n" in made.text()
    assert "AXPRESS_CARD_RESET" not in unit()
    for who, file in ((None, "/var/lib/private/axpress/card-reset"), ("pi", "/var/lib/axpress/card-reset")):
        texts = "".join(replace(made, home_of=who).reset_units().values())
        assert f"PathChanged={file}\n" in texts
        assert not [word for word in ("unbind", "rescan", "/sys/", "remove") if word in texts]
    command = [sys.executable, "-m", "axpress.server", "service", "install", "--print", "--helper"]
    done = subprocess.run([*command, "--"], capture_output=True, text=True)
    assert done.returncode == 0 and "modprobe -a ax_pcie_host_dev" in done.stdout
    done = subprocess.run([*command, "--user", "--"], capture_output=True, text=True)
    assert done.returncode == 1 and "--user" in done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("user", [False, True])
def test_systemd_takes_the_unit_and_finds_it_closed(user: bool, tmp_path: Path) -> None:
    path = tmp_path / "axpress.service"
    made = make_unit(["--device", "0"], Namespace(api_keys="/etc/keys", model_dir=None), user, 252, helper=not user)
    path.write_text(made.text())
    paths = [path]
    for name, text in made.reset_units().items() if not user else ():
        paths.append(tmp_path / name)
        paths[-1].write_text(text)
    command = ["systemd-analyze", *(["--user"] if user else []), "verify", *map(str, paths)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    if not user:
        command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_install_prints_a_unit_of_checked_arguments() -> None:
    command = [sys.executable, "-m", "axpress.server", "service", "install", "--print", "--", "--max-queue"]
    done = subprocess.run([*command, "7"], capture_output=True, text=True)
    assert done.returncode == 0 and " serve --max-queue 7 --log-format journal\n" in done.stdout
    done = subprocess.run([*command, "no"], capture_output=True, text=True)
    assert done.returncode == 2 and "--max-queue" in done.stderr
