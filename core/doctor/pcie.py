"""The card on the PCI Express bus: present, bound, link, power saving, and how a Raspberry Pi is set up for it.

The AX650 is a PCIe 2.0 x2 endpoint that does not support ASPM: 5 GT/s is its full speed, and most boards give it one
lane.
"""

from __future__ import annotations

from .check import Check, ok, unknown, warning, wrong
from .host import Host

VENDOR = "0x1f4b"  # Axera; the AX650's device id is 0x0650
DRIVER = "ax_pcie_dev_host"
FULL_SPEED = 5.0  # GT/s
CONFIG = "/boot/firmware/config.txt"
PI_LINES = "[all]\\ndtparam=pciex1\\ndtoverlay=pciex1-compat-pi5,no-mip\\n"
PI_CURE = f"printf '{PI_LINES}' | sudo tee -a {CONFIG} && sudo reboot"


def find_cards(host: Host) -> list[str]:
    """The sysfs folders of Axera's devices."""
    return [folder for folder in host.glob("sys/bus/pci/devices/*") if host.text(f"{folder}/vendor") == VENDOR]


def check_link(host: Host) -> Check:
    """Whether a card is on the bus, and how fast the worst of their links is."""
    if not host.exists("sys/bus/pci/devices"):
        return unknown("PCIe link", "/sys/bus/pci is not there (a container?)", "axpress doctor on the host itself")
    cards = find_cards(host)
    if not cards:
        where = "the cable's direction, power, and PCIe setup here" if is_pi5(host) else "the slot or cable, and power"
        seen = f"no device of Axera (vendor {VENDOR[2:]}) on the PCI bus"
        return wrong("PCIe link", seen, f"switch off; check {where}; start again")
    troubles = [_trouble(host, card) for card in cards]
    worst = next((trouble for trouble in troubles if trouble is not None), None)
    return worst or ok("PCIe link", ", ".join(_describe(host, card) for card in cards))


def _describe(host: Host, card: str) -> str:
    """Address, speed and width, as in "0001:01:00.0 5.0 GT/s PCIe x1"."""
    speed, width = (host.text(f"{card}/current_link_{what}") or "?" for what in ("speed", "width"))
    return f"{card.rpartition('/')[2]} {speed} x{width}"


def _trouble(host: Host, card: str) -> Check | None:
    """What is not well with one card's link."""
    name, speed = _describe(host, card), host.text(f"{card}/current_link_speed") or ""
    if speed.startswith("Unknown") or host.data(f"{card}/config", 4) == b"\xff" * 4:
        return wrong(
            "PCIe link",
            f"{name}: listed, but it no longer answers: the link is lost (heat, power, sleep, or the card crashed)",
            "sudo reboot; if it stays so, switch the power off. Never rescan the bus while the driver is loaded",
        )
    driver = (host.target(f"{card}/driver") or "").rpartition("/")[2]
    if driver != DRIVER:
        holder = f"the driver {driver}" if driver else "no driver"
        return wrong("PCIe link", f"{name}: {holder} has it, not {DRIVER}", "sudo modprobe axcl_host; see driver here")
    if (gts := _number(speed)) is not None and gts < FULL_SPEED:
        return warning(
            "PCIe link",
            f"{name}: half speed, the card can {FULL_SPEED:.0f} GT/s",
            "reseat the card and its cable; a Raspberry Pi's config.txt must not say dtparam=pciex1_gen=1",
        )
    if errors := _errors(host, card):
        return warning("PCIe link", f"{name}: {errors} uncorrected errors", "reseat card and cable, check its power")
    return None


def link_of(host: Host, bus: int) -> dict[str, float]:
    """How fast the link to a card is, `link_gts` (GT/s) and `link_width` (lanes): to the one on this bus, or to the
    only one. Empty where that cannot be told, and of a link that is lost."""
    cards = find_cards(host)
    mine = [card for card in cards if card.rpartition("/")[2].split(":")[1:2] == [f"{bus:02x}"]] or cards
    if len(mine) != 1:
        return {}
    speed, width = (host.text(f"{mine[0]}/current_link_{what}") or "" for what in ("speed", "width"))
    if (gts := _number(speed)) is None or not width.isdigit():
        return {}
    return {"link_gts": gts, "link_width": int(width)}


def _number(text: str) -> float | None:
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        return None


def _errors(host: Host, card: str) -> int:
    """Uncorrected errors that the kernel has counted on the card's link."""
    total = 0
    for kind in ("nonfatal", "fatal"):
        for line in (host.text(f"{card}/aer_dev_{kind}") or "").splitlines():
            word, _, count = line.partition(" ")
            total += int(count) if word.startswith("TOTAL") and count.isdigit() else 0
    return total


def check_power_saving(host: Host) -> Check | None:
    """Whether the kernel may put the link to sleep, which this card does not survive; None without a card."""
    cards = find_cards(host)
    if not cards:
        return None
    for card in cards:
        name = card.rpartition("/")[2]
        states = [
            state
            for state in ("l0s_aspm", "l1_aspm", "l1_1_aspm", "l1_2_aspm")
            if host.text(f"{card}/link/{state}") == "1"
        ]
        if states:
            return warning(
                "PCIe ASPM", f"{name}: {', '.join(states)} on, and the card does not support ASPM", _no_aspm(host)
            )
        if host.text(f"{card}/power/runtime_status") == "suspended":
            return wrong(
                "PCIe ASPM", f"{name} is suspended", f"echo on | sudo tee {card}/power/control, then see the kernel log"
            )
    policy = host.text("sys/module/pcie_aspm/parameters/policy") or ""
    chosen = policy.partition("[")[2].partition("]")[0]
    if chosen.startswith("power"):
        return warning(
            "PCIe ASPM", f"the kernel's policy is {chosen}, and the card does not support ASPM", _no_aspm(host)
        )
    return ok("PCIe ASPM", f"policy {chosen}" if chosen else "off")


def _no_aspm(host: Host) -> str:
    where = "/boot/firmware/cmdline.txt" if host.board() else "the kernel's command line"
    return f"add pcie_aspm=off to {where}, reboot"


def is_pi5(host: Host) -> bool:
    """Whether this is a Raspberry Pi 5 or a compute module 5."""
    return any(name in host.board() for name in ("Raspberry Pi 5", "Raspberry Pi Compute Module 5"))


def check_pi(host: Host) -> Check | None:
    """A Raspberry Pi 5's config.txt: PCIe on, and its interrupts set up as this card needs them; None elsewhere."""
    if not is_pi5(host):
        return None
    text = host.text(CONFIG)
    if text is None:
        return unknown("PCIe setup", f"{CONFIG} cannot be read", "sudo axpress doctor")
    settings = _pi_settings(text)
    enabled = any(
        line.startswith(("dtparam=pciex1=on", "dtparam=pciex1,")) or line == "dtparam=pciex1" for line in settings
    )
    compatible = any(line.startswith("dtoverlay=pciex1-compat-pi5") and "no-mip" in line for line in settings)
    card = bool(find_cards(host))
    if not compatible:
        seen = f"{CONFIG} has no dtoverlay=pciex1-compat-pi5,no-mip: the card cannot get all its interrupts"
        return (warning if card and host.exists("dev/axcl_host") else wrong)("PCIe setup", seen, PI_CURE)
    if not enabled and not card:
        return wrong("PCIe setup", f"{CONFIG} has no dtparam=pciex1, and no card is seen", PI_CURE)
    if "dtparam=pciex1_gen=1" in settings:
        return warning(
            "PCIe setup", f"{CONFIG} has dtparam=pciex1_gen=1, half of what the card can", "remove that line, reboot"
        )
    idle = "; pciex1_gen=3 brings this card nothing, it is PCIe 2.0" if "dtparam=pciex1_gen=3" in settings else ""
    return ok("PCIe setup", f"PCIe on, overlay pciex1-compat-pi5,no-mip{idle}")


def _pi_settings(text: str) -> list[str]:
    """Lines that count on a Pi 5: outside sections, and in [all], [pi5], [cm5]."""
    lines, counts = [], True
    for line in text.splitlines():
        line = "".join(line.partition("#")[0].split())
        if line.startswith("["):
            counts = line in ("[all]", "[pi5]", "[cm5]")
        elif line and counts:
            lines.append(line)
    return lines
