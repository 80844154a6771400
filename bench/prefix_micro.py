"""What the row pool and the prefix tree cost, next to the goals of the design. No card and no emulator: plain Python on
this machine.

    python bench/prefix_micro.py            writes bench/results/prefix_micro.json

The tree has 50,000 tokens: 8 system prompts, conversations of several turns on each, and answers that were asked for
again at random places, so that a prompt of 2,000 tokens passes dozens of branches. Times are the median and the best of
many runs."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from contextlib import closing
from statistics import median

import numpy as np
from results import write_results

from axpress.core.kv_cache.radix_cache import RadixCache
from axpress.core.kv_cache.row_pool import RowPool

NUM_TOKENS, PROMPT, VOCAB = 50_000, 2_000, 150_000
Figures = dict[str, dict[str, float]]


def grow_tree(seed: int = 1) -> tuple[RowPool, RadixCache, list[list[int]]]:
    """A tree of 50,000 tokens and the prompts of 2,000 tokens that lie in it."""
    rng = random.Random(seed)
    pool = RowPool(NUM_TOKENS + 4 * PROMPT)
    tree = RadixCache(pool)
    systems = [[rng.randrange(VOCAB) for _ in range(512)] for _ in range(8)]
    prompts: list[list[int]] = []
    while tree.num_rows < NUM_TOKENS:
        # branches from an earlier prompt at a random place, or starts anew behind a system prompt
        base = rng.choice(prompts) if prompts and rng.random() < 0.9 else rng.choice(systems)
        keep = rng.randrange(512, PROMPT) if len(base) == PROMPT else len(base)
        tail = PROMPT - keep if len(base) < PROMPT else min(rng.randrange(20, 200), PROMPT - keep)
        tokens = base[:keep] + [rng.randrange(VOCAB) for _ in range(tail)] + base[keep + tail :]
        store(pool, tree, tokens[: keep + tail])
        if len(base) < PROMPT:
            prompts.append(tokens)
    return pool, tree, prompts


def store(pool: RowPool, tree: RadixCache, tokens: list[int]) -> None:
    rows = pool.allocate(len(tokens))
    with closing(tree.cursor()) as cursor:
        cursor.extend(tokens, rows)
    pool.release(rows)


def measure(work: Callable[[], object], repeat: int = 300, inner: int = 1) -> dict[str, float]:
    """Microseconds a call: the median and the best of `repeat` runs of `inner` calls."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        for _ in range(inner):
            work()
        times.append((time.perf_counter() - start) / inner * 1e6)
    return {"median_us": round(median(times), 2), "best_us": round(min(times), 2)}


def measure_pool() -> Figures:
    """A bank of 2,047 rows with 1,500 in use and every other of them free again."""
    pool = RowPool(2047)
    pool.release(pool.allocate(1500)[::2])

    def single() -> None:
        pool.release_row(pool.allocate_row())

    def array() -> None:
        pool.release(pool.allocate(1))

    def chunk() -> None:
        pool.release(pool.allocate(128))

    def straight() -> None:
        run = pool.allocate_run(128)
        assert run is not None
        pool.release(run)

    return {
        "allocate_row + release_row": measure(single, inner=100),
        "allocate(1) + release": measure(array, inner=100),
        "allocate(128) + release": measure(chunk),
        "allocate_run(128) + release": measure(straight),
    }


def measure_match(tree: RadixCache, prompts: list[list[int]]) -> Figures:
    """The prompt that passes most branches, as an array and as a list."""
    depth = {i: num_edges(tree, p) for i, p in enumerate(prompts)}
    deepest = max(depth, key=lambda i: depth[i])
    prompt = prompts[deepest]
    ids = np.array(prompt, np.int32)
    print(
        f"{tree.num_rows} tokens in {len(tree._nodes())} nodes; the deepest of {len(prompts)} prompts passes"
        f" {depth[deepest]} edges"
    )
    half = np.concatenate((ids[:1500], ids[:500]))
    return {
        "match 2000 tokens (int32 array)": measure(lambda: tree.match(ids)),
        "match 2000 tokens (list)": measure(lambda: tree.match(prompt)),
        "match 1500 of 2000 tokens": measure(lambda: tree.match(half)),
        "open and close a cursor at 2000 tokens": measure(lambda: tree.cursor(tokens=ids).close()),
    }


def num_edges(tree: RadixCache, tokens: list[int]) -> int:
    with closing(tree.cursor(tokens=tokens)) as cursor:
        node, count = cursor.node, 0
        while node.parent is not None:
            node, count = node.parent, count + 1
        return count


def measure_growth(pool: RowPool, tree: RadixCache, prompt: list[int]) -> Figures:
    """A running sequence behind 2,000 tokens: one token a pass, or a chunk."""
    cursor = tree.cursor(tokens=prompt)
    spare = iter(pool.allocate(pool.num_free).tolist())
    one = np.empty(1, np.int32)

    def extend() -> None:
        one[0] = next(spare)
        cursor.extend(one, one)

    def chunk() -> None:
        cursor.extend(np.arange(128), np.array([next(spare) for _ in range(128)], np.int32))

    figures = {
        "append 1 token": measure(lambda: cursor.append(7, next(spare)), repeat=40, inner=50),
        "extend by 1 token": measure(extend, repeat=40, inner=50),
        "extend by 128 tokens": measure(chunk, repeat=10),
    }
    cursor.close()
    return figures


def measure_evict() -> Figures:
    """Row by row, as decoding in a full bank asks for them, and a chunk at a time."""
    figures = {}
    for count, repeat in ((1, 3000), (128, 300)):
        _, tree, _ = grow_tree()
        figures[f"evict {count}"] = measure(lambda t=tree, n=count: t.evict(n), repeat=repeat)  # type: ignore[misc]
        tree.check_integrity()
    return figures


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    pool, tree, prompts = grow_tree()
    figures = measure_pool() | measure_match(tree, prompts) | measure_growth(pool, tree, prompts[0]) | measure_evict()
    for name, figure in figures.items():
        print(f"{name:42} {figure['median_us']:8.2f} us   best {figure['best_us']:8.2f} us")
    goal = figures["match 2000 tokens (int32 array)"]["median_us"]
    print(
        f"goal: 2,000 tokens matched in a tree of 50,000 under 100 us: {goal:.0f} us,"
        f" {'met' if goal < 100 else 'MISSED'}"
    )
    print(write_results("prefix_micro", {"tree_tokens": tree.num_rows, "prompt_tokens": PROMPT, "figures": figures}))


if __name__ == "__main__":
    main()
