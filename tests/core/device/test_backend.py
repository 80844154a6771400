"""What the engine calls is there, with the protocol's own parameters, in each backend; and what it does not need is not
loaded."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from repository import PATIENCE

from axpress.core.device.axengine import AxengineCard, AxengineProgram, open_backend
from axpress.core.device.backend import Backend, CardHandle
from axpress.core.device.card_group import CardGroup
from axpress.core.device.program import Program
from axpress.core.device.runtime import Card
from axpress.core.device.shape_groups import Group
from axpress.core.device.split_program import SplitProgram
from axpress.core.device.step import Step
from axpress.core.model_files.embedding_file import EmbeddingTable

ROWS, CHUNK, HIDDEN, KV, VOCAB = 15, 4, 8, 2, 32
GROUPS = [(1, ROWS), (CHUNK, 0)]  # width, history


def parameters(method: object) -> list[tuple[str, object, object]]:
    assert callable(method)
    return [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [
        *((Backend, kind) for kind in (Program, SplitProgram, AxengineProgram)),
        *((CardHandle, kind) for kind in (Card, CardGroup, AxengineCard)),
    ],
    ids=lambda c: c.__name__,
)
def test_every_method_takes_what_the_protocol_says(protocol: type, kind: type) -> None:
    methods = {name: member for name, member in vars(protocol).items() if not name.startswith("_")}
    assert methods
    for name, method in methods.items():
        assert parameters(getattr(kind, name)) == parameters(method), name


class Session:
    """A vendor's session for a layer or the head: its K and V are the hidden state's first values, plus its number."""

    def __init__(self, path: str) -> None:
        self.path = path

    def _tensors(self, group: int, names: dict[str, tuple[int, ...]], dtype: str = "bfloat16") -> list[SimpleNamespace]:
        if group >= (1 if self.path == "head" else len(GROUPS)):
            raise IndexError
        kinds = {"indices": "uint32"}
        return [SimpleNamespace(name=n, shape=s, dtype=np.dtype(kinds.get(n, dtype))) for n, s in names.items()]

    def get_inputs(self, group: int) -> list[SimpleNamespace]:
        width, history = GROUPS[group] if group < len(GROUPS) else (0, 0)
        # a group without history has one row of cache as wide as the hidden state in many builds
        cache, mask = (1, history, KV) if history else (1, 1, HIDDEN), (1, width, history + width)
        shapes = {"K_cache": cache, "V_cache": cache, "indices": (1, width), "input": (1, width, HIDDEN), "mask": mask}
        return self._tensors(group, {"input": (1, 1, HIDDEN)} if self.path == "head" else shapes)

    def get_outputs(self, group: int) -> list[SimpleNamespace]:
        width = GROUPS[group][0] if group < len(GROUPS) else 0
        rows = (1, width, KV)
        shapes = {"K_cache_out": rows, "V_cache_out": rows, "output": (1, width, HIDDEN)}
        return self._tensors(group, {"output": (1, 1, VOCAB)} if self.path == "head" else shapes)

    def run(self, names: None, feed: dict[str, np.ndarray], shape_group: int = 0) -> list[np.ndarray]:
        wanted = {tensor.name: tensor.shape for tensor in self.get_inputs(shape_group)}
        assert {name: array.shape for name, array in feed.items()} == wanted, "the vendor's sessions check exactly"
        if self.path == "head":
            return [np.repeat(feed["input"][..., :1], VOCAB, axis=-1)]
        return [feed["input"][..., :KV], feed["input"][..., KV : 2 * KV], feed["input"]]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> AxengineProgram:
    vendor = ModuleType("axengine")
    vendor.InferenceSession = Session  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "axengine", vendor)
    table = np.repeat(np.arange(VOCAB), HIDDEN).reshape(VOCAB, HIDDEN).astype(ml_dtypes.bfloat16)
    package = SimpleNamespace(
        name="m", embeds=False, windows=(), head_file="head", layer_files=["l0", "l1"],
        head_token_ids=lambda width, vocab: None, embedding=lambda hidden: EmbeddingTable(table.view(np.uint16)),
    )  # fmt: skip
    _, program, modes, costs = open_backend(package, 3)  # type: ignore[arg-type]
    assert modes.chunks and len(costs.groups) == len(GROUPS)
    return program


def test_the_vendors_sessions_make_a_whole_backend(program: AxengineProgram) -> None:
    attributes = [name for name in Backend.__annotations__ if name != "shape"]
    assert {name: getattr(program, name) for name in attributes} == {
        "groups": (Group(0, 1, ROWS), Group(1, CHUNK, 0)), "num_layers": 2, "num_banks": 1,
        "num_states": 0, "bank_rows": ROWS,
        "vocab_size": VOCAB, "embeds": False, "token_ids": None, "logits_slots": 3, "encoder": None,
    }  # fmt: skip
    assert (program.shape.hidden, program.shape.kv_dim) == (HIDDEN, KV)
    assert all(hasattr(Program, name) for name in Backend.__annotations__)


def test_rows_and_logits_go_where_the_step_says(program: AxengineProgram) -> None:
    step = Step(CHUNK)
    step.reset(1)
    step.add_tokens([5, 6, 7], 0, [9, 3, 4], step.add_view(0, 0), 2)
    program.run(step)
    assert program.logits(0).view(ml_dtypes.bfloat16).astype(float).tolist() == [7.0] * VOCAB
    assert [program._k[layer][0, [9, 3, 4], 0].astype(int).tolist() for layer in range(2)] == [[5, 6, 7]] * 2
    program.more_logits([0, 1])
    assert [int(program.logits(slot).view(ml_dtypes.bfloat16)[0]) for slot in range(2)] == [5, 6]
    program.move_rows(0, np.array([9], np.int32), np.array([0], np.int32))
    assert program._v[1][0, 0].astype(int).tolist() == [5] * KV


def test_the_vendors_side_is_loaded_only_where_it_is_asked_for() -> None:
    code = "import sys, axpress.core.engine, axpress.core.device; print([m for m in sys.modules if 'axengine' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60 * PATIENCE, check=True
    )
    assert done.stdout.strip() == "[]"
