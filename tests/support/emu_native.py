"""The emulator's arithmetic through ctypes, built on its own; simulated model files in memory; a float64 reference."""

from __future__ import annotations

import copy
import ctypes
import functools
import hashlib
import json
import os
import platform
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from repository import ROOT

from axpress.core.model_files.int8_weights import MATRICES, int8_tensors
from axpress.core.model_files.safetensors import array_source

ARITHMETIC = ROOT / "csrc" / "emu" / "arithmetic"
INSTRUCTION_SETS = {
    "kernels_avx2": ["-mavx2", "-mfma"],
    "kernels_avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"],
}
HIDDEN_MASK = -65536.0


FLAGS = ["-std=gnu11", "-ffp-contract=off", "-pthread", f"-I{ROOT / 'csrc'}"]


def compile_objects(folder: Path, compiler: str, options: Sequence[str]) -> list[str]:
    """Compile the arithmetic, which needs nothing else of the emulator, into `folder`; the object files."""
    x86 = platform.machine() in ("x86_64", "AMD64") and "aarch64" not in compiler

    def compiled(source: Path) -> str:
        target = str(folder / f"{compiler}-{source.stem}.o")
        extra = INSTRUCTION_SETS.get(source.stem, []) if x86 else []
        subprocess.run([compiler, *FLAGS, *options, *extra, "-c", str(source), "-o", target], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compiled, sorted(ARITHMETIC.glob("*.c"))))


def build_native(folder: Path, compiler: str, options: Sequence[str]) -> Path:
    """tests/native/test_math.c as a program in `folder`."""
    program = folder / f"{compiler}-test_math"
    objects = compile_objects(folder, compiler, options)
    source = str(ROOT / "tests" / "native" / "test_math.c")
    subprocess.run(
        [compiler, *FLAGS, "-Wall", "-Wextra", "-Werror", *options, source, *objects, "-o", str(program), "-lm"],
        check=True,
    )
    return program


def build(folder: Path) -> Path:
    """Compile the arithmetic into a library in `folder`."""
    objects = compile_objects(folder, "cc", ["-O2", "-fPIC"])
    target = folder / "libmath.so"
    subprocess.run(["cc", "-shared", "-pthread", "-o", str(target), *objects, "-lm"], check=True)
    return target


def load(target: Path) -> ctypes.CDLL:
    """The library with the types of its functions."""
    library = ctypes.CDLL(str(target))
    library.emu_model_open_mem.restype = library.emu_model_open_file.restype = ctypes.c_void_p
    library.emu_model_open_mem.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p]
    library.emu_model_open_file.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    library.emu_model_close.argtypes = [ctypes.c_void_p]
    library.emu_model_execute.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    library.emu_math_isa.restype = ctypes.c_char_p
    library.emu_math_kernels.restype = ctypes.c_void_p
    return library


@functools.cache
def library() -> ctypes.CDLL:
    """The library, built once for these sources, whoever asks."""
    sources = sorted(path for path in ARITHMETIC.iterdir() if path.suffix in (".c", ".h", ".inc"))
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    kept = ROOT / "build" / "emu-native"
    target = kept / f"libmath-{state}.so"
    if not target.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept) as folder:
            build(Path(folder)).replace(target)
    return load(target)


def bf16(values: np.ndarray) -> np.ndarray:
    """Round to bf16, nearest even; uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def wide(bits: np.ndarray) -> np.ndarray:
    """bf16 bits as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def safetensors(metadata: Mapping[str, object], tensors: Mapping[str, np.ndarray]) -> bytes:
    """A safetensors file: uint16 arrays are BF16, float32 ones F32."""
    header: dict[str, object] = {"__metadata__": {key: str(value) for key, value in metadata.items()}}
    at = 0
    for name, array in tensors.items():
        dtype = {"float32": "F32", "int8": "I8"}.get(str(array.dtype), "BF16")
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + b"".join(array.tobytes() for array in tensors.values())


@dataclass
class LayerShape:
    """What the reference and the file need to know about a layer."""

    family: str = "qwen3"
    hidden: int = 48
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    ffn: int = 72
    rows: int = 40
    chunk: int = 6
    history: Sequence[int] = (0, 40)
    seed: int = 1
    rope_factor: float = 1.0
    tensors: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        width, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes = {
            "input_norm": (self.hidden,),
            "q": (width, self.hidden),
            "k": (kv, self.hidden),
            "v": (kv, self.hidden),
        }
        shapes |= {
            "o": (self.hidden, width),
            "post_norm": (self.hidden,),
            "gate": (self.ffn, self.hidden),
            "up": (self.ffn, self.hidden),
        }
        shapes |= {"down": (self.hidden, self.ffn)}
        if self.family == "qwen3":
            shapes |= {"q_norm": (self.head_dim,), "k_norm": (self.head_dim,)}
        if self.family == "qwen2":
            shapes |= {"q_bias": (width,), "k_bias": (kv,), "v_bias": (kv,)}
        for name, shape in shapes.items():
            scale = 1.2 / np.sqrt(shape[-1]) if len(shape) == 2 else 0.3
            self.tensors[name] = bf16(rng.normal(1.0 if "norm" in name else 0.0, scale, shape))
        self.tensors["inv_freq"] = (10000.0 ** (-np.arange(0, self.head_dim, 2) / self.head_dim)).astype(np.float32)

    def metadata(self) -> dict[str, object]:
        """The `__metadata__` of the file."""
        names = ("family", "hidden", "heads", "kv_heads", "head_dim", "ffn", "chunk")
        result: dict[str, object] = {
            "format": "axpress-sim-1",
            "kind": "layer",
            "layer": 0,
            "layers": 1,
            "rms_eps": 1e-6,
        }
        result |= {name: getattr(self, name) for name in names}
        result |= {
            "decode_rows": self.rows,
            "history": ",".join(map(str, self.history)),
            "rope_attention_factor": self.rope_factor,
        }
        return result

    def file(self, weights: str = "bf16") -> bytes:
        """The simulated axmodel; its matrices as "bf16" or "int8"."""
        return safetensors(self.metadata(), self.int8() if weights == "int8" else self.tensors)

    def int8(self) -> dict[str, np.ndarray]:
        """The tensors with matrices as int8, and their scales."""
        sources = int8_tensors({name: array_source(tensor) for name, tensor in self.tensors.items()})
        whole = {name: np.concatenate(list(source.blocks())) for name, source in sources.items()}
        return dict(sorted(whole.items(), key=lambda item: -item[1].itemsize))

    def as_int8(self) -> LayerShape:
        """The same layer with the values that its int8 matrices stand for, as float64, for `reference`."""
        whole = self.int8()
        exact = {
            name: whole[name] * whole[f"{name}_scale"][:, None].astype(np.float64) for name in MATRICES if name in whole
        }
        other = copy.copy(self)
        other.tensors = self.tensors | exact
        return other


class Model:
    """An open model. Raises ValueError with the library's sentence."""

    def __init__(self, library: ctypes.CDLL, data: bytes) -> None:
        self.library = library
        error = ctypes.create_string_buffer(256)
        self.handle = library.emu_model_open_mem(data, len(data), error)
        if not self.handle:
            raise ValueError(error.value.decode(errors="replace"))

    def close(self) -> None:
        """Release it; harmless twice."""
        self.library.emu_model_close(self.handle)
        self.handle = None

    def execute(
        self,
        group: int,
        inputs: Sequence[np.ndarray],
        outputs: Sequence[np.ndarray],
        scan_nan: int = 0,
        unchanged: int = 0,
    ) -> int:
        """Run a shape group on C-contiguous arrays of exactly the right sizes; how many rows it computed."""
        flags = (ctypes.c_int * 2)(scan_nan, unchanged)
        ins = (ctypes.c_void_p * len(inputs))(*(array.ctypes.data for array in inputs))
        outs = (ctypes.c_void_p * len(outputs))(*(array.ctypes.data for array in outputs))
        rows = self.library.emu_model_execute(self.handle, group, ins, outs, flags)
        assert rows > 0
        return rows

    def layer(
        self,
        shape: LayerShape,
        group: int,
        k: np.ndarray,
        v: np.ndarray,
        positions: Sequence[int],
        x: np.ndarray,
        mask: np.ndarray,
        scan_nan: int = 0,
    ) -> list[np.ndarray]:
        """Run a layer group; returns k_out, v_out, output as bf16 bits."""
        tokens, kv = len(positions), shape.kv_heads * shape.head_dim
        outputs = [np.zeros((tokens, n), np.uint16) for n in (kv, kv, shape.hidden)]
        inputs = [np.ascontiguousarray(a) for a in (k, v, np.asarray(positions, np.uint32), x, mask)]
        self.execute(group, inputs, outputs, scan_nan)
        return outputs


def reference(
    shape: LayerShape,
    k_cache: np.ndarray,
    v_cache: np.ndarray,
    positions: Sequence[int],
    x_bits: np.ndarray,
    mask: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same layer in float64 with K and V rounded to bf16: k_out, v_out, output as float64."""
    w = {name: wide(t).astype(np.float64) if t.dtype == np.uint16 else t for name, t in shape.tensors.items()}
    d, heads, kv_heads, n = shape.head_dim, shape.heads, shape.kv_heads, len(positions)

    def norm(a: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return a / np.sqrt((a * a).mean(-1, keepdims=True) + 1e-6) * weight

    x = wide(x_bits).astype(np.float64)
    h = norm(x, w["input_norm"])
    q, k, v = (h @ w[name].T + w.get(f"{name}_bias", 0.0) for name in "qkv")
    q, k = q.reshape(n, heads, d), k.reshape(n, kv_heads, d)
    if "q_norm" in w:
        q, k = norm(q, w["q_norm"]), norm(k, w["k_norm"])
    angle = (np.asarray(positions, np.float32)[:, None] * shape.tensors["inv_freq"]).astype(np.float64)
    cos, sin = (np.concatenate([f(angle)] * 2, -1)[:, None] * shape.rope_factor for f in (np.cos, np.sin))
    q, k = (a * cos + np.concatenate([-a[..., d // 2 :], a[..., : d // 2]], -1) * sin for a in (q, k))
    rows = mask.shape[1] - n
    k_all = (
        np.concatenate([wide(k_cache[:rows]), wide(bf16(k.reshape(n, -1)))]).reshape(-1, kv_heads, d).astype(np.float64)
    )
    v_all = np.concatenate([wide(v_cache[:rows]), wide(bf16(v))]).reshape(-1, kv_heads, d).astype(np.float64)
    group = heads // kv_heads
    scores = np.einsum("thd,rhd->thr", q, np.repeat(k_all, group, 1)) / np.sqrt(d) + wide(mask)[:, None].astype(
        np.float64
    )
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    x = x + np.einsum("thr,rhd->thd", p, np.repeat(v_all, group, 1)).reshape(n, -1) @ w["o"].T
    h = norm(x, w["post_norm"])
    gate, up = h @ w["gate"].T, h @ w["up"].T
    return k.reshape(n, -1), v, x + (gate / (1 + np.exp(-gate)) * up) @ w["down"].T
