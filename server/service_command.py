"""`axpress service install | uninstall | status`: the server as a service of systemd."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from axpress.core.errors import AxpressError

from .model_arguments import find_model
from .unit_file import RESET, Unit

NAME = "axpress.service"
PACKAGED = Path("/usr/lib/systemd/system") / NAME
"""Where the Debian package has it."""


class ServiceError(AxpressError):
    """systemd is not there, or did not do what was asked."""


def add_arguments(parser: argparse.ArgumentParser, check: Callable[[Sequence[str]], argparse.Namespace]) -> None:
    """Defines the subcommand; `check` reads arguments of `axpress serve`."""
    parser.description = "The server as a service of systemd: it starts with the machine and again whenever it ends."
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    texts = {"install": "write the unit, enable and start it", "uninstall": "stop it and remove the unit",
             "status": "how it is; exit code 0 when it runs"}  # fmt: skip
    for name, text in texts.items():
        action = actions.add_parser(name, help=text)
        action.add_argument("--user", action="store_true", help="for this user, without root")
        if name == "install":
            action.add_argument("--print", action="store_true", dest="show", help="only print the unit")
            action.add_argument("--helper", action="store_true",
                                help="also units of root's, for a card that nothing else brings back")  # fmt: skip
            action.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- SERVE_ARGUMENTS",
                                help="MODEL_DIR and options as axpress serve takes them")  # fmt: skip
        run = {"install": _install, "uninstall": _uninstall, "status": _status}[name]
        action.set_defaults(run=run, check=check)


def unit_path(user: bool) -> Path:
    """Where the unit stands."""
    if not user:
        return Path("/etc/systemd/system") / NAME
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user" / NAME


def _systemctl(user: bool, *arguments: str, must: bool = True) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemctl")
    if program is None:
        raise ServiceError("there is no systemctl here: this machine has no systemd to install a service in")
    command = [program, *(["--user"] if user else []), *arguments]
    done = subprocess.run(command, text=True, capture_output=must, timeout=240, check=False)
    if must and done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ServiceError(f"`{' '.join(command[1:])}` failed: {said[-1] if said else f'code {done.returncode}'}")
    return done


def _version() -> int:
    """systemd's; 0 where it cannot be told."""
    said = _systemctl(False, "--version").stdout
    match = re.match(r"systemd (\d+)", said)
    return int(match[1]) if match else 0


def make_unit(
    arguments: Sequence[str], settings: argparse.Namespace, user: bool, systemd: int, helper: bool = False
) -> Unit:
    """The unit for `axpress serve` with these arguments, read as `settings`. A model by name, or the default one, is
    found now, since the service's user has other directories. The key file becomes a credential, so that this user need
    not be able to read it. Raises OSError where there is no such model."""
    rest = [part for part in arguments if part != "--"]
    keys = getattr(settings, "api_keys", None)
    if keys is not None:
        rest = _without(rest, "--api-keys")
    given = getattr(settings, "model_dir", None)
    names = given if isinstance(given, list) else [] if given is None else [given]
    comes_and_goes = bool(getattr(settings, "on_demand", False))
    directories: list[str] = []
    for name in names or ([] if comes_and_goes else [None]):
        options: dict[str, Any] = {"model_dir": name, "aliases": ()}
        find_model(options)
        if options["model_dir"] is not None:
            directories.append(str(Path(options["model_dir"]).resolve()))
            if len(names) < 2 and not comes_and_goes:
                rest += [f"--alias={alias}" for alias in options["aliases"]]
    rest = [*directories, *(part for part in rest if part not in [str(name) for name in names])]
    program = [sys.executable, "-m", "axpress.server", "serve"]
    paths = [Path(sys.executable), Path(__file__).resolve(), *map(Path, directories)]
    if comes_and_goes:
        from axpress.core.model_store import ModelStore

        root = ModelStore().root
        program = ["/usr/bin/env", f"AXPRESS_MODELS={root}", *program]
        paths.append(root)
    at_home = next((path for path in paths if str(path).startswith(("/home/", "/root/"))), None)
    owner = None if at_home is None else at_home.owner()
    return Unit([*program, *rest], user, systemd, None if keys is None else Path(keys).resolve(), owner, helper)


def _without(arguments: Sequence[str], option: str) -> list[str]:
    rest, skip = [], False
    for part in arguments:
        if skip:
            skip = False
        elif part == option:
            skip = True
        elif not part.startswith(option + "="):
            rest.append(part)
    return rest


def _install(arguments: argparse.Namespace) -> int:
    rest, user = arguments.arguments, arguments.user
    if user and arguments.helper:
        raise ServiceError("a driver is loaded by root alone: --helper goes with a service of the system, not --user")
    checked = arguments.check([part for part in rest if part != "--"])
    systemd = 0 if arguments.show and shutil.which("systemctl") is None else _version()
    unit = make_unit(rest, checked, user, systemd, arguments.helper)
    path = unit_path(user)
    files = {path: unit.text()}
    if arguments.helper:
        files |= {path.with_name(name): text for name, text in unit.reset_units().items()}
    if arguments.show:
        print("\n".join(files.values()), end="")
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        file.write_text(text)
    _systemctl(user, "daemon-reload")
    _systemctl(user, "enable", NAME)
    _systemctl(user, "restart", "--no-block", NAME)
    if arguments.helper:
        _systemctl(user, "enable", "--now", f"{RESET}.path")
    flag = " --user" if user else ""
    print(f"{path} is written, enabled and starting; how it is: axpress service status{flag}; its log: journalctl"
          f"{flag} -u axpress -f")  # fmt: skip
    if user:
        print("it ends when you log out, unless `loginctl enable-linger` is set")
    return 0


def _uninstall(arguments: argparse.Namespace) -> int:
    path = unit_path(arguments.user)
    if not path.exists():
        raise ServiceError(f"there is no {path}: no service is installed")
    helper = [path.with_name(f"{RESET}.{kind}") for kind in ("path", "service")]
    if helper[0].exists():
        _systemctl(arguments.user, "disable", "--now", helper[0].name)
    _systemctl(arguments.user, "disable", "--now", NAME)
    for file in (path, *helper):
        file.unlink(missing_ok=True)
    _systemctl(arguments.user, "daemon-reload")
    print(f"{path} is removed")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    if not unit_path(arguments.user).exists() and (arguments.user or not PACKAGED.exists()):
        raise ServiceError(f"there is no {unit_path(arguments.user)}: no service is installed")
    return _systemctl(arguments.user, "--no-pager", "status", NAME, must=False).returncode
