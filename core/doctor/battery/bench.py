"""What an experiment works with: the card, opened raw or as the core opens it, a clock, and where findings go."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...device.axmodel import LoadedModel
from ...device.runtime import Card
from ...errors import RuntimeUnavailable
from ..card import HOT
from ..child import Reporter
from ..raw_runtime import DEVICE_TO_HOST, HOST_TO_DEVICE, NORMAL_MEMORY, RawRuntime

WAIT_MS = 20_000  # deadline of each wait for a stream: seconds more than anything here may take


@dataclass
class Bench:
    """Library and index of the card, the package's model files, and the reporter that writes findings."""

    report: Reporter
    library: str
    index: int
    head: str
    layers: list[str]

    def found(self, **values: Any) -> None:
        """Adds to the experiment's results."""
        self.report.found(**values)

    @contextmanager
    def raw_card(self) -> Iterator[RawCard]:
        """The runtime started, the card set, one stream; closed in order afterwards."""
        card = RawCard(RawRuntime(self.library), self.index)
        try:
            yield card
        finally:
            card.close()

    @contextmanager
    def card(self) -> Iterator[Card]:
        """The card as the core opens it. RuntimeUnavailable where it is too hot for work."""
        card = Card(self.library, self.index)
        try:
            if (celsius := card.properties().get("temperature_c", 0.0)) >= HOT:
                raise RuntimeUnavailable(f"the card has {celsius:.0f} C: let it cool, then go on")
            yield card
        finally:
            card.close()

    def free_cmm(self, card: Card) -> int:
        """Bytes of the card's memory that are free, asked as this runtime can be asked."""
        return int(RawRuntime(self.library).properties(card.device)["cmm_free"])

    def load(self, card: Card, *layers: int) -> tuple[LoadedModel, list[LoadedModel]]:
        """The head, then these layers: the order that cards want."""
        self.report.step("loading the head")
        head = LoadedModel(card, self.head)
        loaded = []
        for layer in layers:
            self.report.step(f"loading layer {layer}")
            loaded.append(LoadedModel(card, self.layers[layer]))
        return head, loaded


class RawCard:
    """A started runtime with one card and one stream; memory that it gave is freed with it."""

    def __init__(self, runtime: RawRuntime, index: int) -> None:
        self.runtime, self.stream = runtime, ctypes.c_void_p()
        self._device: list[ctypes.c_void_p] = []
        self._pinned: list[ctypes.c_void_p] = []
        runtime.call("axclInit", None)
        self.devices = runtime.device_ids()
        self.device = self.devices[index]
        runtime.call("axclrtSetDevice", self.device)
        runtime.call("axclrtCreateStream", ctypes.byref(self.stream))

    def memory(self, nbytes: int) -> ctypes.c_void_p:
        """Memory of the card."""
        pointer = ctypes.c_void_p()
        self.runtime.call("axclrtMalloc", ctypes.byref(pointer), ctypes.c_size_t(nbytes), NORMAL_MEMORY)
        self._device.append(pointer)
        return pointer

    def pinned(self, nbytes: int) -> ctypes.c_void_p:
        """Host memory of the runtime."""
        pointer = ctypes.c_void_p()
        self.runtime.call("axclrtMallocHost", ctypes.byref(pointer), ctypes.c_size_t(nbytes))
        self._pinned.append(pointer)
        return pointer

    def copy(self, target: Any, source: Any, nbytes: int, kind: int) -> None:
        """A synchronous copy."""
        self.runtime.call("axclrtMemcpy", target, source, ctypes.c_size_t(nbytes), kind)

    def queue_copy(self, target: Any, source: Any, nbytes: int, kind: int) -> None:
        """A copy in the stream."""
        self.runtime.call("axclrtMemcpyAsync", target, source, ctypes.c_size_t(nbytes), kind, self.stream)

    def wait(self) -> None:
        """Until the stream is idle."""
        self.runtime.call("axclrtSynchronizeStreamWithTimeout", self.stream, WAIT_MS)

    def upload(self, target: ctypes.c_void_p, data: bytes) -> None:
        """Writes bytes to the card."""
        self.copy(target, data, len(data), HOST_TO_DEVICE)

    def download(self, source: ctypes.c_void_p, nbytes: int) -> bytes:
        """Reads bytes from the card."""
        data = ctypes.create_string_buffer(nbytes)
        self.copy(data, source, nbytes, DEVICE_TO_HOST)
        return data.raw

    def close(self) -> None:
        """Frees and closes everything, whatever fails."""
        for pointer in self._device:
            self.runtime.code("axclrtFree", pointer)
        for pointer in self._pinned:
            self.runtime.code("axclrtFreeHost", pointer)
        self.runtime.code("axclrtDestroyStream", self.stream)
        self.runtime.code("axclrtResetDevice", self.device)
        self.runtime.code("axclFinalize")


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def times_us(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Microseconds: the median of `repeats` after one that is not counted, and the least."""
    work()
    took = [1e6 * seconds(work) for _ in range(repeats)]
    return round(statistics.median(took), 2), round(min(took), 2)


def median_us(work: Callable[[], object], repeats: int) -> float:
    """Microseconds, the median of `repeats` after one that is not counted."""
    return times_us(work, repeats)[0]


def queue_us(
    submit: Callable[[], object], wait: Callable[[], object], few: int, many: int, repeats: int = 3
) -> dict[str, float]:
    """What one operation takes in a stream (`each_us`: the difference between many and few, each the best of `repeats`,
    so that neither the wait nor other programs are in it) and how long submitting one holds the caller (`submit_us`).
    """

    def run(count: int) -> tuple[float, float]:
        start = time.perf_counter()
        for _ in range(count):
            submit()
        submitted = time.perf_counter()
        wait()
        return time.perf_counter() - start, submitted - start

    run(1)
    runs: dict[int, list[tuple[float, float]]] = {few: [], many: []}
    for _ in range(repeats):
        for count, made in runs.items():
            made.append(run(count))
    total = {count: min(whole for whole, _ in made) for count, made in runs.items()}
    held = min(submitting for _, submitting in runs[many])
    return {
        "each_us": round(1e6 * (total[many] - total[few]) / (many - few), 2),
        "submit_us": round(1e6 * held / many, 2),
    }
