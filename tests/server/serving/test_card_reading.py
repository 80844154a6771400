"""What is read of card and machine, and from whom: programs that play the vendor's, and a machine made of files."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from axpress.core.doctor.host import Host
from axpress.core.errors import RuntimeUnavailable
from axpress.server.serving import card_reading
from axpress.server.serving.card_reading import CardReader, of_pyaxcl, of_tool, power_of, read_info

TABLE = """\
+------------------------------------------------------------------------------------------------+
| AXCL-SMI  V3.10.2                                                  Driver  V3.10.2             |
+-----------------------------------------+--------------+---------------------------------------+
| Card  Name                     Firmware | Bus-Id       |                          Memory-Usage |
| Fan   Temp                Pwr:Usage/Cap | CPU      NPU |                             CMM-Usage |
|=========================================+==============+=======================================|
%s+-----------------------------------------+--------------+---------------------------------------+
| Processes:                                                                                     |
| Card      PID  Process Name                                                   NPU Memory Usage |
|================================================================================================|
|    0      763  /opt/bin/axcl/axcl_run_model                                            160 KiB |
+------------------------------------------------------------------------------------------------+
"""
ROWS = """\
|    0  AX650N                    V2.18.0 | 0001:81:00.0 |                181 MiB /      954 MiB |
|   --   52C                      -- / -- | 3%        0% |                 22 MiB /     3072 MiB |
+-----------------------------------------+--------------+---------------------------------------+
|    1  AX650N                    V2.18.0 | 0001:82:00.0 |                181 MiB /      954 MiB |
|   --   61C                      -- / -- | 4%       97% |               2048 MiB /     3072 MiB |
"""
INFO = """temperature         : 52125
Device ID           : 129 (0x81)
CMM Total           :  3145728 KiB
CMM Used            :    18876 KiB
CMM Remain          :  3126852 kiB
"""


class Tool:
    """A program by the vendor's name on the path."""

    def __init__(self, folder: Path) -> None:
        self.path, self.count = folder / "axcl-smi", folder / "count"

    def does(self, script: str) -> None:
        self.path.write_text(f"#!/bin/sh\necho x >>{self.count}\n{script}\n")
        self.path.chmod(0o755)

    def prints(self, text: str) -> None:
        self.does(f"cat <<'END'\n{text}END")

    @property
    def calls(self) -> int:
        return len(self.count.read_text().splitlines()) if self.count.exists() else 0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine may be busy."""
    for name in ("CALL_SECONDS", "TOOL_SECONDS"):
        monkeypatch.setattr(card_reading, name, 60.0)


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return Tool(tmp_path)


class FakeCard:
    """A card that is not emulated, as far as it says."""

    library, closed, emulated, device = "", False, False, 0x81

    def __init__(self, **properties: Any) -> None:
        self.told = properties
        self.error: Exception | None = None
        self.wait: threading.Event | None = None

    def properties(self) -> dict[str, Any]:
        if self.wait is not None:
            self.wait.wait(60)
        if self.error is not None:
            raise self.error
        return self.told

    def bind_thread(self) -> None:
        """Nothing to bind."""


def reader(card: Any, root: Path) -> CardReader:
    return CardReader(lambda: card, lambda: 1, Host(root))


def machine(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_table_of_the_vendors_program(tool: Tool) -> None:
    tool.prints(TABLE % ROWS)
    first, second = of_tool(0), of_tool(1)
    assert first["temperature_c"] == 52 and (first["cpu_load"], first["npu_load"]) == (3, 0)
    assert (first["total_cmm"], first["free_cmm"]) == (3072 << 20, 3050 << 20)
    assert second["temperature_c"] == 61 and second["npu_load"] == 97 and of_tool(2) == {}


def test_its_answers_to_single_questions_where_it_prints_no_table(tool: Tool) -> None:
    tool.does(f'[ "$1" = info ] && [ "$3$4" = -d1 ] || exit 1\ncat <<\'END\'\n{INFO}END')
    facts = of_tool(1)
    assert facts == {"temperature_c": 52.125, "total_cmm": 3145728 << 10, "free_cmm": 3126852 << 10}
    assert tool.calls == 3 and read_info("axcl init fail, ret = 0x80300181") == {}


@pytest.mark.parametrize("said", [TABLE % "", "", "axcl init fail, ret = 0x80300181\n", "axcl-smi is already running"])
def test_a_lost_card_and_a_busy_tool_tell_nothing(said: str, tool: Tool) -> None:
    tool.prints(said)
    assert of_tool(0) == {}


def test_a_tool_that_hangs_is_ended_and_left_alone_for_a_while(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card_reading, "TOOL_SECONDS", 0.5)
    tool.does("exec sleep 600")
    asked = reader(FakeCard(free_cmm=5), tmp_path)
    for _ in range(2):
        reading = asked.read()
        assert reading.source == "runtime" and reading.free_cmm == 5 and reading.temperature_c is None
    assert tool.calls <= 1  # on a busy machine it may be ended before it has begun


def test_each_value_is_of_the_first_who_tells_it(tool: Tool, tmp_path: Path) -> None:
    tool.prints(TABLE % ROWS)
    reading = reader(FakeCard(total_cmm=7, free_cmm=6), tmp_path).read()
    assert (reading.source, reading.free_cmm, reading.total_cmm) == ("runtime", 6, 7)
    assert (reading.temperature_c, reading.npu_load, reading.cpu_load) == (61, 97, 4)  # of the place that was said
    calls = tool.calls
    whole = FakeCard(temperature_c=50.5, total_cmm=7, free_cmm=6, npu_load=1, cpu_load=2)
    assert reader(whole, tmp_path).read().temperature_c == 50.5 and tool.calls == calls
    assert reader(FakeCard(), tmp_path).read().source == "axcl-smi"


def test_an_emulated_card_is_not_mixed_with_a_real_one(tool: Tool, tmp_path: Path) -> None:
    tool.prints(TABLE % ROWS)
    card = FakeCard(temperature_c=45.0)
    card.emulated = True
    reading = reader(card, tmp_path).read()
    assert reading.temperature_c == 45 and reading.npu_load is None and tool.calls == 0


def test_a_card_that_is_being_brought_back_is_left_alone(tool: Tool, tmp_path: Path) -> None:
    card = FakeCard()
    card.error = RuntimeUnavailable("this card is closed")
    with pytest.raises(RuntimeUnavailable):
        reader(card, tmp_path).read()
    assert tool.calls == 0


def test_a_runtime_that_hangs_is_asked_once(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool.prints(TABLE % ROWS)
    card = FakeCard(temperature_c=50.0)
    card.wait = threading.Event()
    read = reader(card, tmp_path)
    monkeypatch.setattr(read, "_place", lambda: 0)
    threads = threading.active_count()
    for seconds in (2.0, 60.0, 60.0):
        monkeypatch.setattr(card_reading, "CALL_SECONDS", seconds)
        assert read.read().temperature_c == 52
    assert threading.active_count() == threads + 1
    card.wait.set()


def test_pyaxcl_is_asked_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_pyaxcl(129) == {}
    package = machine(tmp_path, **{
        "axcl/__init__.py": "from . import rt\ndef init(path): return 0\ndef finalize(): print('log')\nprint('loaded')",
        "axcl/rt.py": "def get_device_properties(number):\n    return {'sw_version': b'V', 'temperature': 49263,"
        "'total_cmm_size': 7208960, 'free_cmm_size': 7190084, 'npu_loading': number, 'cpu_loading': 0}, 0",
    })  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(package))
    monkeypatch.syspath_prepend(str(package))
    facts = of_pyaxcl(129)
    assert facts["temperature_c"] == 49.263 and facts["free_cmm"] == 7190084 << 10 and facts["npu_load"] == 129
    assert "axcl" not in sys.modules


def test_the_link_is_the_cards_own(tmp_path: Path) -> None:
    files = {}
    for bus, speed, width in (("81", "5.0 GT/s PCIe", "2"), ("82", "2.5 GT/s PCIe", "1")):
        folder = f"sys/bus/pci/devices/0001:{bus}:00.0"
        files |= {f"{folder}/vendor": "0x1f4b", f"{folder}/current_link_speed": speed}
        files |= {f"{folder}/current_link_width": width}
    root = machine(tmp_path / "machine", **files)
    reading = reader(FakeCard(temperature_c=1.0), root).read()
    assert (reading.link_gts, reading.link_width) == (5.0, 2)
    machine(root, **{"sys/bus/pci/devices/0001:81:00.0/current_link_speed": "Unknown"})
    assert reader(FakeCard(), root).read().link_gts is None


def test_the_power_of_a_raspberry_pi(tmp_path: Path) -> None:
    assert power_of(Host(tmp_path)) == {}
    hwmon = "sys/class/hwmon/hwmon"
    machine(tmp_path, **{f"{hwmon}0/name": "cpu_thermal", f"{hwmon}1/name": "rpi_volt"})
    machine(tmp_path, **{f"{hwmon}1/in0_lcrit_alarm": "1"})
    assert power_of(Host(tmp_path)) == {"undervoltage": True}
    flags = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
    for said, undervoltage, throttled in (("50005", True, True), ("50000", False, False), ("80008", False, True)):
        machine(tmp_path, **{flags: said})
        assert power_of(Host(tmp_path)) == {"undervoltage": undervoltage, "throttled": throttled}
