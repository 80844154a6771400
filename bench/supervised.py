"""A real `axpress serve` on the emulated card that is started again when it ends, as systemd would do it, and whose
card can be broken from outside; and clients who hold each answer against the one of a server without faults.

For bench/campaign.py, bench/availability.py and bench/recovery.py. Run by itself it is that server: it reads
`SETTING VALUE` lines for the emulator and answers each with what its faults have done so far."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import IO, Any

EXIT_CARD = 75


def hurry() -> None:
    """In this process hangs are noticed in a fraction of a second and rungs follow each other at once: thousands of
    faults an hour, which no card has. `max_exits`, `max_reboots`: nothing is given up for having failed often."""
    from axpress.core.device import load_watch
    from axpress.core.engine import engine, engine_loop, pass_runner
    from axpress.core.recovery import first_load, ladder, open_card, pass_watch
    from axpress.core.recovery.ladder import RecoveryPolicy

    pass_runner.FLOOR_SECONDS = pass_runner.HOST_FLOOR_SECONDS = 0.3
    pass_runner.GRACE_SECONDS, pass_runner.FIRST_SECONDS = 0.1, 1.0
    pass_watch.POLL_SECONDS, engine_loop.ASK_SECONDS, engine.CLOSE_SECONDS = 0.05, 1.0, 2.0
    load_watch.LOAD_SECONDS = 1.0
    ladder.REBOOT_SECONDS = first_load.REBOOT_SECONDS = 2.0
    load_watch.LoadWatch.__init__.__kwdefaults__["probe_seconds"] = 1.0
    quick = partial(
        RecoveryPolicy, backoff=0.2, max_backoff=0.5, healthy_passes=1, settle=1.5, enumerate=1.0, check=2.0,
        max_reboots=10**6, max_exits=10**6,
    )  # fmt: skip
    open_card.RecoveryPolicy = quick


class Life:
    """One process. `cause`: why it is about to end, where that was somebody's will."""

    def __init__(self, command: list[str], environment: dict[str, str], log: IO[str]) -> None:
        self.began, self.cause, self.code = time.monotonic(), "", None
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "text": True}
        self.process = subprocess.Popen(command, **pipes, env={**os.environ, **environment})
        self.effects: dict[str, int] = {}

    def tell(self, line: str) -> dict[str, int]:
        """Sets one of the emulator's settings; what its faults have done so far in this life. {}: it is over."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except OSError:
            return self.effects
        self.effects = json.loads(answer) if answer.endswith("\n") else self.effects
        return self.effects

    def end(self, number: int, cause: str) -> None:
        """Sends it a signal."""
        self.cause = cause
        self.process.send_signal(number)

    def figures(self) -> dict[str, float]:
        """What must not grow: seconds that it lives, memory that is no file's, descriptors, threads. {}: it is over."""
        folder = Path(f"/proc/{self.process.pid}")
        try:
            status = (folder / "status").read_text()
            number = {name: int(status.split(f"{name}:")[1].split()[0]) for name in ("RssAnon", "Threads")}
            return {
                "age_s": round(time.monotonic() - self.began, 1), "anon_mib": round(number["RssAnon"] / 1024, 1),
                "descriptors": len(os.listdir(folder / "fd")), "threads": number["Threads"],
            }  # fmt: skip
        except (OSError, IndexError):
            return {}


class Supervised:
    """The server. `lives`: all that were; `wrong`: what none should have done."""

    def __init__(self, *arguments: object, quick: bool, environment: Any = dict) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        options = [*map(str, arguments), "--port", str(self.port), "--log-level", "info"]
        self._command = [sys.executable, __file__, "quick" if quick else "as it is", "serve", *options]
        self._environment, self._log = environment, tempfile.TemporaryFile("w+")  # noqa: SIM115 - until the end
        self.lives: list[Life] = []
        self.wrong: list[str] = []
        self._over = False
        self._begin()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    @property
    def life(self) -> Life:
        """The one that is."""
        return self.lives[-1]

    def _begin(self) -> None:
        self.lives.append(Life(self._command, self._environment(), self._log))

    def _supervise(self) -> None:
        while True:
            life = self.life
            code = life.process.wait()
            life.cause = life.cause or {EXIT_CARD: "exit rung"}.get(code, "")
            life.code = code
            if code not in {
                "killed": (-signal.SIGKILL,),
                "stopped": (0, 1, -signal.SIGTERM),
                "exit rung": (EXIT_CARD,),
            }.get(life.cause, ()) and not (code == EXIT_CARD and life.cause):
                size = os.fstat(self._log.fileno()).st_size
                last = os.pread(self._log.fileno(), 500, max(0, size - 500)).decode(errors="replace")
                self.wrong.append(f"the process ended with {code} after {life.cause or 'nothing'}: ...{last}")
            if self._over:
                return
            self._begin()

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and body; 0 where nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", "/health")
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException):
            return 0, {}
        finally:
            connection.close()

    def wait(self, seconds: float = 120.0) -> None:
        """Until it serves and nobody is being answered."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            status, body = self.health()
            if status == 200 and body["status"] == "ready" and not body["num_answers"]:
                return
            time.sleep(0.05)
        self.wrong.append(f"not ready and idle after {seconds:g} s: {self.health()}")

    def stop(self) -> None:
        """In order, for good."""
        self._over, until = True, time.monotonic() + 90
        while self._thread.is_alive():  # another life may just have begun
            life = self.life
            if life.code is None and not life.cause:
                life.end(signal.SIGTERM, "stopped")
            if time.monotonic() > until:
                self.wrong.append("SIGTERM did not end the process within 90 s")
                life.process.kill()
                until += 90
            self._thread.join(0.1)
        self._log.seek(0)
        log = self._log.read()
        self.wrong += [log[at : at + 3000] for at in (log.find("Traceback"), log.find("unexpected:")) if at >= 0]


Text = dict[int, str]
"""What the choices of an answer said, with the calls that they make and why they ended."""


class Reply:
    """What came of one request. `outcome`: answered, left, refused (before it was accepted), error, broken."""

    def __init__(self) -> None:
        self.outcome, self.text, self.detail = "broken", Text(), ""
        self.times: list[float] = []

    def add(self, choices: list[dict[str, Any]], key: str) -> None:
        """Pieces of choices."""
        for choice in choices:
            said = choice[key]
            calls = [call["function"] for call in said.get("tool_calls") or ()]
            called = "".join(f"{call.get('name') or ''}{call.get('arguments') or ''}" for call in calls)
            end = f"<{choice['finish_reason']}>" if choice.get("finish_reason") else ""
            index = choice["index"]
            self.text[index] = self.text.get(index, "") + (said.get("content") or "") + called + end
            self.times.append(time.monotonic())

    def begins(self, whole: Text) -> bool:
        """Whether all that came is the beginning of what had to come."""
        return all(whole[index].startswith(text) for index, text in self.text.items())


def ask(port: int, body: dict[str, Any], leave_after: float = 1e9, reply: Reply | None = None) -> Reply:
    """POSTs a chat request, and leaves the answer after so many seconds. `reply`: where what comes is to be seen."""
    reply, began = reply or Reply(), time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=min(120.0, leave_after))
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            reply.detail = f"{response.status} {response.read(2000)!r}"
            reply.outcome = "refused" if response.status in (429, 503) else "error"
        elif body.get("stream"):
            _read_stream(response, reply, began + leave_after)
        else:
            reply.add(json.loads(response.read())["choices"], "message")
            reply.outcome = "answered"
    except TimeoutError:
        reply.outcome = "left" if leave_after < 120 else "silent"
    except ConnectionRefusedError:
        reply.outcome, reply.detail = "refused", "nobody listens"
    except (OSError, http.client.HTTPException, ValueError) as error:
        reply.detail = repr(error)
    finally:
        connection.close()
    return reply


def _read_stream(response: http.client.HTTPResponse, reply: Reply, until: float) -> None:
    for line in iter(response.readline, b""):
        if not line.startswith(b"data: "):
            continue
        if reply.outcome == "answered":
            raise ValueError("something came after the end")
        if line.startswith(b"data: [DONE]"):
            reply.outcome = "answered" if reply.outcome == "broken" else reply.outcome
            continue
        event = json.loads(line[6:])
        if "error" in event:
            reply.outcome, reply.detail = "error", str(event["error"])
            continue
        reply.add(event["choices"], "delta")
        if time.monotonic() > until:
            reply.outcome = "left"
            return


def _listen() -> None:
    from axpress.core.device.emulator import Emulator

    emulator, rest = Emulator(), b""
    while got := os.read(0, 65536):
        *lines, rest = (rest + got).split(b"\n")
        for line in lines:
            key, _, value = line.decode().partition(" ")
            emulator.set(key, value)
            os.write(1, json.dumps(emulator.report()["faults"]).encode() + b"\n")
    os.kill(os.getpid(), signal.SIGTERM)  # whoever supervised is gone


def main() -> int:
    """The server."""
    from axpress.server.cli import main as serve

    if sys.argv[1] == "quick":
        hurry()
    threading.Thread(target=_listen, daemon=True).start()
    return serve(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
