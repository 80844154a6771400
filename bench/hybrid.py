"""A hybrid model (Qwen3.5-0.8B) on the emulated card: alone, with 4 and 8 clients, and a conversation's next turn.
Everything is modelled; seconds are those in which the card was busy, counted by the emulator.

    python bench/hybrid.py
    python bench/hybrid.py --speed 8 --clients 1,2,16

Recurrent layers take one execute for each client, whoever rides along; a chunk shares only the layers with attention, a
quarter of all. Turns: messages of 40 tokens, answers of 40, each asked for when the one before is answered; the passes
of a turn, and what of its prompt was computed, with states to go on from and without (a cache salt a turn). Writes
bench/results/hybrid.json."""

from __future__ import annotations

import argparse
from typing import Any

from clients import Client, announce, numbers, serving, submit, verdict
from results import write_results

from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine_group import AnyEngine
from axpress.core.request import GenerationRequest, SamplingParams

PROFILE = "qwen3.5-0.8b-int4-pi5"
PUBLISHED = 27.0  # tokens/s of one client at a short context, see the profile
PROMPT, ANSWER = 60, 60
TURNS, MESSAGE = 6, 40


def busy_seconds() -> float:
    """Of the card, modelled."""
    return float(Emulator().report()["modelled_ns"]) / 1e9


def crowd(engine: AnyEngine, count: int) -> dict[str, Any]:
    """Clients with a prompt and an answer each, counted from when all have their first token."""
    clients = [submit(engine, numbers(100 * count + i, PROMPT), ANSWER, seed=i) for i in range(count)]
    for client in clients:
        client.began.wait()
    tokens, busy = sum(len(client.tokens) for client in clients), busy_seconds()
    for client in clients:
        client.wait()
    tokens = sum(len(client.tokens) for client in clients) - tokens
    return {"clients": count, "tokens": tokens, "tokens_per_s": tokens / (busy_seconds() - busy)}


def ask(engine: AnyEngine, prompt: list[int], seed: int, salt: bytes) -> Client:
    """One turn, with the tokens of its answer."""
    client, params = Client(), SamplingParams(temperature=0.8, top_p=0.95, seed=seed, logprobs=0)
    engine.submit(GenerationRequest(prompt, params, MESSAGE, ignore_eos=True, cache_salt=salt), client)
    return client.wait()


def conversation(engine: AnyEngine, keeps: bool) -> list[dict[str, Any]]:
    """Turns of one conversation; not `keeps`: each computed from its beginning."""
    text, rows = numbers(7, 200), []
    for turn in range(TURNS):
        text += numbers(turn + 50, MESSAGE)
        before, busy = engine.stats(), busy_seconds()
        client = ask(engine, list(text), turn, b"" if keeps else bytes([turn]))
        assert client.spent is not None
        stats = engine.stats()
        rows.append({
            "prompt": len(text), "computed": len(text) - client.spent.cached_tokens,
            "chunks": stats["chunk_passes"] - before["chunk_passes"],
            "seconds": busy_seconds() - busy, "text": client.ids,
        })  # fmt: skip
        text += client.ids
    return rows


def tell_turns(rows: list[dict[str, Any]], without: list[dict[str, Any]]) -> None:
    """Both ways beside each other."""
    for row, plain in zip(rows, without, strict=True):
        assert row["text"] == plain["text"], "a state to go on from changed the answer"
        print(f"  prompt of {row['prompt']:3}: {row['computed']:3} tokens computed in {row['chunks']} chunk(s),"
              f" {row['seconds']:.2f} s with the answer; without states {plain['computed']:3} in {plain['chunks']},"
              f" {plain['seconds']:.2f} s")  # fmt: skip


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=float, default=4, help="times real time")
    parser.add_argument("--clients", default="1,4,8", help="how many at a time")
    args = parser.parse_args()
    announce(PROFILE, args.speed)
    results: dict[str, Any] = {"profile": PROFILE, "crowds": []}
    with serving(PROFILE, args.speed, max_running=16) as engine:
        for count in map(int, args.clients.split(",")):
            row = crowd(engine, count)
            results["crowds"].append(row)
            gain = row["tokens_per_s"] / results["crowds"][0]["tokens_per_s"]
            goal = f", published {PUBLISHED}: {verdict(row['tokens_per_s'], PUBLISHED * 0.97)}" if count == 1 else ""
            print(f"  {count:2} client(s): {row['tokens_per_s']:.1f} tokens/s, {gain:.2f} times the first{goal}")
        rows, without = conversation(engine, True), conversation(engine, False)
        tell_turns(rows, without)
        results["turns"], results["turns_without_states"] = rows, without
    write_results("hybrid", results)


if __name__ == "__main__":
    main()
