"""Experiments with a head and layers: what loading takes, which tensors there are, what each shape group costs."""

from __future__ import annotations

import ctypes
import os
from functools import partial
from typing import Any

from ...device.axmodel import Binding, LoadedModel
from ...device.buffer import DeviceBuffer
from ...device.runtime import Card
from ...device.shape_groups import LAYER_INPUTS
from ...errors import RuntimeCallError
from ...model_files.simulated_axmodel import published_bytes
from .bench import WAIT_MS, Bench, queue_us, seconds, times_us
from .layer_rig import LayerRig

TYPES = (
    "none", "int4", "uint4", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "fp4", "fp8",
    "fp16", "bf16", "fp32", "fp64",
)  # fmt: skip
LOST = "card lost"


def some_layers(bench: Bench) -> list[int]:
    """Numbers of the first, the middle and the last layer."""
    count = len(bench.layers)
    return sorted({0, count // 2, count - 1})


def load(bench: Bench) -> None:
    """Seconds and card memory of each file, and all tensors."""
    with bench.card() as card:
        files: list[dict[str, Any]] = []
        models: list[LoadedModel] = []
        for name, path in [("head", bench.head), *((f"layer {i}", bench.layers[i]) for i in some_layers(bench))]:
            bench.report.step(f"loading the {name}" if name == "head" else f"loading {name}")
            free = bench.free_cmm(card)
            took = seconds(partial(_load_into, models, card, path))
            taken = free - bench.free_cmm(card)
            files.append({"file": name, "bytes": published_bytes(path), "seconds": round(took, 4), "cmm_bytes": taken})
        bench.found(files=files)
        head, *layers = models
        shapes = LayerRig(card, layers[0])
        cache = layers[0].inputs[shapes.at["K_cache"]]
        empty = [group for group in shapes.chunks if group.history == 0]
        bench.found(
            layer_inputs=_tensors(layers[0].inputs),
            layer_outputs=_tensors(layers[0].outputs),
            head_inputs=_tensors(head.inputs),
            head_outputs=_tensors(head.outputs),
            extra_inputs=[t.name for t in layers[0].inputs if t.name not in LAYER_INPUTS],
            layers_alike=all((m.inputs, m.outputs) == (layers[0].inputs, layers[0].outputs) for m in layers),
            hidden=shapes.hidden,
            row_bytes=shapes.row_bytes,
            decode_groups=[group.history for group in shapes.decode],
            chunk_groups=[[group.width, group.history] for group in shapes.chunks],
            empty_cache_width=cache.shapes[empty[0].index][-1] if empty else None,
            cache_width=cache.shapes[shapes.decode[0].index][-1],
        )


def _load_into(models: list[LoadedModel], card: Card, path: str) -> None:
    models.append(LoadedModel(card, path))


def _tensors(tensors: list) -> list[dict[str, object]]:
    """Name, data type, and the shape in each group."""
    return [
        {
            "name": t.name,
            "type": TYPES[t.dtype] if t.dtype < len(TYPES) else t.dtype,
            "shapes": [list(s) for s in t.shapes],
        }
        for t in tensors
    ]


def costs(bench: Bench) -> None:
    """Milliseconds of one layer in every group and of the head in its own: called one by one (`ms`), and in a stream
    (`queued_ms`, without the cost of the call)."""
    with bench.card() as card:
        bench.found(cmm_free_before=bench.free_cmm(card))  # against identity's: what the last process left
        head, (layer,) = bench.load(card, 0)
        rig = LayerRig(card, layer)
        for group in rig.groups:  # bound and zeroed before anything is timed
            rig.binding(group)
        groups = []
        for group in rig.groups:
            bench.report.step(f"executing group {group.index}, {group.width} wide over {group.history} rows")
            groups.append({"width": group.width, "history": group.history, **_cost(card, rig.binding(group))})
        bench.found(layer_groups=groups)
        bench.found(head_groups=[_cost(card, _bind_all(card, head, group)) for group in range(head.num_groups)])


def _bind_all(card: Card, model: LoadedModel, group: int) -> Binding:
    binding = Binding(model, group)
    for i, tensor in enumerate(model.inputs):
        binding.set_input(i, DeviceBuffer(card, tensor.sizes[group], zero=True))
    for i, tensor in enumerate(model.outputs):
        binding.set_output(i, DeviceBuffer(card, tensor.sizes[group], zero=True))
    return binding


def _cost(card: Card, binding: Binding) -> dict[str, float]:
    median, least = times_us(binding.execute, 5)
    cost = {"ms": round(median / 1e3, 4), "least_ms": round(least / 1e3, 4)}
    if card.has_async:
        try:
            queued = queue_us(binding.submit, lambda: card.wait(WAIT_MS), 2, 8, repeats=5)
        except RuntimeCallError:
            return cost
        cost |= {"queued_ms": round(queued["each_us"] / 1e3, 4), "submit_us": queued["submit_us"]}
    return cost


def usage(bench: Bench) -> None:
    """axclrtEngineGetUsage of a layer, which by the vendor's newer documents loads and unloads it: seconds against
    those of a load, and what it leaves in the card's memory. Nothing is loaded beside it."""
    with bench.raw_card() as card:
        free = card.runtime.properties(card.device)["cmm_free"]
        system, cmm, model = ctypes.c_int64(), ctypes.c_int64(), ctypes.c_uint64()
        path = os.fsencode(bench.layers[0])
        card.runtime.call("axclrtEngineInit", 0)
        asked = seconds(
            partial(card.runtime.call, "axclrtEngineGetUsage", path, ctypes.byref(system), ctypes.byref(cmm))
        )
        after = card.runtime.properties(card.device)["cmm_free"]
        bench.found(usage_s=round(asked, 4), cmm_bytes=cmm.value, system_bytes=system.value, left_behind=free - after)
        loaded = seconds(lambda: card.runtime.call("axclrtEngineLoadFromFile", path, ctypes.byref(model)))
        grown = after - card.runtime.properties(card.device)["cmm_free"]
        clear = loaded > 0.05  # else both are too fast to compare
        bench.found(load_s=round(loaded, 4), load_cmm_bytes=grown, loads=asked > 0.3 * loaded if clear else None)
        card.runtime.call("axclrtEngineUnload", model)
        card.runtime.call("axclrtEngineFinalize")


def batch_size(bench: Bench) -> None:
    """axclrtEngineSetDynamicBatchSize(io, 1), as the vendor's tools call it, and an execute after it."""
    with bench.raw_card() as card:
        runtime, model, info, io = card.runtime, ctypes.c_uint64(), ctypes.c_void_p(), ctypes.c_void_p()
        runtime.call("axclrtEngineInit", 0)
        runtime.call("axclrtEngineLoadFromFile", os.fsencode(bench.head), ctypes.byref(model))
        runtime.call("axclrtEngineGetIOInfo", model, ctypes.byref(info))
        runtime.call("axclrtEngineCreateIO", info, ctypes.byref(io))
        code = runtime.code("axclrtEngineSetDynamicBatchSize", io, 1)
        bench.found(set_batch_size="works" if code == 0 else f"refused 0x{code:08x}")
        runtime.code("axclrtEngineDestroyIO", io)
        runtime.code("axclrtEngineDestroyIOInfo", info)
        runtime.call("axclrtEngineUnload", model)
        runtime.call("axclrtEngineFinalize")


def late(bench: Bench) -> None:
    """A layer that is loaded once something was executed: some runtimes want all of it before. What the runtime says,
    and whether the card answers afterwards."""
    with bench.card() as card:
        head, _ = bench.load(card, 0)
        bench.report.step("executing the head")
        _bind_all(card, head, 0).execute()
        bench.report.step("loading a layer after an execute")
        result, code = "works", 0
        try:
            LoadedModel(card, bench.layers[-1])
        except RuntimeCallError as error:
            result, code = "refused", error.code
        try:
            card.properties()
        except RuntimeCallError:
            result = LOST
        bench.found(load_after_execute=result, code=f"0x{code:08x}")


def order(bench: Bench) -> None:
    """A head that is loaded after layers: some runtimes lose the card by it, and only a reboot brings that back. What
    the runtime says, and whether the card answers afterwards."""
    with bench.raw_card() as card:
        runtime, models = card.runtime, [ctypes.c_uint64() for _ in range(3)]
        runtime.call("axclrtEngineInit", 0)
        for number, model in zip(some_layers(bench), models, strict=False):
            bench.report.step(f"loading layer {number}")
            runtime.call("axclrtEngineLoadFromFile", os.fsencode(bench.layers[number]), ctypes.byref(model))
        bench.report.step("loading the head after layers")
        head = ctypes.c_uint64()
        code = runtime.code("axclrtEngineLoadFromFile", os.fsencode(bench.head), ctypes.byref(head))
        try:
            runtime.properties(card.device)
            result = "refused" if code else "works"
        except RuntimeCallError:
            result = LOST
        bench.found(head_after_layers=result, code=f"0x{code:08x}")
        for model in (head, *reversed(models)):
            if model.value:
                runtime.code("axclrtEngineUnload", model)
        runtime.code("axclrtEngineFinalize")
