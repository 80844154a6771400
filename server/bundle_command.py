"""`axpress doctor --bundle FILE`: all that an issue about a machine needs, in one file, and nothing private."""

from __future__ import annotations

import http.client
import json
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from . import version

if TYPE_CHECKING:
    from axpress.core.doctor.check import Check
    from axpress.core.doctor.examination import Subject
    from axpress.core.doctor.host import Host

SECONDS = 10.0
KERNEL_LINES = 200


def write_bundle(path: Path, host: Host, subject: Subject, checks: list[Check], url: str) -> str:
    """Writes the file; what it holds, in words."""
    from axpress.core.doctor.examination import as_json

    from .monitor.report import scrubbed

    served = _report(url)
    document = {
        "bundle": 1,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"kernel": host.kernel(), "board": host.board(), "python": platform.python_version()},
        "packages": _packages(),
        "doctor": as_json(checks, subject, version()),
        "kernel_lines": _kernel_lines(host),
        "server": served,
    }
    text = scrubbed(json.dumps(document, indent=1))
    with path.open("x") as file:
        file.write(text + "\n")
    of_server = f"what a running server says ({url} gave {served['problem']})" if "problem" in served else ""
    return f"{path} is written" + (f"; it has not {of_server}" if of_server else "")


def _packages() -> dict[str, str]:
    """Versions of what axpress stands on."""
    names = [line.partition(";")[0] for line in metadata.requires("axpress") or () if "extra ==" not in line]
    found = {}
    for name in names:
        name = "".join(c for c in name.split()[0] if c.isalnum() or c in "._-").rstrip("0123456789.-")
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def _kernel_lines(host: Host) -> list[str] | None:
    """The driver's, the newest last; None: this user may not read the log."""
    from axpress.core.doctor import kernel_log

    log = kernel_log.read_log(host)
    if log is None:
        return None
    wanted = [line for line in log if any(p.search(line.text) for p in kernel_log.PATTERNS.values())]
    return [line.text for line in wanted[-KERNEL_LINES:]]


def _report(url: str) -> dict[str, Any]:
    """What the running server says of itself; the reason where it says nothing."""
    parts = urlsplit(url)
    key = os.environ.get("AXPRESS_API_KEY", "").strip()
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=SECONDS)
    try:
        connection.request("GET", "/report", headers={"authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            return {"problem": f"status {response.status}"}
        document: dict[str, Any] = json.loads(body)
        return document
    except (OSError, ValueError, http.client.HTTPException) as exc:
        return {"problem": f"{type(exc).__name__}"}
    finally:
        connection.close()
