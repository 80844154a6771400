"""A day of a card that fails once an hour: which share of the requests was answered, and what each loss was.

    python bench/availability.py --hours 24 --speed 144     # ten minutes; everything emulated and modelled
    python bench/availability.py --hours 24 --squeeze 144   # the same events in ten minutes of the card's real speed

A modelled card of qwen3-1.7b, its server supervised; four clients who ask every few seconds and never try again.
Every hour a fault of another kind; besides a heat wave (the card at 86 C for half an hour, so that it pauses), a reboot
of the card and a SIGKILL. `--speed`: the card runs so many times faster; the host does not, so that whatever it does
(starting the process, pauses between tries, the monitor's 5 s) weighs so many times more than it would. `--squeeze`:
only the hours are shorter. Writes bench/results/availability.json."""

from __future__ import annotations

import argparse
import collections
import random
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from results import write_results
from supervised import Supervised, ask

from axpress.core.model_files.hollow import hollow

PROFILE = "qwen3-1.7b-w8a16-pi5"
EXECUTE = "axclrtEngineExecuteAsync"
HOURLY = (
    f"{EXECUTE}@50=fail:0x8030070c", f"{EXECUTE}@50=later:0x8030070c", "nan@any:50", f"{EXECUTE}@50=hang",
    "axclrtSynchronizeStreamWithTimeout@5=block", "device=offline@50", "nan@any:50; nan@any:51; nan@any:52",
    "axclrtMemcpyAsync@9=hang",
)  # fmt: skip
HEAT_AT, HEAT_HOURS, REBOOT_AT, KILL_AT = 14.25, 0.5, 17.5, 20.5
CLIENTS = 4


def events(hours: float) -> list[tuple[float, str, str]]:
    """When, what for people, and what to set: a fault, or a signal."""
    hourly = [(h + 0.5 * (h % 2) / 2, HOURLY[h % len(HOURLY)]) for h in range(1, int(hours))]
    plan = [(at, rule, f"faults {rule}") for at, rule in hourly]
    plan += [(HEAT_AT, "heat wave", "faults temperature=86000"), (HEAT_AT + HEAT_HOURS, "cool again", "faults "),
             (REBOOT_AT, "card reboots", "faults device=offline@1"), (KILL_AT, "SIGKILL", "")]  # fmt: skip
    return sorted(event for event in plan if event[0] < hours)


class Clients:
    """Ask, and count."""

    def __init__(self, server: Supervised) -> None:
        self.server, self.event = server, "before the first"
        self.asked: collections.Counter[str] = collections.Counter()
        self.lost: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.slowest: dict[str, float] = collections.defaultdict(float)
        self.stop = threading.Event()

    def ask_on(self, seed: int, pause: float) -> None:
        """One client."""
        rnd = random.Random(seed)
        while not self.stop.wait(rnd.expovariate(1 / pause)):
            body = {"messages": [{"role": "user", "content": f"{rnd.random()} " * rnd.randrange(1, 20)}],
                    "max_tokens": rnd.randrange(5, 40), "ignore_eos": True, "stream": rnd.random() < 0.5}  # fmt: skip
            began, event = time.monotonic(), self.event
            reply = ask(self.server.port, body)
            self.asked[reply.outcome] += 1
            self.slowest[event] = max(self.slowest[event], time.monotonic() - began)
            if reply.outcome != "answered":
                self.lost[self.event][f"{reply.outcome} {reply.detail[:100]}"] += 1


def run(server: Supervised, hours: float, hour_s: float) -> dict[str, Any]:
    """Lets the hours pass."""
    clients = Clients(server)
    threads = [
        threading.Thread(target=clients.ask_on, args=(i, max(0.05, min(5.0, hour_s / 60)))) for i in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    for at, name, line in [*events(hours), (hours, "end", "faults ")]:
        time.sleep(max(0.0, begun + at * hour_s - time.monotonic()))
        clients.event = f"{at:g} h: {name}"
        if line:
            server.life.tell(line)
        else:
            server.life.end(signal.SIGKILL, "killed")
    clients.stop.set()
    for thread in threads:
        thread.join()
    total, answered = clients.asked.total(), clients.asked["answered"]
    return {
        "asked": total, "answered": answered, "availability": answered / max(total, 1),
        "lost": {event: dict(counter) for event, counter in clients.lost.items()},
        "slowest_answer_s": {event: round(seconds, 2) for event, seconds in clients.slowest.items()},
        "lives": [life.cause for life in server.lives],
    }  # fmt: skip


def main() -> None:
    """Runs it and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--speed", type=float, default=1.0, help="how many times faster than the card (default 1)")
    parser.add_argument("--squeeze", type=float, default=1.0, help="how many times shorter an hour is (default 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        package = hollow(PROFILE, Path(folder) / "package")
        arguments = (package, "--emu-profile", PROFILE, "--emu-speed", options.speed, "--state-dir", folder)
        missing = {"AXPRESS_EMU_REBOOT_MS": str(round(15000 / options.speed))}
        server = Supervised(*arguments, quick=False, environment=lambda: missing)
        server.wait(600)
        result = run(server, options.hours, 3600 / options.speed / options.squeeze)
        server.wait(600)
        server.stop()
    result["wrong"] = server.wrong
    for name, value in result.items():
        print(f"{name}: {value}" if not isinstance(value, dict) else name)
        for key, part in value.items() if isinstance(value, dict) else ():
            print(f"    {key}: {part}")
    write_results("availability", {**vars(options), **result})


if __name__ == "__main__":
    main()
