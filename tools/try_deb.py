"""Installs a Debian package of axpress in a Debian in a folder, uses it, removes and purges it. For tools/deb.py.

The folder is a configured system, unlike arm64_debian.py's, made by mmdebstrap in a user namespace where all users are
and, for arm64, programs run under QEMU's user mode; nothing is registered outside. Needs Debian on x86-64 and root.
systemd does not run in there: of the unit is shown that it reads it, and what its command does as its user."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from arm64_debian import ROOT, install_outside, mirror

SPACE = """
unshare --user sleep infinity & holder=$!
trap 'kill $holder' EXIT
while [ "$(readlink /proc/$holder/ns/user)" = "$(readlink /proc/self/ns/user)" ]; do sleep 0.1; done
echo 0 0 65536 >/proc/$holder/uid_map
echo 0 0 65536 >/proc/$holder/gid_map
nsenter --user --target $holder unshare --mount --pid --fork --kill-child bash -euc '
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
cat /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register
"$@"' inside "$@"
"""
ENTER = """
mount --rbind /dev "$1/dev"
mount -t proc none "$1/proc" || mount --rbind /proc "$1/proc"
exec chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \\
    QEMU_CPU=cortex-a76 bash -euc "$2" trial "$3"
"""
TRIAL = """
say() { echo "-- $*"; }
as_user() { setpriv --reuid=axpress --regid=axpress --init-groups env HOME=/var/lib/axpress "$@"; }
say "$(uname -m), Debian $(cat /etc/debian_version), $(python3 -V)"
find / -xdev -not -path '/proc/*' -not -path '/tmp/*' -not -path '/run/*' -not -path '/var/log/*' | sort >/tmp/before
dpkg -i /tmp/axpress.deb
say installed: "$(dpkg-query -W axpress)"
axpress --version
axpress doctor --device emu
systemd-analyze verify /usr/lib/systemd/system/axpress.service && say the unit is sound
as_user /opt/axpress/bin/python3 -I /tmp/ask_once.py --patience "$1" --program /usr/bin/axpress
say again, as over an older one
echo '# mine' >>/etc/axpress/config
dpkg -i /tmp/axpress.deb
tail -n 1 /etc/axpress/config
say removed
dpkg -r axpress
ls -d /etc/axpress/config /var/lib/axpress
! ls -d /opt/axpress /usr/bin/axpress 2>/dev/null
say purged
dpkg -P axpress
! getent passwd axpress
! ls -d /etc/axpress /var/lib/axpress 2>/dev/null
find / -xdev -not -path '/proc/*' -not -path '/tmp/*' -not -path '/run/*' -not -path '/var/log/*' | sort >/tmp/after
say what it left behind:
diff /tmp/before /tmp/after | grep '^>' || say nothing
"""
NEEDS = "python3,systemd,adduser,libstdc++6"


def in_space(*command: str | Path) -> None:
    """Runs it where it is root of all users, and programs for aarch64 run."""
    subprocess.run(["bash", "-euc", SPACE, "space", *command], check=True)


def try_package(package: Path, suite: str, arch: str, work: Path) -> None:
    """Does what an owner of the machine does with the package, and shows it. Raises CalledProcessError."""
    install_outside()
    tree = work / f"{suite}-{arch}"
    made = work / f"{suite}-{arch}.made"
    if not made.exists():
        work.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(tree, ignore_errors=True)
        in_space(
            "mmdebstrap", "--quiet", "--skip=check/qemu", "--mode=root", "--variant=essential",
            f"--architectures={arch}", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", f"--include={NEEDS}",
            suite, tree, mirror(),
        )  # fmt: skip
        made.touch()
    shutil.copyfile(package, tree / "tmp/axpress.deb")
    shutil.copyfile(ROOT / "tools/ask_once.py", tree / "tmp/ask_once.py")
    in_space("bash", "-euc", ENTER, "enter", tree, TRIAL, "20" if arch == "arm64" else "2")
