"""The doctor on a machine whose card is the emulated one: all well, and each fault by name and with its cure."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from repository import ROOT

from axpress.core.doctor.check import State

AX8860 = ROOT / "build" / "ax8860" / "libaxcl_rt.so"


def test_a_machine_on_which_all_is_well(machine) -> None:
    checks = machine.checks()
    assert {name: check.seen for name, check in checks.items() if check.state is not State.OK} == {}
    assert list(checks) == [
        "library", "siblings", "driver", "card image", "PCIe link", "PCIe ASPM", "PCIe setup", "device nodes",
        "runtime log", "kernel log", "processes", "runtime", "cards", "firmware", "temperature", "card memory", "sleep",
        "disk", "memory", "clock",
    ]  # fmt: skip
    assert "0001:01:00.0 5.0 GT/s PCIe x1" in checks["PCIe link"].seen
    assert "emulated runtime 3.6.0" in checks["runtime"].seen


def emulated(key: str, value: str):
    return lambda machine: machine.environ.update({f"AXPRESS_EMU_{key}": value})


def written(name: str, text: str):
    return lambda machine: machine.write(name, text)


def removed(name: str):
    return lambda machine: machine.remove(name)


def closed_nodes(machine) -> None:
    (machine.root / "dev/axcl_host").chmod(0o600)


def without_symbol(machine) -> None:
    data = machine.library.read_bytes()
    assert b"\0axclrtMalloc\0" in data
    machine.library.write_bytes(data.replace(b"\0axclrtMalloc\0", b"\0axclrtMallox\0"))


def with_a_killed_programs_memory(machine) -> None:
    profile = ROOT / "core/profiles/qwen3-4b-w8a16-pi5.toml"
    machine.write("home/card.toml", profile.read_text().replace("idle_cmm_mib = 18 ", "idle_cmm_mib = 5000 "))
    machine.environ["AXPRESS_EMU_PROFILE"] = str(machine.root / "home/card.toml")


def held_by_somebody(machine) -> None:
    machine.write("proc/763/comm", "axcl_run_model")
    machine.link("proc/763/fd/7", "/dev/axcl_host")


def module_of_another_kernel(machine) -> None:
    machine.write("proc/modules", "nvme 1 0 - Live")
    machine.write("usr/src/axclhost-1.0/dkms.conf", "")


def compiled(machine, source: str, *options: str, name: str = "libaxcl_rt.so") -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    machine.write("source.c", source)
    target = machine.library.with_name(name)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", target, machine.root / "source.c", *options], check=True)


def crashing_library(machine) -> None:
    compiled(machine, "__attribute__((constructor)) static void crash(void) { __builtin_trap(); }")


def with_sibling(machine) -> None:
    compiled(machine, "int pkg;", "-Wl,-soname,libaxcl_pkg.so", name="libaxcl_pkg.so")
    compiled(machine, "extern int pkg; int *rt(void) { return &pkg; }", f"-L{machine.library.parent}", "-laxcl_pkg")


def sibling_lost(machine) -> None:
    with_sibling(machine)
    machine.remove("usr/lib/axcl/libaxcl_pkg.so")


def sibling_off_the_path(machine) -> None:
    with_sibling(machine)
    machine.remove("etc/ld.so.conf.d/axcl.conf")


CARD = "sys/bus/pci/devices/0001:01:00.0"
DEAD = "3,9,{at},-;[heartbeat_recv_thread, 591]: device 1: dead!"
PORT = "3,9,4999000000,-;[axcl_pcie_port_create, 872]: Recv port ack timeout."
ASLEEP = "3,9,4999000000,-;PM: suspend entry (deep)"
OTHER_PI = "[pi4]\ndtoverlay=pciex1-compat-pi5,no-mip"
W, C = State.WRONG, State.WARNING

FAULTY = {  # what is done to the machine; the check that tells, how bad it is; words of what was seen, and of the cure
    "init": (emulated("FAULTS", "axclInit@1=fail:0x8030010b"), "runtime", W, "0x8030010b", "load the driver"),
    "no module": (emulated("FAULTS", "driver=missing"), "runtime", W, "0x8030010b", "load the driver"),
    "no card": (emulated("DEVICES", "0"), "cards", W, "no card", "PCIe link"),
    "lost card": (emulated("FAULTS", "axclrtSetDevice@1=fail:0x80300181"), "runtime", W, "0x80300181", "reboot"),
    "agent": (emulated("FAULTS", "axclrtSetDevice@1=fail:0x80300186"), "runtime", W, "agent", "axcl-smi reboot"),
    "hang": (emulated("FAULTS", "axclInit@1=block"), "runtime", W, "no answer in axclInit", "axcl-smi reboot"),
    "hot": (emulated("TEMPERATURE", "91000"), "temperature", W, "91 C", "cool"),
    "warm": (emulated("TEMPERATURE", "78000"), "temperature", C, "78 C", "fan"),
    "leak": (with_a_killed_programs_memory, "card memory", W, "5000 MiB in use, and nobody", "axcl-smi reboot"),
    "settings": (emulated("TEMPERATURE", "warm"), "runtime", W, "0x80300603", "correct the setting"),
    "symbol": (without_symbol, "runtime", W, "does not export axclrtMalloc", "newest release"),
    "crash": (crashing_library, "runtime", W, "crashed in loading the library (SIG", "axcl-smi reboot"),
    "no library": (removed("usr/lib/axcl"), "library", W, "no libaxcl_rt.so", "install"),
    "sibling lost": (sibling_lost, "siblings", W, "libaxcl_pkg.so", "install"),
    "dlopen": (sibling_lost, "runtime", W, "libaxcl_pkg.so: cannot open", "siblings"),
    "ld.so.conf": (sibling_off_the_path, "siblings", C, "libaxcl_pkg.so", "tee /etc/ld.so.conf.d/axcl.conf"),
    "permissions": (closed_nodes, "device nodes", W, "/dev/axcl_host", "udevadm"),
    "no node": (removed("dev/axcl_host"), "device nodes", W, "/dev/axcl_host missing", "kernel log"),
    "no driver": (written("proc/modules", ""), "driver", W, "axcl_host not loaded", "install"),
    "kernel update": (module_of_another_kernel, "driver", W, "not built for this kernel", "dkms"),
    "no image": (written("lib/firmware/axcl/ax650_card.pac", ""), "card image", W, "ax650_card.pac", "install"),
    "no PCI device": (removed(CARD), "PCIe link", W, "no device of Axera", "cable"),
    "half speed": (written(f"{CARD}/current_link_speed", "2.5 GT/s PCIe"), "PCIe link", C, "half speed", "reseat"),
    "link lost": (written(f"{CARD}/current_link_speed", "Unknown"), "PCIe link", W, "link is lost", "power"),
    "unbound": (removed(f"{CARD}/driver"), "PCIe link", W, "no driver", "modprobe"),
    "errors": (written(f"{CARD}/aer_dev_fatal", "TOTAL_ERR_FATAL 7"), "PCIe link", C, "7 uncorrected", "reseat"),
    "ASPM": (written(f"{CARD}/link/l1_aspm", "1"), "PCIe ASPM", C, "l1_aspm", "pcie_aspm=off"),
    "policy": (written("sys/module/pcie_aspm/parameters/policy", "[powersave]"), "PCIe ASPM", C, "powersave", "off"),
    "overlay": (written("boot/firmware/config.txt", OTHER_PI), "PCIe setup", C, "no dtoverlay", "config.txt"),
    "dead": (written("dev/kmsg", DEAD.format(at=4990_000000)), "kernel log", W, "device 1: dead", "axcl-smi reboot"),
    "was dead": (written("dev/kmsg", DEAD.format(at=990_000000)), "kernel log", C, "67 min ago", "cause"),
    "port": (written("dev/kmsg", PORT), "kernel log", W, "agent", "axcl-smi reboot"),
    "slept": (written("dev/kmsg", ASLEEP), "sleep", C, "has slept", "systemctl mask"),
    "may sleep": (removed("etc/systemd/system/suspend.target"), "sleep", C, "may be put to sleep", "systemctl mask"),
    "processes": (held_by_somebody, "processes", C, "axcl_run_model (process 763)", "end them"),
    "clock": (removed("run/systemd/timesync/synchronized"), "clock", C, "not synchronised", "set-ntp"),
    "memory": (written("proc/meminfo", "MemAvailable: 100000 kB"), "memory", W, "97 MiB", "end other"),
}


@pytest.mark.parametrize(("fault", "name", "state", "seen", "cure"), FAULTY.values(), ids=FAULTY)
def test_each_fault_is_named_with_its_cure(machine, fault, name: str, state: State, seen: str, cure: str) -> None:
    fault(machine)
    check = machine.checks(seconds=4.0 if "no answer" in seen else 60.0)[name]
    assert check.state is state, check
    assert seen in check.seen and cure in check.cure, check


@pytest.mark.skipif(not AX8860.is_file(), reason="only a build in place has the next generation's library")
def test_a_runtime_of_the_next_generation_is_asked_what_it_can_say(machine) -> None:
    shutil.copy(AX8860, machine.library)
    machine.environ["AXPRESS_EMU_GENERATION"] = "ax8860"
    checks = machine.checks()
    assert checks["runtime"].state is checks["cards"].state is checks["card memory"].state is State.OK
    assert checks["cards"].seen == "1 (id 0)" and "7022 of 7040 MiB free" in checks["card memory"].seen
    assert checks["temperature"].state is checks["firmware"].state is State.UNKNOWN


def test_a_dead_card_is_not_opened_again(machine) -> None:
    machine.write("dev/kmsg", DEAD.format(at=4990_000000))
    checks = machine.checks()
    assert checks["runtime"].state is State.UNKNOWN and "not opened" in checks["runtime"].seen
    assert "cards" not in checks


def test_everything_wrong_and_everything_odd_says_what_to_do(machine) -> None:
    shutil.rmtree(machine.root)
    machine.root.mkdir()
    checks = machine.checks()
    assert {name for name, check in checks.items() if check.state is State.WRONG} >= {
        "library",
        "driver",
        "device nodes",
        "card image",
    }
    assert all(check.cure for check in checks.values() if check.state is not State.OK)
