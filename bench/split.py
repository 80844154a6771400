"""A model split over two emulated cards against the same on one that it fits, with a hollow model of 36 layers:
everything is modelled.

    python bench/split.py
    python bench/split.py --cards 3 --speed 2 --clients 1,2,6

Each client has a prompt and an answer of its own. Counted from when all clients have their first token until the first
is done, the same requests in the same order on both. Goals: with two clients or more 1.7 times one card's tokens/s,
with one client not below 0.9. Writes bench/results/split.json."""

from __future__ import annotations

import argparse
from typing import Any

from clients import announce, numbers, serving, submit, verdict
from concurrency import steady
from results import write_results

from axpress.core.device.emulator import Emulator

PROFILE = "qwen3-4b-w8a16-pi5"
PROMPT, ANSWER = 60, 30
SPEEDUP, ALONE = 1.7, 0.9


def measure(profile: str, speed: float, cards: int, counts: list[int], answer: int) -> dict[int, dict[str, Any]]:
    """Tokens/s by number of clients, and what crossed the border."""
    figures: dict[int, dict[str, Any]] = {}
    with serving(profile, speed, split=tuple(range(cards)) if cards > 1 else ()) as engine:
        where = engine.info.device
        for count in counts:
            Emulator().reset_counters()
            before = engine.stats()
            clients = [submit(engine, numbers(count * 100 + i, PROMPT), answer, seed=i) for i in range(count)]
            rate, seconds, together = steady([client.wait() for client in clients], speed)
            after, report = engine.stats(), Emulator().report()
            figures[count] = {
                "tokens_per_s": rate, "seconds": seconds, "together": together, "device": where,
                "passes": after["steps"] - before["steps"], "banks": engine.info.num_banks,
                "bytes": report["bytes"], "first_token_s": max(c.first_token for c in clients) * speed,
            }  # fmt: skip
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default=PROFILE)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--cards", type=int, default=2)
    parser.add_argument("--clients", default="1,2,4,8")
    parser.add_argument("--answer", type=int, default=ANSWER)
    arguments = parser.parse_args()
    counts = [int(text) for text in arguments.clients.split(",")]
    announce(f"{arguments.profile}, prompts of {PROMPT} and answers of {arguments.answer} tokens", arguments.speed)
    one, split = (
        measure(arguments.profile, arguments.speed, cards, counts, arguments.answer) for cards in (1, arguments.cards)
    )
    cards = f"{arguments.cards} cards"
    print(f"\n{'clients':>7}  {'one card':>9}  {cards:>9}  {'times':>6}   passes          goal")
    for count in counts:
        now, then = one[count], split[count]
        times, goal = then["tokens_per_s"] / now["tokens_per_s"], ALONE if count == 1 else SPEEDUP
        print(
            f"{count:7}  {now['tokens_per_s']:9.2f}  {then['tokens_per_s']:9.2f}  {times:6.2f}  {now['passes']:4} and"
            f" {then['passes']:4}  {goal}: {verdict(times, goal)}"
        )
    print(f"tokens/s, modelled; split over {split[counts[0]]['device']}")
    path = write_results("split", {"profile": arguments.profile, "speed": arguments.speed, "one": one, "split": split})
    print(path)


if __name__ == "__main__":
    main()
