"""A model split over two emulated cards against the same on one that it fits, with a hollow model of 36 layers:
everything is modelled.

    python bench/split.py
    python bench/split.py --cards 3 --speed 2 --clients 1,2,6

Each client has a prompt and an answer of its own, short or long. Counted from when all clients have their first token
until the first is done, the same requests in the same order on both. Goals: with two clients or more 1.7 times one
card's tokens/s, with one client not below 0.9.

Several cards bring most where each token takes a pass of its own. Where one chunk carries the tokens of many clients
at a price that hardly depends on how many, so that one card has them almost for nothing, two chunks of half as many,
one on each card, take as long as that. Writes bench/results/split.json."""

from __future__ import annotations

import argparse
from typing import Any

from clients import announce, numbers, serving, submit, verdict
from concurrency import steady
from results import write_results

from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine import Engine

PROFILE = "qwen3-4b-w8a16-pi5"
CASES = {"short": (60, "1,2,4,8"), "long": (500, "1,2,3,4")}  # tokens of each prompt, clients
ANSWER = 40
SPEEDUP, ALONE = 1.7, 0.9


def measure(arguments: argparse.Namespace, cards: int) -> dict[str, dict[int, dict[str, Any]]]:
    """By case and number of clients, tokens/s and what else there is to know."""
    figures: dict[str, dict[int, dict[str, Any]]] = {}
    split = tuple(range(cards)) if cards > 1 else ()
    with serving(arguments.profile, arguments.speed, split=split) as engine:
        for case in arguments.cases.split(","):
            prompt, counts = CASES[case]
            for count in map(int, (arguments.clients or counts).split(",")):
                figures.setdefault(case, {})[count] = crowd(engine, count, prompt, arguments)
    return figures


def crowd(engine: Engine, count: int, prompt: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """So many clients at once."""
    before, bytes_before = engine.stats(), Emulator().report()["bytes"]
    prompts = [numbers(prompt * 1000 + count * 100 + i, prompt) for i in range(count)]
    clients = [submit(engine, tokens, arguments.answer, seed=i) for i, tokens in enumerate(prompts)]
    rate, seconds, together = steady([client.wait() for client in clients], arguments.speed)
    after, moved = engine.stats(), Emulator().report()["bytes"]
    copied = {way: moved[way] - bytes_before[way] for way in moved}
    return {
        "tokens_per_s": rate, "seconds": seconds, "together": together, "device": engine.info.device,
        "passes": after["steps"] - before["steps"], "banks": engine.info.num_banks, "bytes": copied,
        "first_token_s": max(c.first_token for c in clients) * arguments.speed,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default=PROFILE)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--cards", type=int, default=2)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--clients", help="numbers with commas, in place of each case's own")
    parser.add_argument("--answer", type=int, default=ANSWER)
    arguments = parser.parse_args()
    announce(f"{arguments.profile}, answers of {arguments.answer} tokens", arguments.speed)
    one, split = (measure(arguments, cards) for cards in (1, arguments.cards))
    cards = f"{arguments.cards} cards"
    for case, counts in one.items():
        print(f"\nprompts of {CASES[case][0]} tokens: tokens/s, modelled")
        print(f"{'clients':>7}  {'one card':>9}  {cards:>9}  {'times':>6}  {'passes':>15}  goal")
        for count, now in counts.items():
            then = split[case][count]
            times, goal = then["tokens_per_s"] / now["tokens_per_s"], ALONE if count == 1 else SPEEDUP
            passes = f"{now['passes']} and {then['passes']}"
            print(
                f"{count:7}  {now['tokens_per_s']:9.2f}  {then['tokens_per_s']:9.2f}  {times:6.2f}  {passes:>15}"
                f"  {goal}: {verdict(times, goal)}"
            )
    path = write_results("split", {"profile": arguments.profile, "speed": arguments.speed, "one": one, "split": split})
    print(path)


if __name__ == "__main__":
    main()
