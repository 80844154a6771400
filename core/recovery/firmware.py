"""Rebooting a card's firmware: by the runtime, else by the vendor's tool."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

from ..device.runtime import device_ids, reboot_device
from ..errors import AxpressError, RuntimeUnavailable

log = logging.getLogger(__name__)

SMI = Path("/usr/bin/axcl/axcl-smi")


def reboot_firmware(library: str, device: int, emulated: bool) -> None:
    """Reboots the card that the runtime `library` calls `device`; it is not listed for some seconds afterwards. The
    vendor's tool counts cards from 0 and asks for a yes. RuntimeUnavailable, RuntimeCallError."""
    try:
        reboot_device(library, device)
    except AxpressError as error:
        if emulated or not SMI.exists():
            raise
        log.warning("the runtime does not reboot the card (%s): trying %s", error, SMI)
        listed = device_ids(library)
        index = listed.index(device) if device in listed else 0
        try:
            subprocess.run([SMI, "reboot", "-d", str(index)], input="y\n", text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError) as failed:
            raise RuntimeUnavailable(f"{SMI} does not reboot the card either: {failed}") from None
