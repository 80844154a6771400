"""Schedules: a pool of requests, what each gets alone, and a state machine that lets them crowd each other on small
caches, with guesses, shared prefixes, several banks, row pressure with preemption, faults of the card, and garbage in
every free row."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from collecting import Collector
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from axpress.core.device.backend import Costs
from axpress.core.device.emulator import Emulator
from axpress.core.engine.answer_history import AnswerHistory
from axpress.core.engine.engine import Engine, Generation
from axpress.core.errors import RuntimeCallError
from axpress.core.recovery.ladder import RecoveryPolicy
from axpress.core.request import GenerationRequest, SamplingParams
from axpress.core.structured_output.grammar_compiler import (
    GrammarCompiler,
    JsonSchema,
    OutputSpec,
    Regex,
    Thinking,
    ToolFormat,
    ToolRule,
)

Alone = list[tuple[GenerationRequest, tuple, list[int]]]
"""Requests, each with what it gets alone, and that as token ids."""

ROWS, CHUNK, HISTORY = 111, 16, [0, 16, 32, 48, 64, 80]
POOL = 24
PAST = 4096  # tokens of past answers: all of them
# `AXPRESS_EXAMPLES=2000 pytest tests/core/engine/test_exactness.py` for a campaign
EXAMPLES = int(os.environ.get("AXPRESS_EXAMPLES", "40"))


NAMED = {
    "type": "object",
    "properties": {"name": {"maxLength": 9}, "rest": {"type": "integer"}},
    "required": ["name", "rest"],
}
SHAPES = [
    OutputSpec(JsonSchema(NAMED)),
    OutputSpec(Regex("[a-e]{3,9}(foo|bar) and so on")),
    OutputSpec(
        tools=(ToolRule("look"),),
        tool_format=ToolFormat("<tool_call>", "(", ")"),
        tool_choice="required",
        thinking=Thinking(open=True),
    ),
]


EXECUTES = ("axclrtEngineExecuteAsync", "axclrtEngineExecute")  # only one of them is called
FAULTS = [
    *(f"{name}@{{at}}={how}" for how in ("fail:0x8030070c", "later:0x8030070c") for name in EXECUTES),
    "axclrtMemcpyAsync@{at}=fail:0x80300501",
    "nan@any:{at}",
    "nan@layer:{at}",
    "nan@head:{at}",
    "device=offline@{at}",
]
"""What goes wrong with the card while requests are on their way."""


def make_pool(grammars: GrammarCompiler) -> list[GenerationRequest]:
    """Requests that share prompts' beginnings, repeat themselves, and choose tokens in every way; some obey a
    grammar."""
    rnd = random.Random(5)
    heads = [[rnd.randrange(5, 250) for _ in range(n)] for n in (0, 7, 20, 40)]
    pool = []
    for i in range(POOL):
        prompt = heads[i % 4] + [rnd.randrange(5, 250) for _ in range(rnd.randrange(1, 25))]
        if i % 3 == 0:
            prompt = prompt[:20] + prompt[:20]  # something to guess from
        params = SamplingParams(
            temperature=rnd.choice([0.0, 0.0, 0.7, 1.5]),
            top_p=rnd.choice([1.0, 0.9]),
            seed=i,
            repetition_penalty=rnd.choice([1.0, 1.3]),
            frequency_penalty=rnd.choice([0.0, 0.5]),
            logprobs=rnd.choice([None, 0, 3]),
        )
        stop = ("e",) if i % 5 == 4 else ()
        constraint = grammars.compile(SHAPES[i // 3 % 3], thinking_budget=5) if i % 3 == 1 else None
        pool.append(GenerationRequest(prompt, params, rnd.randrange(1, 40), stop, i % 2 == 0, constraint=constraint))
    return pool


def answers_alone(package: Path) -> Alone:
    """Each request of the pool with what it gets alone, and that as token ids."""
    engine = Engine.open(package, "emu", "none", banks=1, max_running=1, exact=True, drafts=False, threaded=False)
    outcomes = []
    for i, request in enumerate(make_pool(GrammarCompiler(engine.text, engine.info.vocab_size))):
        answer = Collector()
        engine.submit(replace(request, cache_salt=bytes([i])), answer)
        assert engine.step()
        (sequence,) = engine.scheduler.banks[0].sequences or [None]
        while engine.step():
            pass
        assert answer.reason in ("stop", "length"), answer.error
        tokens = sequence.tokens[len(request.prompt_ids) :].tolist() if sequence else []
        outcomes.append((request, answer.outcome, tokens))
    assert engine.stats()["cached_tokens"] == engine.stats()["chunk_passes"] == 0
    engine.close()
    return outcomes


def poison(engine: Engine) -> None:
    """Large finite garbage in every row that nobody holds."""
    program = engine.model.program
    width = program.shape.kv_dim
    for bank in engine.scheduler.banks:
        free = np.flatnonzero(bank.pool.counts == 0)
        for start in free[np.diff(free, prepend=-2) > 1]:
            stop = start
            while stop < ROWS and bank.pool.counts[stop] == 0:
                stop += 1
            garbage = np.full((stop - start) * width, 0x7E80, np.uint16)  # bf16 8.5e37
            for layer in range(program.num_attention):
                for buffer in program.kv_buffers(bank.index, layer):
                    buffer.write(garbage, int(start) * width * 2)


def forget_all(engine: Engine) -> None:
    """Empty banks."""
    engine.scheduler.set_bank_rows(len(engine.scheduler.banks), ROWS)


class Schedule(RuleBasedStateMachine):
    """Arrivals, cancellations and passes in any order."""

    engine: Engine
    alone: Alone

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[Collector, Generation, tuple]] = []
        forget_all(self.engine)
        if self.engine.scheduler.history is not None:
            self.engine.scheduler.history = AnswerHistory(PAST)
        self.costs_change(1.0, 0.1)

    @rule(
        i=st.integers(0, POOL - 1),
        variant=st.sampled_from(["plain", "salted", "background", "right guess", "wrong guess"]),
    )
    def arrive(self, i: int, variant: str) -> None:
        request, expected, tokens = self.alone[i]
        if variant == "salted":
            request = replace(request, cache_salt=b"other")
        elif variant == "background":
            request = replace(request, low_priority=True)
        elif variant == "right guess":
            request = replace(request, prediction=tuple(tokens))
        elif variant == "wrong guess":
            request = replace(request, prediction=tuple(range(30, 60)))
        answer = Collector()
        self.answers.append((answer, self.engine.submit(request, answer), expected))

    @precondition(lambda self: any(answer.reason is None for answer, *_ in self.answers))
    @rule(which=st.integers(0, POOL - 1))
    def cancel(self, which: int) -> None:
        running = [generation for answer, generation, _ in self.answers if answer.reason is None]
        running[which % len(running)].cancel()  # how many run may hang on what moving a row took to measure

    @rule(decode=st.sampled_from([0.1, 1.0, 10.0]), head=st.sampled_from([0.01, 1.0]))
    def costs_change(self, decode: float, head: float) -> None:
        """Whatever the planner believes, only time may depend on it."""
        costs = self.engine.scheduler.costs
        seconds = tuple(decode if g.width == 1 else 1 + g.history / 100 for g in costs.groups)
        costs.set(Costs(seconds, head, costs.copy))

    @rule(fault=st.sampled_from(FAULTS), at=st.integers(1, 60))
    def card_fails(self, fault: str, at: int) -> None:
        """In whatever call of the passes to come, or not at all: the card is brought back, and nobody notices."""
        Emulator().set("faults", fault.format(at=at))

    @rule(count=st.integers(1, 12))
    def passes(self, count: int) -> None:
        for _ in range(count):
            with suppress(RuntimeCallError):  # it may be this that the card fails in
                poison(self.engine)
            if not self.engine.step():
                break
            self.engine.scheduler.check_integrity()

    @invariant()
    def ended_answers_are_what_they_are_alone(self) -> None:
        for answer, _, expected in self.answers:
            if answer.reason is not None and answer.reason != "cancelled":
                assert answer.outcome == expected, answer.error
            elif answer.reason == "cancelled":
                assert expected[0].startswith(answer.text)

    def teardown(self) -> None:
        Emulator().set("faults", "")
        for _ in range(5000):
            if not self.engine.step():
                break
            self.engine.scheduler.check_integrity()
        self.ended_answers_are_what_they_are_alone()
        assert all(answer.reason is not None for answer, *_ in self.answers), "an accepted request did not end"
        assert self.engine.stats()["num_running"] == self.engine.stats()["num_waiting"] == 0


def crowd(engine: Engine, alone: Alone, *, predicted: bool = True) -> None:
    """The whole pool at once, each with the right prediction, chunks cheap: everything that can happen does, whatever
    was drawn before. Not `predicted`: guessed from what is known without."""
    costs = engine.scheduler.costs
    forget_all(engine)
    costs.set(Costs(tuple(10.0 if g.width == 1 else 1 + g.history / 10 for g in costs.groups), 0.1, costs.copy))
    answers = []
    for i, (request, expected, tokens) in enumerate(alone):
        answer = Collector()
        engine.submit(replace(request, prediction=tuple(tokens) if predicted else ()), answer)
        answers.append((answer, expected))
        while i < 4 and engine.step():  # a few have the card to themselves: nobody takes the rows of their guesses
            engine.scheduler.check_integrity()
    for _ in range(5000):
        if not engine.step():
            break
        engine.scheduler.check_integrity()
    assert [a.outcome for a, _ in answers] == [e for _, e in answers]


def fail(engine: Engine, alone: Alone) -> None:
    """Every fault in the middle of some answers, so that each is met whatever was drawn before."""
    for number, fault in enumerate(FAULTS):
        forget_all(engine)
        answers = []
        for request, expected, tokens in alone[number % 4 :: 4]:
            answers.append((Collector(), expected))
            engine.submit(replace(request, prediction=tuple(tokens)), answers[-1][0])
        engine.step()
        Emulator().set("faults", fault.format(at=5 + number))
        while engine.step():
            engine.scheduler.check_integrity()
        assert [a.outcome for a, _ in answers] == [e for _, e in answers], fault
    Emulator().set("faults", "")


AT_ONCE = RecoveryPolicy(backoff=0.001, max_backoff=0.001, healthy_passes=0, max_reboots=10**6)
