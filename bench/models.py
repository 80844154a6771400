"""Three models of 2.5 GB on a card of 7 GB, asked at random by name: how often they are loaded, and what waiting costs.

    python bench/models.py --minutes 10 --speed 10     # one minute; everything emulated and modelled

Each model has the shapes and times of qwen3-1.7b, and a published one's loading time. Clients who ask every few
seconds, each time one of the models, or with --favourite SHARE mostly the first; nobody tries again. Two models fit. A
model that comes closes the card and opens it with both (many runtimes load nothing once something ran), so that the
other's answers wait, too; with --load-later it is loaded between their passes. Writes bench/results/models.json."""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import random
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from results import write_results

from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.timing_profile import profile_path
from axpress.core.model_store.store import RECORD

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from server_process import RunningServer

PROFILE = "qwen3-1.7b-w8a16-pi5"
LAYER_BYTES = 78_000_000
NAMES = ("model-a", "model-b", "model-c")
PAUSE_S = 5.0


def store(root: Path) -> Path:
    """The models directory; the profile that paces them."""
    text = re.sub(r"layer_cmm_bytes = \d+", f"layer_cmm_bytes = {LAYER_BYTES}", profile_path(PROFILE).read_text())
    for name in NAMES:
        path = root.parent / f"{name}.toml"
        path.write_text(text.replace(f'name = "{PROFILE}"', f'name = "{name}"'))
        package = hollow(str(path), root / name)
        record = {"name": name, "source": f"made up: {name}", "revision": "1", "licence": None, "pulled_at": "",
                  "files": 0, "bytes": 0}  # fmt: skip
        (package / RECORD).write_text(json.dumps(record))
    return root.parent / f"{NAMES[0]}.toml"


class Clients:
    """Ask, and count; times in modelled seconds."""

    def __init__(self, port: int, speed: float, favourite: float) -> None:
        self.port, self.speed, self.favourite = port, speed, favourite
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.waits: list[float] = []
        self.stop = threading.Event()

    def ask_on(self, seed: int) -> None:
        """One client."""
        rnd = random.Random(seed)
        while not self.stop.wait(rnd.expovariate(self.speed / PAUSE_S)):
            model = NAMES[0] if rnd.random() < self.favourite else rnd.choice(NAMES)
            body = {"model": model, "max_tokens": rnd.randrange(5, 40), "ignore_eos": True,
                    "messages": [{"role": "user", "content": f"{rnd.random()} " * rnd.randrange(1, 20)}]}  # fmt: skip
            began = time.monotonic()
            self.outcomes[self._ask(body)] += 1
            self.waits.append((time.monotonic() - began) * self.speed)

    def _ask(self, body: dict[str, Any]) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
            right = response.status == 200 and answer["model"] == body["model"]
            return "answered" if right and answer["usage"]["completion_tokens"] == body["max_tokens"] else str(answer)
        finally:
            connection.close()


def stays(log: str, speed: float) -> list[dict[str, float]]:
    """Of each model that left: modelled seconds of its loading, and of the time that it then had the card."""
    found, loads = [], dict[str, float]()
    pattern = r"(\S+) (?:is there after ([\d.]+) s|leaves the card for \S+, after ([\d.]+) s)"
    for name, load, stay in re.findall(pattern, log):
        if load:
            loads[name] = float(load)
        else:
            found.append({"load_s": loads[name] * speed, "stay_s": float(stay) * speed})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--speed", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--favourite", type=float, default=0.0)
    parser.add_argument("--load-later", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        profile = store(Path(folder) / "models")
        arguments = ("--models", "--emu-profile", profile, "--emu-speed", options.speed)
        environment = {"AXPRESS_MODELS": str(Path(folder) / "models")}
        if options.load_later:
            arguments += ("--load-later",)
            environment |= {"AXPRESS_EMU_LATE_LOAD": "1", "AXPRESS_EMU_HEAD_FIRST": "0"}
        with RunningServer(*arguments, environment={**os.environ, **environment}) as server:
            clients = Clients(server.port, options.speed, options.favourite)
            threads = [threading.Thread(target=clients.ask_on, args=(seed,)) for seed in range(options.clients)]
            for thread in threads:
                thread.start()
            time.sleep(options.minutes * 60 / options.speed)
            clients.stop.set()
            for thread in threads:
                thread.join()
        told = stays(server.log, options.speed)
    waits = sorted(clients.waits)
    result = {
        "emulated": True, "answered": clients.outcomes.pop("answered"), "lost": dict(clients.outcomes),
        "loads": server.log.count(" is there after "), "refused_loads": server.log.count(" was not loaded"),
        "stays": told, "seconds": {"median": waits[len(waits) // 2], "longest": waits[-1]},
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    short = [stay for stay in told if stay["stay_s"] < stay["load_s"] - 0.1 * options.speed]
    assert not short, f"left before their time: {short}"
    assert not result["lost"] and not result["refused_loads"], result
    write_results("models", {**vars(options), **result})


if __name__ == "__main__":
    main()
