"""Every rung of the recovery ladder under OpenAI's client, and SIGTERM in the middle of each. Everything is emulated.

    python bench/rungs.py [--only EXPRESSION]

First a stream and a whole answer go on while the card fails so that just this rung helps: is the text the one of a
card without faults, and does the client see an exception? Where the process ends (exit) its supervisor starts it again,
and the client, told to try again as often as it likes, asks anew. Then the same rung is made to hang, and SIGTERM comes
while /health names it: seconds to the end of the process, and its exit code. Prints a table and writes
bench/results/rungs.json; the exit code is 1 where a text differs or a process outlives its bound."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import OpenAI, OpenAIError
from results import write_results
from supervised import Supervised

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from server_process import hollow_package

EXECUTE = "axclrtEngineExecuteAsync@1=fail:0x8030070c"
LOADS_HANG = "axclrtEngineLoadFromFile@1+=hang"
RUNGS = {  # rung: what breaks the card so that this helps, what makes it last, settings of the emulator
    "clear": ("nan@head:1; nan@head:2", "nan@any:1+; axclrtMemset@1+=hang", {}),
    "reopen": (EXECUTE, f"{EXECUTE}; {LOADS_HANG}", {}),
    "reboot": ("device=offline@1", "device=offline@1", {"REBOOT_MS": "3000"}),
    "spare": ("device=dead@1", f"device=dead@1; {LOADS_HANG}", {"DEVICES": "2"}),
    "exit": ("device=dead@1", "", {}),
}
TELLS = {"clear": "clearing its caches", "reopen": "loading the model again", "reboot": "rebooting the card's firmware",
         "spare": "handing over to another card"}  # fmt: skip
BOUND = 90.0  # seconds that a service manager waits
BODY: dict[str, Any] = {
    "model": "default", "messages": [{"role": "user", "content": "tell me of the sea"}], "max_tokens": 400, "seed": 7,
    "extra_body": {"ignore_eos": True},
}  # fmt: skip


class Client:
    """Asks with OpenAI's client. `tokens`: pieces that came; `text` or `error` at the end."""

    def __init__(self, port: int, stream: bool, tries: int = 0) -> None:
        self._openai = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=tries, timeout=240)
        self._stream, self.tokens, self.text, self.error = stream, 0, "", ""
        self.thread = threading.Thread(target=self._ask)
        self.thread.start()

    def _ask(self) -> None:
        try:
            if not self._stream:
                self.text = self._openai.chat.completions.create(**BODY).choices[0].message.content or ""
                return
            for chunk in self._openai.chat.completions.create(**BODY, stream=True):
                self.tokens += 1
                self.text += chunk.choices[0].delta.content or ""
        except OpenAIError as error:
            self.error = f"{type(error).__name__}: {error}"


@contextmanager
def serving(package: tuple[Path, Path], settings: dict[str, str], **more: str) -> Iterator[Supervised]:
    """A server that is started again when it ends."""
    environment = {f"AXPRESS_EMU_{key}": value for key, value in {**settings, **more}.items()}
    with tempfile.TemporaryDirectory() as folder:
        options = (package[0], "--emu-profile", package[1], "--state-dir", folder, "--drain-timeout", 5)
        server = Supervised(*options, quick=False, environment=lambda: environment)
        server.wait()
        try:
            yield server
        finally:
            server.stop()


def same_text(package: tuple[Path, Path], rung: str, expected: str) -> dict[str, Any]:
    """A streamed and a whole answer over a fault."""
    faults, _, settings = RUNGS[rung]
    clients = []
    with serving(package, settings) as server:
        for stream in (True,) if rung == "clear" else (True, False):  # the heads of one answer are counted by the fault
            clients.append(Client(server.port, stream, tries=0 if stream else 100))
        while clients[0].tokens < 60:
            time.sleep(0.005)
        server.life.tell(f"faults {faults}")
        began = time.monotonic()
        for client in clients:
            client.thread.join()
        rungs = server.health()[1].get("recoveries", {}).get("rungs", {})
        lives, wrong = len(server.lives), list(server.wrong)
    return {
        "seconds": round(time.monotonic() - began, 1), "rungs": rungs, "lives": lives, "wrong": wrong,
        "same": [client.text == expected for client in clients], "errors": [client.error for client in clients],
    }  # fmt: skip


def sigterm(package: tuple[Path, Path], rung: str) -> dict[str, Any]:
    """SIGTERM while /health names the rung."""
    _, faults, settings = RUNGS[rung]
    with serving(package, settings, REBOOT_MS="60000" if rung == "reboot" else "0") as server:
        client = Client(server.port, True)
        while client.tokens < 60:
            time.sleep(0.005)
        life = server.life
        life.tell(f"faults {faults}")
        while server.health()[1].get("recovery", {}).get("trying") != TELLS[rung]:
            time.sleep(0.02)
        time.sleep(0.3)
        life.end(signal.SIGTERM, "stopped")
        began = time.monotonic()
        code = life.process.wait(BOUND + 30)
        seconds = round(time.monotonic() - began, 1)
        client.thread.join()
    return {"seconds": seconds, "code": code, "told": client.error, "wrong": server.wrong}


def main() -> int:
    """Tries all and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rungs whose name matches this expression")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    bad = False
    with tempfile.TemporaryDirectory() as folder:
        package = hollow_package(Path(folder))
        with serving(package, {}) as server:
            alone = Client(server.port, True)
            alone.thread.join()
        for rung in [rung for rung in RUNGS if re.search(options.only, rung)]:
            row = results[rung] = {"text": same_text(package, rung, alone.text)}
            print(f"{rung:7} text: {row['text']}", flush=True)
            ended = rung == "exit"  # its stream ends with the process, and says so
            bad |= row["text"]["wrong"] != [] or not all(row["text"]["same"][ended:])
            bad |= any(row["text"]["errors"][ended:]) or (not ended and list(row["text"]["rungs"]) != [rung])
            if rung in TELLS:
                row["sigterm"] = sigterm(package, rung)
                print(f"        SIGTERM: {row['sigterm']}", flush=True)
                bad |= row["sigterm"]["seconds"] > BOUND or row["sigterm"]["wrong"] != []
    write_results("rungs", results)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
