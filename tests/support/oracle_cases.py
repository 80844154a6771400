"""The models and shape groups that the oracle tests run: families, head sizes, GQA ratios, R from 255 to 2559,
ladders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tiny_models import GEMMA, LLAMA3_ROPE, QWEN3_5, Tiny, with_states

from axpress.core.model_files.convert import convert
from axpress.core.model_files.safetensors import array_source
from axpress.core.model_files.simulated_axmodel import read_axmodel, write_axmodel


@dataclass(frozen=True)
class Case:
    """A model and the groups it is converted with; `decode_rows` are smaller decode groups beside the one of `rows`.
    `states`: how recurrent layers treat theirs, fields of SimMeta."""

    tiny: Tiny
    rows: int
    chunk: int
    history: tuple[int, ...] | None = None
    decode_rows: tuple[int, ...] = ()
    states: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name of the test's parameter."""
        ladder = "default" if self.history is None else "+".join(map(str, self.history))
        rows = "+".join(map(str, (*self.decode_rows, self.rows)))
        states = "-".join(["", *self.states.values()])
        return f"{self.tiny.label}-R{rows}-C{self.chunk}-P{ladder if self.chunk else 'none'}{states}"


LINEAR = {"rope_type": "linear", "factor": 2.0}
CASES = [
    Case(Tiny("qwen3"), 255, 64, (0, 64, 128)),
    Case(Tiny("qwen3", heads=2, kv_heads=1, head_dim=128, tied=True, layers=3, theta=1e6), 1023, 128, (0,)),
    Case(Tiny("qwen3", heads=6, kv_heads=2, head_dim=32, attention_bias=True), 300, 32, (0, 32, 256), (64, 200)),
    Case(Tiny("qwen2", heads=7, kv_heads=1, hidden=112, ffn=80), 2559, 128),
    Case(Tiny("qwen2", heads=4, kv_heads=4, hidden=256, head_dim=64, tied=True, layers=1), 300, 0),
    Case(Tiny("llama", heads=8, kv_heads=2, head_dim=32, rope=LLAMA3_ROPE, layers=4, theta=5e5), 1024, 64),
    Case(
        Tiny("llama", heads=3, kv_heads=3, head_dim=80, hidden=96, attention_bias=True, rope=LINEAR, tied=True),
        511,
        16,
        (0, 128),
    ),
    Case(Tiny(GEMMA, window=24, tied=True, scalar=20), 511, 32),
    Case(
        Tiny(
            GEMMA, hidden=96, heads=3, kv_heads=1, head_dim=32, layers=3, window=100, tied=True, theta=1e6, seed=3,
            layer_types=("sliding_attention", "full_attention", "sliding_attention"),
        ),
        300, 16, (0, 16, 128), (64, 200),
    ),
]  # fmt: skip
HYBRIDS = [
    Case(Tiny(QWEN3_5, layers=4, head_dim=32, sections=(4, 2, 2), seed=1), 255, 32, (0, 32, 64)),
    Case(
        Tiny(QWEN3_5, hidden=96, heads=3, kv_heads=1, head_dim=64, layers=3, tied=True, theta=1e6, rotary=0.25, seed=5,
             linear=(3, 3, 32, 20), layer_types=("full_attention", "linear_attention", "linear_attention")),
        300, 16, (0, 16, 128), (64, 200), {"state_dtype": "fp32", "padding": "spoils"},
    ),
    Case(
        Tiny(QWEN3_5, hidden=80, heads=6, kv_heads=2, head_dim=16, layers=3, rotary=1.0, seed=7, linear=(1, 6, 24, 16)),
        255, 64, (0, 128), (), {"state_dtype": "fp16", "state_order": "vk", "p0_state": "ignores"},
    ),
    Case(Tiny(QWEN3_5, layers=2, linear=(2, 2, 16, 16), layer_types=("linear_attention", "full_attention")), 255, 0),
]  # fmt: skip


def package_of(case: Case, base: Path) -> Path:
    """The simulated package of the checkpoint in base/hf."""
    out = convert(base / "hf", base / "out", rows=case.rows, chunk=case.chunk, history=case.history, progress=False)
    if case.decode_rows:
        for path in out.glob("*_together.axmodel"):
            meta, file = read_axmodel(path)
            tensors = {name: array_source(file.array(name).copy()) for name in file.tensors}
            write_axmodel(path, replace(meta, decode_rows=(*case.decode_rows, case.rows)), tensors)
    return with_states(out, **case.states) if case.states else out
