"""Guessed tokens: text that repeats and text that does not, with drafts and without, on the emulated card (everything
is modelled).

    python bench/draft.py --speed 2

A hollow model at temperature 0 recites: which token it chooses depends on the position alone. So it is first asked for
its answer, then asked again at the same position, with the answer in reach as a client that asks for a copy would give
it: each request as a real model would answer it if it copied without a mistake. Cases:
  same prediction     `prediction` is the answer itself
  one field changed   `prediction` differs from the answer in 6 tokens at 45 % of its length ("repeat this JSON with one
                      field changed")
  three edits         `prediction` lacks 5 tokens, has 5 others in place, and 4 too many ("edit this paragraph")
  copied from prompt  no prediction: the prompt holds the text (one field changed)
  nothing repeats     temperature 0.8, random text; also with a prediction that never comes true
Each against the same request with drafts=False, on the same emulated card. Writes bench/results/draft.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from clients import Client, announce, numbers, serving, submit, verdict
from results import write_results

from axpress.core.engine.engine import Engine

PROFILE = "qwen3-1.7b-w8a16-pi5"
PROMPT, ANSWER = 200, 160
COPY_GOAL, RANDOM_GOAL = 1.8, 0.97


def ask(
    engine: Engine,
    prompt: Sequence[int],
    *,
    temperature: float = 0.0,
    prediction: Sequence[int] = (),
    keep: bool = False,
) -> Client:
    return submit(engine, prompt, ANSWER, seed=3, temperature=temperature, prediction=prediction, keep=keep).wait()


def cases(answer: list[int]) -> dict[str, dict[str, Any]]:
    """Keyword arguments of `ask` by case. Every prompt is as long as the one that the answer was recited for."""
    field, a, b, c = int(0.45 * ANSWER), int(0.2 * ANSWER), int(0.5 * ANSWER), int(0.8 * ANSWER)
    changed = [*answer[:field], *numbers(4, 6), *answer[field + 6 :]]
    edited = [*answer[: a - 5], *answer[a:b], *numbers(5, 5), *answer[b + 5 : c], *numbers(6, 4), *answer[c:]]
    plain = numbers(1, PROMPT)
    random = {"prompt": plain, "temperature": 0.8}
    return {
        "same prediction": {"prompt": plain, "prediction": answer},
        "one field changed": {"prompt": plain, "prediction": changed},
        "three edits": {"prompt": plain, "prediction": edited},
        "copied from prompt": {"prompt": [*numbers(2, PROMPT - len(changed) - 10), *changed, *numbers(3, 10)]},
        "nothing repeats": random,
        "nothing repeats, useless prediction": {**random, "prediction": numbers(8, ANSWER)},
    }


def rate(client: Client, speed: float) -> float:
    """Modelled tokens/s after the first token."""
    return (len(client.tokens) - 1) / (client.tokens[-1] - client.tokens[0]) / speed


def measure(profile: str, speed: float) -> list[dict[str, Any]]:
    """The plain rates first, on an engine without drafts; then the same requests with them."""
    with serving(profile, speed, drafts=False) as engine:
        answer = ask(engine, numbers(1, PROMPT), keep=True).ids
        plain = {name: rate(ask(engine, **case), speed) for name, case in cases(answer).items()}
    rows = []
    with serving(profile, speed) as engine:
        if ask(engine, numbers(1, PROMPT), keep=True).ids != answer:
            raise SystemExit("drafts changed the answer")
        for name, case in cases(answer).items():
            before = engine.stats()
            client = ask(engine, **case)
            after, spent = engine.stats(), client.spent
            assert spent is not None
            drafted, accepted = (after[k] - before[k] for k in ("drafted_tokens", "accepted_draft_tokens"))
            goal, reached = RANDOM_GOAL if "nothing" in name else COPY_GOAL, rate(client, speed)
            row = {
                "case": name, "tokens_per_s": reached, "plain_tokens_per_s": plain[name], "gain": reached / plain[name],
                "drafted": drafted, "accepted": accepted, "passes": after["steps"] - before["steps"], "goal": goal,
                "accepted_prediction": spent.accepted_prediction_tokens,
                "rejected_prediction": spent.rejected_prediction_tokens,
            }  # fmt: skip
            rows.append(row)
            share = f"{accepted} of {drafted} guesses true" if drafted else "no guesses"
            gain = reached / plain[name]
            print(f"  {name:36} {reached:6.2f} tokens/s, without drafts {plain[name]:5.2f}: {gain:.2f} times (goal "
                  f"{goal} "
                  f"{verdict(gain, goal)}); {share}, {row['passes']} passes for {ANSWER} tokens",
                      flush=True)  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default=PROFILE)
    parser.add_argument("--speed", type=float, default=2.0, help="how many times faster than the card (default 2)")
    parser.add_argument("--plot", action="store_true", help="also bench/results/draft.png")
    args = parser.parse_args()
    announce(f"Drafts, {args.profile}: prompts of {PROMPT}, answers of {ANSWER} tokens", args.speed)
    rows = measure(args.profile, args.speed)
    write_results("draft", {"speed": args.speed, "profile": args.profile, "rows": rows})
    if args.plot:
        from plots import plot_bars

        series = {"without": [r["plain_tokens_per_s"] for r in rows], "with drafts": [r["tokens_per_s"] for r in rows]}
        plot_bars(
            "draft", f"Guessed tokens, {args.profile}", "tokens/s", [r["case"].replace(" ", "\n") for r in rows], series
        )


if __name__ == "__main__":
    main()
