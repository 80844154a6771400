"""`axpress doctor` as it is typed: lines, JSON, exit codes, model directories, the emulated card and its faults."""

from __future__ import annotations

import json
import os

import pytest

from axpress.core.device.model_loader import default_model
from axpress.core.device.runtime import find_library
from axpress.core.doctor.card import _check_fit
from axpress.core.doctor.check import State
from axpress.core.doctor.driver import find_runtime
from axpress.core.doctor.host import Host
from axpress.server.cli import main


def doctor(capsys, *arguments: str) -> tuple[int, str]:
    code = main(["doctor", *arguments])
    return code, capsys.readouterr().out


@pytest.fixture
def no_card(monkeypatch, tmp_path) -> None:
    if Host().exists("dev/axcl_host"):
        pytest.skip("this machine has a card")
    monkeypatch.setenv("AXPRESS_AXCL_LIB", "")


def test_without_a_card_it_says_what_is_missing(capsys, no_card) -> None:
    code, out = doctor(capsys)
    assert code == 1
    for name in ("library", "driver", "device nodes"):
        assert any(line.startswith(f"wrong    {name}") for line in out.splitlines()), name
    assert out.count("\n" + " " * 25 + "-> ") >= 3
    assert "wrong, " in out.splitlines()[-1]


def test_json_of_the_emulated_card(capsys) -> None:
    code, out = doctor(capsys, "--device", "emu", "--json")
    result = json.loads(out)
    assert code == 0 and result["wrong"] == 0
    assert result["schema"] == "axpress-doctor/1" and result["emulated"] is True
    assert {"runtime", "cards", "firmware", "temperature", "card memory", "disk", "memory", "clock"} == {
        check["name"] for check in result["checks"]
    }
    assert all(set(check) == {"name", "state", "seen", "cure"} for check in result["checks"])
    assert result["warnings"] == sum(check["state"] == "warning" for check in result["checks"])


def test_a_simulated_package_is_examined_on_the_emulated_card(capsys) -> None:
    code, out = doctor(capsys, str(default_model()))
    assert code == 0
    assert "simulated package of 5 layers" in out and "emulated runtime" in out and "on the emulated card" in out


def test_a_package_that_does_not_open_is_wrong(capsys, tmp_path) -> None:
    code, out = doctor(capsys, str(tmp_path), "--device", "emu")
    assert code == 1 and "wrong    model" in out and "not a model directory" in out


def test_a_simulated_package_does_not_run_on_a_card(capsys) -> None:
    code, out = doctor(capsys, str(default_model()), "--device", "0")
    assert code == 1 and "wrong    model           axpress-toy is simulated" in out


@pytest.mark.parametrize(
    ("free", "exact", "state"),
    [
        (1064, True, None),
        (1063, True, State.WRONG),
        (1063, False, State.WRONG),
        (1363, False, State.WARNING),
        (1364, False, None),
    ],
)
def test_models_take_more_than_their_files(free: int, exact: bool, state: State | None) -> None:
    check = _check_fit(1000 << 20, exact, free << 20)
    assert (check and check.state) is state


def test_a_model_too_large_for_the_card_is_wrong(capsys, monkeypatch) -> None:
    monkeypatch.setenv("AXPRESS_EMU_MEMORY_MIB", "80")
    code, out = doctor(capsys, str(default_model()))
    assert code == 1 and "wrong    model memory" in out and "smaller model" in out


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("FAULTS", "axclInit@1=fail:0x8030010b", "load the driver"),
        ("DEVICES", "0", "the runtime sees no card"),
        ("TEMPERATURE", "90000", "let it cool"),
        ("FAULTS", "axclrtGetDeviceList@1=block", "no answer in axclrtGetDeviceList"),
    ],
)
def test_faults_of_the_emulated_card(capsys, monkeypatch, key: str, value: str, words: str) -> None:
    monkeypatch.setenv(f"AXPRESS_EMU_{key}", value)
    code, out = doctor(capsys, "--device", "emu", "--timeout", "5")
    assert code == 1 and words in out


def test_a_card_that_is_not_there(capsys, monkeypatch) -> None:
    monkeypatch.setenv("AXPRESS_EMU_DEVICES", "2")
    assert doctor(capsys, "--device", "emu")[0] == 0
    with pytest.raises(SystemExit):
        main(["doctor", "--device", "-1"])


def test_the_library_is_the_one_that_serve_opens(monkeypatch, tmp_path) -> None:
    (tmp_path / "libaxcl_rt.so").touch()
    monkeypatch.delenv("AXPRESS_AXCL_LIB", raising=False)
    for path in ("", f"/nowhere:{tmp_path}"):
        monkeypatch.setenv("LD_LIBRARY_PATH", path)
        assert find_runtime(Host(environ=os.environ)) == find_library()
    monkeypatch.setenv("AXPRESS_AXCL_LIB", "/opt/libaxcl_rt.so")
    assert find_runtime(Host(environ=os.environ)) == find_library() == "/opt/libaxcl_rt.so"
