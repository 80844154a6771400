"""The service under a real systemd: `python tools/live_service.py`, as root, with systemd installed but not running.

Mount and process namespaces of their own hold a user manager (`systemd --user`), which sees an empty /tmp and /run.
There `axpress service install --user` is done as a user would, on the emulated card, with the pauses of the unit
shortened by a drop-in; then the process is killed, stopped in its tracks, its card dies, its model is none, and it
is told to end. Prints a line for each; the exit code is 1 where systemd did something else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PORT = 18765
INSIDE = "AXPRESS_LIVE_SERVICE"
DROP_IN = """[Service]
RestartSec=1
WatchdogSec=6
TimeoutAbortSec=3
"""


def outside() -> int:
    """Runs this program in namespaces of its own. What lies in /tmp and is needed is seen there, read-only."""
    needed = sorted({entry for entry in sys.path if entry.startswith("/tmp/")})
    mounts = [f'keep "{path}"' for path in needed]
    script = "\n".join([
        "set -e; mount --make-rprivate /; mkdir -p $STAGE",
        "n=0; keep() { n=$((n+1)); mkdir $STAGE/$n; mount --bind $1 $STAGE/$n; kept[n]=$1; }",
        *mounts,
        "for there in /tmp /run; do mount -t tmpfs tmpfs $there; done",
        "mkdir -p /run/systemd/system; mkdir -m 700 -p /run/user/0",
        "for i in ${!kept[@]}; do",
        "  mkdir -p ${kept[i]}; mount --bind $STAGE/$i ${kept[i]}; mount -o remount,ro,bind ${kept[i]}; done",
        'exec "$@"',
    ])  # fmt: skip
    stage = Path(tempfile.mkdtemp(dir="/var/tmp"))
    home = stage / "home"
    (home / ".config").mkdir(parents=True)
    environment = {**os.environ, INSIDE: "1", "STAGE": str(stage), "HOME": str(home), "XDG_RUNTIME_DIR": "/run/user/0",
                   "XDG_CONFIG_HOME": str(home / ".config")}  # fmt: skip
    command = ["unshare", "-m", "-p", "-f", "--mount-proc", "bash", "-c", script, "bash", sys.executable, __file__]
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    finally:
        shutil.rmtree(home, ignore_errors=True)
        for folder in (*stage.iterdir(), stage):  # empty: what was mounted there went with the namespace
            folder.rmdir()


def systemctl(*arguments: str) -> str:
    """What it prints."""
    done = subprocess.run(["systemctl", "--user", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def shown(name: str) -> str:
    """A property of the unit."""
    return systemctl("show", "axpress", "--value", "-p", name)


def axpress(*arguments: str) -> None:
    """The program, as a user calls it."""
    subprocess.run([sys.executable, "-m", "axpress.server", *arguments], cwd=ROOT, check=True)


def until(what: str, condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits and tells; ends this program where it does not come true."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            print(f"NOT after {seconds:g} s: {what}\n{systemctl('status', 'axpress', '--no-pager')}", flush=True)
            raise SystemExit(1)
        time.sleep(0.1)
    print(f"{time.monotonic() - began:5.1f} s  {what}", flush=True)


def answers() -> bool:
    """Whether it says that a token can be had."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def works(restarts: int) -> Callable[[], bool]:
    """Whether it serves after so many restarts, and systemd says so."""
    return lambda: (
        shown("ActiveState") == "active" and int(shown("NRestarts")) >= restarts
        and shown("StatusText").startswith("ready") and answers()
    )  # fmt: skip


def restart_with(*lines: str) -> None:
    """Another drop-in, and a restart."""
    folder = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user" / "axpress.service.d"
    folder.mkdir(exist_ok=True)
    (folder / "quick.conf").write_text(DROP_IN + "\n".join(lines) + "\n")
    systemctl("daemon-reload")
    systemctl("restart", "axpress")


def inside() -> int:
    """What is tried."""
    with open("/tmp/systemd.log", "w") as log:
        manager = subprocess.Popen(["/lib/systemd/systemd", "--user"], stdout=log, stderr=log)
    until("systemd's user manager runs", lambda: systemctl("is-system-running") in ("running", "degraded"))
    axpress("service", "install", "--user", "--", "--port", str(PORT))
    until("installed: active only once it is ready", works(0))
    restart_with()
    until("with a drop-in, started anew", works(0))
    os.kill(int(shown("MainPID")), signal.SIGKILL)
    until("killed: started again", works(1))
    os.kill(int(shown("MainPID")), signal.SIGSTOP)
    until("stopped in its tracks: the watchdog ends it, and it is started again", works(2))
    restart_with("Environment=AXPRESS_EMU_FAULTS=device=dead@9000")
    until("a card that will die", works(0))
    body = b'{"messages":[{"role":"user","content":"sea"}],"max_tokens":900,"ignore_eos":true}'
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/chat/completions", body, {"content-type": "application/json"}
    )
    try:
        urllib.request.urlopen(request, timeout=90).read()
    except OSError as error:
        print(f"         its client is told: {error}")
    until("dead card: ended with 75 and started again", works(1), 90)
    restart_with("ExecStart=", f"ExecStart={sys.executable} -m axpress.server serve --port {PORT} {ROOT / 'docs'}")
    until("a directory that holds no model: failed with 78, not started again",
          lambda: shown("ActiveState") == "failed" and shown("ExecMainStatus") == "78")  # fmt: skip
    restart_with()
    until("the right one again", works(0))
    systemctl("stop", "axpress")
    until("told to stop: inactive, success", lambda: (shown("ActiveState"), shown("Result")) == ("inactive", "success"))
    axpress("service", "uninstall", "--user")
    until("uninstalled", lambda: shown("LoadState") == "not-found")
    manager.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(inside() if INSIDE in os.environ else outside())
