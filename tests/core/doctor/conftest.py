"""A machine made of files: a Raspberry Pi 5 with driver, card and vendor's software, whose card is the emulated one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from axpress.core.device.emulator import emulator_library
from axpress.core.doctor.check import Check
from axpress.core.doctor.examination import Subject, examine
from axpress.core.doctor.host import Host, User

CARD = "sys/bus/pci/devices/0001:01:00.0"
FILES = {
    "etc/ld.so.conf": "include /etc/ld.so.conf.d/*.conf",
    "etc/ld.so.conf.d/axcl.conf": "/usr/lib/axcl",
    "etc/modules-load.d/axcl_pcie.conf": "axcl_host",
    "proc/modules": "axcl_host 1 0 - Live\nax_pcie_mmb 1 0 - Live\nax_pcie_msg 1 0 - Live\nax_pcie_host_dev 1 0 - Live",
    "proc/sys/kernel/osrelease": "6.12.25+rpt-rpi-2712",
    "proc/uptime": "5000.00 9000.00",
    "proc/meminfo": "MemTotal: 8245000 kB\nMemAvailable: 7000000 kB",
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.1\0",
    f"{CARD}/vendor": "0x1f4b",
    f"{CARD}/device": "0x0650",
    f"{CARD}/config": "\x4b\x1f\x50\x06",
    f"{CARD}/current_link_speed": "5.0 GT/s PCIe",
    f"{CARD}/current_link_width": "1",
    f"{CARD}/power/runtime_status": "active",
    f"{CARD}/aer_dev_nonfatal": "Undefined 0\nTOTAL_ERR_NONFATAL 0",
    "sys/module/pcie_aspm/parameters/policy": "[default] performance powersave powersupersave",
    "sys/power/state": "freeze mem",
    "dev/axcl_host": "",
    "dev/ax_mmb_dev": "",
    "dev/msg_userdev": "",
    "dev/kmsg": "6,1,1000000,-;axcl_host: loading out-of-tree module taints kernel.",
    "boot/firmware/config.txt": "[pi4]\nx=1\n[all]\ndtparam=pciex1\ndtoverlay=pciex1-compat-pi5, no-mip  # card",
    "lib/firmware/axcl/ax650_card.pac": "image",
    "run/systemd/timesync/synchronized": "",
    "var/log/syslog": "",
}


class Machine:
    """Files below `root`; `environ` also goes to the child that opens the card."""

    def __init__(self, root: Path) -> None:
        self.root, self.environ, self.user = root, {}, User(1000)
        for name, text in FILES.items():
            self.write(name, text)
        for node in ("axcl_host", "ax_mmb_dev", "msg_userdev"):
            (root / "dev" / node).chmod(0o666)
        self.link(f"{CARD}/driver", "../../../../bus/pci/drivers/ax_pcie_dev_host")
        for target in ("sleep", "suspend", "hibernate", "hybrid-sleep"):
            self.link(f"etc/systemd/system/{target}.target", "/dev/null")
        (root / "tmp").mkdir()
        self.library = root / "usr/lib/axcl/libaxcl_rt.so"
        self.library.parent.mkdir(parents=True)
        shutil.copy(emulator_library(), self.library)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def link(self, name: str, target: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def remove(self, name: str) -> None:
        path = self.root / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def host(self) -> Host:
        return Host(self.root, self.environ, self.user)

    def checks(self, model: Path | None = None, seconds: float = 60.0) -> dict[str, Check]:
        """The whole examination, by name."""
        return {check.name: check for check in examine(self.host(), Subject(model, "auto", seconds))}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")
