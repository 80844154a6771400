"""The AXCL runtime and the card behind it: open, bind, copy, close; every call checked, errors typed."""

import logging
import os
import threading
import weakref
from pathlib import Path

from ..errors import RuntimeCallError, RuntimeUnavailable, StepTimeout

log = logging.getLogger(__name__)

SYSTEM_PATHS = ("/usr/lib/axcl/libaxcl_rt.so", "/usr/lib/axcl/libaxcl_rt.so.1")

_SUBS = {
    1: "device", 2: "context", 3: "stream", 4: "task", 5: "memory", 6: "config", 7: "engine", 8: "syslog",
    9: "sysctrl", 0xA: "latency", 0xB: "p2p", 0xC: "worker",
}
_IDS = {
    1: "failed", 2: "null pointer", 3: "illegal parameter", 4: "unsupported", 5: "timed out", 6: "busy",
    7: "out of memory", 8: "encode error", 9: "decode error", 0xA: "unexpected response", 0xB: "cannot open",
    0xC: "execute failed",
}
_SPECIAL = {
    (1, 0x80): "device query failed", (1, 0x81): "no device connected", (1, 0x82): "device probe failed",
    (1, 0x83): "device not active", (1, 0x84): "no such device", (1, 0x85): "no active device",
    (1, 0x86): "the card's agent does not answer (port allocation)",
    (1, 0x87): "device reboot", (1, 0x88): "port destroy failed", (2, 0x84): "no context bound to this thread",
    (3, 0x83): "synchronise timed out", (5, 0x81): "not device memory", (7, 0x81): "no such index",
}


_open_cards = weakref.WeakSet()
_lifecycle = threading.Lock()  # the runtime is initialised by the first card of the process and finalised by the last


def describe_code(code: int) -> str:
    """Words for a runtime error value, e.g. 'memory: out of memory' for 0x80300507."""
    code &= 0xFFFFFFFF
    sub, ident = (code >> 8) & 0xFF, code & 0xFF
    where = _SUBS.get(sub, f"module {sub}")
    return f"{where}: {_SPECIAL.get((sub, ident)) or _IDS.get(ident, f'error {ident:#x}')}"


def find_library() -> str | None:
    """The real runtime: $AXPRESS_AXCL_LIB, the loader's path, then the vendor's directory. None when there is none."""
    if chosen := os.environ.get("AXPRESS_AXCL_LIB"):
        return chosen
    for folder in filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":")):
        if (candidate := Path(folder) / "libaxcl_rt.so").exists():
            return str(candidate)
    for path in SYSTEM_PATHS:
        if Path(path).exists():
            return path
    return None


def library_problem(library: str | os.PathLike) -> str:
    """Why this process cannot use the runtime `library`: it does not load, or lacks a function. Empty: it can.

    None of its functions is called.
    """
    cdef axcl_api api
    cdef char error[512]
    path = os.fsencode(library)
    if axcl_api_open(&api, path, error, sizeof(error)) == 0:
        return ""
    return (<bytes>error).decode(errors="replace")


cdef class Card:
    """One device with its context and its one stream; owner of everything that is allocated or loaded on it.

    Open it, use it from threads that called `bind_thread()`, close it: models, buffers, stream, context, device,
    runtime, in that order. After `close()` every call raises RuntimeUnavailable.
    """

    def __cinit__(self):
        self.buffers = weakref.WeakSet()
        self.models = []
        self.closed = True

    def __init__(
            self, library: str | os.PathLike, device: int = 0, settings: dict[str, str] | None = None, *,
            device_id: int | None = None):
        """Opens the runtime `library` and its `device`-th card, or the one that the runtime calls `device_id`;
        `settings` go to an emulated runtime before it starts.

        The process may have other cards of the same runtime open, for which the settings are those of the first.
        Raises RuntimeUnavailable (library or symbol missing, index without a card, one that is open already) or
        RuntimeCallError.
        """
        self.library = os.fspath(library)
        if any(other.library != self.library for other in set(_open_cards)):
            raise RuntimeUnavailable("this process has a card of another runtime open already: close that one first")
        try:
            with _lifecycle:
                self._initialise(settings or {})
            self._start(device, device_id)
        except BaseException:
            self._stop()
            raise

    def _load(self, dict settings):
        cdef char error[512]
        error[0] = 0
        path = os.fsencode(self.library)
        if axcl_api_open(&self.api, path, error, sizeof(error)) != 0:
            raise RuntimeUnavailable((<bytes>error).decode(errors="replace"))
        self.emulated = self.api.axemu_version != NULL
        self.has_async = self.api.axclrtEngineExecuteAsync != NULL
        if settings and not self.emulated:
            raise RuntimeUnavailable(
                f"{self.library} drives a real card: emulator settings {sorted(settings)} do not apply to it")
        for key, value in settings.items():
            key_bytes, value_bytes = str(key).encode(), str(value).encode()
            if self.api.axemu_set(key_bytes, value_bytes) != 0:
                raise RuntimeUnavailable(f"the emulated runtime refuses {key}={value}: {self.last_error()}")

    def _initialise(self, dict settings):
        cdef axclError code = 0
        others = self._others()
        self._load({} if others else settings)
        self.closed = False
        _open_cards.add(self)
        if others:
            return
        with nogil:
            code = self.api.axclInit(NULL)
        self.closed = code != 0
        if code == AXCL_ERR_NO_DRIVER:
            raise RuntimeUnavailable(
                f"{self.library} does not reach the card's driver (0x{code & 0xFFFFFFFF:08x}): is the kernel module "
                "loaded (`lsmod | grep axcl`), and may this user open the device node /dev/axcl_host?")
        self.check("axclInit", code)

    def _others(self) -> set:
        """Who else of this process uses this runtime."""
        return {other for other in set(_open_cards) if other is not self and other.library == self.library}

    def _start(self, int index, device_id):
        cdef axclError code
        devices = self._device_ids()
        if device_id is not None:
            if device_id not in devices:
                raise RuntimeUnavailable(
                    f"card {device_id} is not among the cards that the runtime {self.library} sees: {devices}")
            index = devices.index(device_id)
        if not 0 <= index < len(devices):
            raise RuntimeUnavailable(
                f"card {index} was asked for, but the runtime {self.library} sees {len(devices)} card(s)")
        if devices[index] in [other.device for other in self._others() if (<Card>other).device_set]:
            raise RuntimeUnavailable(f"this process has card {devices[index]} open already: close that one first")
        self.device = devices[index]
        with nogil:
            code = self.api.axclrtSetDevice(self.device)
        self.check("axclrtSetDevice", code)
        self.device_set = True
        self._warn_if_abnormal()
        with nogil:
            code = self.api.axclrtCreateContext(&self.context, self.device)
        self.check("axclrtCreateContext", code)
        self.bind_thread()
        with nogil:
            code = self.api.axclrtEngineInit(AXCL_VNPU_DISABLED)
        self.check("axclrtEngineInit", code)
        self.engine_ready = True
        with nogil:
            code = self.api.axclrtCreateStream(&self.stream)
        self.check("axclrtCreateStream", code)

    def _warn_if_abnormal(self):
        """Where the runtime can be asked: the next generation's."""
        cdef axclrtDeviceStatus status = AXCL_DEVICE_NORMAL
        cdef axclError code
        if self.api.axclrtQueryDeviceStatus == NULL:
            return
        with nogil:
            code = self.api.axclrtQueryDeviceStatus(self.device, &status)
        self.check("axclrtQueryDeviceStatus", code)
        if status != AXCL_DEVICE_NORMAL:
            log.warning("the runtime calls card %d abnormal: reset it, or cut its power", self.device)

    def _device_ids(self) -> list:
        """The runtime's numbers of its cards: PCI buses, not 0 and up, but on the generation that only counts them."""
        cdef axclrtDeviceList found
        cdef uint32_t count = 0
        cdef axclError code
        found.num = 0
        if self.api.axclrtGetDeviceList != NULL:
            with nogil:
                code = self.api.axclrtGetDeviceList(&found)
            self.check("axclrtGetDeviceList", code)
            return [found.devices[i] for i in range(found.num)]
        if self.api.axclrtGetDeviceCount == NULL:
            return [0]
        with nogil:
            code = self.api.axclrtGetDeviceCount(&count)
        self.check("axclrtGetDeviceCount", code)
        return list(range(count))

    cdef int check(self, str call, axclError code) except -1:
        if code == 0:
            return 0
        if self.closing:  # go on freeing whatever can be freed; `close` reports the first failure
            self.close_error = self.close_error or f"{call}: 0x{code & 0xFFFFFFFF:08x} ({describe_code(code)})"
            return 0
        kind = StepTimeout if code == AXCL_ERR_STREAM_SYNC_TIMEOUT else RuntimeCallError
        raise kind(call, code, describe_code(code), self.last_error())

    cdef int require_open(self) except -1:
        """RuntimeUnavailable once the card is closed: the runtime's functions are then forgotten."""
        if self.closed:
            raise RuntimeUnavailable("this card is closed")
        return 0

    cdef int free(self, buffer, void *memory, bint pinned) except -1:
        """Frees what a buffer held that is closed (nothing for NULL)."""
        cdef axclError code
        if memory == NULL:
            return 0
        self.buffers.discard(buffer)
        with nogil:
            code = self.api.axclrtFreeHost(memory) if pinned else self.api.axclrtFree(memory)
        return self.check("axclrtFreeHost" if pinned else "axclrtFree", code)

    cdef void give_back(self, void *memory, bint pinned) noexcept:
        """Frees what a dropped buffer held, on whatever thread that happens; the runtime wants a context there. Never
        raises."""
        if memory == NULL or self.closed:
            return
        with nogil:
            self.api.axclrtSetCurrentContext(self.context)
            if pinned:
                self.api.axclrtFreeHost(memory)
            else:
                self.api.axclrtFree(memory)

    @property
    def devices(self) -> tuple:
        """The number of the one, as for several that serve one model together."""
        return (self.device,)

    def last_error(self) -> str:
        """The emulated runtime's sentence about its last refusal; empty on a real one."""
        cdef const char *text
        if self.api.axemu_last_error == NULL:
            return ""
        text = self.api.axemu_last_error()
        return (<bytes>text).decode(errors="replace") if text != NULL else ""

    def bind_thread(self) -> None:
        """Binds the card's context to the calling thread; each thread that uses the card does this once."""
        cdef axclError code
        self.require_open()
        with nogil:
            code = self.api.axclrtSetCurrentContext(self.context)
        self.check("axclrtSetCurrentContext", code)

    def version(self) -> str:
        """Version of the runtime library, e.g. '3.6.4'."""
        cdef int32_t major = 0, minor = 0, patch = 0
        cdef axclError code
        self.require_open()
        with nogil:
            code = self.api.axclrtGetVersion(&major, &minor, &patch)
        self.check("axclrtGetVersion", code)
        return f"{major}.{minor}.{patch}"

    def properties(self) -> dict:
        """What the card says of itself: sizes in bytes, temperature in degrees Celsius, loads as reported. The next
        generation's runtime tells its uid and its memory alone; empty where the runtime has no such call."""
        cdef axclrtDeviceProperties p
        cdef axclError code
        self.require_open()
        if self.api.axclrtGetDeviceProperties == NULL:
            return self._next_properties()
        with nogil:
            code = self.api.axclrtGetDeviceProperties(self.device, &p)
        self.check("axclrtGetDeviceProperties", code)
        return {
            "firmware": (<bytes>p.swVersion).decode(errors="replace"), "uid": p.uid,
            "temperature_c": p.temperature / 1000,
            # in 64 bits: the card has 7040 MiB, more than 2^32 bytes
            "total_cmm": <uint64_t>p.totalCmmSize * 1024, "free_cmm": <uint64_t>p.freeCmmSize * 1024,
            "total_memory": <uint64_t>p.totalMemSize * 1024, "free_memory": <uint64_t>p.freeMemSize * 1024,
            "npu_load": p.npuLoading, "cpu_load": p.cpuLoading,
        }

    def _next_properties(self):
        """By the functions that the next generation's runtime has instead: no temperature among them."""
        cdef size_t free = 0, total = 0
        cdef uint64_t uid = 0
        cdef axclError code
        cdef axclrtMemAttr attribute
        told = {}
        self.bind_thread()  # memory is told of the calling thread's context
        if self.api.axclrtGetDeviceInfo != NULL:
            with nogil:
                code = self.api.axclrtGetDeviceInfo(self.device, AXCL_DEVICE_UID, &uid)
            self.check("axclrtGetDeviceInfo", code)
            told["uid"] = uid
        if self.api.axclrtGetMemInfo != NULL:
            for attribute, name in ((AXCL_MEMORY_CMM, "cmm"), (AXCL_MEMORY_SYSTEM, "memory")):
                with nogil:
                    code = self.api.axclrtGetMemInfo(attribute, &free, &total)
                self.check("axclrtGetMemInfo", code)
                told[f"total_{name}"], told[f"free_{name}"] = total, free
        return told

    def wait(self, timeout_ms: int) -> None:
        """Until all that was submitted to the stream is done. StepTimeout: not after `timeout_ms`; else what failed."""
        cdef axclError code
        cdef int32_t limit = timeout_ms
        self.require_open()
        with nogil:
            code = self.api.axclrtSynchronizeStreamWithTimeout(self.stream, limit)
        self.check("axclrtSynchronizeStreamWithTimeout", code)

    def unload(self, paths: list[str]) -> None:
        """Unloads what was loaded from these files, the last first; the card stays open. RuntimeCallError."""
        for model in reversed([model for model in self.models if model.path in paths]):
            model.close()

    def begin_close(self, settle_ms: int = 5000) -> None:
        """From here on failures do not stop the closing. Waits so long for the stream; one that does not end is
        destroyed by force."""
        cdef int32_t limit = settle_ms
        cdef axclError code
        if self.closing or self.closed:
            return
        self.closing = True
        self.bind_thread()
        with nogil:
            code = self.api.axclrtSynchronizeStreamWithTimeout(self.stream, limit)
            if code != 0 and self.api.axclrtDestroyStreamForce != NULL:
                self.api.axclrtDestroyStreamForce(self.stream)
                self.stream = NULL
        self.check("axclrtSynchronizeStreamWithTimeout", code)

    def close(self) -> None:
        """Frees everything in order. Raises BufferError, and stays open, while NumPy views of pinned buffers live.

        A card that fails meanwhile is closed as far as it lets itself be, and a warning says what failed first.
        """
        if self.closed:
            return
        held = [b for b in self.buffers if b.num_views]
        if held:
            raise BufferError(
                f"{len(held)} pinned buffer(s) still have NumPy views; drop the views, then close the card")
        self.begin_close()
        for model in reversed(list(self.models)):
            model.close()
        for buffer in list(self.buffers):
            buffer.close()
        self._stop()
        if self.close_error:
            log.warning("the card was closed after a failure: %s", self.close_error)

    def _stop(self):
        """Undoes `_start` as far as it came. Errors are not raised: this also runs after a failure."""
        cdef bint alone = not self._others()
        cdef bint last
        with nogil:
            if self.stream != NULL:
                if self.api.axclrtDestroyStream(self.stream) != 0 and self.api.axclrtDestroyStreamForce != NULL:
                    self.api.axclrtDestroyStreamForce(self.stream)
                self.stream = NULL
            if self.engine_ready and alone:  # it is the process's, and others have models loaded
                self.api.axclrtEngineFinalize()
            self.engine_ready = False
            if self.context != NULL:
                self.api.axclrtDestroyContext(self.context)
                self.context = NULL
            if self.device_set:
                self.api.axclrtResetDevice(self.device)
                self.device_set = False
        with _lifecycle:
            last = not self.closed and not self._others()
            self.closed = True  # the table of functions stays: somebody may come back who hangs in one
            if last:
                with nogil:
                    self.api.axclFinalize()
            _open_cards.discard(self)


def device_ids(library: str | os.PathLike) -> list[int]:
    """What the runtime calls its cards, those that are there at present. RuntimeUnavailable, RuntimeCallError."""
    cdef Card card = _without_device(library)
    try:
        return card._device_ids()
    finally:
        card._stop()


def reboot_device(library: str | os.PathLike, device_id: int) -> None:
    """Reboots the firmware of a card, which takes with it all that this process has there and is missing from the list
    for seconds afterwards. RuntimeUnavailable where the runtime cannot do that, RuntimeCallError where it fails."""
    cdef Card card = _without_device(library)
    cdef int32_t number = device_id
    cdef axclError code
    try:
        if card.api.axclrtRebootDevice == NULL:
            raise RuntimeUnavailable(f"the runtime {card.library} cannot reboot a card")
        with nogil:
            code = card.api.axclrtRebootDevice(number)
        card.check("axclrtRebootDevice", code)
    finally:
        card._stop()


cdef Card _without_device(library):
    """The runtime initialised, no device of it: also while a card is open whose calls do not return."""
    cdef Card card = Card.__new__(Card)
    card.library = os.fspath(library)
    try:
        with _lifecycle:
            card._initialise({})
    except BaseException:
        card._stop()
        raise
    return card
