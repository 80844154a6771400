"""Structured output: what a mask costs at a vocabulary of 151,936, and how much faster JSON is where certain tokens
share a pass.

    python bench/grammar.py [mask|forcing] [--speed 2]

mask     microseconds of each call that a token needs: its mask, telling the grammar, asking what is certain.
         Host work, measured here.
forcing  JSON answers of a hollow 1.7B model on the emulated card (modelled): with certain tokens taken at once, and
         with the same grammar that allows one token at a time. Both give the same text: the model is noise, the schema
         decides how much of it is certain.
Writes bench/results/grammar.json.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from clients import Client, announce, numbers, quantile, serving, verdict
from results import write_results

from axpress.core.engine.engine import Engine
from axpress.core.model_files.hollow_tokenizer import write_tokenizer
from axpress.core.request import Constraint, GenerationRequest, SamplingParams
from axpress.core.structured_output.grammar_compiler import (
    GrammarCompiler,
    JsonObject,
    JsonSchema,
    OutputSpec,
    Regex,
    Thinking,
    ToolFormat,
    ToolRule,
)
from axpress.core.tokenizer.tokenizer import Tokenizer

PROFILE, VOCAB = "qwen3-1.7b-w8a16-pi5", 151_936
MASK_GOAL_US, FORCING_GOAL = 100.0, 1.5
WALKS, WALK_TOKENS = 20, 100


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


WORDS = {"type": "string", "maxLength": 20}
NUMBER = {"type": "integer", "minimum": 1, "maximum": 999}
REVIEW = record(
    sentiment={"enum": ["positive", "negative", "neutral", "mixed"]},
    confidence_percent={"type": "integer", "minimum": 0, "maximum": 100},
    mentions_price={"type": "boolean"},
    needs_human_review={"type": "boolean"},
    short_summary={"type": "string", "maxLength": 60},
)
CONTACT = record(
    first_name=WORDS,
    last_name=WORDS,
    email_address={"type": "string", "format": "email", "maxLength": 30},
    date_of_birth={"type": "string", "format": "date"},
    address=record(
        street=WORDS, house_number=NUMBER, city=WORDS, country_code={"type": "string", "pattern": "^[A-Z]{2}$"}
    ),
)
LINE = record(article_number=NUMBER, quantity=NUMBER)
ORDER = record(
    order_lines={"type": "array", "items": LINE, "minItems": 3, "maxItems": 5}, express_delivery={"type": "boolean"}
)
SCHEMAS = {"review, 5 fields": REVIEW, "contact, nested": CONTACT, "order, a list": ORDER}

TOOLS = OutputSpec(
    tools=(ToolRule("make_contact", CONTACT), ToolRule("send")),
    tool_format=ToolFormat('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>"),
    thinking=Thinking(),
)
SHAPES = {
    "schema (contact)": OutputSpec(JsonSchema(CONTACT)),
    "any JSON object": OutputSpec(JsonObject()),
    "regular expression": OutputSpec(Regex(r"[A-Z][a-z]+( [a-z]+)*, \d{4}-\d\d-\d\d")),
    # every count is a state
    "the same, with counts": OutputSpec(Regex(r"[A-Z][a-z]{1,30}( [a-z]{2,12}){5,60}, \d{4}-\d\d-\d\d")),
    "free text, tools, thinking": TOOLS,
}


class OneByOne:
    """The same grammar, certain tokens one at a time: its mask allows just the one that must come."""

    def __init__(self, inner: Constraint) -> None:
        self.mask, self.accept, self.check, self._inner = inner.mask, inner.accept, inner.check, inner

    def forced(self) -> list[int]:
        return []

    @property
    def done(self) -> bool:
        return self._inner.done


def walk(constraint: Constraint, rnd: random.Random, eos: frozenset[int], spent: dict[str, list[float]]) -> None:
    """An answer drawn from the masks; every call's microseconds go to `spent`."""

    def timed(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter_ns()
        result = call(*arguments)
        spent[name].append((time.perf_counter_ns() - started) / 1000)
        return result

    for _ in range(WALK_TOKENS):
        for token in timed("certain", constraint.forced):
            timed("accept", constraint.accept, token)
        if constraint.done:
            return
        words = timed("mask", constraint.mask)
        token = int(rnd.choice(np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))))
        if token in eos:
            return
        timed("accept", constraint.accept, token)


def masks() -> dict[str, Any]:
    """Times of the host's work for each shape."""
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), VOCAB)
        text = Tokenizer.open(Path(folder))
    grammars = GrammarCompiler(text, VOCAB)
    started = time.perf_counter()
    grammars.compile(OutputSpec(Regex("first")))
    table = time.perf_counter() - started
    load = f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    print(f"Masks of {VOCAB} tokens ({load}); the table of tokens, once: {1000 * table:.0f} ms")
    rows = []
    for name, shape in SHAPES.items():
        started = time.perf_counter()
        make = grammars.compile(shape)
        assert make is not None
        compiled = time.perf_counter() - started
        spent: dict[str, list[float]] = {"mask": [], "accept": [], "certain": []}
        rnd = random.Random(1)
        for _ in range(WALKS):
            walk(make(), rnd, text.eos_ids, spent)
        median, p99 = (quantile(spent["mask"], p) for p in (0.5, 0.99))
        row: dict[str, Any] = {
            "shape": name,
            "compile_ms": 1000 * compiled,
            "masks": len(spent["mask"]),
            "mask_us": median,
            "p99_us": p99,
        }
        row |= {"accept_us": quantile(spent["accept"], 0.5), "certain_us": quantile(spent["certain"], 0.5)}
        rows.append(row)
        met = verdict(median, MASK_GOAL_US, most=True)
        print(f"  {name:28} mask median {median:5.1f} us (goal {MASK_GOAL_US:.0f} {met}), 99 % {p99:6.1f}, longest "
              f"{max(spent['mask']):6.1f}, of {len(spent['mask'])}; accept {row['accept_us']:.1f}, what is certain "
              f"{row['certain_us']:.1f} us; compiled in {1000 * compiled:.1f} ms", flush=True)  # fmt: skip
    return {"vocabulary": VOCAB, "table_ms": 1000 * table, "rows": rows}


class Written(Client):
    """A client that keeps its text."""

    text = ""

    def __call__(self, delta) -> None:
        self.text += delta.text
        super().__call__(delta)


def answer(engine: Engine, seed: int, constraint: Callable[[], Constraint]) -> Written:
    client = Written()
    params = SamplingParams(temperature=0.8, top_p=0.95, seed=seed)
    engine.submit(GenerationRequest(numbers(seed, 120), params, 400, constraint=constraint), client)
    client.wait()
    if client.reason != "stop":
        raise SystemExit(f"an answer ended with {client.reason}")
    return client


def forcing(speed: float, count: int) -> dict[str, Any]:
    """Seconds of JSON answers, both ways, one after the other on the same engine."""
    announce(f"JSON answers, {PROFILE}: prompts of 120 tokens", speed)
    rows = []
    with serving(PROFILE, speed) as engine:
        grammars = GrammarCompiler(engine.text, engine.info.vocab_size)
        for name, schema in SCHEMAS.items():
            make = grammars.compile(OutputSpec(JsonSchema(schema)))
            assert make is not None
            totals = {"at once": [0.0, 0], "one by one": [0.0, 0]}
            tokens = 0
            for seed in range(count):
                texts = set()
                for way, constraint in (("one by one", lambda make=make: OneByOne(make())), ("at once", make)):
                    steps, started = engine.stats()["steps"], time.perf_counter()
                    client = answer(engine, 100 + seed, constraint)
                    totals[way][0] += (time.perf_counter() - started) * speed
                    totals[way][1] += engine.stats()["steps"] - steps
                    texts.add(client.text)
                if len(texts) != 1:
                    raise SystemExit(f"the two ways differ: {texts}")
                tokens += len(client.tokens)
            (fast, fast_passes), (slow, slow_passes) = totals["at once"], totals["one by one"]
            gain = slow / fast
            rows.append({"schema": name, "tokens": tokens, "seconds": fast, "seconds_one_by_one": slow, "gain": gain,
                "passes": fast_passes,
                         "passes_one_by_one": slow_passes, "example": client.text})  # fmt: skip
            print(f"  {name:18} {tokens / count:4.0f} tokens: {fast / count:5.2f} s ({tokens / fast:5.1f} tokens/s, "
                  f"{fast_passes / count:.0f} passes), "
                  f"one by one {slow / count:5.2f} s ({tokens / slow:4.1f} tokens/s, {slow_passes / count:.0f} "
                  "passes): "
                  f"{gain:.2f} times (goal {FORCING_GOAL} {verdict(gain, FORCING_GOAL)})", flush=True)  # fmt: skip
    return {"speed": speed, "profile": PROFILE, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("mask", "forcing"))
    parser.add_argument("--speed", type=float, default=2.0, help="how many times faster than the card (default 2)")
    parser.add_argument("--answers", type=int, default=3, help="for each schema (default 3)")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    if args.what != "forcing":
        results["mask"] = masks()
    if args.what != "mask":
        results["forcing"] = forcing(args.speed, args.answers)
    write_results("grammar", results)


if __name__ == "__main__":
    main()
