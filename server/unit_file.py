"""The systemd unit that `axpress service install` writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .exit_codes import CONFIGURATION
from .serving.card_reset import VARIABLE

WATCHDOG_SECONDS = 90
STOP_SECONDS = 90
"""A call into the driver takes up to 50 s to come back; killed before that, it leaves a wedged card."""
STEPS_SINCE = 254
"""The version of systemd from which on restarts can come at growing distances."""
KEYS = "api-keys"
RESET = "axpress-card-reset"
MODULES = "ax_pcie_host_dev ax_pcie_msg ax_pcie_mmb axcl_host"

_HARDENING = """\
# Of /dev the card's nodes only. The driver's library writes a log to /tmp/axcl, which is the service's own.
DevicePolicy=closed
DeviceAllow=/dev/axcl_host rw
DeviceAllow=/dev/ax_mmb_dev rw
DeviceAllow=/dev/msg_userdev rw
PrivateTmp=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
LockPersonality=yes
PrivateMounts=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0077
"""


@dataclass(frozen=True)
class Unit:
    """What a unit is made of. `command`: the program and its arguments. `systemd`: version that will read it."""

    command: Sequence[str]
    user_unit: bool
    systemd: int
    keys: Path | None = None
    home_of: str | None = None
    """The user below whose home it must read, where the model or the program is there: it runs as that one then."""
    helper: bool = False
    """Whether the units of `reset_units` are installed beside it."""

    @property
    def reset_file(self) -> str:
        """The file by which it asks for them, where systemd puts it for a service of this user."""
        return f"/var/lib/{'' if self.home_of else 'private/'}axpress/card-reset"

    def text(self) -> str:
        """The unit file."""
        command = [*self.command, "--log-format", "journal"]
        if self.keys is not None:
            command += ["--api-keys", f"%d/{KEYS}"]
        lines = [
            "# Of `axpress service install`, which writes it anew: put changes into a drop-in (systemctl edit).",
            "[Unit]",
            "Description=axpress: a language model on an AXERA card",
            "After=network-online.target",
            "Wants=network-online.target",
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=notify",
            "NotifyAccess=main",
            f"ExecStart={' '.join(_quoted(part) for part in command)}",
            *([f"LoadCredential={KEYS}:{self.keys}"] if self.keys is not None else []),
            *([f"Environment={VARIABLE}=%S/axpress/card-reset"] if self.helper else []),
            "Restart=always",
            *self._restart(),
            f"RestartPreventExitStatus=2 {CONFIGURATION}",
            "TimeoutStartSec=120",
            f"TimeoutStopSec={STOP_SECONDS}",
            f"TimeoutAbortSec={STOP_SECONDS}",
            f"WatchdogSec={WATCHDOG_SECONDS}",
            "WatchdogSignal=SIGTERM",
            "KillMode=mixed",
            "StateDirectory=axpress",
            "OOMPolicy=stop",
            *([] if self.user_unit else self._system()),
            "",
            "[Install]",
            f"WantedBy={'default.target' if self.user_unit else 'multi-user.target'}",
        ]
        return "\n".join(lines) + "\n"

    def _restart(self) -> list[str]:
        """Each start of a card that does not answer leaks ports of the driver, so starts come ever more rarely."""
        if self.systemd >= STEPS_SINCE:
            return ["RestartSec=2", "RestartSteps=8", "RestartMaxDelaySec=300"]
        return ["RestartSec=30"]

    def _system(self) -> list[str]:
        who = self.home_of
        return [
            *(("DynamicUser=yes", "ProtectHome=yes") if who is None else (f"User={who}", "ProtectHome=read-only")),
            *_HARDENING.splitlines(),
        ]

    def reset_units(self) -> dict[str, str]:
        """Two units, by name: one that looks at the file, and one that then starts the card's firmware and driver
        again, as root. Nothing is read from the file, so whoever may write it can ask, and no more. Never more than
        twice an hour; the PCI device is neither unbound nor rescanned."""
        reboot = "sh -c 'echo y | timeout 20 /usr/bin/axcl/axcl-smi reboot -d 0'"
        backwards = " ".join(reversed(MODULES.split()))
        return {
            f"{RESET}.path": f"""\
# Of `axpress service install --helper`.
[Unit]
Description=axpress: whether the server asks for the driver of its card to be loaded again

[Path]
PathChanged={self.reset_file}

[Install]
WantedBy=multi-user.target
""",
            f"{RESET}.service": f"""\
# Of `axpress service install --helper`. Lines that begin with - may fail: the last one always runs.
[Unit]
Description=axpress: firmware and driver of a card that does not come back are started again
StartLimitIntervalSec=3600
StartLimitBurst=2

[Service]
Type=oneshot
TimeoutStartSec=240
ExecStart=systemctl stop axpress.service
ExecStart=-{reboot}
ExecStart=-sleep 15
ExecStart=-modprobe -r {backwards}
ExecStart=-modprobe -a {MODULES}
ExecStart=-sleep 15
ExecStopPost=systemctl start --no-block axpress.service
""",
        }


def _quoted(part: str) -> str:
    """An argument as ExecStart takes it: `%` and `$` are systemd's, but for the path of a credential."""
    if part.startswith("%d/"):
        return part
    part = part.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./$-]+", part):
        return part
    return '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
