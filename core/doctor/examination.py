"""All checks in the order in which a person would go: what the rest depends on comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..device.emulator import emulator_library
from ..model_files.model_package import ModelPackage, inspect_package
from ..model_files.timing_profile import profile_names
from . import card, driver, kernel_log, pcie, system
from .check import Check, State, unknown
from .host import Host
from .open_card import open_card

SCHEMA = "axpress-doctor/1"
HANDS_OFF = ("PCIe link", "kernel log")
"""Where these are wrong the runtime is not started: a dead card gets no better by it, and the driver runs out of
ports."""


@dataclass(frozen=True)
class Subject:
    """What is to be examined: a model directory or None, the device as `axpress serve --device` takes it, and how many
    seconds the card may take to answer."""

    model_dir: Path | None
    device: str | int
    seconds: float

    @cached_property
    def package(self) -> ModelPackage | None:
        """The package, where the directory opens as one."""
        return None if self.model_dir is None else inspect_package(self.model_dir)[0]

    @property
    def emulated(self) -> bool:
        """Whether the model would run on the emulated card: asked for, or nothing else runs it."""
        simulated = self.package is not None and self.package.simulated
        return self.device == "emu" or (self.device == "auto" and simulated)

    @property
    def index(self) -> int:
        """Which of the runtime's cards."""
        return self.device if isinstance(self.device, int) else 0


def card_environ(host: Host, subject: Subject) -> dict[str, str]:
    """The host's environment, in which the emulated card is paced by the profile that the package names."""
    environ = dict(host.environ)
    profile = subject.package.profile if subject.package else None
    if subject.emulated and profile in profile_names():
        environ.setdefault("AXPRESS_EMU_PROFILE", profile)
    return environ


def library_of(host: Host, subject: Subject) -> str | None:
    """The runtime that is opened for the subject; None where there is none."""
    if subject.emulated:
        return str(emulator_library())
    found = driver.find_runtime(host)
    return str(host.path(found)) if found and host.exists(found) else None


def examine(host: Host, subject: Subject, waiting: Callable[[float], None] | None = None) -> Iterator[Check]:
    """Yields each check as soon as it is made. Without a card the rest is still looked at."""
    log = kernel_log.read_log(host)
    users: tuple[list[tuple[int, str]], bool] = ([], True)
    library = library_of(host, subject)
    if not subject.emulated:
        made = [check for check in _hardware(host, log) if check is not None]
        yield from made
        users = driver.card_users(host)
        if library and (
            reason := [check.name for check in made if check.name in HANDS_OFF and check.state is State.WRONG]
        ):
            library = None
            yield unknown(
                "runtime", f"not opened ({' and '.join(reason)} wrong): each attempt would make it worse", "see there"
            )
    facts: dict[str, Any] = {}
    if library is not None:
        opened = open_card(library, subject.index, subject.seconds, host.environ, waiting)
        facts = opened.merged()
        yield card.check_runtime(opened)
        yield card.check_devices(opened, subject.index)
        if facts.get("devices"):
            yield from (
                card.check_firmware(facts),
                card.check_temperature(facts),
                card.check_card_memory(facts, *users),
            )
    if subject.model_dir is not None:
        yield from card.check_package(subject.model_dir, facts, subject.emulated)
    if not subject.emulated:
        yield system.check_sleep(host, log)
    yield from (system.check_disk(host), system.check_memory(host), system.check_clock(host))


def _hardware(host: Host, log: list[kernel_log.Line] | None) -> list[Check | None]:
    return [
        driver.check_library(host), driver.check_siblings(host), driver.check_modules(host),
        driver.check_firmware_file(host), pcie.check_link(host), pcie.check_power_saving(host), pcie.check_pi(host),
        driver.check_nodes(host), driver.check_runtime_log(host), kernel_log.check_kernel_log(log),
        driver.check_users(host),
    ]  # fmt: skip


def as_json(checks: Iterable[Check], subject: Subject, version: str) -> dict[str, Any]:
    """The object of `axpress doctor --json`; docs/doctor.md describes it."""
    checks = list(checks)
    return {
        "schema": SCHEMA,
        "axpress": version,
        "emulated": subject.emulated,
        "checks": [check.as_dict() for check in checks],
        "wrong": sum(check.state is State.WRONG for check in checks),
        "warnings": sum(check.state is State.WARNING for check in checks),
    }
