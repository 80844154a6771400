"""How warm a busy card gets with the monitor's policy and without it, in the emulator's thermal model: no card.

    python bench/heat.py --seconds 45 --rise 60

The model warms by `rise` degrees at full load with a time constant of 6 s instead of a card's minute, and the monitor
looks every 0.5 s instead of 5 s: the same steps in a tenth of the time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from server_process import hollow_package

from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine
from axpress.core.request import Delta, GenerationRequest
from axpress.server.serving import card_monitor
from axpress.server.serving.card_reading import CardReader, CardReading

NEVER = (117.0, 118.0, 119.0)


def feed(engine: Engine, until: float) -> int:
    """Asks for one answer after the other; the number of tokens."""
    num_tokens = 0
    while time.monotonic() < until:
        ended = threading.Event()

        def sink(delta: Delta, ended: threading.Event = ended) -> None:
            nonlocal num_tokens
            num_tokens += delta.num_tokens
            if delta.finish_reason:
                ended.set()

        engine.submit(GenerationRequest([1, 2, 3, num_tokens % 1000], max_tokens=200, ignore_eos=True), sink)
        ended.wait()
    return num_tokens


def measure(engine: Engine, limits: tuple[float, float, float], seconds: float) -> str:
    """One run from a cool card on."""
    temperatures: list[float] = []

    reader = CardReader(lambda: engine.model.card, lambda: 0)

    def ask() -> CardReading:
        reading = reader.read()
        temperatures.extend([] if reading.temperature_c is None else [reading.temperature_c])
        return reading

    monitor = card_monitor.CardMonitor(ask, engine.throttle, limits)
    monitor.start()
    num_tokens = feed(engine, time.monotonic() + seconds)
    monitor.stop()
    engine.throttle.set(1.0, False)
    settled = temperatures[len(temperatures) // 2 :]
    mean = sum(settled) / len(settled)
    return f"{num_tokens} tokens, at most {max(temperatures):.1f} C, settled at {mean:.1f} C (modelled)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--rise", type=float, default=60.0)
    arguments = parser.parse_args()
    card_monitor.PERIOD = 0.5
    emulator = Emulator()
    emulator.set("THERMAL_SECONDS", "6")
    for name, limits in (("without the policy", NEVER), ("75, 80, 85", (75.0, 80.0, 85.0))):
        with tempfile.TemporaryDirectory() as directory:
            package, profile = hollow_package(Path(directory))
            engine = Engine.open(package, "emu", str(profile))
            emulator.set("THERMAL_RISE", str(int(arguments.rise * 1000)))
            print(f"{name}: {measure(engine, limits, arguments.seconds)}", flush=True)
            engine.close()


if __name__ == "__main__":
    main()
