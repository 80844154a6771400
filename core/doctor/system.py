"""The machine around the card: sleep, disk, memory, clock."""

from __future__ import annotations

import re
import time

from .check import Check, ok, unknown, warning, wrong
from .host import Host
from .kernel_log import Line, latest

MIB = 1 << 20
TARGETS = ("sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target")
MASK = f"sudo systemctl mask {' '.join(TARGETS)}"
DISK_LOW, DISK_FULL = 1024 * MIB, 64 * MIB
MEMORY_LOW, MEMORY_SHORT = 512 * MIB, 200 * MIB
"""The server itself takes about 150 MiB; embeddings are read from the page cache, which needs room beside that."""
BUILT = 1_760_000_000  # seconds since 1970: no clock that is right says less


def check_sleep(host: Host, log: list[Line] | None) -> Check:
    """Whether this machine may sleep: a card falls off the bus then, and only a reboot brings it back."""
    if log and (slept := latest(log, "slept")):
        return warning(
            "sleep",
            f'this machine has slept since it booted ("{slept.text}"), and a card falls off the bus then',
            f"{MASK}; sudo reboot",
        )
    states = (host.text("sys/power/state") or "").split()
    if not states:
        return ok("sleep", "this kernel cannot sleep")
    masked = [name for name in TARGETS if host.target(f"etc/systemd/system/{name}") == "/dev/null"]
    if set(TARGETS[:2]) <= set(masked):
        return ok("sleep", f"{', '.join(masked)} masked")
    if re.search(r"(?m)^\s*IdleAction\s*=\s*(suspend|hibernate|hybrid-sleep)", _logind(host)):
        return wrong(
            "sleep", "logind puts this machine to sleep when it is idle (IdleAction): the card falls off the bus", MASK
        )
    return warning(
        "sleep", f"this machine may be put to sleep ({', '.join(states)}): the card falls off the bus then", MASK
    )


def _logind(host: Host) -> str:
    files = ["/etc/systemd/logind.conf", *host.glob("etc/systemd/logind.conf.d/*.conf")]
    return "\n".join(host.text(name) or "" for name in files)


def check_disk(host: Host) -> Check:
    """Room where the runtime and the system write their logs."""
    rooms = {name: host.free_bytes(name) for name in ("/", "/tmp", "/var/log") if host.exists(name)}
    least = min((name for name in rooms if rooms[name] is not None), key=lambda name: rooms[name] or 0, default=None)
    if least is None:
        return unknown("disk", "free room cannot be asked for", "df -h")
    free = rooms[least] or 0
    seen = f"{free // MIB} MiB free at {least}"
    if free < DISK_FULL:
        return wrong(
            "disk",
            f"{seen}: logs cannot be written, and the runtime may fail without a word",
            "free some: `sudo du -xh / | sort -h | tail`",
        )
    if free < DISK_LOW:
        return warning("disk", seen, "free some before a log fills it: `sudo du -xh / | sort -h | tail`")
    return ok("disk", seen)


def check_memory(host: Host) -> Check:
    """The host's memory."""
    match = re.search(r"MemAvailable:\s*(\d+) kB", host.text("proc/meminfo") or "")
    if match is None:
        return unknown("memory", "/proc/meminfo does not say what is available", "free -m")
    available = int(match[1]) * 1024
    seen = f"{available // MIB} MiB available"
    if available < MEMORY_SHORT:
        return wrong("memory", f"{seen}: too little for the server", "end other programs")
    if available < MEMORY_LOW:
        return warning(
            "memory", f"{seen}: the model's embeddings will be read from disk again and again", "end other programs"
        )
    return ok("memory", seen)


def check_clock(host: Host) -> Check:
    """Whether logs and certificates can be believed."""
    if time.time() < BUILT:
        return wrong(
            "clock",
            f"it is set to {time.strftime('%Y-%m-%d')}",
            "sudo timedatectl set-ntp true, and a network (a Pi has no battery)",
        )
    synchronised = host.clock_synchronised()
    if synchronised is None:
        return unknown("clock", "the kernel does not say whether it is synchronised", "timedatectl")
    if not synchronised:
        return warning(
            "clock", "not synchronised with a time server: times in logs may be wrong", "sudo timedatectl set-ntp true"
        )
    return ok("clock", "synchronised")
