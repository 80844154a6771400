"""Experiments without a model: who answers, what calls and copies cost, what streams do."""

from __future__ import annotations

import ctypes
import threading
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import RuntimeCallError
from ..raw_runtime import DEVICE_TO_DEVICE, DEVICE_TO_HOST, HOST_TO_DEVICE
from .bench import Bench, RawCard, median_us, queue_us, seconds

SIZES = {64: 30, 4096: 30, 65536: 20, 1 << 20: 8, 8 << 20: 3}  # bytes: how often each is copied
LARGEST = max(SIZES)
ON_CARD = (2048, 65536, 4 << 20)
OPTIONAL = (
    "axclrtEngineExecuteAsync", "axclrtEngineGetUsage", "axclrtEngineSetDynamicBatchSize", "axclrtGetDeviceList",
    "axclrtGetDeviceProperties", "axclrtGetFullVersion", "axclrtMemcmp", "axclrtMemsetAsync", "axclrtRebootDevice",
)  # fmt: skip


def identity(bench: Bench) -> None:
    """Versions, ids, memory, temperature; what starting, asking and ending cost."""
    with bench.raw_card() as card:
        runtime = card.runtime
        bench.found(
            library=runtime.version(),
            library_full=runtime.words("axclrtGetFullVersion"),
            chip=runtime.words("axclrtGetSocName"),
            devices=card.devices,
            missing=[name for name in OPTIONAL if not runtime.has(name)],
            **runtime.properties(card.device),
        )
        bench.found(properties_us=median_us(partial(runtime.properties, card.device), 10))


def transfers(bench: Bench) -> None:
    """Synchronous copies up and down, from the runtime's host memory and from the process's own, by size."""
    with bench.raw_card() as card:
        memory, pinned, own = card.memory(LARGEST), card.pinned(LARGEST), ctypes.create_string_buffer(LARGEST)
        pattern = bytes(range(251)) * (LARGEST // 251 + 1)
        ctypes.memmove(pinned, pattern, LARGEST)
        ctypes.memset(own, 1, LARGEST)  # so that its pages are there
        bench.found(pinned_memory=_mapping(pinned.value or 0))
        for name, host in (("pinned", pinned), ("own", own)):
            for way, target, source, kind in _ways(memory, host):
                cost = {str(n): median_us(partial(card.copy, target, source, n, kind), k) for n, k in SIZES.items()}
                bench.found(**{f"{way}_{name}_us": cost})
        card.copy(memory, pinned, LARGEST, HOST_TO_DEVICE)
        bench.found(right_bytes=card.download(memory, LARGEST) == pattern[:LARGEST])


def _ways(memory: Any, host: Any) -> tuple[tuple[str, Any, Any, int], ...]:
    """Name, target, source and kind of a copy up and of one down."""
    return ("up", memory, host, HOST_TO_DEVICE), ("down", host, memory, DEVICE_TO_HOST)


def _mapping(address: int) -> str:
    """What lies behind an address of this process: a device's file, or "anonymous" for plain memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, _, rest = line.partition(" ")
        first, last = (int(part, 16) for part in bounds.split("-"))
        if first <= address < last:
            name = (rest.split(maxsplit=4)[4:] or [""])[0]
            return name if name.startswith("/dev/") else "anonymous"
    return "unknown"


def streams(bench: Bench) -> None:
    """Copies in a stream: up, down and on the card; from a thread without a context; what an idle wait costs."""
    with bench.raw_card() as card:
        bench.found(idle_wait_us=median_us(card.wait, 20))
        memory, other, pinned = card.memory(LARGEST), card.memory(LARGEST), card.pinned(LARGEST)
        try:
            for way, target, source, kind in _ways(memory, pinned):
                cost = {str(n): _queued(card, target, source, n, kind) for n in (64, 1 << 20)}
                bench.found(**{f"{way}_queued": cost})
        except RuntimeCallError as error:
            bench.found(queued_copies=f"refused 0x{error.code:08x}")
        _on_card(bench, card, memory, other)
        bench.found(async_without_context=_from_another_thread(card, memory, pinned))


def _queued(card: RawCard, target: Any, source: Any, nbytes: int, kind: int) -> dict[str, float]:
    """What such a copy costs in the stream; of short ones many, so that they add up to something."""
    few, many, repeats = (20, 420, 8) if nbytes <= 65536 else (2, 12, 4)
    return queue_us(partial(card.queue_copy, target, source, nbytes, kind), card.wait, few, many, repeats)


def _on_card(bench: Bench, card: RawCard, memory: ctypes.c_void_p, other: ctypes.c_void_p) -> None:
    """Copies from the card to itself, synchronous and in the stream, and whether the bytes arrive."""
    alone = {str(n): median_us(partial(card.copy, other, memory, n, DEVICE_TO_DEVICE), 10) for n in ON_CARD}
    bench.found(on_card_us=alone)
    pattern = bytes(range(256)) * 256
    card.upload(memory, pattern)
    card.upload(other, bytes(len(pattern)))
    try:
        card.queue_copy(other, memory, len(pattern), DEVICE_TO_DEVICE)
        card.wait()
        bench.found(on_card_async="works" if card.download(other, len(pattern)) == pattern else "bytes lost")
        bench.found(on_card_queued={str(n): _queued(card, other, memory, n, DEVICE_TO_DEVICE) for n in ON_CARD})
    except RuntimeCallError as error:
        bench.found(on_card_async=f"refused 0x{error.code:08x}")


def _from_another_thread(card: RawCard, memory: ctypes.c_void_p, pinned: ctypes.c_void_p) -> str:
    """An asynchronous copy with a stream, from a thread that never bound a context."""
    codes: list[int] = []
    arguments = (memory, pinned, ctypes.c_size_t(64), HOST_TO_DEVICE, card.stream)
    thread = threading.Thread(target=lambda: codes.append(card.runtime.code("axclrtMemcpyAsync", *arguments)))
    thread.start()
    thread.join()
    card.wait()
    return "works" if codes == [0] else f"refused 0x{codes[0]:08x}"


def start_and_end(bench: Bench) -> None:
    """What opening and closing the card cost, and whether it opens a second time in one process."""
    opened: list[RawCard] = []

    def start() -> None:
        with bench.raw_card() as card:
            opened.append(card)

    bench.found(open_and_close_s=round(seconds(start), 3))
    try:
        bench.found(again_s=round(seconds(start), 3), opens_again="works")
    except RuntimeCallError as error:
        bench.found(opens_again=f"refused 0x{error.code:08x} by {error.call}")
