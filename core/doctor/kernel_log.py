"""What the kernel's log says of the driver, of the card, and of sleep."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from .check import Check, ok, unknown, warning, wrong
from .host import Host

RECENT = 90.0
"""Seconds. The driver repeats that a card is dead every 20; a line older than some of these is over, or was answered by
a reload of the driver."""

LADDER = (
    "end every program on the card; then `sudo /usr/bin/axcl/axcl-smi reboot -d 0` and 15 s of waiting; then `sudo"
    " reboot`; at last switch the power off. Never unbind or rescan the PCI device while the driver is loaded"
)

PATTERNS = {
    "dead": re.compile(r"device \w+: dead"),
    "no answer": re.compile(r"Recv port ack timeout|axcl pcie port create failed|axcl pcie req port failed"),
    "no firmware": re.compile(r"firmware load for \S*ax650_card\.pac failed|Patch file not found"),
    "slept": re.compile(r"PM: suspend entry"),
}

_KMSG = re.compile(r"^\d+,\d+,(?P<us>\d+),[^;]*;(?P<text>.*)")
_STAMPED = re.compile(r"^\[\s*(?P<s>\d+\.\d+)\](?P<text>.*)")


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its text, and how many seconds ago it was written (None: the log does not say)."""

    text: str
    age: float | None


def read_log(host: Host) -> list[Line] | None:
    """The kernel's log since it booted, oldest first; None where this user may not read it."""
    raw = _kmsg(host)
    if not raw:
        raw = host.run("journalctl", "-k", "-b", "-q", "--no-pager", "-o", "short-monotonic") or host.run("dmesg") or ""
    uptime = float((host.text("proc/uptime") or "0").split()[0])
    return [_line(line, uptime) for line in raw.splitlines()] or None


def _kmsg(host: Host) -> str:
    """All records of /dev/kmsg; empty where it cannot be read."""
    records: list[bytes] = []
    try:
        file = os.open(host.path("dev/kmsg"), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        while len(records) < 100_000:
            try:
                if not (record := os.read(file, 8192)):
                    break
            except BrokenPipeError:  # overwritten while we read: the next one follows
                continue
            records.append(record)
    except OSError:  # no more records, or not for this user
        pass
    finally:
        os.close(file)
    return b"".join(records).decode(errors="replace")


def _line(line: str, uptime: float) -> Line:
    if match := _KMSG.match(line):
        return Line(match["text"], max(uptime - int(match["us"]) / 1e6, 0.0))
    if match := _STAMPED.match(line):
        return Line(match["text"].strip(), max(uptime - float(match["s"]), 0.0))
    return Line(line, None)


def latest(log: list[Line], kind: str) -> Line | None:
    """The last line of that kind (a key of PATTERNS)."""
    return next((line for line in reversed(log) if PATTERNS[kind].search(line.text)), None)


MEANING = {
    "no firmware": "the driver could not load the card's image",
    "dead": "the driver gets no heartbeat: the card's program crashed, or the link is lost (sleep, heat, power)",
    "no answer": "the card's agent does not answer the driver; each further start makes it worse",
}


def check_kernel_log(log: list[Line] | None) -> Check:
    """What the driver says of the card."""
    if log is None:
        cure = "sudo axpress doctor, or `sudo dmesg | grep -iE 'axcl|ax_pcie|dead'`"
        return unknown("kernel log", "this user may not read it", cure)
    for kind, meaning in MEANING.items():
        if (line := latest(log, kind)) is None:
            continue
        if kind == "no firmware":
            return wrong("kernel log", f'"{line.text}": {meaning}', "reinstall the vendor's host package, then reboot")
        if line.age is None or line.age < RECENT:
            return wrong("kernel log", f'"{line.text}": {meaning}', LADDER)
        return warning(
            "kernel log",
            f'"{line.text}" {_ago(line.age)} ago: {meaning}',
            f"if the card answers now, find the cause (heat, power, sleep); else: {LADDER}",
        )
    return ok("kernel log", "the driver reports no dead card and no time-outs")


def _ago(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"
