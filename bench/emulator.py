"""Speed of the emulator's own arithmetic: decode rate, and how much of the machine's memory bandwidth it reaches. No
card: all emulated.

    # the demo model, then a random model of Qwen3-0.6B's shape (writes and removes 1.5 GB in --folder)
    python bench/emulator.py

Decode reads every weight once a token, so memory is what limits it. Bandwidth is measured in the same run, before and
after, by a C loop that sums 64-bit words of an anonymous 1 GiB buffer, the buffer split between the threads, the best
of six passes. The model's 28 layers are 28 files with the same random weights: no file's pages serve another layer.
Prints a table and writes bench/results/emulator.json."""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from decode import decode, prefill
from results import write_results

from axpress.core.device.model_loader import Model, default_model, open_model
from axpress.core.device.step import Step
from axpress.core.engine.pass_costs import PassCosts
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.safetensors import array_source, bf16_source, to_bf16
from axpress.core.model_files.simulated_axmodel import read_axmodel, tensor_shapes, write_axmodel

PROFILE = "qwen3-0.6b-w8a16-pi5"
BUFFER = 1 << 30
READER = r"""
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
typedef struct part { const uint64_t *at; size_t n; uint64_t sum; } part;
static void *read_part(void *arg)
{
    part *p = arg;
    uint64_t sum[32] = {0};
    for (size_t i = 0; i + 32 <= p->n; i += 32)
        for (int j = 0; j < 32; j++) sum[j] += p->at[i + j];
    for (int j = 0; j < 32; j++) p->sum += sum[j];
    return NULL;
}
double best_rate(size_t bytes, int threads, int passes) /* bytes a second */
{
    uint64_t *buffer = malloc(bytes);
    double best = 0;
    if (!buffer || threads > 64) return 0;
    memset(buffer, 1, bytes);
    for (int p = 0; p < passes; p++) {
        pthread_t id[64];
        part parts[64];
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (int t = 0; t < threads; t++) {
            parts[t] = (part){buffer + bytes / 8 / threads * t, bytes / 8 / threads, 0};
            if (pthread_create(&id[t], NULL, read_part, &parts[t])) return 0;
        }
        for (int t = 0; t < threads; t++) pthread_join(id[t], NULL);
        clock_gettime(CLOCK_MONOTONIC, &b);
        double rate = bytes / ((b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) * 1e-9);
        best = rate > best ? rate : best;
    }
    free(buffer);
    return best;
}
"""


def load_reader(folder: Path) -> ctypes.CDLL:
    """The bandwidth loop, compiled for this machine."""
    (folder / "reader.c").write_text(READER)
    library = folder / "reader.so"
    flags = ["-O3", "-march=native", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["cc", *flags, str(folder / "reader.c"), "-o", str(library)], check=True)
    reader = ctypes.CDLL(str(library))
    reader.best_rate.restype, reader.best_rate.argtypes = ctypes.c_double, [ctypes.c_size_t, ctypes.c_int, ctypes.c_int]
    return reader


def random_package(folder: Path) -> Path:
    """A package of the profile's full shape with random weights."""
    package, rng = hollow(PROFILE, folder / "model"), np.random.default_rng(1)
    layers = sorted(package.glob("*_together.axmodel"))
    tensors: dict = {}
    for path in [*layers, *package.glob("*_post.axmodel")]:
        meta, _ = read_axmodel(path)
        meta = replace(
            meta, hollow=False, cmm_bytes=None, profile=None, cost_decode_us=None, cost_chunk_us=None, cost_head_us=None
        )
        required, _ = tensor_shapes(meta)
        if set(required) != set(tensors):
            tensors = {name: random_tensor(rng, name, shape) for name, shape in required.items()}
        path.unlink()
        write_axmodel(path, meta, tensors)
    embedding = next(package.glob("*.bfloat16.bin"))
    num_values = embedding.stat().st_size // 2
    to_bf16(rng.standard_normal(num_values, dtype=np.float32)).tofile(embedding)
    return package


def random_tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]):  # type: ignore[no-untyped-def]
    if name == "inv_freq":
        return array_source((1e6 ** -(np.arange(shape[0]) / shape[0])).astype(np.float32))
    if len(shape) == 1:
        return bf16_source(np.full(shape, to_bf16(np.ones(1, np.float32))[0]))
    return bf16_source(to_bf16(rng.standard_normal(shape, dtype=np.float32) / np.float32(shape[1] ** 0.5)))


def weight_bytes(model: Path) -> int:
    return sum(path.stat().st_size for path in model.glob("*.axmodel"))


def median_token(package: Path, threads: int, tokens: int) -> float:
    """Median seconds of a token, sampler included, after a prompt of 32."""
    model: Model = open_model(package, "emu", "none", {"threads": str(threads)}, banks=1)
    try:
        costs, step = PassCosts(model.program.groups, model.costs), Step(128)
        cached = prefill(model, costs, step, list(range(32)))
        decode(model, costs, step, cached, 3)
        return statistics.median(decode(model, costs, step, cached, tokens))
    finally:
        model.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="threads of the arithmetic (default 1 2)"
    )
    parser.add_argument(
        "--tokens", type=int, default=60, help="tokens timed (default 60; the demo model gets eight times as many)"
    )
    parser.add_argument(
        "--folder", type=Path, help="where the random model is written and removed (default: the system's)"
    )
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        reader, large = load_reader(Path(name)), random_package(Path(name))
        for threads in args.threads:
            demo = median_token(default_model(), threads, 8 * args.tokens)
            bandwidth = reader.best_rate(BUFFER, threads, 3)
            token = median_token(large, threads, args.tokens)
            bandwidth = max(bandwidth, reader.best_rate(BUFFER, threads, 3))
            size = weight_bytes(large)
            fraction = size / token / bandwidth
            rows.append({
                "threads": threads, "demo_tokens_per_s": 1 / demo, "random_0.6b_tokens_per_s": 1 / token,
                "weight_bytes": size,
                "decode_gb_s": size / token / 1e9, "bandwidth_gb_s": bandwidth / 1e9, "fraction": fraction,
            })  # fmt: skip
            print(f"emulated, real arithmetic, {threads} threads: demo model {1 / demo:.0f} tokens/s; "
                  f"random 0.6B shape {1 / token:.1f} tokens/s, {size / token / 1e9:.1f} GB/s of weights: "
                  f"{fraction:.0%} of the {bandwidth / 1e9:.1f} GB/s that this machine reads")  # fmt: skip
    write_results("emulator", {"rows": rows})


if __name__ == "__main__":
    main()
