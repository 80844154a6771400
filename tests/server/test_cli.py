"""The axpress command: arguments, errors in one line, hollow and convert."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import PATIENCE
from server_process import RunningServer, hollow_package

from axpress.server.cli import _parser, main
from axpress.server.http.logs import escape
from axpress.server.settings import Settings

COMMAND = (sys.executable, "-m", "axpress.server")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    package, profile = hollow_package(tmp_path_factory.mktemp("cli"))
    with RunningServer(package, "--emu-profile", profile) as running:
        yield running


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["serve", "--port", "70000"],
        ["serve", "--port", "-1"],
        ["serve", "--device", "gpu"],
        ["serve", "--device", "-1"],
        ["serve", "--device", "axcl"],
        ["serve", "--max-queue", "0"],
        ["serve", "--max-running", "0"],
        ["serve", "--max-running", "257"],
        ["serve", "--draft-history", "-1"],
        ["serve", "--draft-history", "16777217"],
        ["serve", "--banks", "0"],
        ["serve", "--banks", "many"],
        ["serve", "--trace"],
        ["serve", "--request-timeout", "nan"],
        ["serve", "--emu-speed", "0"],
        ["serve", "--log-level", "loud"],
        ["convert", "a"],
        ["convert", "a", "b", "--history", "0,x"],
        ["plan"],
        ["plan", "a", "--clients", "0"],
        ["plan", "a", "--target-seconds", "-1"],
        ["plan", "a", "--context", "1.5"],
        ["nope"],
    ],
)
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and len(lines) == 2, "the reason, then where to look"
    assert lines[0].startswith("axpress") and lines[1].endswith("--help` lists what it takes")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["serv"], "serve"),
        (["serve", "--prot", "1"], "--port"),
        (["serve", "--alow-host=x"], "--allow-host"),
        (["chat", "--temprature", "1"], "--temperature"),
        (["service", "instal"], "install"),
    ],
)
def test_what_was_probably_meant(arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2 and f"; did you mean {meant}?" in error
    assert error.startswith(f"axpress {arguments[0]}: " if len(arguments) > 1 else "axpress: ")


def test_only_what_a_command_takes_is_proposed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["chat", "--prot", "1"])
    assert capsys.readouterr().err.splitlines() == [
        "axpress chat: unrecognized arguments: --prot", "axpress chat: `axpress chat --help` lists what it takes"
    ]  # fmt: skip


def test_words_behind_options_belong_to_the_question() -> None:
    parser = _parser()
    for text in ("tiny --device emu what is it", "tiny what is it --device emu", "--device emu tiny what is it"):
        arguments = parser.parse_args(["run", *text.split()])
        assert (str(arguments.model), arguments.device, arguments.question) == ("tiny", "emu", ["what", "is", "it"])


def test_a_directory_is_looked_at_before_anybody_is_told_where_to_connect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Qwen3-4B").mkdir()
    assert main(["serve", str(tmp_path / "Qwen3-4B")]) == 78
    assert "is not a model directory" in (said := capsys.readouterr().err) and "listening" not in said
    assert main(["serve", str(tmp_path / "qwen3-4")]) == 1
    assert f"did you mean {tmp_path / 'Qwen3-4B'}?" in capsys.readouterr().err
    assert main(["serve", str(tmp_path / "else" / "where")]) == 1
    assert "Hugging Face under AXERA-TECH" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out.startswith("axpress ")


@pytest.mark.parametrize("command", ["serve", "serve through PyAXEngine", "convert", "hollow", "plan"])
def test_errors_are_one_line(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = str(tmp_path / "absent")
    arguments = {
        "serve": [absent],
        "serve through PyAXEngine": [absent, "--device", "axengine"],
        "convert": [absent, str(tmp_path / "out")],
        "hollow": ["no-such-profile", str(tmp_path / "out")],
        "plan": [absent],
    }
    assert main([command.split()[0], *arguments[command]]) == 1
    error = capsys.readouterr().err
    assert error.startswith("axpress: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_serve_says_what_to_give_instead(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--device", "0"]) == 1
    assert capsys.readouterr().err.startswith("axpress: give MODEL: ")
    assert main(["serve", "--store-limit", "5"]) == 1
    assert "give --store-responses FILE" in capsys.readouterr().err
    done = subprocess.run(
        [*COMMAND, "serve", "--port", "0", "--emu-profile", "nope"],
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
    )
    assert done.returncode == 78 and "there is no profile 'nope': use one of " in done.stderr
    assert "qwen3-0.6b-w8a16-pi5" in done.stderr and ".toml" not in done.stderr


def test_a_server_imports_what_it_needs() -> None:
    """Others come when a command or a request asks for them: each would delay every start."""
    late = {"gguf", "huggingface_hub", "prompt_toolkit", "requests", "rich", "shtab", "torch", "transformers"}
    code = f"import sys, axpress.server.cli, axpress.server.app; print(sorted({late} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60 * PATIENCE)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_busy_port_is_one_line(server: RunningServer) -> None:
    command = [*COMMAND, "serve", "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30 * PATIENCE)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {server.port}" in done.stderr and "Traceback" not in done.stderr


def test_hollow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hollow", "qwen3-0.6b-w8a16-pi5", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith(f"now: axpress serve {tmp_path / 'out'} ")
    assert len(list((tmp_path / "out").glob("*_together.axmodel"))) == 28


def test_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package, _ = hollow_package(tmp_path)
    arguments = ["plan", str(package), "--profile", str(tmp_path / "test-hollow.toml")]

    def said(*more: str) -> str:
        assert main([*arguments, *more]) == 0
        return capsys.readouterr().out

    alone = said()
    # 2 layers x 2 ms and a head of 1 ms, and transfers: about 190 tokens/s, 100 of them in well under 3 s.
    assert (
        "planned, not measured" in alone
        and "100 tokens in 3 s" in alone
        and "reachable" in alone
        and "not reachable" not in alone
    )
    assert "not reachable" in said("--target-tokens", "600", "--target-seconds", "2")
    assert "4 clients" in said("--clients", "4", "--context", "150", "--shared", "100", "--target-tokens", "50")
    assert main([*arguments, "--context", "5000"]) == 1
    error = capsys.readouterr().err
    assert "5000" in error and "1023" in error and error.count("\n") == 1


def test_serve_writes_a_trace(tmp_path: Path) -> None:
    package, profile = hollow_package(tmp_path)
    trace = tmp_path / "trace.json"
    with RunningServer(package, "--emu-profile", profile, "--emu-speed", "10", "--trace", trace) as running:
        status, _, body = running.post(
            {"messages": [{"role": "user", "content": "hi"}], "n": 3, "max_tokens": 20, "ignore_eos": True}
        )
        assert status == 200 and body["usage"]["completion_tokens"] == 60
    found = json.loads(trace.read_text())
    passes = [event for event in (found if isinstance(found, list) else found["traceEvents"]) if event.get("ph") == "X"]
    assert passes and all(event["dur"] > 0 and event["ts"] > 0 and event["name"] for event in passes)
    assert main(["serve", str(package), "--trace", str(tmp_path / "absent" / "trace.json")]) == 1


def test_without_a_model_the_demo_is_served_on_the_emulator() -> None:
    settings = Settings()
    assert settings.is_demo and settings.effective_device == "emu"
    assert settings.directory.parts[-2:] == ("demo", "package")
    assert Settings(device=1).effective_device == 1
    assert Settings(model_dir=Path("x")).effective_device == "auto"


@pytest.mark.skipif(not Settings().directory.is_dir(), reason="the demo model is not there")
def test_serve_without_a_model() -> None:
    with RunningServer() as running:
        status, body = running.health()
        assert status == 200 and body["emulated"] and body["toy"] and body["note"] == "emulated: no card; a toy model"
        assert running.post({"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 20})[0] == 200
        assert body["model"] == "axpress-toy"
    assert running.log.startswith("axpress: smollm2-135m is not here (`axpress pull smollm2-135m` fetches it)")
    assert "serving the built-in TOY" in running.log.splitlines()[0]
    assert running.log.count("emulated: no card") >= 2 and "a toy model" in running.log
    assert re.search(
        r"emulated card: decode \S+ ms over \d+ rows, chunks of \d+ \S+ to \S+ ms, head \S+ ms\n", running.log
    )
    assert "cost:" not in running.log  # the groups one by one are for --log-level debug


def test_log_escapes() -> None:
    assert escape("a\nb\x1b[0m\u2028\ud800ä\x7f") == "a\\nb\\x1b[0m\\u2028\\ud800ä\\x7f"
