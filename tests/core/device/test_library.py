"""Opening the runtime: its siblings, what a library may lack, and what is said where there is no driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import PATIENCE, ROOT
from tiny_models import Tiny, convert_tiny

from axpress.core.device.emulator import emulator_library
from axpress.core.device.runtime import Card
from axpress.core.errors import RuntimeUnavailable

AX8860 = ROOT / "build" / "ax8860" / "libaxcl_rt.so"


def compiled(source: str, target: Path, *options: str) -> Path:
    """A shared library of this C source."""
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(target), *options], input=source, text=True, check=True
    )
    return target


def without(symbols: list[str], target: Path) -> Path:
    """The emulated runtime as it would be without these functions."""
    data = Path(emulator_library()).read_bytes()
    for symbol in symbols:
        name = b"\0" + symbol.encode() + b"\0"
        assert data.count(name) >= 1, symbol
        data = data.replace(name, b"\0" + b"_" * len(symbol) + b"\0")
    target.write_bytes(data)
    return target


def test_siblings_are_found_beside_the_library(tmp_path: Path) -> None:
    """As a service finds the vendor's: its directory is not on the loader's path, and one sibling needs another."""
    compiled("int deep(void) { return 1; }", tmp_path / "libaxcl_a_deep.so", "-Wl,-soname,libaxcl_a_deep.so")
    beside = [f"-L{tmp_path}", "-Wl,--no-as-needed"]
    sibling = "int deep(void); int packaged(void) { return deep(); }"
    compiled(sibling, tmp_path / "libaxcl_b_pkg.so", "-Wl,-soname,libaxcl_b_pkg.so", *beside, "-laxcl_a_deep")
    source = "int packaged(void); int mine(void) { return packaged(); }"
    library = compiled(source, tmp_path / "libaxcl_rt.so", *beside, "-laxcl_b_pkg")
    with pytest.raises(RuntimeUnavailable, match="does not export axclInit"):  # so it was opened
        Card(library)


def test_a_sibling_that_is_nowhere_is_named_with_the_cure(tmp_path: Path) -> None:
    compiled("int packaged(void) { return 1; }", tmp_path / "libaxcl_pkg.so", "-Wl,-soname,libaxcl_pkg.so")
    source = "int packaged(void); int mine(void) { return packaged(); }"
    library = compiled(source, tmp_path / "libaxcl_rt.so", f"-L{tmp_path}", "-Wl,--no-as-needed", "-laxcl_pkg")
    (tmp_path / "libaxcl_pkg.so").unlink()
    with pytest.raises(RuntimeUnavailable, match=r"libaxcl_pkg.so.*ld\.so\.conf\.d and run ldconfig"):
        Card(library)


def test_a_library_of_the_next_generation_is_opened(tmp_path: Path) -> None:
    dropped = ["axclrtGetDeviceList", "axclrtGetDeviceProperties", "axclrtRebootDevice", "axclrtGetSocName"]
    card = Card(without(dropped, tmp_path / "libaxcl_rt.so"), 0, {"device_id": "0"})
    try:
        assert card.device == 0 and card.properties() == {} and card.version().count(".") == 2
    finally:
        card.close()
    with pytest.raises(RuntimeUnavailable, match=r"card 1 was asked for, but the runtime .* sees 1 card"):
        Card(without(dropped, tmp_path / "libaxcl_rt_2.so"), 1, {"device_id": "0"})


@pytest.mark.skipif(not AX8860.is_file(), reason="only a build in place has the next generation's library")
def test_the_next_generation_tells_its_memory_and_loads_models(tmp_path: Path) -> None:
    package = convert_tiny(tmp_path, Tiny("qwen3"), rows=127, chunk=32)
    result = subprocess.run(
        [sys.executable, "-c", NEXT_GENERATION, AX8860, package], capture_output=True, text=True,
        timeout=120 * PATIENCE, env={**os.environ, "AXPRESS_EMU_GENERATION": "ax8860"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    before, after, banks, state = json.loads(result.stdout)
    assert (before["total_cmm"], before["free_cmm"]) == (7040 << 20, 7022 << 20)
    assert before["total_memory"] == 1 << 30 and before["uid"] and "temperature_c" not in before
    assert 0 < before["free_cmm"] - after["free_cmm"] < 100 << 20 and banks == 8, "memory is measured while loading"
    assert state == [None, before["total_cmm"], after["free_cmm"]], "asked by a thread that has no context"


NEXT_GENERATION = """
import dataclasses, json, sys, threading
from pathlib import Path
from axpress.core.device.card_memory import CardMemory, share_banks
from axpress.core.device.axmodel import LoadedModel
from axpress.core.device.runtime import Card
from axpress.core.engine.snapshot import _ask_card
card = Card(sys.argv[1])
before = card.properties()
package = Path(sys.argv[2])
files = [next(package.glob("*_post.axmodel")), *sorted(package.glob("*_l*.axmodel"))]
memory = CardMemory(card, "package", [file.stat().st_size for file in files], None)
memory.check_files()
models = []
for file in files:
    models.append(LoadedModel(card, file))
    memory.check_growth(models)
states = []
thread = threading.Thread(target=lambda: states.append(dataclasses.astuple(_ask_card(card))))
thread.start()
thread.join()
print(json.dumps([before, card.properties(), share_banks([(memory, models[1:])])[0], states[0]]))
card.close()
"""


def test_what_nothing_can_stand_in_for_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="does not export axclrtEngineLoadFromFile"):
        Card(without(["axclrtEngineLoadFromFile"], tmp_path / "libaxcl_rt.so"))


def test_a_missing_driver_is_told_by_its_module_and_node(tmp_path: Path) -> None:
    library = without([], tmp_path / "libaxcl_rt.so")
    with pytest.raises(RuntimeUnavailable, match=r"0x8030010b.*lsmod \| grep axcl.*/dev/axcl_host"):
        Card(library, 0, {"faults": "axclInit@1=fail:0x8030010b"})
