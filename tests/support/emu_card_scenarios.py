"""Scenarios of a card that forgives nothing: what real packages, real loads and the real runtime do that is easy to
forget."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from ctypes import byref, c_int64, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from pathlib import Path

from emu_runtime_scenarios import DeviceList, Properties
from emu_scenario_base import (
    CHUNK,
    CHUNK_0,
    CHUNK_1,
    D2D,
    D2H,
    DECODE,
    EMU,
    ENGINE_BUSY,
    ENGINE_ILLEGAL,
    H2D,
    HEAD,
    HIDDEN,
    KV,
    LAYER,
    LIB,
    NO_CONTEXT,
    NO_MEMORY,
    OFFLINE,
    Model,
    call,
    copy_args,
    down,
    layer_with_weights,
    main,
    malloc,
    model_file,
    ok,
    pinned,
    refused,
    start,
    stream,
    up,
    zeros,
)

LOAD = "axclrtEngineLoadFromFile"
PROFILE = "qwen3-0.6b-w8a16-pi5"
FILE_SECONDS, BYTES_PER_SECOND = 0.7, 43.6e6  # of that profile


def seconds(work: Callable[[], object]) -> float:
    """Real time that `work` takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def modelled(work: Callable[[], object]) -> float:
    """Modelled seconds that `work` takes."""
    before = EMU.report()["modelled_ns"]
    work()
    return float(EMU.report()["modelled_ns"] - before) * 1e-9


# ---- shapes


def dims(model: Model, group: int, index: int) -> list[int]:
    """An input's shape."""
    values = (ctypes.c_int32 * 33)()
    ok("axclrtEngineGetInputDims", model.info, c_uint32(group), c_uint32(index), values)
    return list(values[1 : 1 + values[0]])


def do_p0_width() -> None:
    """The cache row of a group without history is as wide as hidden, or as K and V where the file says so; another size
    is refused."""
    start()
    models = {width: Model(model_file(width, LAYER, p0_width=width)) for width in ("hidden", "kv")}
    for width, columns in (("hidden", HIDDEN), ("kv", KV)):
        for index in (0, 1):
            assert dims(models[width], CHUNK_0, index) == [1, 1, columns]
            assert models[width].size("Input", CHUNK_0, index) == 2 * columns
            assert dims(models[width], CHUNK_1, index) == [1, 8, KV]
    assert dims(Model(model_file("silent", LAYER)), CHUNK_0, 0) == [1, 1, HIDDEN]
    model = models["hidden"]
    inputs, _ = model.bind_all(CHUNK_0)
    ok("axclrtEngineExecute", *model.args(CHUNK_0))
    assert model.bind("Input", 0, inputs[0], 2 * KV) == 0
    refused(ENGINE_ILLEGAL, "K_cache: the bound size is not", "axclrtEngineExecute", *model.args(CHUNK_0))
    refused(0x8030070B, '"D" is not hidden or kv', LOAD, model_file("wrong", LAYER, p0_width="D"), byref(c_uint64()))


def do_p0_width_and_arithmetic() -> None:
    """Both widths give the same rows."""
    results = []
    start()
    for width, columns in (("hidden", HIDDEN), ("kv", KV)):
        model = Model(layer_with_weights(width, p0_width=width))
        assert model.size("Input", CHUNK_0, 0) == 2 * columns
        inputs, outputs = model.bind_all(CHUNK_0)
        up(inputs[3], bytes([0, 0x3F, 0x80, 0x3E] * (HIDDEN * CHUNK // 2)))
        ok("axclrtEngineExecute", *model.args(CHUNK_0))
        results.append([down(p, model.size("Output", CHUNK_0, i)) for i, p in enumerate(outputs)])
        model.close()
    assert results[0] == results[1] and any(results[0][2])


def do_unusual_tensors() -> None:
    """Other types and shapes, more inputs and outputs, in hollow files; what cannot be is refused by its words."""
    start()
    layer = "K_cache=int8; V_cache=int8;indices@1=:1x3x8 ;+per_layer_input=bf16:1x1x256; per_layer_input@2=:1x8x256"
    model = Model(model_file("layer", LAYER, tensors=layer))
    assert [dims(model, group, 2) for group in range(3)] == [[1, 1], [1, 3, 8], [1, 8]]
    assert [dims(model, group, 5) for group in range(3)] == [[1, 1, 256], [1, 1, 256], [1, 8, 256]]
    assert model.size("Input", DECODE, 0) == 15 * KV and model.size("Output", DECODE, 0) == 2 * KV
    kind = c_uint32()
    ok("axclrtEngineGetInputDataType", model.info, c_uint32(0), byref(kind))
    assert kind.value == 3
    assert LIB.axclrtEngineGetInputIndexByName(model.info, b"per_layer_input") == 5
    _, outputs = model.bind_all(CHUNK_1)
    ok("axclrtEngineExecute", *model.args(CHUNK_1))
    assert any(down(outputs[2], CHUNK * HIDDEN * 2))
    model.close()
    head = Model(model_file("head", HEAD, tensors=">indices=int32:1x1"))
    assert LIB.axclrtEngineGetNumOutputs(head.info) == 2 and head.size("Output", 0, 1) == 4
    for wrong in ("K_cache=int9", "nothing=int8", "+extra=:1x2", "mask@9=:1x1", "mask=", "mask=:0", "mask=:1x2x3x4x5"):
        refused(0x8030070B, f'"{wrong}" is not', LOAD, model_file("w", LAYER, tensors=wrong), byref(c_uint64()))
    refused(0x8030070B, "for hollow files", LOAD, layer_with_weights("x", tensors="mask=fp16"), byref(c_uint64()))


# ---- in place


def wide_layer(name: str) -> bytes:
    """A hollow layer whose K and V rows have 1 KiB: every other one begins on a 2 KiB boundary."""
    return model_file(name, LAYER, kv_heads="4", head_dim="128")


def do_in_place_alignment() -> None:
    """K and V rows in place are written at multiples of 2 KiB; elsewhere they are lost, work, are refused, or land on
    the boundary below, as set."""
    start()
    model, row = Model(wide_layer("layer")), 1024
    inputs, outputs = model.bind_all(DECODE)
    up(inputs[3], bytes([0, 0x3F, 0x80, 0x3E] * (HIDDEN // 2)))
    ok("axclrtEngineExecute", *model.args(DECODE))
    key = down(outputs[0], row)
    assert any(key)

    def cache_after(number: int) -> bytes:
        ok("axclrtMemset", c_void_p(inputs[0]), c_uint8(0), c_size_t(15 * row))
        assert model.bind("Output", 0, inputs[0] + number * row, row) == 0
        ok("axclrtEngineExecute", *model.args(DECODE))
        return down(inputs[0], 4 * row)

    gone = bytes(row)
    assert cache_after(2) == gone * 2 + key + gone
    assert cache_after(3) == gone * 4
    EMU.set("inplace_unaligned", "down")
    for _ in range(2):
        assert cache_after(3) == gone * 2 + key + gone
    EMU.set("inplace_unaligned", 1)
    assert cache_after(3) == gone * 3 + key
    EMU.set("inplace_unaligned", "error")
    assert cache_after(2) == gone * 2 + key + gone
    assert model.bind("Output", 0, inputs[0] + 3 * row, row) == 0
    refused(ENGINE_ILLEGAL, "multiples of 2 KiB", "axclrtEngineExecute", *model.args(DECODE))


# ---- loading


def usage(path: bytes) -> int:
    """Bytes of CMM that axclrtEngineGetUsage says."""
    system, cmm = c_int64(), c_int64()
    ok("axclrtEngineGetUsage", path, byref(system), byref(cmm))
    return cmm.value


def do_usage_loads() -> None:
    """Asking what a model needs loads and unloads it: memory for it and its file, the time of a load, the order rule,
    nothing after the first execute."""
    EMU.set("memory_mib", 40)
    EMU.set("profile", PROFILE)
    EMU.set("speed", 1000)
    start()
    layer = model_file("layer", LAYER, file_bytes=str(10 << 20))
    idle = EMU.report()["memory"]["device_used"]
    took = modelled(lambda: usage(layer))
    assert abs(took - (FILE_SECONDS + (10 << 20) / BYTES_PER_SECOND)) < 2e-3, took
    memory = EMU.report()["memory"]
    assert memory["device_used"] == idle and memory["device_peak"] == idle + (11 << 20), memory
    refused(ENGINE_BUSY, "heads come first", LOAD, model_file("post", HEAD), byref(c_uint64()))
    large = model_file("large", LAYER, file_bytes=str(22 << 20))
    refused(NO_MEMORY, "needs 23552 KiB", "axclrtEngineGetUsage", large, byref(c_int64()), byref(c_int64()))
    Model(layer).close()  # all are unloaded: a fresh start
    Model(model_file("post", HEAD)).close()
    model = Model(layer)
    model.bind_all(DECODE)
    ok("axclrtEngineExecute", *model.args(DECODE))
    refused(ENGINE_BUSY, "first execute", "axclrtEngineGetUsage", layer, byref(c_int64()), byref(c_int64()))
    refused(0x80300702, "", "axclrtEngineGetUsage", None, byref(c_int64()), byref(c_int64()))
    ok("axclrtEngineUnload", model.id)
    ok("axclrtEngineFinalize")
    refused(0x80300701, "axclrtEngineInit", "axclrtEngineGetUsage", layer, byref(c_int64()), byref(c_int64()))


def do_load_time() -> None:
    """A load takes the profile's time by the size of the file, a hollow one's by the size it tells; the speed factor
    and the switch; a reset ends it."""
    EMU.set("profile", PROFILE)
    start()
    layer = model_file("layer", LAYER, file_bytes="4360000")
    EMU.set("speed", 20)
    models: list[Model] = []
    expected = FILE_SECONDS + 0.1
    real = seconds(lambda: models.append(Model(layer)))
    assert expected / 20 <= real, real
    EMU.set("speed", 1000)
    assert abs(modelled(lambda: models.append(Model(layer))) - expected) < 2e-3
    image = Path(layer.decode()).read_bytes()
    memory = malloc(len(image))
    up(memory, image)
    load = lambda: ok("axclrtEngineLoadFromMem", c_void_p(memory), c_uint64(len(image)), byref(c_uint64()))  # noqa: E731
    assert abs(modelled(load) - expected) < 2e-3
    EMU.set("load_time", False)
    assert modelled(lambda: models.append(Model(layer))) == 0
    EMU.set("load_time", True)
    EMU.set("speed", 0.001)  # 800 s
    seen: list[int] = []

    def load_for_long() -> None:
        ok("axclrtSetDevice", 1)
        seen.append(call(LOAD, layer, byref(c_uint64())))

    used = EMU.report()["memory"]["device_used"]
    thread = threading.Thread(target=load_for_long)
    thread.start()
    while EMU.report()["memory"]["device_used"] == used:
        time.sleep(0.01)
    EMU.set("speed", 1000)
    ok("axclrtRebootDevice", 1)
    thread.join(10)
    assert seen == [OFFLINE], seen


def do_no_load_time_without_profile() -> None:
    """On profile none loading takes no modelled time."""
    start()
    assert modelled(lambda: Model(model_file("layer", LAYER, file_bytes="4360000000"))) == 0


def do_head_late() -> None:
    """HEAD_FIRST=offline: a head that is loaded after a layer takes the device off the bus, in tolerant mode, too."""
    EMU.set("mode", "tolerant")
    EMU.set("head_first", "offline")
    start()
    layer, head = model_file("layer", LAYER), model_file("post", HEAD)
    Model(head), Model(layer)
    refused(OFFLINE, "dropped off the bus", LOAD, head, byref(c_uint64()))
    refused(OFFLINE, "offline until it is rebooted", "axclrtMalloc", byref(c_void_p()), c_size_t(8), 2)
    ok("axclrtRebootDevice", 1)
    ok("axclrtSetDevice", 1)
    ok("axclrtEngineInit", 0)
    usage(layer)
    refused(OFFLINE, "dropped off the bus", LOAD, head, byref(c_uint64()))


# ---- runtime


def do_process() -> None:
    """axclInit and axclFinalize again, axclFinalize where nothing is initialised; no driver; ids from 1, as the PCI
    buses are numbered."""
    ok("axclFinalize")
    for name in ("axclInit", "axclInit", "axclFinalize", "axclFinalize"):
        ok(name, *([b""] if name == "axclInit" else []))
    refused(0x80300185, "before axclInit", "axclrtSetDevice", 1)
    EMU.set("faults", "driver=missing")
    refused(0x8030010B, "/dev/axcl_host", "axclInit", None)
    EMU.set("faults", "")
    EMU.set("devices", 3)
    ok("axclInit", None)
    devices, properties = DeviceList(), Properties()
    ok("axclrtGetDeviceList", byref(devices))
    assert list(devices.devices[: devices.num]) == [1, 2, 3]
    refused(0x80300184, "no device 0", "axclrtSetDevice", 0)
    ok("axclrtGetDeviceProperties", 3, byref(properties))
    assert list(properties.pci) == [0, 3, 0]
    ok("axclFinalize")
    ok("axclFinalize")


def do_streams_without_context() -> None:
    """With an explicit stream the asynchronous calls, and waiting for it, need no context of the calling thread;
    without one, and for synchronous calls, they do."""
    start()
    model, work, event = Model(model_file("layer", LAYER)), stream(), c_void_p()
    model.bind_all(DECODE)
    memory, host = zeros(64), pinned(64)
    ok("axclrtCreateEvent", byref(event))
    seen: list[int] = []

    def other_thread() -> None:
        for name, *arguments in (
            ("axclrtMemsetAsync", c_void_p(memory), c_uint8(7), c_size_t(32), work),
            ("axclrtMemcpyAsync", *copy_args(memory + 32, memory, 32, D2D), work),
            ("axclrtMemcpyAsync", *copy_args(host, memory, 64, D2H), work),
            ("axclrtMemcmpAsync", c_void_p(memory), c_void_p(memory + 32), c_size_t(32), work),
            ("axclrtEngineExecuteAsync", *model.args(DECODE), work),
            ("axclrtRecordEvent", event, work),
            ("axclrtStreamWaitEvent", work, event),
            ("axclrtSynchronizeStream", work),
            ("axclrtSynchronizeStreamWithTimeout", work, 1000),
            ("axclrtMemsetAsync", c_void_p(memory), c_uint8(7), c_size_t(32), None),
            ("axclrtMemset", c_void_p(memory), c_uint8(7), c_size_t(32)),
            ("axclrtEngineExecute", *model.args(DECODE)),
            ("axclrtMemsetAsync", c_void_p(memory), c_uint8(7), c_size_t(32), event),
        ):
            seen.append(call(name, *arguments))

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
    assert seen == [0] * 9 + [NO_CONTEXT] * 3 + [0x80300303], [hex(code) for code in seen]
    assert ctypes.string_at(host, 64) == b"\x07" * 64


def do_batch_size() -> None:
    """axclrtEngineSetDynamicBatchSize keeps the size; a model that was compiled for one refuses another at the
    execute."""
    start()
    model = Model(model_file("layer", LAYER))
    model.bind_all(DECODE)
    for size in (0, 1):
        ok("axclrtEngineSetDynamicBatchSize", model.io, c_uint32(size))
        ok("axclrtEngineExecute", *model.args(DECODE))
    ok("axclrtEngineSetDynamicBatchSize", model.io, c_uint32(2))
    refused(ENGINE_ILLEGAL, "a batch of 2", "axclrtEngineExecute", *model.args(DECODE))
    EMU.set("mode", "tolerant")
    ok("axclrtEngineExecute", *model.args(DECODE))
    ok("axclrtEngineDestroyIO", model.io)
    refused(ENGINE_ILLEGAL, "no IO", "axclrtEngineSetDynamicBatchSize", model.io, c_uint32(1))


def do_host_memory() -> None:
    """HOST_MEMORY=plain: what axclrtMallocHost gives transfers like other host memory."""
    EMU.set("profile", PROFILE)
    EMU.set("speed", 1000)
    start()
    memory, host = zeros(4096), pinned(4096)

    def twenty() -> None:
        for _ in range(20):
            ok("axclrtMemcpy", *copy_args(memory, host, 4096, H2D))

    fast = modelled(twenty)
    EMU.set("host_memory", "plain")
    slow = modelled(twenty)
    assert abs(slow - fast - 20 * 230e-6) < 1e-3, (fast, slow)


if __name__ == "__main__":
    main(globals())
