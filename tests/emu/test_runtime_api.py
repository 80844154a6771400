"""The emulated runtime through its own interface. Each scenario runs in a process of its own: the library keeps one
state per process."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repository import PATIENCE, ROOT

from axpress.core.device.emulator import Emulator, EmulatorError, emulator_library

SUPPORT = ROOT / "tests" / "support"
FILES = [SUPPORT / f"emu_{name}_scenarios.py" for name in ("runtime", "engine", "card")]
SCENARIOS = {name: path for path in FILES for name in re.findall(r"^def do_(\w+)", path.read_text(), re.MULTILINE)}


def run(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """One scenario in a process, with the emulator's settings of this shell taken out."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AXPRESS_EMU_")}
    command = [sys.executable, str(SCENARIOS[name]), name, str(folder)]
    return subprocess.run(
        command, env=clean | environment, capture_output=True, text=True, timeout=60 * PATIENCE, check=False
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, tmp_path: Path) -> None:
    result = run(name, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.endswith("done\n")


def test_exports_every_vendor_name() -> None:
    library = ctypes.CDLL(str(emulator_library()))
    names = (ROOT / "tests" / "data" / "axcl-exports.txt").read_text().split()
    assert len(names) == 127
    assert [name for name in names if not hasattr(library, name)] == []
    assert ctypes.c_uint32(library.axclrtCreateTask()).value == 0x80300404
    assert ctypes.c_uint32(library.axclrtCreateP2PUnit()).value == 0x80300B04


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed")
def test_soname_and_nothing_else_exported() -> None:
    path = str(emulator_library())
    dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    assert "[libaxcl_rt.so]" in dynamic
    symbols = subprocess.run(["readelf", "--dyn-syms", "-W", path], capture_output=True, text=True, check=True).stdout
    defined = {
        line.split()[7] for line in symbols.splitlines() if re.search(r"\b(FUNC|OBJECT)\b.*\bDEFAULT\s+\d+\b", line)
    }
    allowed = set((ROOT / "tests" / "data" / "axcl-exports.txt").read_text().split())
    foreign = {
        name for name in defined if name not in allowed and not name.startswith(("axemu_", "__asan", "__odr_asan"))
    }
    assert foreign == set()


def test_wrong_environment_stops_init(tmp_path: Path) -> None:
    result = run("streams", tmp_path, AXPRESS_EMU_MODE="relaxed")
    assert result.returncode != 0
    assert 'the emulator\'s setting MODE cannot be "relaxed": give strict or tolerant' in result.stderr
    assert "0x80300603" in result.stderr


def test_environment_sets_and_program_wins(tmp_path: Path) -> None:
    assert run("tolerant", tmp_path, AXPRESS_EMU_MODE="strict", AXPRESS_EMU_MEMORY_MIB="256").returncode == 0


@pytest.mark.parametrize("state", ["dead", "offline"])
def test_a_device_is_gone_from_the_start_where_the_environment_says_so(state: str, tmp_path: Path) -> None:
    result = run("counters_at_exit", tmp_path, AXPRESS_EMU_FAULTS=f"device={state}")
    assert result.returncode != 0 and "axclrtSetDevice returned 0x80300181" in result.stderr


def test_report_at_exit(tmp_path: Path) -> None:
    result = run("counters_at_exit", tmp_path)
    report = json.loads(result.stderr.splitlines()[-1])
    assert report["calls"] == {"axclInit": 1, "axclrtSetDevice": 1, "axclrtEngineInit": 1}
    assert report["emulated"] is True and report["mode"] == "strict"


def test_leaks_are_printed_at_finalize(tmp_path: Path) -> None:
    assert "axpress emulator: leak: " in run("leaks", tmp_path).stderr


def test_emulator_refuses_a_library_that_is_not_emulated() -> None:
    with pytest.raises(EmulatorError, match="not the emulated runtime"):
        Emulator("libm.so.6")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_threads_in_c(tmp_path: Path) -> None:
    """tests/native/test_runtime.c against the built library; `make sanitize` runs it with the sanitizers."""
    library, program = emulator_library(), tmp_path / "test_runtime"
    source = ROOT / "tests" / "native" / "test_runtime.c"
    subprocess.run(["cc", "-std=gnu11", "-O1", "-o", str(program), str(source), str(library), "-pthread"], check=True)
    environment = os.environ | {"LD_LIBRARY_PATH": str(library.parent)}
    result = subprocess.run(
        [str(program), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120 * PATIENCE,
        check=False,
    )
    assert result.returncode == 0 and result.stdout.endswith("ok\n"), result.stderr
