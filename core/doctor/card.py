"""What the opened card says: runtime, list of cards, firmware, temperature, memory; and the package it is to run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..device.card_memory import CMM_FLOOR, USUAL_PERCENT
from ..device.model_loader import open_tokenizer
from ..errors import PackageError
from ..model_files.model_package import inspect_package
from .check import Check, ok, unknown, warning, wrong
from .child import Outcome
from .kernel_log import LADDER

MIB = 1 << 20
WARM, HOT = 75.0, 85.0  # degrees Celsius at the chip; it resets itself at 120
IDLE_CMM = 64 * MIB  # cards are seen to use 18 to 22 MiB with nothing on them

CURES = {
    0x8030010B: "load the driver (see driver here): the runtime could not open /dev/axcl_host",
    0x80300181: "see PCIe link and, on a Raspberry Pi, PCIe setup here; reboot after a change",
    0x80300186: f"no question of permissions: the card's agent does not answer, and each start leaks ports: {LADDER}",
    0x80300603: "correct the setting of the emulated card (AXPRESS_EMU_...)",
}


def check_runtime(opened: Outcome) -> Check:
    """Whether the library loads, starts, and comes to its end."""
    facts = opened.merged()
    if problem := facts.get("problem"):
        if "does not export" in problem:
            return wrong("runtime", problem, "install the newest release of the vendor's host package for this card")
        return wrong(
            "runtime",
            problem,
            "see library and siblings here; then sudo ldconfig, or reinstall the vendor's host package",
        )
    if error := facts.get("error"):
        code = int(facts["code"])
        return wrong("runtime", error, CURES.get(code, LADDER))
    if not opened.done:
        left = f"; process {opened.pid} waits in the driver and cannot be ended" if opened.pid else ""
        said = f'; it printed "{opened.printed.splitlines()[-1]}"' if opened.printed else ""
        return wrong("runtime", f"{opened.how()}{left}{said}", LADDER)
    kind = "emulated runtime" if facts["emulated"] else "AXCL runtime"
    chip = f", {facts['soc']}" if facts["soc"] else ""
    return ok("runtime", f"{kind} {facts['version']}{chip}, opened in {opened.seconds:.1f} s")


def check_devices(opened: Outcome, index: int) -> Check:
    """Whether the runtime sees the card that is asked for."""
    devices = opened.merged().get("devices")
    if devices is None:
        return unknown("cards", "the runtime did not come so far", "see runtime here")
    if not devices:
        return wrong("cards", "the runtime sees no card", CURES[0x80300181])
    ids = ", ".join(str(device) for device in devices)
    if index >= len(devices):
        return wrong(
            "cards",
            f"card {index} is asked for, and the runtime sees {len(devices)} (id {ids})",
            f"use --device 0 to {len(devices) - 1}",
        )
    return ok("cards", f"{len(devices)} (id {ids})")


def check_firmware(facts: dict[str, Any]) -> Check:
    """Whether card and library are of one release."""
    firmware = facts.get("firmware")
    if firmware is None:
        return unknown("firmware", "the runtime does not say", "see runtime here")
    of_card, of_library = (re.search(r"(\d+)\.(\d+)", text) for text in (firmware, facts["version"]))
    seen = f"card {firmware or 'without a version'}, library {facts['version']}"
    if of_card and of_library and of_card.groups() != of_library.groups():
        return warning(
            "firmware",
            f"{seen}: two releases",
            "install one release of the vendor's host package (library and card image come with it), then reboot",
        )
    return ok("firmware", seen)


def check_temperature(facts: dict[str, Any]) -> Check:
    """The chip's temperature."""
    celsius = facts.get("temperature_c")
    if celsius is None:
        return unknown("temperature", "the runtime does not say", "see runtime here")
    seen = f"{celsius:.0f} C"
    if celsius >= HOT:
        return wrong(
            "temperature",
            f"{seen}; at 120 the card resets itself",
            "let it cool; a heat sink and a fan; then serve again",
        )
    if celsius >= WARM:
        return warning(
            "temperature", f"{seen}, warm before any work", "a heat sink and a fan; the card resets itself at 120 C"
        )
    return ok("temperature", seen)


def check_card_memory(facts: dict[str, Any], users: list[tuple[int, str]], all_seen: bool) -> Check:
    """Card memory (CMM) against what an idle card uses."""
    total, free = facts.get("cmm_total"), facts.get("cmm_free")
    if total is None or free is None:
        return unknown("card memory", "the runtime does not say", "see runtime here")
    used = total - free
    seen = f"{free // MIB} of {total // MIB} MiB free"
    if used <= IDLE_CMM:
        return ok("card memory", seen)
    if users:
        return warning(
            "card memory",
            f"{seen}: {used // MIB} MiB in use by {users[0][1]} (process {users[0][0]})",
            "end it before a model is served",
        )
    reboot = "`sudo /usr/bin/axcl/axcl-smi reboot -d 0` (it asks y/n; wait 15 s), else reboot the host"
    if all_seen:
        return wrong(
            "card memory",
            f"{seen}: {used // MIB} MiB in use, and nobody has the card open: left by a program that was killed",
            reboot,
        )
    return warning(
        "card memory",
        f"{seen}: {used // MIB} MiB in use by somebody this user cannot see",
        f"sudo axpress doctor tells by whom; if by nobody: {reboot}",
    )


def check_package(directory: Path, facts: dict[str, Any], emulated: bool) -> list[Check]:
    """Whether the model's directory can be served on this card, and fits into its free memory."""
    package, found = inspect_package(directory)
    more = f"`axpress check {directory}` tells more"
    if package is None:
        return [wrong("model", found.problems[0], more)]
    if package.simulated and not emulated:
        return [
            wrong("model", f"{package.name} is simulated: no real card runs it", "--device emu, or a compiled model")
        ]
    checks = [warning("model", odd, more) for odd in found.warnings]
    try:
        open_tokenizer(package)
    except PackageError as error:
        checks.append(wrong("tokenizer", str(error), more))
    kind = "simulated package" if package.simulated else "package"
    size = f"{package.device_bytes // MIB} MiB on the card"
    checks.append(ok("model", f"{package.name}: {kind} of {package.num_layers} layers, {size}"))
    fits = _check_fit(package.device_bytes, package.simulated, facts.get("cmm_free"))
    return checks + ([fits] if fits else [])


def _check_fit(device_bytes: int, exact: bool, free: int | None) -> Check | None:
    """Whether a model of so many bytes fits; `exact`: it takes just these. None where it does, or nobody can say."""
    cure = "end other programs on the card, reboot it, or choose a smaller model"
    if free is None:
        return None
    if (need := device_bytes + CMM_FLOOR) > free:
        seen = f"model and reserve need {need // MIB} MiB, the card has {free // MIB} MiB free"
        return wrong("model memory", seen, cure)
    if not exact and (need := device_bytes * USUAL_PERCENT // 100 + CMM_FLOOR) > free:
        seen = f"models take more than their files: this one about {need // MIB} MiB, {free // MIB} MiB are free"
        return warning("model memory", seen, cure)
    return None
