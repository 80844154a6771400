"""Guessed tokens on real text, at a published card's costs: a real model's answers, recorded, then replayed.

    axpress convert SMOLLM2_CHECKPOINT PACKAGE
    python bench/drafts.py record PACKAGE STREAMS.json --requests coyote.jsonl --day 40
    python bench/drafts.py replay STREAMS.json

`record` asks a real model on the emulated card, greedily and at temperature 0.8 with seeds, and keeps prompts and
answers as token ids: requests as a client sent them (`--requests`, JSON lines of one growing conversation), a day of
conversations made from them (bench/draft_texts.py), code that is edited with a `prediction`, plain chat.

`replay` lets a hollow model of the profile's full size give the same answers: each request has rules (a Constraint)
that allow the recorded token and nothing else, and say nothing of it beforehand, so that the engine guesses, verifies
and accepts as it would with the real model. Time is added up from the profile as in bench/simulate.py: figures repeat
exactly. Each workload without drafts, with drafts from the conversation and the prediction, and with earlier answers,
too. One client at a time, its answers in order. `constructed`: text made to measure instead, an answer that the prompt
or the prediction holds but for a few tokens, one that nothing repeats in, and answers of phrases that go on differently
each time. Last, what a look-up takes on this machine, really measured. Writes bench/results/drafts.json."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import draft_texts
from clients import Client, numbers, quantile
from draft_texts import Conversation
from results import write_results
from simulate import Simulation, Visitor, simulation

from axpress.core.engine.answer_history import NUM_CONTEXT, AnswerHistory
from axpress.core.engine.draft_chances import DraftChances
from axpress.core.engine.draft_proposer import DraftProposer
from axpress.core.engine.engine import Engine
from axpress.core.engine.sequence import MAX_DRAFT
from axpress.core.request import GenerationRequest, SamplingParams
from axpress.core.structured_output.constraint import OneToken

PROFILE = "qwen3-1.7b-w8a16-pi5"
HISTORY = 1 << 16
VARIANTS: dict[str, dict[str, Any]] = {
    "without": {"drafts": False},
    "conversation": {"draft_history": 0},
    "history": {"draft_history": HISTORY},
}
LEAST = 0.98  # of the speed without

Stream = dict[str, list[int]]  # prompt, prediction, answer: token ids


class Replay:
    """Rules that let an answer be nothing but `answer`, a token at a time: what a model would have chosen."""

    def __init__(self, answer: list[int], vocab_size: int) -> None:
        self._answer, self._at, self._one = answer, 0, OneToken(vocab_size)
        self.done = False

    def mask(self) -> Any:
        return self._one.words(self._answer[self._at])

    def accept(self, token: int) -> None:
        self._at += 1

    def forced(self) -> list[int]:
        return []

    def check(self, tokens: tuple[int, ...]) -> int:
        return len(tokens)


# ---- record ----


def record(engine: Engine, conversation: Conversation, temperature: float, number: int) -> list[Stream]:
    """The model's answers to one client, which go into its next prompts."""
    streams: list[Stream] = []
    messages: list[dict[str, str]] = []
    for turn in conversation:
        messages += turn.messages
        prompt = engine.text.render(messages)
        prediction = engine.text.encode(turn.prediction) if turn.prediction else []
        params = SamplingParams(temperature=temperature, top_p=0.95, seed=1000 * number + len(streams), logprobs=0)
        client = Client()
        engine.submit(GenerationRequest(prompt, params, turn.max_tokens, prediction=tuple(prediction)), client)
        client.wait()
        text = engine.text.decode(client.ids)
        print(f"  {number}.{len(streams)}: {len(prompt)} + {len(client.ids)} tokens: {text[:90]!r}", flush=True)
        streams.append({"prompt": prompt, "prediction": prediction, "answer": client.ids})
        messages.append({"role": "assistant", "content": text})
    return streams


def record_all(args: argparse.Namespace) -> None:
    work = {"code": draft_texts.code(), "chat": draft_texts.plain()}
    if args.requests is not None:
        work |= {"sent": draft_texts.as_sent(args.requests), "day": draft_texts.day(args.requests, args.day)}
    recorded: dict[str, list[list[Stream]]] = {}
    engine = Engine.open(args.package, "emu", "none", max_running=1)
    try:
        for name, conversations in work.items():
            for number, conversation in enumerate(conversations):
                for temperature in (0.0, 0.8):
                    streams = record(engine, conversation, temperature, number)
                    recorded.setdefault(f"{name}, temperature {temperature:g}", []).append(streams)
                    args.streams.write_text(json.dumps(recorded))
    finally:
        engine.close()


# ---- replay ----


def constructed() -> dict[str, list[list[Stream]]]:
    """An answer of 160 tokens, and what a client that wants it repeated would send."""
    answer, plain = numbers(9, 160), numbers(1, 200)
    changed = [*answer[:72], *numbers(4, 6), *answer[78:]]
    edited = [*answer[:27], *answer[32:80], *numbers(5, 5), *answer[85:128], *numbers(6, 4), *answer[128:]]
    cases = {
        "same prediction": (plain, answer),
        "one field changed": (plain, changed),
        "three edits": (plain, edited),
        "copied from prompt": ([*numbers(2, 30), *changed, *numbers(3, 10)], []),
        "nothing repeats": (plain, []),
        "nothing repeats, useless prediction": (plain, numbers(8, 160)),
    }
    work = {
        f"constructed: {name}": [[{"prompt": prompt, "prediction": prediction, "answer": answer}]]
        for name, (prompt, prediction) in cases.items()
    }
    rng = random.Random(7)
    for length in (4, 5, 12):
        phrases = [numbers(100 + i, length) for i in range(30)]
        said = [[token for _ in range(160 // length) for token in rng.choice(phrases)] for _ in range(20)]
        work[f"constructed: phrases of {length}"] = [
            [{"prompt": numbers(200 + i, 100), "prediction": [], "answer": answer}] for i, answer in enumerate(said)
        ]
    return work


def lookup(work: dict[str, list[list[Stream]]]) -> dict[str, float]:
    """Microseconds of guessing before each token of the answers, with a history that is full of them and without; and
    of keeping an answer."""
    streams = [stream for conversations in work.values() for conversation in conversations for stream in conversation]
    history, took = AnswerHistory(HISTORY), {"conversation": list[float](), "history": list[float]()}
    keep: list[float] = []
    while history.counts[0] < HISTORY:
        for stream in streams:
            start = time.thread_time()
            history.add(b"", [*stream["prompt"][-NUM_CONTEXT:], *stream["answer"]], DraftChances())
            keep.append(time.thread_time() - start)
    for stream in streams[:200]:
        for variant, known in (("conversation", None), ("history", history)):
            proposer = DraftProposer(stream["prompt"], stream["prediction"], known)
            for token in stream["answer"]:
                start = time.thread_time()
                proposer.propose(MAX_DRAFT)
                took[variant].append(time.thread_time() - start)
                proposer.append(token)
    figures = {f"{name}_p{p:g}_us": 1e6 * quantile(took[name], p / 100) for name in took for p in (50, 99)}
    figures |= {"keep_p50_us": 1e6 * quantile(keep, 0.5), "history_bytes": history.num_bytes}
    for name in took:
        p50, p99 = figures[f"{name}_p50_us"], figures[f"{name}_p99_us"]
        print(f"Look-up before a token, {name}: p50 {p50:.0f} us, p99 {p99:.0f} us of this machine's CPU time")
    print(
        f"Keeping an answer: {figures['keep_p50_us']:.0f} us; {history.counts[0]} tokens in {history.num_bytes} bytes"
    )
    return figures


def answer_all(sim: Simulation, streams: Iterator[Stream]) -> dict[str, float]:
    """Answers one after another: tokens after the first ones, their passes, seconds of both parts."""
    total = dict.fromkeys(("answers", "tokens", "passes", "seconds", "prompt_seconds"), 0.0)
    for stream in streams:
        answer = stream["answer"]
        visitor = Visitor(sim, sim.now)
        request = GenerationRequest(
            stream["prompt"],
            SamplingParams(temperature=0.0),
            len(answer),
            ignore_eos=True,
            prediction=tuple(stream["prediction"]),
            constraint=lambda answer=answer: Replay(answer, sim.engine.info.vocab_size),
        )
        sim.engine.submit(request, visitor)
        sim.run(lambda visitor=visitor: bool(visitor.tokens))
        first = sim.engine.stats()["steps"]
        sim.run()
        total["answers"] += 1
        total["tokens"] += len(answer) - 1
        total["passes"] += sim.engine.stats()["steps"] - first
        total["seconds"] += visitor.tokens[-1] - visitor.tokens[0]
        total["prompt_seconds"] += visitor.first_token
    return total


def replay(name: str, conversations: list[list[Stream]], profile: str) -> dict[str, Any]:
    """One workload in every variant, each on an engine of its own."""
    row: dict[str, Any] = {"workload": name}
    for variant, options in VARIANTS.items():
        with simulation(profile, max_running=4, **options) as sim:
            total = answer_all(sim, (stream for conversation in conversations for stream in conversation))
            stats = sim.engine.stats()
        drafted, accepted = stats["drafted_tokens"], stats["accepted_draft_tokens"]
        row[variant] = {**total, "drafted": drafted, "accepted": accepted, "plan_s": stats["seconds"]["plan"]}
    plain = row["without"]
    print(f"{name}: {plain['answers']:.0f} answers, {plain['tokens'] / plain['seconds']:.2f} tokens/s without drafts")
    for variant in list(VARIANTS)[1:]:
        now = row[variant]
        now["gain"] = plain["seconds"] / now["seconds"]
        now["gain_with_prompts"] = (plain["seconds"] + plain["prompt_seconds"]) / (
            now["seconds"] + now["prompt_seconds"]
        )
        share = f"{now['accepted'] / now['drafted']:.0%} of {now['drafted']} guesses true" if now["drafted"] else "none"
        print(f"  {variant:12} {now['gain']:.2f} times ({now['gain_with_prompts']:.2f} with prompts), "
              f"{now['tokens'] / now['passes']:.2f} tokens a pass; {share}"
              f"{'' if now['gain'] >= LEAST else '; SLOWER than without'}", flush=True)  # fmt: skip
    return row


def replay_all(args: argparse.Namespace) -> None:
    print(f"Drafts, {args.profile}: emulated card, hollow model, modelled seconds after the first token of an answer")
    recorded = json.loads(args.streams.read_text())
    work = {name: streams for name, streams in (recorded | constructed()).items() if args.only in name}
    rows = [replay(name, streams, args.profile) for name, streams in work.items()]
    out = {"profile": args.profile, "streams": args.streams.name, "rows": rows, "lookup": lookup(recorded)}
    write_results("drafts", out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("record")
    command.add_argument("package", type=Path)
    command.add_argument("streams", type=Path, help="where to write (about 1 MB)")
    command.add_argument("--requests", type=Path, metavar="FILE", help="requests of one conversation, JSON lines")
    command.add_argument("--day", type=int, default=40, metavar="N", help="conversations of the day (default 40)")
    command.set_defaults(run=record_all)
    command = commands.add_parser("replay")
    command.add_argument("streams", type=Path)
    command.add_argument("--profile", default=PROFILE)
    command.add_argument("--only", default="", metavar="TEXT", help="workloads whose names have this in them")
    command.set_defaults(run=replay_all)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
