"""The emulated card (profile none) beside llama.cpp: the same weights, the same cores, the same run, taking turns.

    pip install -e '.[bench]'                             # xllamacpp carries llama.cpp prebuilt; gguf
    axpress convert CHECKPOINT bf16; axpress convert CHECKPOINT int8 --weights int8
    python bench/llama_cpp.py MODEL.gguf bf16 int8        # a GGUF file of the same checkpoint, of any type

The GGUF file is written anew as BF16 and as Q8_0 into a temporary folder. Each side is a process of its own that
sleeps while the other is measured. Neither goes through HTTP: ours through axpress.core.engine, llama.cpp's through
its server's own queue (xllamacpp.Server.handle_completions); both stream, both are timed here by the arrival of
tokens. Prompts are random token ids, new ones each time, so that nobody's cache helps; greedy; no drafts on our side.

Prints each question's ratio in every repeat and the median, and writes bench/results/llama_cpp.json. Beside a burning
program means: as many busy loops as there are CPUs run while both are measured."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from results import write_results

CONTEXT = multiprocessing.get_context("spawn")
LOWEST, HIGHEST = 100, 30_000  # token ids of prompts
WAIT_S = 300

Ask = Callable[[list[int], int, Callable[[], object]], None]
"""Generates that many tokens after a prompt, calls back at each token, returns at the end."""


def open_ours(model: str, threads: int) -> Ask:
    """The engine on the emulated card."""
    os.environ["AXPRESS_EMU_THREADS"] = str(threads)
    from axpress.core.engine import Engine
    from axpress.core.request import Delta, GenerationRequest, SamplingParams

    engine = Engine.open(model, "emu", "none", max_queue=64, drafts=False)

    def ask(prompt: list[int], count: int, at_token: Callable[[], object]) -> None:
        done = threading.Event()

        def sink(delta: Delta) -> None:
            at_token()
            if delta.finish_reason:
                done.set()

        params = SamplingParams(temperature=0)
        engine.submit(GenerationRequest(prompt, params, max_tokens=count, ignore_eos=True), sink)
        assert done.wait(WAIT_S), "no end"

    return ask


def open_llama(model: str, threads: int) -> Ask:
    """llama.cpp's server, without its HTTP."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel, params.n_gpu_layers = 8192, 8, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)

    def ask(prompt: list[int], count: int, at_token: Callable[[], object]) -> None:
        fields = {"temperature": 0, "cache_prompt": False, "ignore_eos": True, "stream": True}
        server.handle_completions({"prompt": prompt, "n_predict": count, **fields}, lambda reply: at_token())

    return ask


def prompt(count: int) -> list[int]:
    return [random.randrange(LOWEST, HIGHEST) for _ in range(count)]


def decode(ask: Ask, count: int) -> float:
    """Tokens a second of one client, after its first."""
    times: list[float] = []
    ask(prompt(8), count, lambda: times.append(time.perf_counter()))
    last = times[min(count, len(times)) - 1]  # half a character comes with the token that completes it
    return (count - 1) / (last - times[0])


def clients(ask: Ask, num_clients: int, count: int) -> float:
    """Tokens a second of so many clients together, from their coming to the end."""
    threads = [threading.Thread(target=ask, args=(prompt(8), count, lambda: None)) for _ in range(num_clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return num_clients * count / (time.perf_counter() - start)


def prefill(ask: Ask, length: int) -> float:
    """1 / seconds to the first token after a prompt of so many."""
    times: list[float] = []
    start = time.perf_counter()
    ask(prompt(length), 2, lambda: times.append(time.perf_counter()))
    return 1 / (times[0] - start)


QUESTIONS: dict[str, Callable[..., float]] = {"decode": decode, "clients": clients, "prefill": prefill}
SIDES: dict[str, Callable[[str, int], Ask]] = {"ours": open_ours, "llama": open_llama}


def serve(side: str, model: str, threads: int, pipe: Connection) -> None:
    """A side's process: answers (question, arguments) until None comes."""
    random.seed()
    ask = SIDES[side](model, threads)
    ask(prompt(8), 2, lambda: None)
    pipe.send("ready")
    while (question := pipe.recv()) is not None:
        pipe.send(QUESTIONS[question[0]](ask, *question[1:]))
    os._exit(0)  # what either runtime still holds is nobody's any more


class Side:
    """A process that answers questions of speed."""

    def __init__(self, side: str, model: Path, threads: int) -> None:
        self._pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=serve, args=(side, str(model), threads, theirs), daemon=True)
        self._process.start()
        self._pipe.recv()

    def ask(self, question: tuple[Any, ...]) -> float:
        self._pipe.send(question)
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join()


def burn() -> None:
    while True:
        pass


@contextmanager
def burning(wanted: bool) -> Iterator[None]:
    """As many busy loops as there are CPUs, if wanted."""
    loops = [CONTEXT.Process(target=burn, daemon=True) for _ in range(os.cpu_count() or 1 if wanted else 0)]
    for loop in loops:
        loop.start()
    time.sleep(1 if wanted else 0)
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def requantise(source: Path, target: Path, kind: str) -> None:
    """The GGUF file with its matrices as BF16 or Q8_0, everything else as it is."""
    import gguf

    wanted = gguf.GGMLQuantizationType[kind]
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    left_out = ("general.architecture", "general.file_type", "general.quantization_version")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in left_out:
            array = field.types[0] == gguf.GGUFValueType.ARRAY
            sub_type = field.types[-1] if array else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=sub_type)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        if values.ndim > 1:
            writer.add_tensor(tensor.name, gguf.quantize(values, wanted), raw_dtype=wanted)
        else:
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def compare(
    name: str, ours: Side, theirs: Side, question: tuple[Any, ...], repeats: int, against: tuple[Any, ...] | None = None
) -> dict[str, Any]:
    """One line: `question` to both sides by turns; the other side may be asked something else, `against`."""
    pairs = [(ours.ask(question), theirs.ask(against or question)) for _ in range(repeats)]
    ratios = [mine / its for mine, its in pairs]
    unit = "first tokens/s" if question[0] == "prefill" else "tokens/s"
    mine, its = (statistics.median(values) for values in zip(*pairs, strict=True))
    each = " ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"{name:<44} {mine:8.2f} : {its:8.2f} {unit:<14} {statistics.median(ratios):5.2f}x  ({each})", flush=True)
    return {"question": name, "ours": mine, "llama_cpp": its, "ratio": statistics.median(ratios), "ratios": ratios}


def measure(bf16: Path, q8: Path, package: Path, int8: Path, repeats: int, tokens: int) -> list[dict[str, Any]]:
    """Every question; the rows of the table."""
    rows = []
    for threads in (1, 2):
        ours, theirs = Side("ours", package, threads), Side("llama", bf16, threads)
        label = f"bf16, {threads} thread{'s' * (threads > 1)}"
        rows.append(compare(f"{label}: decode", ours, theirs, ("decode", tokens), repeats))
        for length in (335, 34):
            rows.append(compare(f"{label}: prompt of {length}", ours, theirs, ("prefill", length), repeats))
        if threads == 2:
            eight, one = ("clients", 8, tokens), ("decode", tokens)
            rows.append(compare(f"{label}: 8 clients, its one stream", ours, theirs, eight, repeats, one))
            rows.append(compare(f"{label}: 8 clients both", ours, theirs, eight, repeats))
            with burning(True):
                rows.append(compare(f"{label}: decode beside a burner", ours, theirs, ("decode", 24), repeats))
        ours.close()
        theirs.close()
    for threads in (1, 2):
        ours, theirs = Side("ours", int8, threads), Side("llama", q8, threads)
        label = f"int8 against Q8_0, {threads} thread{'s' * (threads > 1)}"
        rows.append(compare(f"{label}: decode", ours, theirs, ("decode", tokens), repeats))
        ours.close()
        theirs.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("package", type=Path, help="bf16")
    parser.add_argument("int8_package", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bf16, q8 = Path(folder) / "bf16.gguf", Path(folder) / "q8_0.gguf"
        requantise(given.gguf, bf16, "BF16")
        requantise(given.gguf, q8, "Q8_0")
        rows = measure(bf16, q8, given.package, given.int8_package, given.repeats, given.tokens)
    path = write_results("llama_cpp", {"rows": rows})
    print(f"{path}: {json.dumps({row['question']: round(row['ratio'], 2) for row in rows})}")


if __name__ == "__main__":
    main()
