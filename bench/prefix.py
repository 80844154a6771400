"""What a shared or earlier prefix saves: cached tokens, rows and time to first token, on the emulated card (everything
is modelled).

    # a conversation, one request a line; without it only the second half runs
    python bench/prefix.py --data FILE.jsonl

1. Each line of the file is one turn's request (OpenAI chat messages). Turn by turn, with a second client's unrelated
   chat in between: the answer has as many tokens as the file's, and the next turn repeats it as it was generated (then
   as it is in the file).
2. 20 clients with the same system prompt of 512 tokens and 20 of their own: one after another, then all at once.

Time to first token is compared with one chunk pass: the layers of the group that reaches back over the cached tokens,
and one head. Hollow model of full size: its text is noise. Writes bench/results/prefix.json."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from clients import announce, numbers, serving, submit, verdict
from plots import Plot, plot_bars
from results import write_results

from axpress.core.capacity.report import plan
from axpress.core.engine.engine import Engine
from axpress.core.engine.pass_costs import PassCosts

PROFILE = "qwen3-1.7b-w8a16-pi5"
SYSTEM, OWN, CLIENTS = 512, 20, 20
GOAL = 1.15  # of one chunk pass


def one_pass_s(costs: PassCosts, cached: int) -> float:
    """Seconds of one chunk with one head over `cached` rows."""
    seconds = costs.chunk_seconds(cached, 1)
    assert seconds is not None
    return seconds


def follow(
    engine: Engine, lines: list[list[dict[str, str]]], turn: int, prompt: list[int], answer: list[int], live: bool
) -> list[int]:
    """The next turn's prompt. `live`: the answer as it was generated, then the end of its message and the next
    question, as the template writes them. Else all of it as the file has it."""
    text, messages = engine.text, lines[turn + 1]
    if not live:
        return text.render(messages)
    # the answer's message and the question
    said = text.render(messages[len(lines[turn]) :], add_generation_prompt=True)
    content = text.encode(messages[len(lines[turn])]["content"])
    start = next(i for i in range(len(said)) if said[i : i + len(content)] == content)
    return prompt + answer + said[start + len(content) :]


def replay(
    engine: Engine, costs: PassCosts, lines: list[list[dict[str, str]]], speed: float, live: bool
) -> list[dict[str, Any]]:
    """The conversation turn by turn, with another client's unrelated chat in between."""
    rows, other, prompt = [], numbers(5 + live, 60), engine.text.render(lines[0])
    for turn in range(len(lines)):
        length = len(engine.text.encode(lines[turn + 1][len(lines[turn])]["content"])) if turn + 1 < len(lines) else 20
        client = submit(engine, prompt, length, seed=turn, keep=True).wait()
        assert client.spent is not None
        cached, first = client.spent.cached_tokens, client.first_token * speed
        least = costs.prefill_seconds(cached, len(prompt)) + costs.head
        newest = len(engine.text.render(lines[turn][-1:]))  # what the template writes around it included
        row = {
            "turn": turn + 1,
            "live": live,
            "prompt_tokens": len(prompt),
            "cached_tokens": cached,
            "newest_message_tokens": newest,
        }
        one = first / one_pass_s(costs, cached)
        rows.append(row | {"first_token_s": first, "passes_s": least, "ratio": first / least, "ratio_to_one_pass": one})
        print(f"  turn {turn + 1}: {len(prompt):4} tokens, {cached:4} cached, {len(prompt) - cached:3} computed "
              f"(newest message {newest}); "
              f"first token {first * 1e3:.0f} ms, {first / least:.2f} of its passes, {one:.2f} of one")  # fmt: skip
        if turn + 1 < len(lines):
            prompt = follow(engine, lines, turn, prompt, client.ids, live)
        rows[-1]["rows_by_bank"] = engine.stats()["rows_by_bank"]
        chat = submit(engine, other, 20, seed=100 + turn, keep=True).wait()
        other = other + chat.ids + numbers(200 + turn, 30)
    return rows


def conversation(engine: Engine, data: Path, speed: float) -> list[dict[str, Any]]:
    """Both ways of replaying the file, the live one judged."""
    lines = [json.loads(line)["messages"] for line in data.read_text(encoding="utf-8").splitlines() if line.strip()]
    costs = plan(engine.package.directory, engine.info.profile).costs
    print(f" {data.name}, turn by turn, another client in between; answers as generated")
    turns = replay(engine, costs, lines, speed, True)
    worst = max(t["ratio_to_one_pass"] for t in turns[1:])
    new = max(t["prompt_tokens"] - t["cached_tokens"] - t["newest_message_tokens"] for t in turns[1:])
    print(
        f"  after the first turn at most {worst:.2f} of one chunk pass (goal {GOAL} {verdict(worst, GOAL, most=True)})"
    )
    print(
        f"  at most {new} tokens computed beyond the newest message: the answer's last one, and what ends its message"
    )
    print(" the same with the answers that the file has, which this model never gave: they are computed, too")
    return turns + replay(engine, costs, lines, speed, False)


def same_system_prompt(engine: Engine, costs: PassCosts, speed: float) -> dict[str, Any]:
    """20 clients, one system prompt: rows in use, and time to first token of each after the first."""
    system, before = numbers(1, SYSTEM), engine.stats()["rows_used"]
    ratios = []
    for i in range(CLIENTS):
        client = submit(engine, system + numbers(1000 + i, OWN), 2, seed=i).wait()
        assert client.spent is not None
        if i:
            ratios.append(client.first_token * speed / one_pass_s(costs, SYSTEM))
            assert client.spent.cached_tokens == SYSTEM, client.spent
    used = engine.stats()["rows_used"] - before
    print(f"  {CLIENTS} clients one after another: {used} rows in use; stored once {SYSTEM + CLIENTS * (OWN + 1)}, "
          "each for itself "
          f"{CLIENTS * (SYSTEM + OWN + 1)}; first token at most {max(ratios):.2f} of one chunk pass (goal {GOAL} "
          f"{verdict(max(ratios), GOAL, most=True)})")  # fmt: skip
    return {
        "rows_used": used,
        "rows_if_stored_once": SYSTEM + CLIENTS * (OWN + 1),
        "worst_ratio": max(ratios),
        "ratios": ratios,
    }


def at_once(engine: Engine, costs: PassCosts, speed: float) -> dict[str, Any]:
    """20 new clients with another system prompt of 512 tokens arrive at the same moment: it is still computed once."""
    system, before, computed = numbers(2, SYSTEM), engine.stats()["rows_used"], engine.stats()["prompt_tokens"]
    clients = [submit(engine, system + numbers(3000 + i, OWN), 5, seed=i) for i in range(CLIENTS)]
    firsts = sorted(c.wait().first_token * speed for c in clients)
    cached = sum(c.spent.cached_tokens for c in clients if c.spent)
    stats = engine.stats()
    total = CLIENTS * (SYSTEM + OWN)
    print(f"  {CLIENTS} clients at once: {cached} of {total} prompt tokens cached; {stats['rows_used'] - before} "
          "more rows in use; "
          f"first tokens {firsts[0]:.2f} to {firsts[-1]:.2f} s")  # fmt: skip
    rows = stats["rows_used"] - before
    return {
        "cached_tokens": cached,
        "prompt_tokens": stats["prompt_tokens"] - computed,
        "rows_used": rows,
        "first_token_s": firsts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="a conversation as JSON lines, one request each; the first half needs it",
    )
    parser.add_argument("--profile", default=PROFILE)
    parser.add_argument("--speed", type=float, default=1.0, help="how many times faster than the card (default 1)")
    parser.add_argument("--plot", action=Plot, help="also bench/results/prefix.png")
    args = parser.parse_args()
    if args.data is not None and not args.data.is_file():
        parser.error(f"there is no file {args.data}")
    announce(f"Prefixes, {args.profile}", args.speed)
    results: dict[str, Any] = {"speed": args.speed, "profile": args.profile}
    if args.data is not None:
        with serving(args.profile, args.speed) as engine:
            results["turns"] = conversation(engine, args.data, args.speed)
    else:
        print(" no conversation to replay: name one with --data")
    with serving(args.profile, args.speed, max_running=CLIENTS) as engine:
        print(f" {CLIENTS} clients, {SYSTEM} tokens of system prompt in common, {OWN} of their own")
        costs = plan(engine.package.directory, args.profile).costs
        results["same_system_prompt"] = same_system_prompt(engine, costs, args.speed)
        results["at_once"] = at_once(engine, costs, args.speed)
    write_results("prefix", results)
    if args.plot and "turns" in results:
        turns = [t for t in results["turns"] if t["live"]]
        series = {
            "cached": [t["cached_tokens"] for t in turns],
            "computed": [t["prompt_tokens"] - t["cached_tokens"] for t in turns],
        }
        labels = [f"turn {t['turn']}" for t in turns]
        plot_bars("prefix", "A conversation turn by turn, another client in between", "prompt tokens", labels, series)


if __name__ == "__main__":
    main()
