"""What the benches with many clients share: a hollow package and an engine on the emulated card, clients that keep the
time, a header.

All times that come out are modelled seconds: wall time multiplied by the speed at which the emulated card runs. Host
work takes its real time, so it weighs `speed` times as much as it would: figures to be quoted want a speed of 1 to 4.
"""

from __future__ import annotations

import os
import random
import resource
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine
from axpress.core.engine.engine_group import AnyEngine, EngineGroup
from axpress.core.model_files.hollow import hollow
from axpress.core.request import Delta, GenerationRequest, SamplingParams, Spent

PROFILES = ("qwen3-0.6b-w8a16-pi5", "qwen3-1.7b-w8a16-pi5", "qwen3-4b-w8a16-pi5")
INT4 = "qwen3-0.6b-int4-pi5"
TIMEOUT_S = 300.0  # of real time, for one answer
LATE = 0.05  # of a modelled pass: later than that is said


class Client:
    """A sink that keeps when each token came. `tokens`: wall time of each; `ids`: the tokens, where `submit` was asked
    to `keep` them."""

    def __init__(self) -> None:
        self.submitted = time.perf_counter()
        self.tokens: list[float] = []
        self.ids: list[int] = []
        self.reason: str | None = None
        self.error: str | None = None
        self.spent: Spent | None = None
        self.began, self.done = threading.Event(), threading.Event()

    def __call__(self, delta: Delta) -> None:
        now = time.perf_counter()
        self.tokens += [now] * delta.num_tokens
        self.ids += [p.token for p in delta.logprobs]
        if delta.num_tokens:
            self.began.set()
        if delta.finish_reason:
            self.reason, self.error, self.spent = delta.finish_reason, delta.error, delta.spent
            self.began.set()
            self.done.set()

    @property
    def first_token(self) -> float:
        """Wall seconds from submission to the first token."""
        return self.tokens[0] - self.submitted

    def wait(self) -> Client:
        if not self.done.wait(TIMEOUT_S):
            raise SystemExit(f"an accepted request did not end within {TIMEOUT_S:.0f} s")
        if self.reason == "error":
            raise SystemExit(f"a request ended in an error: {self.error}")
        return self


def submit(
    engine: AnyEngine,
    prompt: Sequence[int],
    tokens: int,
    *,
    seed: int = 0,
    temperature: float = 0.8,
    keep: bool = False,
    prediction: Sequence[int] = (),
) -> Client:
    """One client's request; random text that does not repeat, unless told otherwise."""
    client = Client()
    params = SamplingParams(temperature=temperature, top_p=0.95, seed=seed, logprobs=0 if keep else None)
    engine.submit(
        GenerationRequest(list(prompt), params, tokens, ignore_eos=True, prediction=tuple(prediction)), client
    )
    return client


def numbers(seed: int, count: int) -> list[int]:
    """Token ids of a text that nobody else has."""
    rng = random.Random(seed)
    return [rng.randrange(1000, 100_000) for _ in range(count)]


@contextmanager
def package(profile: str) -> Iterator[Path]:
    """A hollow package of the profile's full size, in a temporary directory."""
    with tempfile.TemporaryDirectory() as folder:
        yield hollow(profile, Path(folder) / "model")


@contextmanager
def serving(profile: str, speed: float, cards: int = 1, **options) -> Iterator[AnyEngine]:
    """An engine on the emulated card, or on several, paced like `profile` and `speed` times faster. One short request
    has run on each: the emulator's first passes wait for this machine's memory, not for the card."""
    with package(profile) as directory:
        options = {"max_queue": 1000, "settings": {"speed": f"{speed:g}", "load_time": "0"}, **options}
        engine: AnyEngine
        if cards > 1:
            engine = EngineGroup.open(directory, [f"emu:{card}" for card in range(cards)], profile, **options)
        else:
            if not options.get("split"):  # else there are as many as that takes
                options["settings"]["devices"] = "1"
            engine = Engine.open(directory, "emu", profile, **options)
        try:
            for _, one in engine.cards:
                submit(one, numbers(0, 20), 2).wait()
            before = _pass_seconds(engine)
            yield engine
            _tell_if_late(before, _pass_seconds(engine), speed)
        finally:
            engine.close()


def _pass_seconds(engine: AnyEngine) -> tuple[float, float]:
    """Of all passes so far: wall seconds, and the modelled seconds in which the card was busy with them."""
    seconds = engine.stats()["seconds"]
    return seconds["decode"] + seconds["chunk"] + seconds["move"], Emulator().report()["modelled_ns"] / 1e9


def _tell_if_late(before: tuple[float, float], after: tuple[float, float], speed: float) -> None:
    """Says that figures are not to be believed where this machine could not keep the modelled card's time."""
    took, modelled = (after[i] - before[i] for i in range(2))
    late = took * speed / modelled - 1 if modelled else 0.0
    if late > LATE:
        print(f"  unreliable: passes took {late:.0%} longer than the modelled card's: this machine was late")


def announce(what: str, speed: float) -> None:
    """The lines above every table: what is modelled, and how busy this machine is."""
    print(
        f"{what}\nEmulated card, hollow models (full-size shapes and times, text is noise); modelled seconds, {speed:g}"
        " times real time."
    )
    print(f"This machine: {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; host work counts {speed:g} times.")


def quantile(values: Sequence[float], p: float) -> float:
    """As in the arithmetic behind the goals: the value at index int(p * (n - 1))."""
    return sorted(values)[int(p * (len(values) - 1))]


def cpu_seconds() -> float:
    """CPU time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def verdict(value: float, goal: float, *, most: bool = False) -> str:
    """Whether a goal is met: `value` at least, or at most, `goal`."""
    return "met" if (value <= goal if most else value >= goal) else "MISSED"
