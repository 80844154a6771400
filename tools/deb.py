"""Debian packages of axpress, with all packages of Python that it needs below /opt/axpress: `make deb`.

    python tools/deb.py [--arch amd64|arm64] [--suite bookworm|trixie] [--dist dist] [--try]

Of the wheels that `make wheels` left in the folder, and of those of the other packages, which pip fetches for that
processor and Python. The rest is in deploy/debian; the unit is the one of `axpress service install`. Runs in an
environment where axpress is installed, and needs dpkg-deb. Lintian looks at them where there is one. --try installs
each in a Debian in a folder (try_deb.py; root)."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import tomllib
from email.parser import HeaderParser
from email.utils import formatdate
from pathlib import Path

from pythons import find_python, foreign_pip, kept_venv
from try_deb import try_package

from axpress.server.unit_file import Unit

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "deb"
TEMPLATES = ROOT / "deploy" / "debian"
SUITES = {"bookworm": ("3.11", 12, 252), "trixie": ("3.13", 13, 257)}
"""Python, number, and version of systemd of each Debian, which are those of Raspberry Pi OS."""
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
EXTRAS = "gguf,hub,terminal"
HOME = "opt/axpress"
PROGRAM = """#!/opt/axpress/bin/python3 -I
from axpress.server.cli import main

raise SystemExit(main())
"""
COPYRIGHT = """axpress is licensed under the Apache License 2.0, /usr/share/common-licenses/Apache-2.0.

With it come these packages of PyPI; what their authors say of their licenses is in the dist-info folder of each.
"""
ENVIRONMENT = "home = /usr/bin\ninclude-system-site-packages = false\nversion = {}\n"


def unit(systemd: int) -> str:
    """The unit, which takes options from /etc/axpress/config and runs as the user that postinst makes."""
    text = Unit(["/usr/bin/axpress", "serve", "$OPTIONS"], False, systemd, home_of="axpress").text()
    first, _, rest = text.partition("\n")
    old, new = "axpress serve $$OPTIONS", "axpress serve $AXPRESS_OPTIONS"
    assert first.startswith("#") and rest.count(old) == 1
    rest = rest.replace(old, new).replace("ExecStart=", "EnvironmentFile=/etc/axpress/config\nExecStart=", 1)
    return f"# Options are in /etc/axpress/config; put other changes into a drop-in (systemctl edit).\n{rest}"


def vendored(wheels: Path, tree: Path, suite: str, arch: str) -> Path:
    """Fills /opt/axpress, an environment of Python as venv makes them; returns its folder of packages."""
    version, machine = SUITES[suite][0], MACHINES[arch]
    tag = "cp" + version.replace(".", "")
    found = sorted(wheels.glob(f"axpress-*-{tag}-manylinux*_{machine}.whl"))
    toys = sorted(wheels.glob("axpress_toy-*.whl"))
    python = find_python(version)
    if not found or not toys or python is None:
        raise SystemExit(
            f"needed: Python {version}, and in {wheels} the toy's wheel and {tag}-{machine}'s (make wheels)"
        )
    maker = kept_venv(python, WORK / f"python-{version}", "pip>=25")
    packages = tree / HOME / "lib" / f"python{version}" / "site-packages"
    needs = [f"axpress[{EXTRAS}] @ {found[-1].resolve().as_uri()}", toys[-1]]
    foreign_pip(maker, version, machine, "install", "--no-compile", "--target", packages, *needs)
    shutil.rmtree(packages / "bin", ignore_errors=True)
    (tree / HOME / "bin").mkdir()
    (tree / HOME / "pyvenv.cfg").write_text(ENVIRONMENT.format(version))
    (tree / HOME / "bin" / "python3").symlink_to(f"/usr/bin/python{version}")
    (tree / HOME / "bin" / "axpress").write_text(PROGRAM)
    (tree / HOME / "bin" / "axpress").chmod(0o755)
    return packages


def copyrights(packages: Path) -> str:
    """debian/copyright: of axpress, and what the others say of themselves."""
    lines = [COPYRIGHT]
    for metadata in sorted(packages.glob("*.dist-info/METADATA"), key=lambda path: path.parent.name.lower()):
        fields = HeaderParser().parsestr(metadata.read_text())
        trove = [line.rpartition(" :: ")[2] for line in fields.get_all("Classifier", []) if "License ::" in line]
        short = (fields["License-Expression"] or " ".join(trove) or fields["License"] or "see there").splitlines()[0]
        lines.append(f"{fields['Name']} {fields['Version']}: {short}")
    return "\n".join(lines) + "\n"


def documents(packages: Path, version: str, suite: str, who: str, when: str, folder: Path) -> None:
    """What Debian wants in /usr/share/doc."""
    folder.mkdir(parents=True)
    (folder / "copyright").write_text(copyrights(packages))
    change = f"axpress ({version}) {suite}; urgency=medium\n\n  * What is new: CHANGELOG.md of the source.\n\n"
    change += f" -- {who}  {formatdate(int(when))}\n"
    (folder / "changelog.Debian.gz").write_bytes(gzip.compress(change.encode(), 9, mtime=0))


def control(tree: Path, suite: str, **fields: str) -> None:
    """DEBIAN/: what dpkg reads and runs."""
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    folder = tree / "DEBIAN"
    folder.mkdir()
    for script in ("postinst", "prerm", "postrm"):
        shutil.copyfile(TEMPLATES / script, folder / script)
        (folder / script).chmod(0o755)
    (folder / "conffiles").write_text("/etc/axpress/config\n")
    sums = (f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in files)
    (folder / "md5sums").write_text("".join(sums))
    python = SUITES[suite][0]
    major, minor = python.split(".")
    fields |= {"python": python, "next_python": f"{major}.{int(minor) + 1}", "suite": suite.capitalize(),
               "kib": str(sum(path.stat().st_size for path in files) >> 10)}  # fmt: skip
    (folder / "control").write_text((TEMPLATES / "control").read_text().format(**fields))


def package(wheels: Path, out: Path, suite: str, arch: str) -> Path:
    """Builds one package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    _, number, systemd = SUITES[suite]
    version = f"{project['version']}-1~deb{number}"  # so that a newer Debian's is the newer one
    ask = ["git", "-C", ROOT, "log", "-1", "--format=%an <%ae>%n%ct"]
    who, when = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split("\n")[:2]
    tree = WORK / f"{suite}-{arch}"
    shutil.rmtree(tree, ignore_errors=True)
    os.umask(0o022)
    packages = vendored(wheels, tree, suite, arch)
    for path in filter(Path.is_file, packages.rglob("*")):
        path.chmod(0o644)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/axpress").symlink_to(f"/{HOME}/bin/axpress")
    for name, text in {
        "usr/lib/systemd/system/axpress.service": unit(systemd),
        "etc/axpress/config": (TEMPLATES / "config").read_text(),
        "usr/share/lintian/overrides/axpress": (TEMPLATES / "lintian-overrides").read_text(),
    }.items():
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_text(text)
    documents(packages, version, suite, who, when, tree / "usr/share/doc/axpress")
    control(tree, suite, version=version, arch=arch, maintainer=who)
    made = out / f"axpress_{version}_{arch}.deb"
    out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": when}
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, made], check=True, env=environment)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", choices=MACHINES, help="only for this processor")
    parser.add_argument("--suite", choices=SUITES, help="only for this Debian")
    parser.add_argument(
        "--dist", type=Path, default=ROOT / "dist", help="where the wheels are and the packages go (dist)"
    )
    parser.add_argument("--try", action="store_true", dest="tried", help="install, ask, remove and purge each")
    arguments = parser.parse_args()
    for suite in [arguments.suite] if arguments.suite else SUITES:
        for arch in [arguments.arch] if arguments.arch else MACHINES:
            made = package(arguments.dist, arguments.dist, suite, arch)
            print(f"== {made}: {made.stat().st_size / 1e6:.1f} MB", flush=True)
            if shutil.which("lintian"):
                subprocess.run(["lintian", "--tag-display-limit", "0", "--fail-on", "none", made], check=True)
            if arguments.tried:
                try_package(made, suite, arch, WORK / "tried")


if __name__ == "__main__":
    main()
