"""The vendor's host software: library and siblings, kernel modules, card firmware, device nodes, who holds them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..device.runtime import SYSTEM_PATHS
from .check import Check, ok, unknown, warning, wrong
from .elf import needed_libraries
from .host import Host

LIBRARY = "libaxcl_rt.so"
SIBLINGS = ("libaxcl", "libspdlog")  # how the names of libraries begin that come with the vendor's package
MODULES = ("ax_pcie_host_dev", "ax_pcie_msg", "ax_pcie_mmb", "axcl_host")
NODES = ("/dev/axcl_host", "/dev/ax_mmb_dev", "/dev/msg_userdev")
FIRMWARE = "/lib/firmware/axcl/ax650_card.pac"  # the card boots from what the driver sends it
RUNTIME_LOG = "/tmp/axcl/axcl_logs.txt"
UDEV_RULES = "/etc/udev/rules.d/axcl_host.rules"

INSTALL = "install the vendor's host package (axclhost on a Raspberry Pi), then reboot"


def find_runtime(host: Host) -> str | None:
    """The library that axpress would open, as `device.runtime.find_library` looks for it."""
    if chosen := host.environ.get("AXPRESS_AXCL_LIB"):
        return chosen
    folders = filter(None, host.environ.get("LD_LIBRARY_PATH", "").split(":"))
    return next(
        (path for path in (*(f"{folder}/{LIBRARY}" for folder in folders), *SYSTEM_PATHS) if host.exists(path)), None
    )


def check_library(host: Host) -> Check:
    """Where libaxcl_rt.so is."""
    path = find_runtime(host)
    if path is None:
        return wrong(
            "library",
            f"there is no {LIBRARY} (looked at $AXPRESS_AXCL_LIB, $LD_LIBRARY_PATH, /usr/lib/axcl)",
            f"{INSTALL}; or try without a card: --device emu and a simulated model",
        )
    if not host.exists(path):
        return wrong(
            "library", f"AXPRESS_AXCL_LIB names {path}, which is not there", "correct the variable, or unset it"
        )
    return ok("library", path)


def check_siblings(host: Host) -> Check | None:
    """Whether the loader finds the libraries that libaxcl_rt.so needs beside the system's own; None without one."""
    path = find_runtime(host)
    if path is None or not host.exists(path):
        return None
    folder = str(Path(path).parent)
    try:
        needed = [name for name in needed_libraries(host.path(path)) if name.startswith(SIBLINGS)]
    except (OSError, ValueError) as error:
        return wrong("siblings", f"{path} cannot be read as a library: {error}", INSTALL)
    loader = loader_directories(host)
    beside = [name for name in needed if host.exists(f"{folder}/{name}")]
    found = [name for name in needed if any(host.exists(f"{where}/{name}") for where in loader)]
    if missing := [name for name in needed if name not in beside and name not in found]:
        return wrong(
            "siblings", f"{path} needs {', '.join(missing)}, found neither beside it nor on the loader's path", INSTALL
        )
    if hidden := [name for name in needed if name not in found]:
        line = f"echo {folder} | sudo tee /etc/ld.so.conf.d/axcl.conf && sudo ldconfig"
        seen = f"{', '.join(hidden)} lie in {folder}, which is not on the loader's path: axcl-smi will not find them"
        return warning("siblings", seen, line)
    cache, tried = host.data("etc/ld.so.cache", 8 << 20), host.environ.get("LD_LIBRARY_PATH", "").split(":")
    stale = [name for name in needed if name.encode() not in cache and folder not in tried]
    if stale and cache:
        return warning(
            "siblings", f"{folder} is on the loader's path, but its cache lacks {', '.join(stale)}", "sudo ldconfig"
        )
    return ok("siblings", f"{len(needed)} on the loader's path" if needed else "it needs none of the vendor's")


def loader_directories(host: Host) -> list[str]:
    """Where the dynamic loader looks: LD_LIBRARY_PATH, /etc/ld.so.conf with what it includes, the system's own."""
    folders = [*filter(None, host.environ.get("LD_LIBRARY_PATH", "").split(":")), *_configured(host, "/etc/ld.so.conf")]
    system = [*host.glob("lib/*-linux-gnu"), *host.glob("usr/lib/*-linux-gnu")]
    return [*folders, "/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib", *system]


def _configured(host: Host, name: str, depth: int = 0) -> Iterator[str]:
    for line in (host.text(name) or "").splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("include ") and depth < 4:
            pattern = line.removeprefix("include ").strip()
            for included in host.glob(str(Path("/etc") / pattern).lstrip("/")):
                yield from _configured(host, included, depth + 1)
        elif line:
            yield line


def check_modules(host: Host) -> Check:
    """Whether the driver's modules are loaded into the running kernel."""
    loaded = {line.split(" ", 1)[0] for line in (host.text("proc/modules") or "").splitlines()}
    missing = [name for name in MODULES if name not in loaded and not host.exists(f"sys/module/{name}")]
    if not missing:
        version = host.text("sys/module/axcl_host/version")
        return ok("driver", f"{', '.join(MODULES)} loaded{f', version {version}' if version else ''}")
    kernel = host.kernel()
    seen = f"kernel module {', '.join(missing)} not loaded (kernel {kernel})"
    if "axcl_host.ko" in (host.text(f"lib/modules/{kernel}/modules.dep") or ""):
        lasting = (
            ""
            if host.exists("etc/modules-load.d/axcl_pcie.conf")
            else "; for every start: list them in /etc/modules-load.d/axcl_pcie.conf"
        )
        return wrong("driver", seen, f"sudo modprobe axcl_host{lasting}; if that fails, the kernel log says why")
    if host.glob("usr/src/axcl*"):
        return wrong(
            "driver",
            f"{seen}, and not built for this kernel",
            "sudo apt install linux-headers-$(uname -r) && sudo dkms autoinstall && sudo modprobe axcl_host"
            " (again after each kernel update)",
        )
    return wrong("driver", seen, INSTALL)


def check_firmware_file(host: Host) -> Check:
    """Whether the file is there from which the card boots."""
    try:
        size = host.path(FIRMWARE).stat().st_size
    except OSError:
        size = 0
    if not size:
        return wrong(
            "card image", f"{FIRMWARE} is missing or empty: the driver cannot boot the card without it", INSTALL
        )
    return ok("card image", f"{FIRMWARE}, {size >> 20} MiB")


def check_nodes(host: Host) -> Check:
    """Whether the device nodes are there and open to this user."""
    if missing := [node for node in NODES[:2] if not host.exists(node)]:
        return wrong(
            "device nodes",
            f"{', '.join(missing)} missing (the runtime then says 0x8030010b): no driver, or it has found no card",
            "see driver, PCIe link and kernel log here; the nodes appear when axcl_host has started the card",
        )
    closed = [node for node in NODES if host.exists(node) and not host.may_use(node)]
    if not closed:
        return ok("device nodes", f"{', '.join(node for node in NODES if host.exists(node))}, open to this user")
    seen = f"this user may not read and write {', '.join(f'{node} ({host.owner(node)})' for node in closed)}"
    if 'GROUP="<' in (host.text(UDEV_RULES) or ""):
        seen += f'; {UDEV_RULES} names a group "<...>" that does not exist'
    rules = " ".join(f'KERNEL=="{node.removeprefix("/dev/")}", MODE="0666"' + "\\n" for node in NODES)
    return wrong(
        "device nodes",
        seen,
        f"printf '{rules}' | sudo tee {UDEV_RULES} && sudo udevadm control --reload && sudo udevadm trigger",
    )


def check_runtime_log(host: Host) -> Check:
    """Whether the runtime can write the log that it insists on."""
    present = [name for name in (RUNTIME_LOG, str(Path(RUNTIME_LOG).parent)) if host.exists(name)]
    if closed := [name for name in present if not host.may_use(name)]:
        return warning(
            "runtime log",
            f"the runtime logs to {RUNTIME_LOG}, and {closed[0]} ({host.owner(closed[0])}) is closed to this user",
            f"sudo rm -r {Path(RUNTIME_LOG).parent} (somebody else, often root, made it), or run as that user",
        )
    return ok("runtime log", f"{RUNTIME_LOG} can be written")


def card_users(host: Host) -> tuple[list[tuple[int, str]], bool]:
    """Processes that hold a device node open, as (pid, command), without our own; whether all could be looked at."""
    users: list[tuple[int, str]] = []
    complete = True
    for folder in host.glob("proc/[0-9]*"):
        pid = int(Path(folder).name) if Path(folder).name.isdigit() else 0
        if not pid or (host.real and pid == os.getpid()):
            continue
        try:
            links = [entry.name for entry in os.scandir(host.path(f"{folder}/fd"))]
        except PermissionError:
            complete = False
            continue
        except OSError:  # ended meanwhile
            continue
        if any(host.target(f"{folder}/fd/{link}") in NODES for link in links):
            users.append((pid, host.text(f"{folder}/comm") or "?"))
    return users, complete


def check_users(host: Host) -> Check:
    """Which other processes have the card open."""
    users, complete = card_users(host)
    if users:
        names = ", ".join(f"{command} (process {pid})" for pid, command in users[:5])
        more = f" and {len(users) - 5} more" if len(users) > 5 else ""
        return warning(
            "processes",
            f"open on the card: {names}{more}",
            "end them the way they want to be ended (never with SIGKILL while they load or compute) before a model is"
            " served: they hold card memory and time",
        )
    if not complete:
        return unknown(
            "processes", "nobody that this user may look at has the card open", "sudo axpress doctor looks at all"
        )
    return ok("processes", "nobody has the card open")
