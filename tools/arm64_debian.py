"""A Debian for arm64 in a folder, whose programs run under QEMU's user mode. For tools/aarch64.py, wheels.py and
deb.py.

Needs Debian on x86-64, root, user namespaces, and a Linux that has a binfmt_misc in one of them (6.7): nothing is
registered outside. The packages are unpacked and not configured, which takes seconds and is enough. Compiler and
linker inside are this machine's for aarch64, at full speed. Packages come from the mirror that apt has here, with apt's
proxies and certificates; what pip fetches is fetched out here, with pip's own settings. Cortex-A76 is the Pi 5's core.
QEMU cannot show memory ordering of ARM, pages of 16 KiB, and speed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

from pythons import find_python, foreign_pip, kept_venv

ROOT = Path(__file__).resolve().parents[1]
SUITES = {"bookworm": "3.11", "trixie": "3.13"}
"""Debian's names, which are Raspberry Pi OS's, and the Python of each."""

OUTSIDE = ("qemu-user-static", "mmdebstrap", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross")
INSIDE = (
    "base-files,bash,coreutils,dash,sed,grep,findutils,diffutils,make,curl,procps,libc-bin,libc6-dev,libstdc++6,"
    "python3,python3-venv,python3-dev"
)
BOUND = ("lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/gcc-cross", "usr/aarch64-linux-gnu")
"""Folders of this machine that its compiler needs inside."""

ENTER = """
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
cat /usr/lib/binfmt.d/qemu-aarch64.conf > /proc/sys/fs/binfmt_misc/register
mount --bind "$WORK" "$TREE/w"
mount -t proc none "$TREE/proc" || mount --rbind /proc "$TREE/proc"
mount --rbind /dev "$TREE/dev"
for folder in $BOUND; do mount --bind "/$folder" "$TREE/$folder"; done
exec chroot "$TREE" /usr/bin/env -i -C /w HOME=/root PATH=/usr/local/bin:/usr/bin:/usr/sbin LANG=C.UTF-8 \
    QEMU_CPU=cortex-a76 PYTHONDONTWRITEBYTECODE=1 ASAN_OPTIONS=detect_leaks=0 "$@"
"""


def copy_source(folder: Path) -> None:
    """What Git knows of this source, as it lies here, without what was built."""
    shutil.rmtree(folder, ignore_errors=True)
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def install_outside() -> None:
    """Debian's packages that this needs on this machine."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SystemExit("an arm64 Debian in a folder needs root on a Debian")
    query = ["dpkg-query", "-W", "-f", "${Package} ${Status}\n", *OUTSIDE]
    here = subprocess.run(query, capture_output=True, text=True).stdout
    if missing := [name for name in OUTSIDE if f"{name} install ok installed" not in here]:
        print(f"installing {', '.join(missing)}", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "-qq", "update"], check=True, stdout=subprocess.DEVNULL)
        install = ["apt-get", "-qq", "install", "--yes", "--no-install-recommends", *missing]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL, env=environment)


def mirror() -> str:
    """Where apt has Debian's packages from on this machine."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    found = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return next((uri for uri in found if uri.rstrip("/").endswith("/debian")), "http://deb.debian.org/debian")


class Arm64Debian:
    """The tree of one suite below `work`; inside, `work` itself is /w."""

    def __init__(self, suite: str, work: Path) -> None:
        self.suite, self.work, self.version = suite, work, SUITES[suite]
        self.tag = "cp" + self.version.replace(".", "")
        self.tree, self.source = work / suite, work / f"src-{suite}"
        python = find_python(self.version)
        if python is None:
            raise SystemExit(f"{suite} has Python {self.version}; this machine needs one, too (PATH, pyenv, uv)")
        work.mkdir(parents=True, exist_ok=True)
        self.python = kept_venv(
            python, work / f"host-{self.version}", "pip>=25", "setuptools>=77", "cython>=3.1", "wheel"
        )

    def make(self) -> None:
        """Unpacks the tree, if it is not there."""
        if (self.tree / ".made").exists():
            return
        install_outside()
        shutil.rmtree(self.tree, ignore_errors=True)
        settings = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
        kept = [line for line in settings.splitlines() if line.startswith(("Acquire::http", "Acquire::Check"))]
        options = self.work / "apt.conf"
        options.write_text("\n".join(kept) + "\n")
        subprocess.run(
            ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--architectures=arm64",
             f"--aptopt={options}", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
             f"--include={INSIDE}", self.suite, str(self.tree), mirror()],
            check=True, stderr=subprocess.DEVNULL if self.suite == "bookworm" else None,
        )  # fmt: skip
        for program in Path("/usr/bin").glob("aarch64-linux-gnu-*"):
            shutil.copy2(program, self.tree / "usr/bin", follow_symlinks=False)
        for folder in ("w", "usr/local/bin", *BOUND):
            (self.tree / folder).mkdir(parents=True, exist_ok=True)
        for name, program in (("cc", "gcc"), ("gcc", "gcc"), ("readelf", "readelf"), ("strip", "strip")):
            (self.tree / "usr/local/bin" / name).symlink_to(f"../../bin/aarch64-linux-gnu-{program}")
        # What configuring ca-certificates would do: Trixie's pip reads it even where it fetches nothing.
        certificates = sorted((self.tree / "usr/share/ca-certificates/mozilla").glob("*.crt"))
        (self.tree / "etc/ssl/certs/ca-certificates.crt").write_text("".join(map(Path.read_text, certificates)))
        self.run("ldconfig")
        (self.tree / ".made").touch()

    def command(self, *command: str | Path) -> list[str]:
        """`command` emulated, inside, in /w; NAME=VALUE may precede it."""
        names = {"TREE": self.tree, "WORK": self.work, "BOUND": " ".join(BOUND)}
        space = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]
        setting = ["env", *(f"{name}={value}" for name, value in names.items())]
        return [*setting, *space, "bash", "-euc", ENTER, "inside", *map(str, command)]

    def run(self, *command: str | Path, check: bool = True, seconds: float | None = None) -> int:
        """Runs it, its output is shown; its exit code, -9 where it took too long."""
        try:
            return subprocess.run(self.command(*command), check=check, timeout=seconds).returncode
        except subprocess.TimeoutExpired:  # killed, and what ran inside with it
            return -9

    def pip(self, command: str, *arguments: str | Path) -> None:
        """pip of this machine, for the Python inside: wheels only."""
        foreign_pip(self.python, self.version, "aarch64", command, *arguments)

    def build_wheel(self, out: Path) -> Path:
        """Builds the wheel inside, with warnings as errors, into the folder `out` below `work`. Cython runs out here:
        its C is the same everywhere."""
        copy_source(self.source)
        site = self.work / f"build-{self.tag}"
        if not site.exists():
            self.pip("install", "--target", site, "setuptools>=77", "cython>=3.1", "wheel")
        quiet = subprocess.DEVNULL
        subprocess.run([self.python, "setup.py", "--version"], cwd=self.source, check=True, stdout=quiet, stderr=quiet)
        settings = ("AXPRESS_WERROR=1", "AXPRESS_TOY=0", f"PYTHONPATH=/w/{site.name}")
        build = f"cd {self.inside(self.source)} && python3 setup.py -q bdist_wheel --dist-dir {self.inside(out)}"
        log = self.work / f"build-{self.tag}.log"
        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob(f"axpress-*-{self.tag}-*.whl"):
            old.unlink()
        if self.run("env", *settings, "bash", "-c", f"{build} >{self.inside(log)} 2>&1", check=False):
            raise SystemExit(f"the wheel does not build:\n{log.read_text()[-4000:]}")
        (wheel,) = out.glob(f"axpress-*-{self.tag}-{self.tag}-linux_aarch64.whl")
        return wheel

    def wheels_for(self, requirements: Path) -> Path:
        """A folder of all wheels that a file of requirements asks for, for the Python inside. Fails where one would
        have to be compiled."""
        folder = self.work / f"wheels-{self.tag}"
        self.pip("download", "--dest", folder, "-r", requirements)
        return folder

    def try_wheels(self, wheel: Path, toy: Path, *, client: bool = False) -> None:
        """Installs both in an empty environment of the Python inside, serves and asks one thing."""
        needs, tools = self.work / "needs.txt", self.work / "tools"
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        needs.write_text("\n".join([*project["dependencies"], *(["openai>=3"] if client else [])]) + "\n")
        wheels = self.wheels_for(needs)
        tools.mkdir(exist_ok=True)
        for path in (wheel, toy, ROOT / "tools" / "ask_once.py"):
            shutil.copy2(path, tools)
        packages = [f"/w/tools/{path.name}" for path in (wheel, toy)] + (["openai"] if client else [])
        self.run("python3", "-m", "venv", "--clear", f"/w/try-{self.tag}")
        python = f"/w/try-{self.tag}/bin/python"
        offline = ("--no-index", "--find-links", self.inside(wheels))
        self.run(python, "-m", "pip", "install", "-q", "--no-compile", *offline, *packages)
        self.run(python, "-I", "/w/tools/ask_once.py", "--patience", "20", *(["--openai"] if client else []))

    def inside(self, path: Path) -> Path:
        """The name that a file below `work` has inside."""
        return Path("/w") / path.relative_to(self.work)
