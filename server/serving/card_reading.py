"""What the card and the machine that feeds it say of themselves: the runtime, else the vendor's axcl-smi, else pyaxcl;
the kernel's files on the link; a Raspberry Pi's firmware on its power. What nobody says is None."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from axpress.core.doctor.host import Host
from axpress.core.doctor.pcie import link_of
from axpress.core.recovery.bounded_call import BoundedCall, CallHangs
from axpress.core.recovery.firmware import SMI

if TYPE_CHECKING:
    from axpress.core.device.backend import CardHandle

log = logging.getLogger("axpress.server")

CALL_SECONDS = 5.0
TOOL_SECONDS = 6.0
REST_SECONDS = 60.0
"""A program that did not end in time is left alone for so long; pyaxcl, which opens the card anew for each answer,
after each."""
TOOLS = ("axcl-smi", str(SMI))
KIB, MIB = 10, 20
THROTTLED = "sys/devices/platform/soc*/soc*firmware/get_throttled"
Facts = dict[str, Any]
"""Fields of a CardReading, those that are known."""


@dataclass(frozen=True, slots=True)
class CardReading:
    """Memory in bytes, the link in GT/s and lanes; loads as their source tells them: percent, as far as is seen.
    `source`: runtime, axcl-smi or pyaxcl, whoever told first; empty: nobody. `undervoltage`, `throttled`: whether a
    Raspberry Pi has too little voltage now, and whether it runs slower for that or for heat."""

    source: str
    at: float
    temperature_c: float | None = None
    total_cmm: int | None = None
    free_cmm: int | None = None
    npu_load: int | None = None
    cpu_load: int | None = None
    link_gts: float | None = None
    link_width: int | None = None
    undervoltage: bool | None = None
    throttled: bool | None = None


WANTED = ("temperature_c", "total_cmm", "free_cmm", "npu_load", "cpu_load")


def of_runtime(properties: Facts) -> Facts:
    """From `Card.properties`."""
    return {name: properties[name] for name in WANTED if name in properties}


# ---- the vendor's programs ----

_ROW = re.compile(  # two lines of a card; the columns as in the head of the table that axcl-smi prints
    r"^\|\s*(?P<index>\d+)\s+\S[^|]*\|\s*[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.\d\s*\|[^|\n]*\|\s*\n"
    r"\|\s*\S+\s+(?P<celsius>-?\d+)C\b[^|]*\|\s*(?P<cpu>\d+)%\s+(?P<npu>\d+)%\s*\|"
    r"\s*(?P<used>\d+) MiB\s*/\s*(?P<total>\d+) MiB\s*\|",
    re.MULTILINE | re.IGNORECASE,
)
_INFO = {"temperature_c": r"temperature", "total_cmm": r"CMM Total", "free_cmm": r"CMM Remain"}


def read_table(said: str, index: int) -> Facts:
    """Of card `index`, from the table that axcl-smi prints without arguments."""
    row = next((match for match in _ROW.finditer(said) if int(match["index"]) == index), None)
    if row is None:
        return {}
    total = int(row["total"]) << MIB
    return {
        "temperature_c": float(row["celsius"]), "total_cmm": total, "free_cmm": total - (int(row["used"]) << MIB),
        "npu_load": int(row["npu"]), "cpu_load": int(row["cpu"]),
    }  # fmt: skip


def read_info(said: str) -> Facts:
    """From what `axcl-smi info --temp` and `--cmm` print: millidegrees and KiB."""
    found = {name: re.search(word + r"\s*:\s*(\d+)", said, re.IGNORECASE) for name, word in _INFO.items()}
    numbers = {name: int(match[1]) for name, match in found.items() if match}
    return {name: n / 1000 if name == "temperature_c" else n << KIB for name, n in numbers.items()}


def of_tool(index: int) -> Facts:
    """From axcl-smi, of the card that it lists at `index`. CallHangs."""
    tool = next((tool for tool in TOOLS if shutil.which(tool)), None)
    if tool is None:
        return {}
    facts = read_table(_said(tool), index)
    return facts or read_info("".join(_said(tool, "info", what, "-d", str(index)) for what in ("--temp", "--cmm")))


_PYAXCL = """
import json, sys, axcl
if axcl.init("") == 0:
    properties, code = axcl.rt.get_device_properties(int(sys.argv[1]))
    print("\\n" + json.dumps({} if code else {k: properties[k] for k in sys.argv[2:] if k in properties}), flush=True)
    axcl.finalize()
"""
_PYAXCL_NAMES = dict(
    zip(("temperature", "total_cmm_size", "free_cmm_size", "npu_loading", "cpu_loading"), WANTED, strict=True)
)


def of_pyaxcl(device: int) -> Facts:
    """From the vendor's Python package, where it is installed, of the card that the runtime calls `device`. In another
    process: it loads a dozen of the vendor's libraries, and may hang. CallHangs."""
    if importlib.util.find_spec("axcl") is None:
        return {}
    said = _said(sys.executable, "-c", _PYAXCL, str(device), *_PYAXCL_NAMES).splitlines()
    told = {}
    with suppress(ValueError):  # its libraries may print, too
        told = json.loads(next((line for line in said if line.startswith("{")), "{}"))
    facts = {_PYAXCL_NAMES[name]: value for name, value in told.items()}
    for name in ("total_cmm", "free_cmm"):
        if name in facts:
            facts[name] <<= KIB
    if "temperature_c" in facts:
        facts["temperature_c"] /= 1000
    return facts


def _said(*command: str) -> str:
    """What a program prints; empty where it cannot be started. CallHangs where it takes too long: it is
    killed, and not waited for where it waits in the driver."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            errors="replace",
        )  # fmt: skip
    except OSError:
        return ""
    assert process.stdout is not None
    try:
        said, _ = process.communicate(timeout=TOOL_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.stdout.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        raise CallHangs(f"{command[0]} did not end within {TOOL_SECONDS:g} s") from None
    return said


# ---- the machine ----


def power_of(host: Host) -> Facts:
    """A Raspberry Pi's flags, from whatever this user may read: the kernel's file, or the firmware's tool; of too
    little voltage, the kernel's sensor, too."""
    facts: Facts = {}
    for folder in host.glob("sys/class/hwmon/hwmon*"):
        if host.text(f"{folder}/name") == "rpi_volt" and (alarm := host.text(f"{folder}/in0_lcrit_alarm")) is not None:
            facts["undervoltage"] = alarm == "1"
    said = next((host.text(name) for name in host.glob(THROTTLED)), None)
    if said is None and "undervoltage" not in facts and "Raspberry Pi" in host.board():
        said = (host.run("vcgencmd", "get_throttled") or "").strip().removeprefix("throttled=")
    with suppress(ValueError):
        flags = int(said or "", 16)  # the low bits are of now, those from 16 on of any time since it was started
        facts = {"undervoltage": bool(flags & 1), "throttled": bool(flags & 0b1110)}
    return facts


class CardReader:
    """Reads the card in use, which `card` gives. Every question is bounded; who did not answer is not asked again
    before that call has come back."""

    def __init__(self, card: Callable[[], CardHandle], place: Callable[[], int], host: Host | None = None) -> None:
        """`place`: where the vendor's program, which counts from 0, lists the card."""
        self._card, self._place, self._host = card, place, host or Host()
        self._asked: BoundedCall[Facts] | None = None
        self._not_before: dict[str, float] = {}

    def read(self) -> CardReading:
        """All that is known now. AxpressError where the card is in no state to be asked."""
        card = self._card()
        sources: dict[str, Callable[[], Facts]] = {"runtime": lambda: self._of_runtime(card)}
        if not card.emulated:
            sources["axcl-smi"] = lambda: of_tool(BoundedCall("listing the cards", self._place).result(CALL_SECONDS))
            sources["pyaxcl"] = lambda: of_pyaxcl(card.device)
        facts, source = power_of(self._host), ""
        if not card.emulated:
            facts |= link_of(self._host, card.device)
        for name, ask in sources.items():
            if facts.keys() >= set(WANTED):
                break
            told = self._told(name, ask)
            source = source or (name if told else "")
            facts = told | facts
        return CardReading(source, monotonic(), **facts)

    def _told(self, name: str, ask: Callable[[], Facts]) -> Facts:
        """What a source says; nothing where it hangs, or did not long ago."""
        if monotonic() < self._not_before.get(name, 0.0):
            return {}
        if name == "pyaxcl":
            self._not_before[name] = monotonic() + REST_SECONDS
        try:
            return ask()
        except CallHangs as error:
            log.warning("%s: how the card is, is asked elsewhere", error)
            if name != "runtime":
                self._not_before[name] = monotonic() + REST_SECONDS
            return {}

    def _of_runtime(self, card: CardHandle) -> Facts:
        if self._asked is not None and not self._asked.done:
            return {}

        def ask() -> Facts:
            card.bind_thread()
            return of_runtime(card.properties())

        self._asked = BoundedCall("asking the card how it is", ask)
        return self._asked.result(CALL_SECONDS)
