"""Two cards with the same model against one: tokens a second of 16 clients, and how much of conversations' prompts is
found in a cache.

    python bench/cards.py                                   # both, one profile, about three minutes
    python bench/cards.py --profile qwen3-4b-w8a16-pi5 --cards 3 --part clients

Emulated cards, hollow models of full size: everything is modelled. Seconds are those in which the busiest card was busy
(modelled, counted by the emulator): a card that has less to do than the other counts against both, but not this
machine's own slowness, which would count twice where two cards want it at a time. "At the clock" is what this machine
came to.

Clients: each asks, and asks again when it has its answer; counted from when all have begun to be answered until so many
requests ended, prompts included. Long: prompts of 600 tokens that nobody shares, answers of
60; a pass reads one client's rows. Short: a system prompt of 150 in common, 30 of their own, answers of 70; a pass
carries many clients, so that a card with half of them is less than half as fast for all, and two cards come to less
than twice one; with as many clients for each card they do. Conversations: 32 of 5 turns, 16 at a time, each one's
turns apart; the same tokens on one card and on several, to the last. Writes bench/results/cards.json."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from typing import Any

from clients import PROFILES, Client, announce, numbers, serving, submit, verdict
from results import write_results

from axpress.core.device.emulator import Emulator
from axpress.core.engine.engine_group import AnyEngine

GOAL_RATE, GOAL_HITS = 1.95, 0.95
WORKLOADS = {"long": (0, 600, 60), "short": (150, 30, 70)}
"""Tokens: shared, of a prompt's own, of an answer."""
CONVERSATIONS, TURNS, AT_A_TIME = 32, 5, 16
SYSTEM, MESSAGE, ANSWER = 120, 40, 30


class Run:
    """What a number of cards do from now on."""

    def __init__(self, engine: AnyEngine, speed: float, tokens: Callable[[], int]) -> None:
        """`tokens`: of all answers until now."""
        self._engine, self._speed, self._tokens = engine, speed, tokens
        self._before, self._num, self._begun, self._busy = engine.stats(), tokens(), time.perf_counter(), busy_seconds()

    def figures(self) -> dict[str, Any]:
        """Until now: tokens, seconds of each card and at the clock, modelled, and rates."""
        tokens, busy = self._tokens() - self._num, busy_seconds()
        clock, stats = (time.perf_counter() - self._begun) * self._speed, self._engine.stats()
        busy = [after - before for before, after in zip(self._busy, busy, strict=True)]
        prompts, cached = (stats[name] - self._before[name] for name in ("prompt_tokens", "cached_tokens"))
        return {
            "tokens": tokens, "prompt_tokens": prompts, "cached_tokens": cached, "hits": cached / max(prompts, 1),
            "busy_s": busy, "clock_s": clock, "tokens_per_s": tokens / max(busy),
            "tokens_per_s_at_the_clock": tokens / clock,
        }  # fmt: skip


def busy_seconds() -> list[float]:
    """Of each card, modelled."""
    return [device["modelled_ns"] / 1e9 for device in Emulator().report()["devices"]]


def together(count: int, work: Callable[[int], None]) -> None:
    """So many threads, each with its number; what one raises ends the program."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def crowd(engine: AnyEngine, kind: str, clients: int, rounds: int, speed: float) -> dict[str, Any]:
    """Clients that ask again and again, until `rounds` requests of each, on average, are over."""
    shared, own, answer = WORKLOADS[kind]
    system, asked, over = numbers(1, shared), list[Client](), threading.Event()

    def client(number: int) -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            seed = 1000 * number + turn
            # the first answers are of all lengths, so that clients do not go in step
            length = answer * (number + 1) // clients + 1 if turn == 1 else answer
            asked.append(submit(engine, system + numbers(seed, own), length, seed=seed))
            asked[-1].wait()

    def num_ended() -> int:
        return sum(one.done.is_set() for one in list(asked))

    def watch() -> None:
        while num_ended() < clients:
            time.sleep(0.005)
        before, run = num_ended(), Run(engine, speed, lambda: sum(len(one.tokens) for one in list(asked)))
        while num_ended() < before + rounds * clients:
            time.sleep(0.005)
        figures.update(run.figures())
        over.set()

    figures: dict[str, Any] = {}
    together(clients + 1, lambda number: client(number) if number < clients else watch())
    return figures


def conversations(engine: AnyEngine, speed: float) -> dict[str, Any]:
    """Conversations that go on, each from all that was said before; `said`: a digest of all answers."""
    system, said = numbers(1, SYSTEM), [list[int]() for _ in range(CONVERSATIONS)]

    def client(number: int) -> None:
        mine = range(number, CONVERSATIONS, AT_A_TIME)
        texts = {talk: list(system) for talk in mine}
        for turn in range(TURNS):
            for talk in mine:
                seed = 100 * talk + turn + 2
                texts[talk] += numbers(seed, MESSAGE)
                answer: Client = submit(engine, texts[talk], ANSWER, seed=seed, keep=True).wait()
                texts[talk] += answer.ids
                said[talk] += answer.ids

    run = Run(engine, speed, lambda: sum(map(len, said)))
    together(AT_A_TIME, client)
    return {**run.figures(), "said": hash(tuple(map(tuple, said)))}


def clients_part(profile: str, cards: int, speed: float, rounds: int) -> list[dict[str, Any]]:
    """16 clients on one card and on several, and as many for each card."""
    rows: list[dict[str, Any]] = []
    for kind in WORKLOADS:
        for number, clients in ((1, 16), (cards, 16), (cards, 16 * cards)):
            with serving(profile, speed, cards=number, max_running=16) as engine:
                rows.append({"kind": kind, "cards": number, "clients": clients,
                             **crowd(engine, kind, clients, rounds, speed)})  # fmt: skip
            row, one = rows[-1], next(row for row in rows if row["kind"] == kind)
            row["gain"] = row["tokens_per_s"] / one["tokens_per_s"]
            goal = f", {row['gain']:.3f} times one card's: goal {GOAL_RATE} {verdict(row['gain'], GOAL_RATE)}"
            busy = " and ".join(f"{seconds:.1f}" for seconds in row["busy_s"])
            clock = row["tokens_per_s_at_the_clock"]
            which = f"{kind:6} {clients:2} clients, {number} card{'s'[: number > 1]}"
            print(f"  {which}: {row['tokens_per_s']:6.1f} tokens/s{goal if number > 1 else ''}"
                  f" (busy {busy} s; at the clock {clock:.1f})", flush=True)  # fmt: skip
    return rows


def conversations_part(profile: str, cards: int, speed: float) -> list[dict[str, Any]]:
    """The same conversations on one card and on several."""
    rows = []
    for number in (1, cards):
        with serving(profile, speed, cards=number, max_running=16) as engine:
            rows.append({"kind": "conversations", "cards": number, **conversations(engine, speed)})
        row = rows[-1]
        which = f"conversations, {number} card{'s'[: number > 1]}"
        print(f"  {which}: {row['hits']:.3f} of {row['prompt_tokens']} tokens of prompts were cached;"
              f" {row['tokens_per_s']:.1f} tokens/s", flush=True)  # fmt: skip
    share = rows[1]["hits"] / rows[0]["hits"]
    same = "the same answers" if rows[0]["said"] == rows[1]["said"] else "OTHER ANSWERS"
    print(f"  {share:.3f} of one card's: goal {GOAL_HITS} {verdict(share, GOAL_HITS)}; {same}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=PROFILES, default=PROFILES[0])
    parser.add_argument("--cards", type=int, default=2)
    parser.add_argument("--speed", type=float, default=4.0, help="how many times faster than the card (default 4)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="requests of each client, one after the other (default 3)"
    )
    parser.add_argument("--part", choices=("clients", "conversations"))
    args = parser.parse_args()
    announce(f"{args.cards} cards against one, {args.profile}", args.speed)
    rows = []
    if args.part != "conversations":
        rows += clients_part(args.profile, args.cards, args.speed, args.rounds)
    if args.part != "clients":
        rows += conversations_part(args.profile, args.cards, args.speed)
    write_results("cards", {"profile": args.profile, "speed": args.speed, "rows": rows})


if __name__ == "__main__":
    main()
