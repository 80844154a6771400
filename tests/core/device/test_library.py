"""Opening the runtime: its siblings, what a library may lack, and what is said where there is no driver."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from axpress.core.device.emulator import emulator_library
from axpress.core.device.runtime import Card
from axpress.core.errors import RuntimeUnavailable


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


def test_what_nothing_can_stand_in_for_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="does not export axclrtEngineLoadFromFile"):
        Card(without(["axclrtEngineLoadFromFile"], tmp_path / "libaxcl_rt.so"))


def test_a_missing_driver_is_told_by_its_module_and_node(tmp_path: Path) -> None:
    library = without([], tmp_path / "libaxcl_rt.so")
    with pytest.raises(RuntimeUnavailable, match=r"0x8030010b.*lsmod \| grep axcl.*/dev/axcl_host"):
        Card(library, 0, {"faults": "axclInit@1=fail:0x8030010b"})
