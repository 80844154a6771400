"""Rebooting a card's firmware: by the runtime, else by the vendor's tool."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

from ..device.runtime import device_ids, reboot_device
from ..errors import AxpressError, RuntimeUnavailable

log = logging.getLogger(__name__)

SMI = Path("/usr/bin/axcl/axcl-smi")


def place_of(library: str, device: int) -> int:
    """What the vendor's tool, which counts cards from 0, calls the card that the runtime `library` calls `device`.
    RuntimeUnavailable, RuntimeCallError."""
    listed = device_ids(library)
    return listed.index(device) if device in listed else 0


def reboot_firmware(library: str, device: int, emulated: bool) -> None:
    """Reboots the card that the runtime `library` calls `device`; it is not listed for some seconds afterwards. The
    vendor's tool asks for a yes. RuntimeUnavailable, RuntimeCallError."""
    try:
        reboot_device(library, device)
    except AxpressError as error:
        if emulated or not SMI.exists():
            raise
        log.warning("the runtime does not reboot the card (%s): trying %s", error, SMI)
        index = place_of(library, device)
        try:
            subprocess.run([SMI, "reboot", "-d", str(index)], input="y\n", text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError) as failed:
            raise RuntimeUnavailable(f"{SMI} does not reboot the card either: {failed}") from None
