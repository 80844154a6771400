"""The runtime called function by function, so that a hang, a crash or a refusal has a name.

For the doctor's children alone. Models are loaded and bound through `core.device`, on the same library.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from ..device.runtime import describe_code
from ..errors import RuntimeCallError

HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3
NORMAL_MEMORY = 2
CARD_MEMORY = 0  # of axclrtGetMemInfo
UNSUPPORTED = 0x04  # id of an error value


class DeviceList(ctypes.Structure):
    """axclrtDeviceList."""

    _fields_ = [("num", ctypes.c_uint32), ("devices", ctypes.c_int32 * 256)]


class DeviceProperties(ctypes.Structure):
    """axclrtDeviceProperties: memory in KiB, temperature in millidegrees Celsius."""

    _fields_ = [
        ("software", ctypes.c_char * 64), ("uid", ctypes.c_uint64), ("pci_domain", ctypes.c_uint32),
        ("pci_bus", ctypes.c_uint32), ("pci_device", ctypes.c_uint32), ("temperature", ctypes.c_int32),
        ("memory_total", ctypes.c_uint32), ("memory_free", ctypes.c_uint32), ("cmm_total", ctypes.c_uint32),
        ("cmm_free", ctypes.c_uint32), ("cpu_load", ctypes.c_uint32), ("npu_load", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 32),
    ]  # fmt: skip


class RawRuntime:
    """One opened libaxcl_rt.so. `before` is told the name of each function before it is called."""

    def __init__(self, library: str, before: Callable[[str], None] = lambda name: None) -> None:
        self._library, self._before = ctypes.CDLL(library), before

    def has(self, name: str) -> bool:
        """Whether the library exports the function."""
        return hasattr(self._library, name)

    def code(self, name: str, *arguments: Any) -> int:
        """Calls a function that returns an axclError; its value, unsigned."""
        function = getattr(self._library, name)
        function.restype = ctypes.c_uint32
        self._before(name)
        return int(function(*arguments))

    def call(self, name: str, *arguments: Any) -> None:
        """The same; RuntimeCallError unless it returns 0."""
        if code := self.code(name, *arguments):
            raise RuntimeCallError(name, code, describe_code(code), self.last_error())

    def words(self, name: str) -> str:
        """What a function without arguments says that returns text; empty where it is missing."""
        if not self.has(name):
            return ""
        function = getattr(self._library, name)
        function.restype = ctypes.c_char_p
        return (function() or b"").decode(errors="replace")

    def last_error(self) -> str:
        """The emulated runtime's sentence about its last refusal; empty on a real one."""
        return self.words("axemu_last_error")

    @property
    def emulated(self) -> bool:
        """Whether this is the emulated runtime."""
        return self.has("axemu_version")

    def version(self) -> str:
        """The library's version, e.g. "3.6.4"."""
        numbers = [ctypes.c_int32() for _ in range(3)]
        self.call("axclrtGetVersion", *(ctypes.byref(number) for number in numbers))
        return ".".join(str(number.value) for number in numbers)

    def _offers(self, name: str, *arguments: Any) -> bool:
        """Calls a function that the next generation's runtime lacks; whether it is there and supported."""
        if not self.has(name):
            return False
        code = self.code(name, *arguments)
        if code and code & 0xFF != UNSUPPORTED:
            raise RuntimeCallError(name, code, describe_code(code), self.last_error())
        return code == 0

    def device_ids(self) -> list[int]:
        """Ids of the cards in the runtime's order: PCI bus numbers, or 0 and up where the runtime only counts them."""
        found, count = DeviceList(), ctypes.c_uint32()
        if self._offers("axclrtGetDeviceList", ctypes.byref(found)):
            return list(found.devices[: min(found.num, 256)])
        self.call("axclrtGetDeviceCount", ctypes.byref(count))
        return list(range(count.value))

    def properties(self, device: int) -> dict[str, Any]:
        """What a card says of itself: sizes in bytes, temperature in degrees Celsius. The card is set. The next
        generation's runtime tells only `cmm_total` and `cmm_free`."""
        read = DeviceProperties()
        if not self._offers("axclrtGetDeviceProperties", device, ctypes.byref(read)):
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            self.call("axclrtGetMemInfo", CARD_MEMORY, ctypes.byref(free), ctypes.byref(total))
            return {"cmm_total": total.value, "cmm_free": free.value}
        return {
            "firmware": read.software.decode(errors="replace"),
            "temperature_c": read.temperature / 1000,
            "cmm_total": read.cmm_total * 1024,
            "cmm_free": read.cmm_free * 1024,
            "memory_total": read.memory_total * 1024,
            "memory_free": read.memory_free * 1024,
            "cpu_load": read.cpu_load,
            "npu_load": read.npu_load,
        }
