"""Scenarios of the emulated engine: queries, binding rules, modes, faults, counters, time."""

from __future__ import annotations

import ctypes
import threading
import time
from ctypes import byref, c_int32, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from pathlib import Path

from emu_scenario_base import (
    CHUNK,
    CHUNK_1,
    D2H,
    DECODE,
    EMU,
    ENGINE_BUSY,
    ENGINE_ILLEGAL,
    EXECUTE_FAIL,
    FOLDER,
    H2D,
    HEAD,
    HIDDEN,
    HISTORY,
    KV,
    LAYER,
    LIB,
    MEMORY_BUSY,
    NO_MEMORY,
    NOT_DEVICE,
    OFFLINE,
    POISON,
    ROWS,
    SYNC_TIMEOUT,
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

# ---- engine
# -------------------------------------------------------------------------------------------------------------------


def do_engine_queries() -> None:
    """Groups, shapes, types, names; loading from device memory that is freed at once; usage."""
    start()
    path = model_file("layer", LAYER)
    system, cmm, kind, count, index = ctypes.c_int64(), ctypes.c_int64(), c_int32(), c_int32(), c_uint32(99)
    ok("axclrtEngineGetUsage", path, byref(system), byref(cmm))
    assert cmm.value == 1 << 20
    image = Path(path.decode()).read_bytes()
    memory, model, info = malloc(len(image)), c_uint64(), c_void_p()
    up(memory, image)
    ok("axclrtEngineLoadFromMem", c_void_p(memory), c_uint64(len(image)), byref(model))
    ok("axclrtFree", c_void_p(memory))
    ok("axclrtEngineGetIOInfo", model, byref(info))
    ok("axclrtEngineGetShapeGroupsCount", info, byref(count))
    assert count.value == 3
    name = LIB.axclrtEngineGetInputNameByIndex
    name.restype = ctypes.c_char_p
    assert [name(info, i) for i in range(5)] == [b"K_cache", b"V_cache", b"indices", b"input", b"mask"]
    assert name(info, 5) is None
    assert LIB.axclrtEngineGetOutputIndexByName(info, b"output") == 2
    assert LIB.axclrtEngineGetOutputIndexByName(info, b"nothing") == -1
    dims = (c_int32 * 33)()
    ok("axclrtEngineGetInputDims", info, 2, 4, dims)
    assert list(dims[:4]) == [3, 1, CHUNK, HISTORY + CHUNK]
    refused(0x80300781, "no input 4 in group 3", "axclrtEngineGetInputDims", info, 3, 4, dims)
    ok("axclrtEngineGetInputDataType", info, 2, byref(kind))
    assert kind.value == 8
    version = LIB.axclrtEngineGetModelCompilerVersion
    version.restype, version.argtypes = ctypes.c_char_p, [c_uint64]
    assert version(model) is not None
    ok("axclrtEngineGetAffinity", model, byref(index))
    assert index.value == 7
    ok("axclrtEngineInit", 0)  # again: pyaxengine does
    refused(ENGINE_BUSY, "another kind", "axclrtEngineInit", 1)
    refused(
        0x8030070B,
        "missing.axmodel",
        "axclrtEngineLoadFromFile",
        str(FOLDER / "missing.axmodel").encode(),
        byref(model),
    )


def do_strict_bindings() -> None:
    """Each rule of the card that strict mode turns into an error."""
    start()
    model = Model(model_file("layer", LAYER))
    refused(ENGINE_ILLEGAL, "input K_cache: nothing is bound", "axclrtEngineExecute", *model.args(DECODE))
    inputs, outputs = model.bind_all(DECODE)
    ok("axclrtEngineExecute", *model.args(DECODE))
    refused(ENGINE_ILLEGAL, "not the size the group asks for", "axclrtEngineExecute", *model.args(CHUNK_1))
    table = zeros(4096)
    size = model.size("Input", DECODE, 4)
    for way, index, pointer, length, words in (
        ("Input", 4, table + 64, size, "inside an allocation"),
        ("Input", 4, inputs[3], size, "not the size" if size > 128 else "shares its allocation"),
        ("Input", 4, inputs[4], size + 2, "not the size"),
        ("Output", 2, inputs[3], HIDDEN * 2, "overlaps an input"),
        ("Output", 2, outputs[0], HIDDEN * 2, "reaches past the allocation"),
        ("Output", 0, inputs[0] + 2, KV * 2, "row's boundary"),
        ("Output", 0, inputs[1] + KV * 2, KV * 2, "overlaps an input"),
    ):
        before = inputs[index] if way == "Input" else outputs[index]
        assert model.bind(way, index, pointer, length) == 0
        refused(ENGINE_ILLEGAL, words, "axclrtEngineExecute", *model.args(DECODE))
        assert model.bind(way, index, before, model.size(way, DECODE, index)) == 0
        ok("axclrtEngineExecute", *model.args(DECODE))
    refused(
        ENGINE_BUSY, "after the first execute", "axclrtEngineLoadFromFile", model_file("b", LAYER), byref(c_uint64())
    )
    ok("axclrtFree", c_void_p(inputs[4]))
    refused(NOT_DEVICE, "freed", "axclrtEngineExecute", *model.args(DECODE))
    refused(ENGINE_BUSY, "still loaded", "axclrtEngineFinalize")
    model.close()
    ok("axclrtEngineFinalize")
    refused(
        0x80300701,
        "axclrtEngineInit comes before",
        "axclrtEngineLoadFromFile",
        model_file("b", LAYER),
        byref(c_uint64()),
    )


def do_order_of_loading() -> None:
    """A head after a layer is refused, unless the setting allows it."""
    start()
    layer, head = model_file("layer", LAYER), model_file("post", HEAD)
    first = Model(layer)
    refused(ENGINE_BUSY, "heads come first", "axclrtEngineLoadFromFile", head, byref(c_uint64()))
    EMU.set("head_first", 0)
    Model(head).close()
    first.close()
    EMU.set("head_first", 1)
    Model(head), Model(layer)


def do_in_flight() -> None:
    """Binding, destroying and unloading what queued work uses is refused."""
    start()
    model, work = Model(model_file("layer", LAYER)), stream()
    inputs, _ = model.bind_all(DECODE)
    size = model.size("Input", DECODE, 4)
    EMU.set("faults", "axclrtEngineExecuteAsync@1=hang:400")
    ok("axclrtEngineExecuteAsync", *model.args(DECODE), work)
    assert model.bind("Input", 4, inputs[4], size) == ENGINE_BUSY
    refused(ENGINE_BUSY, "while an execute uses it", "axclrtEngineDestroyIO", model.io)
    refused(ENGINE_BUSY, "while it executes", "axclrtEngineUnload", model.id)
    refused(MEMORY_BUSY, "queued work", "axclrtFree", c_void_p(inputs[0]))
    assert call("axclrtSynchronizeStream", work) == 0x80300105
    assert model.bind("Input", 4, inputs[4], size) == 0
    model.close()


def do_in_place() -> None:
    """K/V rows in their cache: decode works and gives the bits of an own buffer, is lost or refused as set; chunks
    likewise."""
    start()
    model = Model(layer_with_weights("layer"))
    inputs, outputs = model.bind_all(DECODE)
    row = KV * 2
    up(inputs[3], bytes([0, 0x3F, 0x80, 0x3E] * (HIDDEN // 2)))
    ok("axclrtEngineExecute", *model.args(DECODE))
    key, value, out = down(outputs[0], row), down(outputs[1], row), down(outputs[2], HIDDEN * 2)
    assert any(key) and any(out) and POISON not in (out[i : i + 2] for i in range(0, len(out), 2))
    for cache, target in ((0, 0), (1, 1)):
        assert model.bind("Output", target, inputs[cache] + 3 * row, row) == 0
    EMU.set("inplace_decode", 0)
    ok("axclrtEngineExecute", *model.args(DECODE))
    assert down(inputs[0], ROWS * row) == bytes(ROWS * row), "a lost row was written"
    EMU.set("inplace_decode", 1)
    EMU.set("inplace_unaligned", 1)
    ok("axclrtEngineExecute", *model.args(DECODE))
    assert down(inputs[0], ROWS * row) == bytes(3 * row) + key + bytes((ROWS - 4) * row)
    assert down(inputs[1] + 3 * row, row) == value
    EMU.set("inplace_decode", "error")
    refused(ENGINE_ILLEGAL, "switched off", "axclrtEngineExecute", *model.args(DECODE))
    inputs, outputs = model.bind_all(CHUNK_1)
    assert model.bind("Output", 0, inputs[0], CHUNK * row) == 0
    ok("axclrtEngineExecute", *model.args(CHUNK_1))
    assert down(inputs[0], HISTORY * row) == bytes(HISTORY * row), "a chunk in place was written"
    EMU.set("inplace_chunk", "error")
    refused(ENGINE_ILLEGAL, "does not work for chunks", "axclrtEngineExecute", *model.args(CHUNK_1))
    EMU.set("inplace_chunk", 1)
    ok("axclrtEngineExecute", *model.args(CHUNK_1))
    assert any(down(inputs[0], CHUNK * row))
    EMU.set("narrow_output", 0)
    ok("axclrtMemset", c_void_p(outputs[2]), c_uint8(0x11), c_size_t(CHUNK * HIDDEN * 2))
    ok("axclrtEngineExecute", *model.args(CHUNK_1))
    assert down(outputs[2], CHUNK * HIDDEN * 2) == b"\x11" * (CHUNK * HIDDEN * 2)


def do_dirty_cache() -> None:
    """A cache that was never zero-filled spoils the result although the mask hides it; a zero-filled one does not."""
    start()
    model = Model(layer_with_weights("layer"))
    inputs, outputs = model.bind_all(DECODE)
    size, mask = model.size("Input", DECODE, 0), model.size("Input", DECODE, 4)
    up(inputs[3], bytes([0, 0x3F] * HIDDEN))
    up(inputs[4], b"\x80\xc7" * (mask // 2 - 1) + b"\0\0")  # -65536 for the cache, 0 for the token itself
    ok("axclrtEngineExecute", *model.args(DECODE))
    clean = down(outputs[2], HIDDEN * 2)
    dirty = malloc(size)
    assert model.bind("Input", 1, dirty, size) == 0
    ok("axclrtEngineExecute", *model.args(DECODE))
    spoilt = down(outputs[2], HIDDEN * 2)
    assert all(spoilt[i + 1] & 0x7F == 0x7F and spoilt[i] & 0x80 for i in range(0, len(spoilt), 2)), (
        "NaN did not survive the mask"
    )
    ok("axclrtMemset", c_void_p(dirty), c_uint8(0), c_size_t(size))
    ok("axclrtEngineExecute", *model.args(DECODE))
    assert down(outputs[2], HIDDEN * 2) == clean


def do_tolerant() -> None:
    """What foreign programs do: maximal buffers for all groups, interior and short bindings, aliases, overruns, no
    context."""
    EMU.set("mode", "tolerant")
    start()
    ok("axclInit", None)
    model = Model(layer_with_weights("layer"))
    groups, biggest = range(3), {"Input": 5, "Output": 3}
    buffers = {}
    for way, count in biggest.items():
        for index in range(count):
            size = max(model.size(way, group, index) for group in groups)
            buffers[way, index] = zeros(size)
            assert model.bind(way, index, buffers[way, index], size) == 0
    up(buffers["Input", 3], bytes([0, 0x3F] * HIDDEN))
    for group in reversed(groups):
        ok("axclrtEngineExecute", *model.args(group))
    reference = down(buffers["Output", 2], HIDDEN * 2)
    table = zeros(4096)
    assert model.bind("Input", 2, table + 4092, 64) == 0  # indices from inside a table, claiming more than is there
    assert model.bind("Output", 0, buffers["Input", 0] + KV * 2, 4096) == 0
    assert model.bind("Output", 2, buffers["Input", 3], HIDDEN * 2) == 0  # writes what it reads
    ok("axclrtEngineExecute", *model.args(DECODE))
    assert any(reference) and down(buffers["Input", 3], HIDDEN * 2) == reference
    small = malloc(16)
    ok("axclrtMemcpy", *copy_args(small, b"y" * 64, 64, H2D))  # past the end: cut
    assert down(small, 16) == b"y" * 16
    buffer = ctypes.create_string_buffer(b"z" * 64)
    ok("axclrtMemcpy", *copy_args(ctypes.addressof(buffer), small, 64, D2H))
    assert buffer.raw[:17] == b"y" * 16 + b"z"
    refused(NOT_DEVICE, "not a device pointer", "axclrtMemcpy", *copy_args(0x1234, b"y", 1, H2D))
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(call("axclrtFree", c_void_p(small))))
    thread.start()
    thread.join()
    assert seen == [0]
    Model(model_file("late", LAYER))
    ok("axclFinalize")


# ---- faults, counters, time
# ----------------------------------------------------------------------------------------------------


def do_faults() -> None:
    """The n-th call fails or hangs; NaN results; offline until rebooted; dead for good."""
    start()
    model, work = Model(model_file("layer", LAYER)), stream()
    inputs, outputs = model.bind_all(DECODE)
    EMU.set("faults", "axclrtEngineExecute@2=fail:0x8030070c; nan@layer:3; axclrtMalloc@2+=fail:0x80300507")
    ok("axclrtEngineExecute", *model.args(DECODE))
    refused(EXECUTE_FAIL, "fault list", "axclrtEngineExecute", *model.args(DECODE))
    ok("axclrtEngineExecute", *model.args(DECODE))
    assert down(outputs[2], 4) != POISON * 2
    ok("axclrtEngineExecute", *model.args(DECODE))
    assert down(outputs[2], HIDDEN * 2) == POISON * HIDDEN
    malloc(8)
    for _ in range(2):
        assert call("axclrtMalloc", byref(c_void_p()), c_size_t(8), 2) == NO_MEMORY
    EMU.set(
        "faults",
        "axclrtSynchronizeStreamWithTimeout@1=hang; axclrtSynchronizeStreamWithTimeout@2=block:50;"
        " axclrtMemset@1=hang:30",
    )
    began = time.monotonic()
    refused(SYNC_TIMEOUT, "hangs", "axclrtSynchronizeStreamWithTimeout", work, 30)
    assert time.monotonic() - began < 20
    refused(0x80300105, "hung", "axclrtSynchronizeStreamWithTimeout", work, 1)
    refused(0x80300105, "fault list", "axclrtMemset", c_void_p(inputs[0]), c_uint8(0), c_size_t(8))
    EMU.set("faults", "device=offline@3")
    ok("axclrtEngineExecuteAsync", *model.args(DECODE), work)
    ok("axclrtEngineExecuteAsync", *model.args(DECODE), work)
    ok("axclrtSynchronizeStream", work)
    ok("axclrtEngineExecuteAsync", *model.args(DECODE), work)
    refused(OFFLINE, "offline until it is rebooted", "axclrtSynchronizeStream", work)
    refused(OFFLINE, "offline until it is rebooted", "axclrtEngineExecuteAsync", *model.args(DECODE), work)
    assert EMU.report()["submitted_offline"] == 1
    count = c_uint32(9)
    ok("axclrtGetDeviceCount", byref(count))
    assert count.value == 0
    EMU.set("reboot_ms", 1000)
    ok("axclrtRebootDevice", 1)
    refused(OFFLINE, "still rebooting", "axclrtSetDevice", 1)
    while call("axclrtSetDevice", 1):
        time.sleep(0.01)
    refused(ENGINE_ILLEGAL, "no IO", "axclrtEngineExecute", *model.args(DECODE))
    Model(model_file("layer", LAYER)).close()
    EMU.set("faults", "device=dead")
    refused(OFFLINE, "power", "axclrtMalloc", byref(c_void_p()), c_size_t(8), 2)
    refused(0x80300187, "does not help", "axclrtRebootDevice", 1)


def do_faults_before_the_start() -> None:
    """A device that is dead or offline before axclInit: there is none to see; dead ones stay dead when the runtime
    starts anew, offline ones come back by a reboot."""
    count = c_uint32(9)
    for state, words in (("dead", "power"), ("offline", "offline until it is rebooted")):
        EMU.set("faults", f"device={state}")
        ok("axclInit", None)
        ok("axclrtGetDeviceCount", byref(count))
        assert count.value == 0
        refused(OFFLINE, words, "axclrtSetDevice", 1)
        if state == "offline":
            ok("axclrtRebootDevice", 1)
        ok("axclFinalize")
        ok("axclInit", None)
        ok("axclrtGetDeviceCount", byref(count))
        assert count.value == (state == "offline")
        ok("axclFinalize")


def do_counters() -> None:
    """Calls, bytes and copies by kind, submissions, waits, executes, binds: exact; reset."""
    start()
    head, model, work = Model(model_file("post", HEAD)), Model(model_file("layer", LAYER)), stream()
    head.bind_all(0)
    inputs, outputs = model.bind_all(DECODE)
    host = pinned(512)
    EMU.reset_counters()
    ok("axclrtMemcpyAsync", *copy_args(inputs[4], host, 32, H2D), work)
    ok("axclrtMemcpyAsync", *copy_args(inputs[2], host, 4, H2D), work)
    for _ in range(3):
        assert model.bind("Output", 0, inputs[0] + KV * 2, KV * 2) == 0
        ok("axclrtEngineExecuteAsync", *model.args(DECODE), work)
        ok("axclrtSynchronizeStream", work)
    ok("axclrtEngineExecute", *head.args(0))
    ok("axclrtMemcpy", *copy_args(host, outputs[2], 128, D2H))
    report = EMU.report()
    assert report["submissions"] == 7 and report["waits"] == 5, report
    assert report["bytes"] == {"h2d": 36, "d2h": 128, "d2d": 0, "h2h": 0}, report
    assert report["copies"] == {"h2d": 2, "d2h": 1, "d2d": 0, "h2h": 0}, report
    assert report["executes"] == {"layer_decode": 3, "layer_chunk": 0, "head": 1, "vision": 0}, report
    assert report["binds"] == 3 and report["calls"]["axclrtEngineExecuteAsync"] == 3, report
    assert sum(report["calls"].values()) == 13, report
    EMU.reset_counters()
    assert EMU.report()["submissions"] == 0 and EMU.report()["calls"] == {}


def do_paced() -> None:
    """A profile's time: executes, transfers, the wait; modelled time is exact, real time not shorter; the speed
    factor."""
    EMU.set("profile", "qwen3-0.6b-w8a16-pi5")
    start()
    head, model, work = (
        Model(model_file("post", HEAD)),
        Model(model_file("layer", LAYER, cost_decode_us="40000")),
        stream(),
    )
    head.bind_all(0)
    _, outputs = model.bind_all(DECODE)
    host = pinned(512)
    EMU.reset_counters()
    began = time.monotonic()
    for _ in range(5):
        ok("axclrtEngineExecuteAsync", *model.args(DECODE), work)
    refused(SYNC_TIMEOUT, "in time", "axclrtSynchronizeStreamWithTimeout", work, 1)
    assert model.bind("Output", 0, outputs[0], KV * 2) == ENGINE_BUSY, "the modelled card is still at work"
    ok("axclrtEngineExecuteAsync", *head.args(0), work)
    ok("axclrtMemcpyAsync", *copy_args(host, outputs[2], 128, D2H), work)
    ok("axclrtSynchronizeStream", work)
    took = time.monotonic() - began
    expected = 5 * 40e-3 + 7.92e-3 + 20e-6 + 128 / 400e6 + 70e-6
    modelled = EMU.report()["modelled_ns"] * 1e-9
    assert abs(modelled - expected) < 2e-6, (modelled, expected)
    assert took >= expected, (took, expected)
    EMU.set("speed", 1000)
    EMU.reset_counters()
    for _ in range(100):
        ok("axclrtEngineExecute", *model.args(DECODE))
    modelled = EMU.report()["modelled_ns"] * 1e-9
    assert abs(modelled - 100 * 40.07e-3) < 1e-3, modelled


def do_counters_at_exit() -> None:
    """Prints the report on standard error when the process ends."""
    EMU.set("counters", True)
    start()


if __name__ == "__main__":
    main(globals())
