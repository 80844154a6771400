"""What `axpress doctor --bundle` writes, and that nothing private is in it; what deploy/ asks Prometheus for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT
from server_process import RunningServer, chat

from axpress.server.monitor.metrics import _OF_CARDS, CARD_METRICS
from axpress.server.monitor.report import scrubbed

KEY = "bundle-canary-key-1"


def test_a_bundle_has_what_an_issue_needs_and_nothing_private(tmp_path: Path) -> None:
    keys = tmp_path / "secret-name"
    keys.write_text(f"canary-person:{KEY}\n")
    keys.chmod(0o600)
    out = tmp_path / "bundle.json"
    flags = ("--emu-profile", "none", "--api-keys", keys, "--allow-host", "canary.example")
    command = [sys.executable, "-m", "axpress.server", "doctor", "--device", "emu", "--bundle", str(out), "--url"]
    with RunningServer(*flags, ready=False) as server:
        own = {"authorization": f"Bearer {KEY}"}
        server.wait(lambda: server.request("GET", "/readyz")[0] == 200, 30, "ready")
        assert server.post(chat("canary words", max_tokens=2), **own)[0] == 200
        done = subprocess.run(
            [*command, server.url],
            capture_output=True,
            text=True,
            env={"AXPRESS_API_KEY": KEY, "PATH": "/usr/bin:/bin"},
        )
        assert out.exists(), done.stderr
        text = out.read_text()
        for private in (KEY, "canary", "secret-name", "127.0.0.1"):
            assert private not in re.sub(r'"host": "127.0.0.1"', "", text), private
        document = json.loads(text)
        assert document["server"]["health"]["status"] == "ready" and document["server"]["health"]["stats"]["steps"] > 0
        assert document["server"]["settings"]["api_keys"] is True and document["packages"]["sanic"][0].isdigit()
        assert any("serving" in event[3] for event in document["server"]["events"])
        assert document["doctor"]["checks"] and "kernel" in document["machine"]
        assert server.request("GET", "/report")[0] == 401
        again = subprocess.run([*command, server.url], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
        assert again.returncode == 1 and "exists" in again.stderr  # nothing is written over


def test_without_a_server_the_bundle_says_so(tmp_path: Path) -> None:
    out = tmp_path / "bundle.json"
    command = [sys.executable, "-m", "axpress.server", "doctor", "--device", "emu", "--bundle", str(out)]
    done = subprocess.run([*command, "--url", "http://127.0.0.1:1"], capture_output=True, text=True)
    assert json.loads(out.read_text())["server"] == {"problem": "ConnectionRefusedError"}
    assert "ConnectionRefusedError" in done.stderr


def test_homes_and_addresses_are_left_out() -> None:
    said = scrubbed("model /home/bob/m at 10.1.2.3 or fe80:0:0:1::2, not '/root' but /opt/root 3.6.4")
    assert said == "model ~/m at (address) or (address), not '~' but /opt/root 3.6.4"


NAME = re.compile(r"\b(?:vllm:|axpress_)[a-z0-9_]+")


@pytest.mark.parametrize("file", ["alerts.yml", "grafana.json"])
def test_what_is_asked_of_prometheus_is_there(file: str, server: RunningServer) -> None:
    told = set(re.findall(r"^# TYPE (\S+)", server.request("GET", "/metrics")[2].decode(), re.MULTILINE))
    told |= {name for name, *_ in (*CARD_METRICS, *_OF_CARDS)}  # which not everybody has
    asked = {re.sub(r"_bucket$", "", name) for name in NAME.findall((ROOT / "deploy" / file).read_text())}
    assert len(asked) > 5 and asked <= told, asked - told


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (apt install prometheus)")
def test_promtool_takes_the_rules_and_the_metrics(server: RunningServer) -> None:
    assert subprocess.run(["promtool", "check", "rules", str(ROOT / "deploy" / "alerts.yml")]).returncode == 0
    metrics = server.request("GET", "/metrics")[2]
    done = subprocess.run(["promtool", "check", "metrics"], input=metrics, capture_output=True)
    said = done.stderr.decode().splitlines()  # vLLM's names have a colon, which is for rules
    assert not [line for line in said if "should not contain ':'" not in line], said
