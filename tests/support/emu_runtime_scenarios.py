"""Scenarios of the emulated runtime: memory, contexts, devices, settings, streams, events."""

from __future__ import annotations

import ctypes
import threading
from ctypes import byref, c_int32, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p

from emu_scenario_base import (
    D2D,
    D2H,
    DECODE,
    EMU,
    ENGINE_ILLEGAL,
    FOLDER,
    H2D,
    LAYER,
    LIB,
    MEMORY_BUSY,
    MEMORY_ILLEGAL,
    NO_CONTEXT,
    NO_MEMORY,
    NOT_DEVICE,
    OFFLINE,
    POISON,
    SYNC_TIMEOUT,
    Model,
    call,
    copy_args,
    down,
    main,
    malloc,
    model_file,
    ok,
    pinned,
    refused,
    start,
    stream,
    up,
)
from repository import ROOT

from axpress.core.device.emulator import EmulatorError, emulator_library

# ---- memory
# --------------------------------------------------------------------------------------------------------------


def do_memory_rules() -> None:
    """Poison, sizes, double free, late use, foreign and interior pointers, overruns, wrong kinds of copy."""
    start()
    a, b = malloc(100), malloc(5000)
    assert down(a, 100) == POISON * 50, "fresh memory is not poisoned"
    assert a % 4096 == 0 and b % 4096 == 0
    up(b + 4900, b"x" * 100)
    assert down(b + 4890, 12) == POISON * 5 + b"xx"
    host = pinned(64)
    refused(MEMORY_ILLEGAL, "reach past its allocation", "axclrtMemcpy", *copy_args(b + 4901, b"x" * 100, 100, H2D))
    refused(MEMORY_ILLEGAL, "reach past its pinned buffer", "axclrtMemcpy", *copy_args(b, host + 1, 64, H2D))
    refused(MEMORY_ILLEGAL, "is a device pointer", "axclrtMemcpy", *copy_args(a, b, 10, D2H))
    refused(NOT_DEVICE, "not a device pointer", "axclrtMemcpy", *copy_args(host, host, 10, D2D))
    refused(MEMORY_ILLEGAL, "base pointer", "axclrtFree", c_void_p(b + 16))
    ok("axclrtFree", c_void_p(a))
    refused(NOT_DEVICE, "it was freed", "axclrtFree", c_void_p(a))
    refused(NOT_DEVICE, "it was freed", "axclrtMemset", c_void_p(a), c_uint8(0), c_size_t(1))
    assert malloc(100) != a, "a freed address came back at once"
    ok("axclrtFreeHost", c_void_p(host))
    refused(MEMORY_ILLEGAL, "already freed", "axclrtFreeHost", c_void_p(host))
    refused(MEMORY_ILLEGAL, "above 0", "axclrtMalloc", byref(c_void_p()), c_size_t(0), 2)


def do_memory_accounting() -> None:
    """Charges by page and by model, the peak, exhaustion, the shrink fault; freed memory can be had again."""
    EMU.set("memory_mib", 64)
    start()
    idle = EMU.report()["memory"]["device_used"]
    blocks = [malloc(1 << 20) for _ in range(46)]
    refused(NO_MEMORY, "KiB are free", "axclrtMalloc", byref(c_void_p()), c_size_t(1), 2)
    for block in blocks:
        ok("axclrtFree", c_void_p(block))
    for _ in range(300):  # more than the address range holds at once: addresses are reused in the end
        ok("axclrtFree", c_void_p(malloc(40 << 20)))
    model = Model(model_file("layer", LAYER))
    memory = EMU.report()["memory"]
    assert memory["device_used"] == idle + (1 << 20), memory
    assert memory["device_peak"] == 64 << 20 and memory["device_total"] == 64 << 20, memory
    model.close()
    EMU.set("faults", "memory=20; leak=1048576")
    refused(NO_MEMORY, "of 20 MiB", "axclrtMalloc", byref(c_void_p()), c_size_t(3 << 20), 2)
    Model(model_file("layer", LAYER)).close()
    refused(NO_MEMORY, "1024 KiB are free", "axclrtEngineLoadFromFile", model_file("layer", LAYER), byref(c_uint64()))


def do_leaks() -> None:
    """What is left open is named at axclFinalize; a clean run leaves nothing."""
    start()
    model = Model(model_file("layer", LAYER))
    block, host, work = malloc(123), pinned(77), stream()
    ok("axclFinalize")
    text = "\n".join(EMU.report()["leaks"])
    for part in ("123 bytes", "pinned host memory, 77", "stream", "IO info", "IO 0x", "model layer"):
        assert part in text, (part, text)
    ok("axclInit", None)
    ok("axclrtSetDevice", 1)
    refused(NOT_DEVICE, "in no live allocation", "axclrtFree", c_void_p(block))
    refused(0x80300303, "no stream", "axclrtSynchronizeStream", work)
    refused(ENGINE_ILLEGAL, "no IO", "axclrtEngineDestroyIO", model.io)
    assert host
    ok("axclFinalize")
    assert EMU.report()["leaks"] == []


# ---- contexts, devices
# ----------------------------------------------------------------------------------------------------


def do_contexts() -> None:
    """One context per thread; set and reset are counted; nothing works before axclInit or without a context."""
    refused(0x80300185, "before axclInit", "axclrtSetDevice", 1)
    ok("axclInit", None)
    ok("axclInit", None)  # again: no error
    refused(NO_CONTEXT, "without a context", "axclrtMalloc", byref(c_void_p()), c_size_t(8), 2)
    refused(0x80300184, "no device 7", "axclrtSetDevice", 7)
    ok("axclrtSetDevice", 1)
    context, made, seen = c_void_p(), c_void_p(), []
    ok("axclrtGetCurrentContext", byref(context))
    ok("axclrtGetDefaultContext", byref(made), 1)
    assert made.value == context.value

    def other_thread() -> None:
        seen.append(call("axclrtMalloc", byref(c_void_p()), c_size_t(8), 2))
        seen.append(call("axclrtSetCurrentContext", context))
        seen.append(call("axclrtFree", c_void_p(malloc(8))))

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
    assert seen == [NO_CONTEXT, 0, 0], seen
    ok("axclrtCreateContext", byref(made), 1)
    assert made.value != context.value
    work = stream()
    refused(0x80300106, "1 streams and 1 explicit contexts", "axclrtResetDevice", 1)
    ok("axclrtDestroyStream", work)
    ok("axclrtDestroyContext", made)
    refused(NO_CONTEXT, "no context", "axclrtGetCurrentContext", byref(context))
    ok("axclrtSetDevice", 1)
    ok("axclrtResetDevice", 1)
    ok("axclrtGetCurrentContext", byref(context))
    ok("axclrtResetDevice", 1)
    refused(NO_CONTEXT, "no context", "axclrtGetCurrentContext", byref(context))
    refused(0x80300183, "more often", "axclrtResetDevice", 1)


class DeviceList(ctypes.Structure):
    """axclrtDeviceList."""

    _fields_ = (("num", c_uint32), ("devices", c_int32 * 256))


class Properties(ctypes.Structure):
    """axclrtDeviceProperties."""

    _fields_ = (
        *(("version", ctypes.c_char * 64), ("uid", c_uint64), ("pci", c_uint32 * 3), ("temperature", c_int32)),
        *(("total_mem", c_uint32), ("free_mem", c_uint32), ("total_cmm", c_uint32), ("free_cmm", c_uint32)),
        *(("cpu", c_uint32), ("npu", c_uint32), ("reserved", c_uint32 * 32)),
    )


def do_devices() -> None:
    """The list, ids that are not positions, properties, a temperature that rises until the card resets itself."""
    EMU.set("devices", 2)
    EMU.set("device_id", 5)
    ok("axclInit", None)
    devices, properties = DeviceList(), Properties()
    ok("axclrtGetDeviceList", byref(devices))
    assert list(devices.devices[: devices.num]) == [5, 6]
    ok("axclrtSetDevice", 6)
    other = malloc(1 << 20)
    ok("axclrtGetDeviceProperties", 6, byref(properties))
    assert properties.total_cmm == 7040 * 1024 and properties.free_cmm == (7040 - 18 - 1) * 1024
    assert properties.temperature == 45000 and b"emulated" in properties.version
    ok("axclrtSetDevice", 5)
    refused(MEMORY_ILLEGAL, "belongs to device 6", "axclrtMemset", c_void_p(other), c_uint8(0), c_size_t(8))
    EMU.set("faults", "temperature=110000+4000")
    ok("axclrtEngineInit", 0)
    model = Model(model_file("layer", LAYER))
    model.bind_all(DECODE)
    for _ in range(2):
        ok("axclrtEngineExecute", *model.args(DECODE))
    ok("axclrtGetDeviceProperties", 5, byref(properties))
    assert properties.temperature == 118000
    ok("axclrtEngineExecute", *model.args(DECODE))
    refused(OFFLINE, "offline", "axclrtEngineExecute", *model.args(DECODE))
    ok("axclrtGetDeviceList", byref(devices))
    assert list(devices.devices[: devices.num]) == [6]


def do_settings() -> None:
    """Every wrong value is refused in a sentence; early settings are refused late."""
    for key, value, words in (
        ("speed", "0", "SPEED"),
        ("mode", "easy", "strict or tolerant"),
        ("colour", "red", "no setting"),
        ("memory_mib", "-1", "whole number"),
        ("isa", "mmx", "ISA"),
        ("profile", "no-such-profile", "cannot be opened"),
        ("faults", "axclrtFoo@1=hang", "no function of that name"),
        ("faults", "axclrtFree@0=hang", "from 1"),
        ("faults", "axclrtFree@1=fail", "error value"),
        ("faults", "nan@tail:1", "NaN results"),
        ("faults", "device=lost", "offline or dead"),
        ("faults", "wind=3", "known are"),
    ):
        try:
            EMU.set(key, value)
        except EmulatorError as error:
            assert words in str(error), (key, value, str(error))
        else:
            raise AssertionError(f"{key}={value} was taken")
    EMU.set("AXPRESS_EMU_SPEED", 2.5)
    ok("axclInit", None)
    try:
        EMU.set("devices", 2)
    except EmulatorError as error:
        assert "axclInit" in str(error)
    else:
        raise AssertionError("DEVICES was taken after axclInit")


def do_bad_profiles() -> None:
    """Profiles are parsed strictly, and the sentence names the line."""
    good = (emulator_library().parents[1] / "profiles" / "qwen3-0.6b-w8a16-pi5.toml").read_text()
    path = FOLDER / "p.toml"
    for old, new, words in (
        ("head_ms = 7.92", "head_ms = fast", "must be a number"),
        ("head_ms = 7.92", "head_ms = 7.92 7", "must be a number"),
        ("head_ms", "heads_ms", "unknown key: cost.heads_ms"),
        ("[cost]", "[costs]", "unknown section: costs"),
        ("decode_rows = [2047]", "decode_rows = 2047", "list of numbers"),
        ("decode_rows = [2047]", "decode_rows = [2047", "must end with ]"),
        ("decode_rows = [2047]", "decode_rows = [2047, 4095]", "same length"),
        ("chunk_history = [0, 1024]", "chunk_history = [1024, 0]", "ascending"),
        ("bus_mb_s = 400", "bus_mb_s = 0", "above 0"),
        ('name = "qwen3-0.6b-w8a16-pi5"', "name = qwen3", "name must be a string"),
        ("[memory]", "[memory", "a section is"),
    ):
        assert old in good
        path.write_text(good.replace(old, new, 1))
        try:
            EMU.set("profile", path)
        except EmulatorError as error:
            assert words in str(error) and "p.toml" in str(error), (new, str(error))
        else:
            raise AssertionError(f"{new} was taken")
    path.write_text(good)
    EMU.set("profile", path)
    assert EMU.report()["profile"] == "qwen3-0.6b-w8a16-pi5"


# ---- streams
# ----------------------------------------------------------------------------------------------------------------


def do_streams() -> None:
    """Order within a stream; errors of queued work come out of the next synchronise, once; busy memory is not freed."""
    start()
    work, memory, host = stream(), malloc(8), pinned(2000)
    EMU.set("faults", "axclrtMemcpyAsync@2001=later:0x8030050c; axclrtMemsetAsync@2001=hang:200")
    for i in range(2000):
        ok("axclrtMemsetAsync", c_void_p(memory), c_uint8(i % 251), c_size_t(8), work)
        ok("axclrtMemcpyAsync", *copy_args(host + i, memory, 1, D2H), work)
    ok("axclrtSynchronizeStream", work)
    assert ctypes.string_at(host, 2000) == bytes(i % 251 for i in range(2000))
    ok("axclrtMemcpyAsync", *copy_args(host, memory, 1, D2H), work)
    ok("axclrtMemcpyAsync", *copy_args(host, memory, 1, D2H), work)
    refused(0x8030050C, "", "axclrtSynchronizeStream", work)
    ok("axclrtSynchronizeStream", work)
    ok("axclrtMemsetAsync", c_void_p(memory), c_uint8(1), c_size_t(8), work)
    refused(MEMORY_BUSY, "queued work", "axclrtFree", c_void_p(memory))
    refused(SYNC_TIMEOUT, "in time", "axclrtSynchronizeStreamWithTimeout", work, 5)
    ok("axclrtDestroyStreamForce", work)
    ok("axclrtFree", c_void_p(memory))
    refused(0x80300303, "no stream", "axclrtSynchronizeStream", work)


def do_events() -> None:
    """A stream that waits for an event does its work after the record; a wait can time out."""
    start()
    first, second, event = stream(), stream(), c_void_p()
    memory, host = malloc(8), pinned(8)
    ok("axclrtCreateEvent", byref(event))
    EMU.set("faults", "axclrtMemsetAsync@1=hang:60; axclrtMemsetAsync@3=hang:300")
    ok("axclrtMemsetAsync", c_void_p(memory), c_uint8(1), c_size_t(8), first)  # hangs, and is lost
    ok("axclrtMemsetAsync", c_void_p(memory), c_uint8(2), c_size_t(8), first)
    ok("axclrtRecordEvent", event, first)
    ok("axclrtStreamWaitEvent", second, event)
    ok("axclrtMemcpyAsync", *copy_args(host, memory, 8, D2H), second)
    ok("axclrtSynchronizeStream", second)
    assert ctypes.string_at(host, 8) == b"\2" * 8
    assert call("axclrtSynchronizeStream", first) == 0x80300105
    ok("axclrtMemsetAsync", c_void_p(memory), c_uint8(3), c_size_t(8), first)
    ok("axclrtRecordEvent", event, first)
    ok("axclrtStreamWaitEventWithTimeout", second, event, 5)
    refused(0x80300305, "without it", "axclrtSynchronizeStream", second)
    ok("axclrtDestroyEvent", event)
    refused(0x80300382, "already destroyed", "axclrtDestroyEvent", event)


def do_async_switch() -> None:
    """ASYNC=0 refuses, ASYNC=sync does the work before the call returns."""
    start()
    work, memory = stream(), malloc(4)
    EMU.set("async", 0)
    refused(0x80300304, "switched off", "axclrtMemsetAsync", c_void_p(memory), c_uint8(9), c_size_t(4), work)
    EMU.set("async", "sync")
    ok("axclrtMemsetAsync", c_void_p(memory), c_uint8(9), c_size_t(4), work)
    assert down(memory, 4) == b"\x09" * 4
    ok("axclrtSynchronizeStream", work)


# ---- the next generation of cards

UNSUPPORTED_DEVICE, UNSUPPORTED_MEMORY = 0x80300104, 0x80300504


def do_next_generation() -> None:
    """GENERATION=ax8860: ids from 0, functions that are not there, counted initialisation, no asynchronous copies on
    the device."""
    EMU.set("generation", "ax8860")
    ok("axclInit", None)
    ok("axclInit", None)
    ok("axclFinalize")
    ok("axclrtSetDevice", 0)
    for name in ("axclrtGetDeviceList", "axclrtRebootDevice"):
        refused(UNSUPPORTED_DEVICE, f"AX8860 has no {name}", name, byref(DeviceList()))
    work, memory, host = stream(), malloc(64), pinned(64)
    refused(UNSUPPORTED_MEMORY, "AX8860", "axclrtMemcpyAsync", *copy_args(memory, memory + 32, 32, D2D), work)
    ok("axclrtMemcpy", *copy_args(memory, memory + 32, 32, D2D))
    ok("axclrtMemcpyAsync", *copy_args(memory, host, 64, H2D), work)
    ok("axclrtSynchronizeStream", work)
    ok("axclFinalize")
    assert call("axclrtSetDevice", 0) == 0x80300185


def do_next_generation_library() -> None:
    """build/ax8860/libaxcl_rt.so lacks the names and has the new ones, which answer; the ordinary library has neither
    the new names nor, without the setting, the manners."""
    old, lib = LIB, ctypes.CDLL(str(ROOT / "build" / "ax8860" / "libaxcl_rt.so"))
    for name in ("GetDeviceList", "GetDeviceProperties", "RebootDevice", "EngineSetContextAffinity"):
        assert hasattr(old, f"axclrt{name}") and not hasattr(lib, f"axclrt{name}"), name
    for name in ("GetDeviceInfo", "GetMemInfo", "QueryDeviceStatus"):
        assert hasattr(lib, f"axclrt{name}") and not hasattr(old, f"axclrt{name}"), name
    assert lib.axemu_set(b"generation", b"ax8860") == 0 and lib.axemu_set(b"devices", b"2") == 0
    assert lib.axclInit(None) == 0
    value, free, total = c_uint64(), c_size_t(), c_size_t()
    assert ctypes.c_uint32(lib.axclrtGetMemInfo(0, byref(free), byref(total))).value == NO_CONTEXT
    for device in (0, 1):
        assert lib.axclrtSetDevice(device) == 0
        assert lib.axclrtGetDeviceInfo(device, 4, byref(value)) == 0 and value.value == device + 1  # the PCI bus
    assert lib.axclrtGetMemInfo(0, byref(free), byref(total)) == 0
    assert (free.value, total.value) == ((7040 - 18) << 20, 7040 << 20)
    assert lib.axclrtQueryDeviceStatus(1, byref(value)) == 0 and value.value == 1
    assert lib.axclrtQueryDeviceStatus(9, byref(value)) == 0 and value.value & 0xFFFFFFFF == 0
    assert ctypes.c_uint32(lib.axclrtGetDeviceInfo(0, 7, byref(value))).value == 0x80300103
    assert lib.axclFinalize() == 0


if __name__ == "__main__":
    main(globals())
